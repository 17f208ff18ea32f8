"""The types, tools and mappings that come with the gateway, and the operator's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from signet import types
from signet.app.refused import StartRefused
from signet.core.registry import Origin, Registry

REGISTRY_SUFFIXES = (".schema.json", ".map.json", ".tool.json", ".tools.json")


def base_registry(directory: Path | None) -> Registry:
    """Compile the built-in documents, then those of `directory`.

    Raises `StartRefused` where the directory cannot be read, `RegistryInvalid` with every fault.
    """
    built_in = Registry.build(types.documents(), Origin.BUILT_IN)
    if directory is None:
        return built_in
    return built_in.with_documents(_documents(directory), Origin.OPERATOR)


def _documents(directory: Path) -> Iterator[tuple[str, bytes]]:
    try:
        for path in sorted(directory.iterdir()):
            if path.name.endswith(REGISTRY_SUFFIXES):
                yield path.name, path.read_bytes()
    except OSError as error:
        detail = f"SP_REGISTRY_DIR cannot be read: {error.strerror} ({error.filename})"
        raise StartRefused(detail) from error
