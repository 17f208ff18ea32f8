"""Directories of counters: made locked, removed when nobody holds them, and nothing else ever."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from signet.telemetry import metrics_directory
from signet.telemetry.metrics_directory import open_metrics_directory, remove_abandoned


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made."""
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def abandoned(scratch: Path, name: str = "signet-workers-abc") -> Path:
    """What a supervisor has left that was killed."""
    left = scratch / name
    left.mkdir(mode=0o700)
    for file in ("counter_0.db", "gauge_livesum_1.db", "histogram_12.db"):
        (left / file).write_bytes(b"\0" * 64)
    return left


def test_made_and_removed(scratch: Path) -> None:
    """It is empty and closed to others; in the end it goes with what is in it."""
    with open_metrics_directory() as made:
        [place] = scratch.iterdir()
        assert str(place) == made.path
        assert place.stat().st_mode & 0o777 == 0o700
        (place / "counter_0.db").touch()
    assert list(scratch.iterdir()) == []


def test_what_was_left_goes(scratch: Path) -> None:
    """The next start removes all that nobody holds, empty ones too."""
    abandoned(scratch)
    (scratch / "signet-workers-empty").mkdir(mode=0o700)
    with open_metrics_directory() as made:
        assert [str(place) for place in scratch.iterdir()] == [made.path]


def test_what_lives_stays(scratch: Path) -> None:
    """Another supervisor's is not touched, nor that of a worker which has outlived its own."""
    with open_metrics_directory() as living:
        made = metrics_directory._made()
        remove_abandoned(scratch)
        assert {str(place) for place in scratch.iterdir()} == {living.path, made.path}
        assert made.lock is not None
        command = [sys.executable, "-c", "input()"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[made.lock]) as worker:
            os.close(made.lock)
            remove_abandoned(scratch)
            assert Path(made.path).exists()
            worker.communicate(b"\n")
        remove_abandoned(scratch)
        assert [str(place) for place in scratch.iterdir()] == [living.path]


def _link(scratch: Path, left: Path) -> None:
    left.rename(scratch / "elsewhere")
    left.symlink_to(scratch / "elsewhere")


def _another_user(_scratch: Path, left: Path) -> None:
    os.chown(left, 12345, 12345)


def _open_to_others(_scratch: Path, left: Path) -> None:
    left.chmod(0o750)


def _file_of_somebody(_scratch: Path, left: Path) -> None:
    (left / "notes.txt").touch()


def _link_inside(scratch: Path, left: Path) -> None:
    (scratch / "precious").touch()
    (left / "counter_9.db").symlink_to(scratch / "precious")


def _directory_inside(_scratch: Path, left: Path) -> None:
    (left / "counter_9.db").mkdir()


def _another_name(scratch: Path, left: Path) -> None:
    left.rename(scratch / "signet-metrics-abc")


def _no_directory(_scratch: Path, left: Path) -> None:
    for file in left.iterdir():
        file.unlink()
    left.rmdir()
    os.mkfifo(left)


@pytest.mark.parametrize(
    "change",
    [
        _link,
        pytest.param(
            _another_user,
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away"),
        ),
        _open_to_others,
        _file_of_somebody,
        _link_inside,
        _directory_inside,
        _another_name,
        _no_directory,
    ],
)
def test_what_is_in_doubt_stays(scratch: Path, change: Callable[[Path, Path], None]) -> None:
    """Links, what belongs to others, and what holds anything but counters are left whole."""
    change(scratch, abandoned(scratch))
    before = sorted(scratch.rglob("*"))
    remove_abandoned(scratch)
    assert sorted(scratch.rglob("*")) == before


def test_a_start_whose_directory_was_taken_makes_another(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between making and locking it another start may remove it, or be about to."""
    lock, made = fcntl.flock, list[str]()
    holders: list[int] = []

    def late(directory: int, operation: int) -> None:
        path = os.readlink(f"/proc/self/fd/{directory}")
        made.append(path)
        if len(made) == 1:  # it has been removed
            os.rmdir(path)
        elif len(made) == 2:  # it is being removed
            holders.append(os.open(path, os.O_RDONLY))
            lock(holders[0], operation)
        lock(directory, operation)

    monkeypatch.setattr(metrics_directory.fcntl, "flock", late)
    with open_metrics_directory() as own:
        assert own.path == made[2]
    os.close(holders[0])


def test_without_locks(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that cannot lock serves all the same, and nothing is removed from it."""

    def refuse(_directory: int, _operation: int) -> None:
        raise OSError(95, "Operation not supported")

    left = abandoned(scratch)
    monkeypatch.setattr(metrics_directory.fcntl, "flock", refuse)
    with open_metrics_directory() as made:
        assert made.lock is None
        assert left.exists()
    assert [place.name for place in scratch.iterdir()] == [left.name]


def test_a_place_that_cannot_be_read(tmp_path: Path) -> None:
    """Where there is nothing to look at, there is nothing to do."""
    remove_abandoned(tmp_path / "none")
