"""Delete every check of the verifier, one at a time, and see a test turn red.

    python -m tests.mutation.verifier [--jobs N]

A check is an `if` that ends in a refusal (its condition becomes False) or a call of a proof step
(it becomes nothing): those of receipts and their chains, of bundles and pages, of key logs, of
statements with their lists, of audit chains with their manifests. The mutants live in a scratch
copy of `src`; the properties that try arbitrary changes are left out, so that each check is guarded
by a test that means it.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOM = "signet/receipts"
# The files with checks, and the documents whose tests guard them.
FILES = {
    "verify.py": ("verify", "statement", "audit"),
    "chain.py": ("chain",),
    "receipt.py": ("receipt",),
    "keys.py": ("keys",),
    "statement.py": ("statement",),
    "audit.py": ("audit",),
}
REFUSALS = (
    *("_fail(", "_fault(", "place.fail(", "raise ", "yield MemberFault("),
    *("return ('chain_", "return Break("),
)
STEPS = (
    *("_step_", "_belongs_to(", "_check_jws(", "_check_types(", "_check_manifest("),
    *("check_members(", "check_list(", "listed.check(", "self._follows("),
)


@dataclass(frozen=True)
class Mutant:
    """One check that is gone: in which file, at which line, and what it said."""

    file: str
    line: int
    check: str
    source: str


def mutants(file: str) -> Iterator[Mutant]:
    """Every mutant of one file."""
    text = (ROOT / "src" / ROOM / file).read_text()
    nodes = list(ast.walk(ast.parse(text)))
    for index in (index for index, node in enumerate(nodes) if _without(node) is not None):
        tree = ast.parse(text)
        node = list(ast.walk(tree))[index]
        check = _without(node)
        yield Mutant(file, getattr(node, "lineno", 0), check or "", ast.unparse(tree))


def _without(node: ast.AST) -> str | None:
    """Disarm the node if it is a check; what it was."""
    if isinstance(node, ast.If) and _refuses(node.body):
        check = f"if {ast.unparse(node.test)}"
        node.test = ast.Constant(False)
        return check
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        check = ast.unparse(node.value)
        if check.startswith(STEPS):
            node.value = ast.Constant(None)
            return check
    return None


def _refuses(body: list[ast.stmt]) -> bool:
    return any(ast.unparse(statement).startswith(REFUSALS) for statement in body)


def survives(mutant: Mutant) -> bool:
    """Whether all tests still pass without the check."""
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(ROOT / "src", scratch, dirs_exist_ok=True)
        Path(scratch, ROOM, mutant.file).write_text(mutant.source)
        tests = [f"tests/unit/receipts/test_{name}.py" for name in FILES[mutant.file]]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        ran = subprocess.run(
            [*command, "-k", "not any_ and not long_chain and not no_byte"],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": scratch},
            capture_output=True,
            timeout=600,
            check=False,
        )
    return ran.returncode == 0


def main() -> int:
    """Try all mutants; the exit code is the number of survivors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="part of FILE:LINE CHECK")
    args = parser.parse_args()
    found = [
        mutant
        for file in FILES
        for mutant in mutants(file)
        if args.only in f"{mutant.file}:{mutant.line} {mutant.check}"
    ]
    survivors: list[Mutant] = []
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for mutant, survived in zip(found, pool.map(survives, found), strict=True):
            verdict = "SURVIVED" if survived else "killed  "
            print(f"{verdict} {mutant.file}:{mutant.line} {mutant.check}")
            survivors += [mutant] if survived else []
    print(f"{len(found)} checks deleted one at a time, {len(survivors)} survived")
    return len(survivors)


if __name__ == "__main__":
    sys.exit(main())
