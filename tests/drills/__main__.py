"""`make drills`: every drill at its full count, one after another.

    python -m tests.drills [NAME …]

Each is a module of its own that can be run alone. Exits 1 if one of them did.
"""

from __future__ import annotations

import pkgutil
import subprocess
import sys

from tests import drills

PARTS = {"__main__", "evidence"}


def main() -> int:
    """Run the drills named, or all."""
    known = sorted({module.name for module in pkgutil.iter_modules(drills.__path__)} - PARTS)
    wanted = sys.argv[1:] or known
    unknown = set(wanted) - set(known)
    if unknown:
        print(f"no such drill: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        return 64
    failed: list[str] = []
    for name in wanted:
        print(f"\n== {name}", flush=True)
        done = subprocess.run([sys.executable, "-m", f"tests.drills.{name}"], check=False)
        if done.returncode != 0:
            failed.append(name)
    print(f"\ndid not hold: {', '.join(failed)}" if failed else "\neverything held")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
