"""The types, tools and mappings that come with the gateway, and the operator's own."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from signet.app.refused import StartRefused

REGISTRY_SUFFIXES = (".schema.json", ".map.json", ".tool.json", ".tools.json")


def registry_documents(directory: Path | None) -> Iterator[tuple[str, bytes]]:
    """Yield the built-in documents, then those of `directory`. Raises `StartRefused`."""
    for entry in sorted(resources.files("signet.types").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(REGISTRY_SUFFIXES):
            yield entry.name, entry.read_bytes()
    if directory is None:
        return
    try:
        for path in sorted(directory.iterdir()):
            if path.name.endswith(REGISTRY_SUFFIXES):
                yield path.name, path.read_bytes()
    except OSError as error:
        detail = f"SP_REGISTRY_DIR cannot be read: {error.strerror} ({error.filename})"
        raise StartRefused(detail) from error
