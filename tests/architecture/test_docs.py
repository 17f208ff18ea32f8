"""The pages say what is so: tables are those of the code, commands run, links lead somewhere."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.docs import DOCS, PAGES, ROOT, TABLES, current
from tests.live import environment

RUN = [ROOT / "README.md", DOCS / "guide" / "first-exchange.md"]
WRITTEN = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
_MARK = "=====8<====="


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_tables_are_current(page: Path) -> None:
    """Every made table is what the code says now; `python -m tests.docs` mends it."""
    assert page.read_text("utf-8") == current(page.read_text("utf-8"))


def test_every_table_is_shown() -> None:
    """No table can be lost from the pages unnoticed."""
    pages = "".join(page.read_text("utf-8") for page in PAGES)
    for name in TABLES:
        assert pages.count(f"<!-- made: {name} -->") == 1


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link is to a file that is there, and every anchor to a heading of it."""
    for target in _LINK.findall(page.read_text("utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{target} leads nowhere"
        if anchor:
            assert anchor in _anchors(linked), f"{target} names no heading"


def test_every_page_can_be_found() -> None:
    """Every page of the documentation is linked from its index or from the index of decisions."""
    found = {
        (index.parent / target.partition("#")[0]).resolve()
        for index in (DOCS / "index.md", DOCS / "adr" / "README.md")
        for target in _LINK.findall(index.read_text("utf-8"))
    }
    pages = {page.resolve() for page in DOCS.rglob("*.md") if "evidence" not in page.parts}
    assert pages - found == {DOCS / "index.md"}


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_commands_run(page: Path, tmp_path: Path) -> None:
    """The shell blocks of a page run, one after the other, and print what the page says."""
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("needs curl and bash")
    blocks = [(kind, text) for kind, text in _BLOCK.findall(page.read_text("utf-8"))]
    scripts = [text for kind, text in blocks if kind == "sh"]
    port = free_port()
    script = f"echo '{_MARK}'\n".join(scripts).replace("8088", port)
    settings = {"SP_PORT": port, "SIGNET_URL": f"http://127.0.0.1:{port}"}
    path = f"{Path(sys.executable).parent}:{environment({})['PATH']}"
    done = subprocess.run(
        # Whatever is still running when the script ends, or fails, is ended with it.
        [
            "bash",
            "-euo",
            "pipefail",
            "-c",
            f"trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}",
        ],
        cwd=tmp_path,
        env=environment(settings) | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    printed = done.stdout.replace(port, "8088").split(f"{_MARK}\n")
    assert len(printed) == len(scripts)
    for said, expected in expectations(blocks, printed):
        assert matches(expected, said), f"expected\n{expected}\nbut it printed\n{said}"


def expectations(blocks: list[tuple[str, str]], printed: list[str]) -> list[tuple[str, str]]:
    """What each shell block printed, with the text block that follows it, where one does."""
    pairs: list[tuple[str, str]] = []
    number = -1
    for (kind, _), (after, text) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        number += kind == "sh"
        if kind == "sh" and after == "text":
            pairs.append((printed[number], text))
    return pairs


def matches(expected: str, said: str) -> bool:
    """Whether `said` has the expected lines in order; `...` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in expected.strip().split("..."))
    return re.search(pattern, said, re.DOTALL) is not None


def free_port() -> str:
    """A port that nobody listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return str(listener.getsockname()[1])


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
