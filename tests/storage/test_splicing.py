"""An answer kept in pieces is the answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.storage.ledger import TENANT, commit, key, pending, seal

from signet.receipts.keys import b64url
from signet.storage.database import Database
from signet.storage.exchanges import Replay, commit_exchanges, read_known
from signet.storage.splicing import attach, cut, detach, paste
from signet.storage.tx import ReadTx, Tx

# Long enough to be cut out, of few letters, so that pieces overlap, repeat and hold each other.
PIECES = st.lists(st.text("ab", min_size=60, max_size=70).map(str.encode) | st.just(b""))


@given(pieces=PIECES, glue=st.lists(st.binary(max_size=3), min_size=1), order=st.randoms())
def test_paste_is_the_inverse_of_cut(pieces: list[bytes], glue: list[bytes], order: object) -> None:
    """Whatever the pieces are and in whichever order they stand, every byte comes back."""
    shuffled = [*pieces, *pieces[:1]]
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    body = b"".join(part for piece in shuffled for part in (piece, glue[len(piece) % len(glue)]))
    kept, places = cut(body, [*pieces, b"not there" * 10])
    assert paste(kept, places, [*pieces, b"not there" * 10]) == body


def test_what_is_beside_is_not_kept() -> None:
    """Each piece leaves nothing but its place."""
    payload, receipt = b"p" * 2000, b"r" * 1200
    body = b'{"normalized":%b,"receipt":%b}' % (payload, receipt)
    kept, places = cut(body, [payload, receipt])
    assert (kept, places) == (b'{"normalized":,"receipt":}', "14,25")


def test_a_piece_that_is_gone_is_never_left_out() -> None:
    """An answer whose payload was erased is no answer, not a shorter one."""
    kept, places = cut(b"[" + b"p" * 100 + b"]", [b"p" * 100])
    assert paste(kept, places, [None]) is None
    assert paste(b"[]", "", [None]) == b"[]"


@given(st.binary())
def test_a_jws_is_kept_without_its_payload(payload: bytes) -> None:
    """A JWS is put together again to the letter; one that was kept whole stays as it is."""
    jws = f"header.{b64url(payload)}.signature" if payload else "header..signature"
    assert detach(jws) == "header..signature"
    assert attach(detach(jws), payload) == jws
    assert attach(jws, payload) == jws


@pytest.mark.anyio
async def test_the_database_keeps_pieces_and_tells_the_whole(db: Database) -> None:
    """What is stored is short, what is replayed is every byte; rows from before are whole."""
    item = pending("a", payload=b'"' + b"x" * 500 + b'"')

    def whole(pending: object, last: object) -> object:
        sealed = seal(pending, last)  # type: ignore[arg-type]
        body = b'{"normalized":%b,"receipt":%b}' % (sealed.payload, sealed.canonical)
        object.__setattr__(sealed.answer, "body", body)
        return sealed

    [told] = await db.transact(commit_exchanges, [item], whole)  # type: ignore[arg-type]
    body = told.sealed.answer.body  # type: ignore[union-attr]

    async def stored(tx: ReadTx) -> int | None:
        return await tx.one(int, "SELECT length(body) FROM answers")

    async def replayed() -> bytes:
        known = await db.read_current(read_known, TENANT, key(f"{TENANT}/a"), item.fingerprint)
        assert isinstance(known, Replay)
        return known.answer.body

    assert await db.read_current(stored) == len(b'{"normalized":,"receipt":}')
    assert await replayed() == body

    async def as_before(tx: Tx) -> None:
        await tx.execute("UPDATE answers SET body = :body, places = NULL", body=b"old")

    await db.transact(as_before)
    assert await replayed() == b"old"
    assert await commit(db, item) == [
        await db.read_current(read_known, TENANT, key(f"{TENANT}/a"), item.fingerprint)
    ]
