"""The worker that reads which key signs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from signet.app.signing import new_held_key
from signet.gateway.signing import SigningKeys
from signet.storage import keys as stored
from signet.storage.database import SqliteConfig, open_database
from signet.telemetry.logs import build_logger
from signet.telemetry.metrics import Metrics
from signet.workers.keys import KeyWatch

pytestmark = pytest.mark.anyio


async def test_a_missing_key_is_told_once(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The gauge says how many are missing, the log names each when that changes."""
    ours, theirs = new_held_key(), new_held_key()
    metrics = Metrics()
    async with open_database(SqliteConfig(path=tmp_path / "signet.db")) as database:
        await database.transact(stored.publish, ours.published(1)._replace(signs_from_us=0))
        held = {ours.signing.kid: ours}
        keys = SigningKeys(database=database, held=held.get, clock=lambda: 5, monotonic=lambda: 0.0)
        watch = KeyWatch(keys=keys, metrics=metrics, log=build_logger("info"), clock=lambda: 5)
        assert await watch.run_once() == 0
        assert metrics.keys_missing._value.get() == 0
        await database.transact(stored.publish, theirs.published(1)._replace(signs_from_us=9))
        for _ in range(3):
            assert await watch.run_once() == 0
        assert metrics.keys_missing._value.get() == 1
        held[theirs.signing.kid] = theirs
        await watch.run_once()
        assert metrics.keys_missing._value.get() == 0
    lines = [json.loads(line) for line in io.BytesIO(capfdbinary.readouterr().err)]
    assert [(line["event"], line["kid"]) for line in lines] == [
        ("signing_key_missing", theirs.signing.kid)
    ]
