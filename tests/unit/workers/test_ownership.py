"""Whose claim it is, and whether that process still lives."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from signet.workers.ownership import is_dead, this_process

SAY_WHO = "from signet.workers.ownership import this_process; print(this_process(), flush=True)"


def test_a_process_names_itself_the_same_way_twice() -> None:
    """The owner is stable for the life of a process and it is not dead."""
    assert this_process() == this_process()
    assert not is_dead(this_process())


def test_a_process_that_ended_is_proven_dead() -> None:
    """A child is alive while it waits, and dead once it was killed and its end taken note of."""
    code = f"{SAY_WHO}; input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        owner = child.stdout.readline().strip()
        assert f"/{child.pid}/" in owner
        assert not is_dead(owner)
        child.kill()
        child.wait(240)
        assert is_dead(owner)


def test_a_process_that_nobody_has_buried_is_dead() -> None:
    """A zombie acts no more: in a container without an init it stays one for ever."""
    code = f"{SAY_WHO}; input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        owner = child.stdout.readline().strip()
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert is_dead(owner)


def test_a_reused_process_id_is_another_life() -> None:
    """The same id with another moment of start names a process that is gone."""
    boot, pid, started = this_process().split("/")
    assert is_dead(f"{boot}/{pid}/{int(started) - 1}")


@pytest.mark.parametrize(
    "owner",
    [
        "",
        "/",
        "//",
        "unknown/1/2",
        "another-boot/1/2",
        "another-boot",
        f"{this_process().split('/')[0]}/x/1",
        f"{this_process().split('/')[0]}//1",
        f"{this_process().split('/')[0]}/-1/1",
        f"{this_process().split('/')[0]}/1",
    ],
)
def test_of_strangers_nothing_is_known(owner: str) -> None:
    """Another host, another boot and what is no owner at all are not declared dead."""
    assert not is_dead(owner)
