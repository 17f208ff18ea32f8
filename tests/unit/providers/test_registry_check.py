"""The check of strangers' documents is bounded in time, memory and number."""

from __future__ import annotations

import asyncio

import pytest

from signet.core.registry import Hosted, Kind
from signet.gateway.ports import Busy, CheckStopped
from signet.providers.registry_check import RegistryCheck
from signet.receipts.canonical import Json

pytestmark = pytest.mark.anyio


def _type(document: Json) -> Hosted:
    return Hosted(kind=Kind.TYPE, name="a.v1", document=document, created_us=0)


async def test_good_and_bad_documents() -> None:
    """Faults come back as they were found, with their pointers."""
    check = RegistryCheck()
    assert await check([_type({"type": "object"})], []) == {}
    found = await check([_type({"properties": {"x": {"$ref": "https://x/y"}}})], [])
    assert not isinstance(found, CheckStopped)
    (fault,) = found[Kind.TYPE, "a.v1"]
    assert (fault.pointer, fault.code) == ("/properties/x/$ref", "schema_reference_outside")


async def test_patterns_that_take_all_memory() -> None:
    """Thousands of large automata end the checking process, and nothing else."""
    patterns: Json = {f"^[a-z]{{1,800}}x{n}": {} for n in range(6_000)}
    found = await RegistryCheck()([_type({"patternProperties": patterns})], [])
    assert isinstance(found, CheckStopped)
    assert await RegistryCheck()([_type({})], []) == {}


async def test_a_check_that_gets_no_time_is_not_the_document_s_fault() -> None:
    """It is ended, and its caller told to come again."""
    with pytest.raises(Busy, match="not checked in time"):
        await RegistryCheck(timeout_s=0.001)([_type({})], [])


async def test_only_a_few_may_wait() -> None:
    """The next one is told to come again, and nothing has happened."""
    check = RegistryCheck()
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(check([_type({})], [])) for _ in range(8)]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await check([_type({})], [])
    assert [task.result() for task in waiting] == [{}] * 8
