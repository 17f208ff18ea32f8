"""How far a deployment had got, kept outside its database, so that a restored backup is noticed.

A database cannot tell that it is younger than yesterday. A file beside it can: it holds the highest
count of a number that the database only ever raises, and which is committed before it is kept here.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MODE: Final = 0o600


@dataclass(frozen=True, slots=True)
class Landmark:
    """A number in a file. Any number of processes of one host may share it."""

    path: Path

    def read(self) -> int:
        """The highest number that was kept; 0 where there is none, or none can be read.

        Read it before the database is asked: what is kept was committed, so the answer is not lower
        unless the database is an older one.
        """
        try:
            return _number(self.path.read_bytes())
        except OSError:
            return 0

    def keep(self, number: int) -> None:
        """Keep a number that the database has committed, unless a higher one is kept.

        A directory that takes no files costs the deployment its landmark and nothing else: `signet
        doctor` says so, and sending goes on.
        """
        with contextlib.suppress(OSError):
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                if number > _number(os.pread(file, 64, 0)):
                    # One length for all, so that a number never keeps digits of another.
                    os.pwrite(file, b"%020d\n" % number, 0)
                    os.fsync(file)
            finally:
                os.close(file)


def _number(written: bytes) -> int:
    digits = written.strip()
    return int(digits) if digits.isdigit() else 0
