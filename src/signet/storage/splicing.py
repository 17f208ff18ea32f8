"""Stored answers, without what is stored beside them.

An answer carries its payload, its receipt and the receipt's proof, and each of these has a row of
its own: nine tenths of an answer would be written twice. So it is kept without them, with the
places where they belong, and is put together again byte for byte when it is replayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_SHORTEST: Final = 64  # shorter pieces are not worth a place


def cut(body: bytes, pieces: Sequence[bytes]) -> tuple[bytes, str]:
    """Return `body` without the pieces, and their places.

    Pieces are looked for once each, one behind the other; what is not there has no place and costs
    nothing but room. `paste` is the inverse, whatever body and pieces are.
    """
    kept, places, rest = b"", list[str](), body
    for piece in pieces:
        before, found, after = rest.partition(piece) if len(piece) >= _SHORTEST else (b"", b"", b"")
        if found:
            kept += before
            rest = after
        places.append(str(len(kept)) if found else "")
    return kept + rest, ",".join(places)


def paste(kept: bytes, places: str, pieces: Sequence[bytes | None]) -> bytes | None:
    """Return the body that was cut; None where one of its pieces is no longer there."""
    body, end = b"", 0
    for place, piece in zip(places.split(","), pieces, strict=True):
        if not place:
            continue
        if piece is None:
            return None
        body += kept[end : int(place)] + piece
        end = int(place)
    return body + kept[end:]
