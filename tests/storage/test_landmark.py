"""The number outside the database only rises, whoever writes it and whatever is in the file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from signet.storage.landmark import Landmark


def test_the_highest_number_is_kept(tmp_path: Path) -> None:
    """A lower one changes nothing, and the next process reads it."""
    landmark = Landmark(tmp_path / "sends")
    assert landmark.read() == 0
    for number, kept in ((3, 3), (12, 12), (7, 12)):
        landmark.keep(number)
        assert Landmark(tmp_path / "sends").read() == kept
    assert (tmp_path / "sends").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", [b"", b"\0\0\0", b"twelve\n", b"-4\n"])
def test_a_file_that_says_nothing_is_none(tmp_path: Path, text: bytes) -> None:
    """What cannot be read counts as nothing, and is written over."""
    (tmp_path / "sends").write_bytes(text)
    landmark = Landmark(tmp_path / "sends")
    assert landmark.read() == 0
    landmark.keep(5)
    assert landmark.read() == 5


def test_a_directory_that_takes_no_files_stops_nothing(tmp_path: Path) -> None:
    """There is then no landmark, which `signet doctor` tells."""
    landmark = Landmark(tmp_path / "nowhere" / "sends")
    landmark.keep(5)
    assert landmark.read() == 0


def test_writers_at_once(tmp_path: Path) -> None:
    """The highest of many is what stays."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(Landmark(tmp_path / "sends").keep, range(200)))
    assert Landmark(tmp_path / "sends").read() == 199
