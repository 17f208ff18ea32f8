"""What the drills showed, a line of JSON for each part, under docs/evidence/."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DIRECTORY = ROOT / "docs" / "evidence"


class Evidence:
    """The lines of one drill, each with its commit. They are appended as soon as a part is done, so
    a drill goes on where it was stopped."""

    def __init__(self, drill: str) -> None:
        self._path = DIRECTORY / f"{drill}.jsonl"
        self._commit = _commit()

    def held(self, scene: str) -> int:
        """How often a scene has held since it last did not."""
        held = 0
        for line in self._lines():
            if line["scene"] == scene:
                held = held + line["times"] if line["holds"] else 0
        return held

    def add(self, scene: str, *, times: int, holds: bool, began: float, result: object) -> None:
        """Write a line down; `began` is `time.time()` of the beginning."""
        line = {
            "scene": scene,
            "times": times,
            "holds": holds,
            "result": result,
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
            "took_s": round(time.time() - began, 1),
            "commit": self._commit,
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
        }
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            # What failed may say where this checkout is, which is nobody's business.
            file.write(json.dumps(line, sort_keys=True).replace(f"{ROOT}/", "") + "\n")

    def forget(self, scenes: Collection[str]) -> None:
        """Begin these scenes anew."""
        kept = [line for line in self._lines() if line["scene"] not in scenes]
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in kept)
        self._path.write_text(text, encoding="utf-8")

    def _lines(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_text("utf-8").splitlines()]


def _commit() -> str:
    """The commit that is checked out, marked where the product's files differ from it."""
    git = partial(subprocess.run, capture_output=True, text=True, check=False, cwd=ROOT)
    head = git(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip() or "unknown"
    changed = git(["git", "status", "--porcelain", "--", "src"]).stdout.strip()
    return f"{head}+changes" if changed else head
