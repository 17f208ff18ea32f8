"""The built-in types, tools and mappings, as data files.

`documents()` reads them; `signet.core.registry` gives them meaning.
"""

from __future__ import annotations

from importlib.resources import files

_SUFFIXES = (".schema.json", ".map.json", ".tool.json")


def documents() -> tuple[tuple[str, bytes], ...]:
    """The (file name, bytes) pairs of everything built in, in name order."""
    entries = sorted(files(__name__).iterdir(), key=lambda entry: entry.name)
    return tuple((e.name, e.read_bytes()) for e in entries if e.name.endswith(_SUFFIXES))
