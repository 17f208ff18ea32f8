"""Exit codes: one meaning each, and one for every error that a command lets through."""

from __future__ import annotations

import pytest

from signet.app import StartRefused
from signet.cli.exits import MEANINGS, CommandFailed, Exit, exit_for
from signet.core.errors import SignetError
from signet.core.registry import RegistryInvalid
from signet.settings import SettingsInvalid
from signet.storage.errors import MigrationEdited, SchemaNewer, StorageBusy, StorageUnavailable


def test_every_code_has_a_meaning() -> None:
    """Every exit code is documented, and none twice."""
    assert set(MEANINGS) == set(Exit)
    assert len(set(MEANINGS.values())) == len(Exit)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (SettingsInvalid("x"), Exit.SETTINGS),
        (StartRefused("x"), Exit.SETTINGS),
        (RegistryInvalid("x"), Exit.SETTINGS),
        (SchemaNewer("x"), Exit.SETTINGS),
        (MigrationEdited("x"), Exit.SETTINGS),
        (StorageUnavailable("x"), Exit.UNAVAILABLE),
        (StorageBusy("x"), Exit.UNAVAILABLE),
        (SignetError("x"), Exit.FAILED),
        (CommandFailed("x"), Exit.FAILED),
        (CommandFailed("x", Exit.USAGE), Exit.USAGE),
    ],
    ids=lambda value: value.code if isinstance(value, SignetError) else None,
)
def test_code_of_an_error(error: SignetError, expected: Exit) -> None:
    """What a restart cannot mend is 78, what may be back in a minute is 69."""
    assert exit_for(error) is expected
