"""The tables of the reference pages, made of the code that they describe.

A page says `<!-- made: NAME -->`, then the table, then `<!-- end -->`; the rest is written by hand.

    python -m tests.docs            writes every table anew

`tests/architecture/test_docs.py` is red while one of them is not what this would write.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import yaml
from prometheus_client.metrics import MetricWrapperBase
from tests.inprocess import open_app

from signet.api.problems import PROBLEMS
from signet.cli.exits import MEANINGS
from signet.cli.main import COMMANDS, command_parser, overview
from signet.settings import Declared, Settings
from signet.telemetry.metrics import RENAMED, Metrics
from signet.telemetry.vitals import Vitals

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
PAGES: Final = tuple(sorted(DOCS.rglob("*.md")))

_MADE: Final = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def settings() -> str:
    """Every setting, section by section."""
    parts: list[str] = []
    for section in fields(Settings):
        assert section.default_factory is not MISSING
        sample = section.default_factory()
        parts += [f"\n### {(type(sample).__doc__ or '').rstrip('.')}\n"]
        parts += ["| variable | default | what it is |", "|---|---|---|"]
        parts += [_setting(leaf.metadata["declared"]) for leaf in fields(sample)]
    return "\n".join(parts) + "\n"


def _setting(declared: Declared) -> str:
    doc = declared.doc.rstrip(".")
    if declared.also:
        doc += f" (older: {', '.join(f'`{name}`' for name in declared.also)})"
    shown = f"`{declared.default}`" if declared.default else "not set"
    return f"| `{declared.name}` | {shown} | {_cell(doc)}{'; secret' * declared.secret} |"


def problems() -> str:
    """Every problem code."""
    rows = ["| code | status | title | what a caller may do |", "|---|---|---|---|"]
    for code, kind in sorted(PROBLEMS.items(), key=lambda row: (row[1].status, row[0])):
        rows.append(f"| `{code}` | {kind.status} | {_cell(kind.title)} | {_retry(kind.retry)} |")
    return "\n".join(rows) + "\n"


def _retry(retry: str | None) -> str:
    return "" if retry is None else f"`{retry}`"


def metrics() -> str:
    """Every metric family."""
    rows = ["| family | type | labels | what it counts |", "|---|---|---|---|"]
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            kind, name = metric._type, metric._name
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)
            shown = f"{name}_total" if kind == "counter" else name
            rows.append(f"| `{shown}` | {kind} | {labels} | {_cell(metric._documentation)} |")
    rows += [
        f"| `signet_{told.name}` | gauge |  | {_cell(told.metadata['doc'])} |"
        for told in fields(Vitals)
    ]
    rows.append("| `signet_database_up` | gauge |  | Whether the database answered this scrape |")
    rows += [
        f"| `{old}` | histogram | {'`phase`' if 'phase' in old else ''} | Older name of `{new}` |"
        for old, new in RENAMED.items()
    ]
    return "\n".join([*rows[:2], *sorted(rows[2:])]) + "\n"


def alerts() -> str:
    """Every alert rule."""
    groups = yaml.safe_load((ROOT / "deploy/prometheus/signet.rules.yml").read_text("utf-8"))
    rows = ["| alert | severity | what to do |", "|---|---|---|"]
    rows += [
        f"| `{rule['alert']}` | {rule['labels']['severity']} |"
        f" {_cell(rule['annotations']['action'])} |"
        for group in groups["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    return "\n".join(rows) + "\n"


def http() -> str:
    """Every operation of the OpenAPI document, as a running gateway serves it."""
    document = asyncio.run(_openapi())
    parts: list[str] = []
    for path, methods in sorted(document["paths"].items()):
        for method, operation in methods.items():
            parts += [f"\n### `{method.upper()} {path}`\n", operation["summary"]]
            scopes = [
                text for given in operation.get("security", ()) for text in given.get("apiKey", ())
            ]
            parts += [f"Scope: `{scopes[0]}`.\n" if scopes else "No key is needed.\n"]
            given = operation.get("parameters", ())
            if given:
                parts += ["| parameter | in | what it is |", "|---|---|---|"]
                parts += [
                    f"| `{p['name']}`{', required' * p['required']} | {p['in']} |"
                    f" {_cell(p['description'])} |"
                    for p in given
                ]
                parts += [""]
            parts += ["| status | answer |", "|---|---|"]
            parts += [
                f"| {status} | {_cell(answer['description'])} |"
                for status, answer in operation["responses"].items()
            ]
    return "\n".join(parts) + "\n"


async def _openapi() -> dict[str, Any]:
    with TemporaryDirectory() as directory:
        async with open_app(Path(directory)) as app:
            return (await app.get("/openapi.json", api_key=None)).json


def exits() -> str:
    """Every exit code."""
    rows = ["| code | meaning |", "|---|---|"]
    return (
        "\n".join([*rows, *(f"| {code.value} | {said} |" for code, said in MEANINGS.items())])
        + "\n"
    )


def commands() -> str:
    """The overview, and the help of every command, as a terminal of 100 columns shows them."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    try:
        return "".join(f"```text\n$ {line}\n{text.rstrip()}\n```\n\n" for line, text in _helps())
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _helps() -> Iterator[tuple[str, str]]:
    yield "signet --help", overview()
    for command in COMMANDS:
        parser = command_parser(command)
        (subparsers,) = [a for a in parser._actions if hasattr(a, "add_parser")]
        yield from _helps_of(f"signet {command.name}", subparsers.choices[command.name])


def _helps_of(line: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """The help of a command, and of every action below it."""
    yield f"{line} --help", parser.format_help()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from _helps_of(f"{line} {name}", below)


def _listed(folder: str, base: Path) -> str:
    """Links to the pages of a folder, each with its heading, as seen from `base`."""
    pages = sorted((DOCS / folder).glob("*.md"))
    rows = [
        f"- [{page.read_text('utf-8').partition(chr(10))[0].removeprefix('# ')}]"
        f"({page.relative_to(base).as_posix()})"
        for page in pages
        if page.name != "README.md"
    ]
    return "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return text.rstrip(".").replace("|", "\\|")


TABLES: Final[Mapping[str, Callable[[], str]]] = {
    "settings": settings,
    "problems": problems,
    "metrics": metrics,
    "alerts": alerts,
    "exits": exits,
    "http": http,
    "commands": commands,
    "guides": lambda: _listed("guide", DOCS),
    "operations": lambda: _listed("operations", DOCS),
    "references": lambda: _listed("reference", DOCS),
    "decisions": lambda: _listed("adr", DOCS / "adr"),
}


def current(page: str) -> str:
    """The page as it should read: each table made anew."""
    return _MADE.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}{found[3]}", page)


def main() -> None:
    """Write every page anew."""
    for path in PAGES:
        text = path.read_text("utf-8")
        path.write_text(current(text), "utf-8")


if __name__ == "__main__":
    main()
