"""The mapping runner: what the worker's ends mean for an exchange."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from signet.core.transform import Fields, Mapped, Mapping, MappingFailed
from signet.gateway.ports import Busy, MappingStopped
from signet.providers.jsonata import JSONataPool
from signet.providers.mapping import JSONataRunner
from signet.receipts.canonical import Json

pytestmark = pytest.mark.anyio


def jsonata(expression: str) -> Mapping:
    """A mapping in JSONata."""
    return Mapping.compile("m", "a.v1", "b.v1", {"jsonata": expression})


@pytest.fixture
async def runner() -> AsyncIterator[JSONataRunner]:
    """A runner over one real worker process."""
    async with JSONataPool(size=1, queue_limit=1) as pool:
        yield JSONataRunner(pool=pool, timeout_s=60.0)


async def test_a_result_is_read_strictly(runner: JSONataRunner) -> None:
    """Numbers come back as exact as they went in."""
    made = await runner.run(jsonata('{"price": amount}'), {"amount": Decimal("1.1")})
    assert made == Mapped(value={"price": Decimal("1.1")})


async def test_a_wrong_expression_is_a_fault(runner: JSONataRunner) -> None:
    """Its author hears what is wrong with it."""
    made = await runner.run(jsonata("$nothing("), {})
    assert isinstance(made, MappingFailed)
    assert made.faults[0].code == "mapping_expression_failed"


async def test_an_endless_expression_is_stopped(runner: JSONataRunner) -> None:
    """A time bound ends it, and the exchange ends with that reason."""
    hurried = JSONataRunner(pool=runner.pool, timeout_s=0.3)
    endless = jsonata("($f := function($n) { $f($n + 1) }; $f(0))")
    made = await hurried.run(endless, {})
    assert isinstance(made, MappingStopped)


async def test_without_a_free_process_nothing_is_decided() -> None:
    """A full queue is no verdict on the mapping: the caller may ask again."""
    async with JSONataPool(size=1, queue_limit=0) as pool:
        runner = JSONataRunner(pool=pool, timeout_s=60.0)
        async with pool._slots:  # pyright: ignore[reportPrivateUsage] - the one process is taken
            with pytest.raises(Busy):
                await runner.run(jsonata("1"), {})


async def test_a_declarative_mapping_runs_there_too(runner: JSONataRunner) -> None:
    """One that could take long gives the same document, or the same faults, as it does here."""
    mapping = Mapping.compile("m", "a.v1", "b.v1", {"fields": {"price": {"number": "amount"}}})
    assert await runner.run(mapping, {"amount": "1.10"}) == Mapped(value={"price": Decimal("1.1")})
    assert isinstance(mapping.body, Fields)
    assert await runner.run(mapping, {"amount": "x"}) == mapping.body.apply({"amount": "x"})


async def test_a_declarative_mapping_cannot_outlast_its_time(runner: JSONataRunner) -> None:
    """An array taken once for each of its elements, and that again, is ended by its bounds."""
    again: Json = {"a": "root.root.a[?@ != `0`]"}
    inner: Json = {"x": {"each": "root.a", "fields": again}}
    mapping = Mapping.compile(
        "m", "a.v1", "b.v1", {"fields": {"y": {"each": "a", "fields": inner}}}
    )
    hurried = JSONataRunner(pool=runner.pool, timeout_s=0.5)
    made = await hurried.run(mapping, {"a": list(range(1, 2_000))})
    assert isinstance(made, MappingStopped)
