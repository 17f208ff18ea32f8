"""How a command can end: its exit code, and the one error that carries one.

The codes above 63 are those of sysexits(3), so that a supervisor can tell a mistake in the
settings, which a restart cannot mend, from a service that may be back in a minute.
"""

from __future__ import annotations

from enum import IntEnum

from signet.core.errors import Fault, SignetError


class Exit(IntEnum):
    """Every exit code of `signet`, the same for all commands."""

    DONE = 0
    FAILED = 1
    BELOW = 2
    USAGE = 64
    UNAVAILABLE = 69
    SETTINGS = 78
    INTERRUPTED = 130


MEANINGS: dict[Exit, str] = {
    Exit.DONE: "done",
    Exit.FAILED: "failed; from verify: INVALID",
    Exit.BELOW: "verify: valid, but less is proven than was asked",
    Exit.USAGE: "the command line or a file named there cannot be used",
    Exit.UNAVAILABLE: "something needed is not there: a gateway, a database, a port, a package",
    Exit.SETTINGS: "the settings cannot be used; a restart will not help",
    Exit.INTERRUPTED: "interrupted",
}


class CommandFailed(SignetError):
    """A command ends here. `detail` is one sentence for a person; `exit` is what the shell sees."""

    code = "command_failed"

    def __init__(
        self, detail: str, exit: Exit = Exit.FAILED, *, faults: tuple[Fault, ...] = ()
    ) -> None:
        super().__init__(detail, faults=faults)
        self.exit = exit


_BY_CODE: dict[str, Exit] = {
    "settings_invalid": Exit.SETTINGS,
    "start_refused": Exit.SETTINGS,
    "registry_invalid": Exit.SETTINGS,
    "storage_schema_newer": Exit.SETTINGS,
    "storage_migration_edited": Exit.SETTINGS,
    "tenant_invalid": Exit.USAGE,
    "key_invalid": Exit.USAGE,
    "storage_unavailable": Exit.UNAVAILABLE,
    "storage_busy": Exit.UNAVAILABLE,
}


def exit_for(error: SignetError) -> Exit:
    """Return the exit code of an error that no command handled itself."""
    if isinstance(error, CommandFailed):
        return error.exit
    return _BY_CODE.get(error.code, Exit.FAILED)
