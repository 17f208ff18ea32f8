"""`make bench`: run every module of this directory that measures something, one after another."""

from __future__ import annotations

import importlib
import pkgutil

import bench

NOT_MEASURING = {"__main__", "load"}


def main() -> None:
    """Run each module's `main`, in the order of their names."""
    for module in sorted(pkgutil.iter_modules(bench.__path__), key=lambda module: module.name):
        if module.name not in NOT_MEASURING:
            print(f"\n== {module.name}", flush=True)
            importlib.import_module(f"bench.{module.name}").main()


if __name__ == "__main__":
    main()
