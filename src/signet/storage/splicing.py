"""Answers and signatures, kept without what is kept beside them.

An answer carries its payload, its receipt and the receipt's proof, and each of these has a row of
its own: nine tenths of an answer would be written twice. So it is kept without them, with the
places where they belong, and is put together again byte for byte when it is replayed. A receipt's
JWS in turn carries the receipt, and is kept in its detached form (RFC 7515 appendix F).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final

_SHORTEST: Final = 64  # shorter pieces are not worth a place


def cut(body: bytes, pieces: Sequence[bytes]) -> tuple[bytes, str]:
    """Return `body` without the pieces, and their places.

    Pieces are looked for once each, one behind the other; what is not there has no place and costs
    nothing but room. `paste` is the inverse, whatever body and pieces are.
    """
    kept, places = list[bytes](), list[str]()
    end = kept_bytes = 0
    for piece in pieces:
        at = _find(body, piece, end) if len(piece) >= _SHORTEST else -1
        if at < 0:
            places.append("")
            continue
        kept.append(body[end:at])
        kept_bytes += at - end
        places.append(str(kept_bytes))
        end = at + len(piece)
    return b"".join((*kept, body[end:])), ",".join(places)


def _find(body: bytes, piece: bytes, start: int) -> int:
    """As `body.find`, which first studies the whole of what it looks for (2 us for a payload)."""
    at = body.find(piece[:_SHORTEST], start)
    return at if at < 0 or body.startswith(piece, at) else body.find(piece, at + 1)


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


def detach(jws: str) -> str:
    """Return a compact JWS without its payload."""
    header, _, rest = jws.partition(".")
    return f"{header}..{rest.rpartition('.')[2]}"


def attach(jws: str, payload: bytes) -> str:
    """Return the JWS with its payload; one that was kept whole comes back as it is."""
    header, carries_none, signature = jws.partition("..")
    if not carries_none:
        return jws
    carried = base64.urlsafe_b64encode(payload).rstrip(b"=").decode("ascii")
    return f"{header}.{carried}.{signature}"
