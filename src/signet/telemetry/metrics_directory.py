"""The directory where the workers of one start keep their counters, and those that the dead left.

Nobody removes the directory of a supervisor that was killed by SIGKILL. So each directory has a
lock, which the supervisor and its workers hold together and the kernel takes from the last of them,
whatever ended it: no process id is written down that somebody else could have by now. The next
start removes what nobody holds, and that only if it can be nothing else: a directory of this user,
closed to all others, no link to one, with nothing in it but files of counters.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PREFIX: Final = "signet-workers-"
_COUNTERS: Final = re.compile(r"(counter|histogram|gauge_[a-z]+)_[0-9]+\.db")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsDirectory:
    """Where it is, and what holds it: a descriptor to inherit, None where nothing can be locked."""

    path: str
    lock: int | None


@contextmanager
def open_metrics_directory() -> Generator[MetricsDirectory]:
    """Make an empty directory, after those that were left behind; remove it in the end."""
    remove_abandoned(Path(tempfile.gettempdir()))
    made = _made()
    try:
        yield made
    finally:
        shutil.rmtree(made.path, ignore_errors=True)
        if made.lock is not None:
            os.close(made.lock)


def remove_abandoned(parent: Path) -> None:
    """Remove the directories in `parent` whose processes are all gone; leave what is in doubt."""
    with suppress(OSError):
        for name in os.listdir(parent):
            if name.startswith(_PREFIX):
                with suppress(OSError):
                    _remove(parent / name)


def _made() -> MetricsDirectory:
    while True:
        path = tempfile.mkdtemp(prefix=_PREFIX)
        try:
            return MetricsDirectory(path=path, lock=_locked(Path(path)))
        except (BlockingIOError, FileNotFoundError):
            continue  # another start has found it without a lock, and is removing it
        except OSError:
            # A file system without locks. Nobody else can lock it either, so nobody removes it.
            return MetricsDirectory(path=path, lock=None)


def _remove(path: Path) -> None:
    lock = _locked(path)
    try:
        names = os.listdir(lock)
        if all(_holds_counters(lock, name) for name in names):
            for name in names:
                os.unlink(name, dir_fd=lock)
            path.rmdir()
    finally:
        os.close(lock)


def _locked(path: Path) -> int:
    """Return a descriptor that holds a directory of ours.

    Raises `BlockingIOError` where somebody holds it, `FileNotFoundError` where it has gone, and
    another `OSError` where it is none of ours or cannot be locked.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    directory = os.open(path, flags)
    try:
        found = os.fstat(directory)
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise PermissionError(f"{path} is not ours alone")
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(found, os.lstat(path)):
            raise FileNotFoundError(path)
    except BaseException:
        os.close(directory)
        raise
    return directory


def _holds_counters(directory: int, name: str) -> bool:
    """Whether this is a file that the metrics library has made."""
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    return stat.S_ISREG(found.st_mode) and _COUNTERS.fullmatch(name) is not None
