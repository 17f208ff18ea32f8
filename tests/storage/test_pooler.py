"""Through a pooler in transaction mode, where no connection is ours for longer than a transaction.

Needs the `pgbouncer` program; without it on the machine these tests are skipped.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from tests.postgres import Postgres, cluster, free_port, unprivileged
from tests.storage import (
    test_audit,
    test_committer,
    test_exchanges,
    test_idempotency,
    test_quota,
)
from tests.storage.ledger import pending, receipts_of, seal

from signet.storage.committer import open_committer
from signet.storage.config import PostgresConfig
from signet.storage.exchanges import Committed
from signet.storage.postgres import open_postgres
from signet.storage.schema import read_schema

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.xdist_group("pooler"),
    pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="pgbouncer is not installed"),
]


# The suite's tests of what happens in transactions, again, with their database behind the pooler.
for _module in (test_audit, test_committer, test_exchanges, test_idempotency, test_quota):
    for _name, _test in vars(_module).items():
        if _name.startswith("test_") and callable(_test):
            globals()[f"{_name}__{_module.__name__.rpartition('.')[2]}"] = _test


@pytest.fixture(scope="module")
def pooled() -> Iterator[Callable[[], str]]:
    """Empties a database and tells the URL that leads to it through pgbouncer, which has fewer
    server connections than clients."""
    with cluster() as server:
        name = server.empty_database()
        port = free_port()
        settings = server.folder / "pgbouncer.ini"
        settings.write_text(
            f"""
            [databases]
            {name} = host={server.folder} port={server.port} user=signet
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {port}
            unix_socket_dir =
            auth_type = any
            pool_mode = transaction
            default_pool_size = 3
            """.replace("\n            ", "\n")
        )
        pooler = subprocess.Popen(
            [str(shutil.which("pgbouncer")), "-q", settings],
            stdin=subprocess.DEVNULL,
            cwd=server.folder,
            **unprivileged(),
        )
        try:
            url = f"postgresql://signet@127.0.0.1:{port}/{name}"
            _wait_until_up(server, port, name)
            yield lambda: server.empty_database(name) and url
        finally:
            pooler.terminate()
            pooler.wait(timeout=300)


@pytest.fixture
def config(pooled: Callable[[], str]) -> PostgresConfig:
    """In place of the suite's: an empty database behind the pooler, as it must be configured."""
    return PostgresConfig(url=pooled(), statement_cache_size=0)


def _wait_until_up(server: Postgres, port: int, name: str) -> None:
    deadline = time.monotonic() + 240
    while True:
        try:
            server.run("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port), "-d", name)
        except RuntimeError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


async def test_batches_through_the_pooler(config: PostgresConfig) -> None:
    """Migrations, batches, single transactions and reads of two processes' worth of clients."""
    async with (
        open_postgres(config) as one,
        open_postgres(config) as two,
        open_committer(one, seal) as first,
        open_committer(two, seal) as second,
    ):
        results = await asyncio.gather(
            *(first.commit(pending(f"a{i}")) for i in range(100)),
            *(second.commit(pending(f"b{i}")) for i in range(100)),
            *(one.ping() for _ in range(20)),
        )
        assert sum(isinstance(result, Committed) for result in results) == 200
        assert len(await receipts_of(two, "trace-1")) == 200


async def test_schema_through_the_pooler(
    config: PostgresConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a database still needs is told to any number of processes, one after another."""
    assert (await read_schema(config)).version == 0
    async with open_postgres(config) as opened:
        for _ in range(6):  # twice on each connection to the server
            # Each process counts its statements from the beginning.
            monkeypatch.setattr("asyncpg.connection._uid", 0)
            schema = await read_schema(config)
            assert (schema.version, schema.pending) == (opened.schema_version, [])
