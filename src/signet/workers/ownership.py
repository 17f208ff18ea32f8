"""Whose claim is this, and is that process still alive?

An owner names one life of one process: host boot, process id and the moment it started. On the
same boot a missing process is proven dead at once; of any other nothing is known but its lease.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_UNKNOWN: Final = "unknown"
# Counted behind the command's closing parenthesis (proc(5), /proc/pid/stat).
_STATE_FIELD: Final = 0
_STARTED_FIELD: Final = 19
_ENDED: Final = ("Z", "X")  # waits to be buried, which in a container may never happen; is gone


def this_process() -> str:
    """Return the owner that names this process."""
    return f"{_boot_id()}/{os.getpid()}/{_started(os.getpid())}"


def is_dead(owner: str) -> bool:
    """Return whether the process named by `owner` is proven dead; False where that is unknown.

    A container has the boot id of its host but other process ids: there, a namespace that differs
    is part of the boot id below, so a stranger's process is never taken for a dead one.
    """
    boot, _, life = owner.partition("/")
    pid, _, started = life.partition("/")
    if boot == _UNKNOWN or boot != _boot_id() or not (pid.isdecimal() and started.isdecimal()):
        return False
    now = _started(int(pid))
    return not _exists(int(pid)) if now is None else now != started


def _boot_id() -> str:
    """Return what tells this kernel's boot, and this process namespace, from all others."""
    try:
        namespace = Path("/proc/self/ns/pid").readlink().name
        return f"{_BOOT_ID.read_text('ascii').strip()}-{namespace}"
    except OSError:
        return _UNKNOWN


def _started(pid: int) -> str | None:
    """Return when a process started, in clock ticks since boot; None where none can be seen.

    One that has ended started never: it will not act again.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("latin-1")
    except OSError:
        return None
    told = stat.rpartition(")")[2].split()
    return "never" if told[_STATE_FIELD] in _ENDED else told[_STARTED_FIELD]


def _exists(pid: int) -> bool:
    """Return whether there is such a process, be it another user's that /proc hides (hidepid)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
