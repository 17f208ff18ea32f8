"""The look that every process takes at the keyring."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.gateway.test_keyring import TESTER, Node

from signet.storage import tenants as stored
from signet.storage.database import SqliteConfig, open_database
from signet.storage.tx import Tx
from signet.workers.keyring import KeyringWatch

pytestmark = pytest.mark.anyio


class Lines:
    """A log that remembers its warnings."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def warning(self, event: str, **about: str) -> None:
        """Remember a warning."""
        self.said.append(f"{event} {about['subject']}")


async def test_changes_are_found_and_what_cannot_be_used_is_told_once(tmp_path: Path) -> None:
    """A look finds what another process made; a flaw is a warning when it comes, not every time."""
    async with open_database(SqliteConfig(path=tmp_path / "signet.db")) as database:
        one, other = Node(database), Node(database)
        log = Lines()
        watch = KeyringWatch(other.keyring, log)  # type: ignore[arg-type]
        await one.tenants.create("initech", {}, actor=TESTER)
        text = await one.key("initech")
        assert await watch.run_once() == 0
        assert other.find(text) is not None

        async def set_document(tx: Tx, document: bytes) -> None:
            await stored.begin_change(tx)
            await stored.change_tenant(tx, "initech", document, 1)

        for document, warnings in ((b"[]", 2), (b"[]", 2), (b"{}", 2), (b"[]", 4)):
            await database.transact(set_document, document)
            await watch.run_once()
            assert len(log.said) == warnings
        assert log.said[0].startswith("keyring_unusable key_")
