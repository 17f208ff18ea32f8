"""A page of the documentation as a script: its commands run, and print what the page says.

Blocks marked `sh` are run one after the other by one bash, and blocks marked `python` by `python3`
in their turn. A `text` block behind one of them says what it prints; `...` stands for anything.
Other kinds of block (`console`, `json`, none) are for the eye.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

from tests.live import environment

LIMIT_S: Final = 800
"""How long the commands of a page may take in all; much more than they need."""

PATIENT: Final = {"SP_MAPPING_SECONDS": "30", "SP_FALLBACK_SECONDS": "120"}
"""A gateway of a page gives up nothing because its machine is busy."""

_BLOCK: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_MARK: Final = "=====8<====="
_RUN: Final = ("sh", "python")
_EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def run_page(
    page: Path,
    directory: Path,
    *,
    settings: Mapping[str, str] | None = None,
    commands: Path | None = None,
    ports: Mapping[str, str] | None = None,
) -> None:
    """Run a page's commands in `directory`; fail where one fails or prints something else.

    `commands` is a directory whose programs go before all others. `ports` maps a port that the page
    names to the one that is used; 8088 becomes a free one by itself.
    """
    blocks = _BLOCK.findall(page.read_text("utf-8"))
    scripts = [_script(kind, text) for kind, text in blocks if kind in _RUN]
    assert scripts, f"{page.name} has no commands"
    used = {"8088": free_port(), **(ports or {})}
    script = f"echo '{_MARK}'\n".join(scripts)
    for written, real in used.items():
        script = re.sub(rf"\b{written}\b", real, script)
    given = {"SP_PORT": used["8088"], "SIGNET_URL": f"http://127.0.0.1:{used['8088']}", **PATIENT}
    first = [str(commands)] if commands else []
    path = ":".join([*first, str(Path(sys.executable).parent), os.environ["PATH"]])
    said, code = _run(script, directory, environment(given | dict(settings or {})) | {"PATH": path})
    for written, real in used.items():
        said = re.sub(rf"\b{real}\b", written, said)
    assert code == 0, said
    printed = said.split(f"{_MARK}\n")
    assert len(printed) == len(scripts)
    wrong = [pair for pair in _expectations(blocks, printed) if not matches(pair[1], pair[0])]
    assert not wrong, "".join(f"expected\n{text}\nbut it printed\n{came}" for came, text in wrong)


def _run(script: str, directory: Path, environ: Mapping[str, str]) -> tuple[str, int]:
    """Return what the script printed, with what it complained of at the end, and its exit code."""
    # Whatever is still running when the script ends, or fails, is ended with it.
    trap = "trap 'kill $(jobs -p) 2>/dev/null && wait || true' EXIT\n"
    printed, errors = directory / ".printed", directory / ".errors"
    with printed.open("wb") as stdout, errors.open("wb") as stderr:
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", trap + script],
            cwd=directory,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            code = process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            code = -signal.SIGKILL
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    said = printed.read_text("utf-8")
    return (said + errors.read_text("utf-8") if code else said), code


def _script(kind: str, text: str) -> str:
    return text if kind == "sh" else f"python3 - <<'END OF PYTHON'\n{text}END OF PYTHON\n"


def _expectations(blocks: list[tuple[str, str]], printed: list[str]) -> Iterator[tuple[str, str]]:
    """Yield what each block printed, with the text block that follows it, where one does."""
    number = -1
    for (kind, _), (after, text) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        number += kind in _RUN
        if kind in _RUN and after == "text":
            yield printed[number], text


def matches(expected: str, said: str) -> bool:
    """Whether `said` is the expected lines in order; `...` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in expected.strip().split("..."))
    return re.fullmatch(pattern, said.strip(), re.DOTALL) is not None


def free_port() -> str:
    """A port that nobody listens on, outside the range from which the kernel gives ports away.

    So nobody who asks for any port, or connects, can take it before it is used.
    """
    for number in _NUMBERS:
        try:
            with closing(socket.create_server(("127.0.0.1", number))):
                return str(number)
        except OSError:
            continue
    raise AssertionError("the numbers have no end")


def _numbers() -> Iterator[int]:
    """Yield port numbers, in an order that differs from process to process."""
    first = int(_EPHEMERAL.read_text("ascii").split()[0]) if _EPHEMERAL.exists() else 32768
    number = os.getpid()
    while True:
        number = (number * 25173 + 13849) % 65536  # passes through all of them
        if 10_000 <= number < max(first, 20_000):
            yield number


_NUMBERS: Final = _numbers()
