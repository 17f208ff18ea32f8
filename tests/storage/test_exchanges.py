"""The hot path's promises: one receipt per key, consecutive hops, nothing half-written."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.storage.ledger import (
    TENANT,
    commit,
    count,
    hashes,
    key,
    pending,
    receipts_of,
    seal,
    text,
)

from signet.storage.database import Database
from signet.storage.errors import IntegrityViolated, StorageError
from signet.storage.exchanges import (
    ChainMoved,
    Committed,
    Erased,
    FenceLost,
    Head,
    KeyReused,
    Replay,
    commit_exchanges,
    read_known,
)
from signet.storage.receipts import by_hash, erase_payload, head
from signet.storage.tx import ReadTx, Tx
from signet.storage.usage import totals

pytestmark = pytest.mark.anyio


async def test_first_receipt_begins_the_chain(db: Database) -> None:
    """A new trace begins at hop 1 with no predecessor, and its head names that receipt."""
    [result] = await commit(db, pending("a"))
    assert isinstance(result, Committed)
    assert result.sealed.hop == 1
    assert await db.read_current(head, TENANT, "trace-1") == Head(
        hop=1, receipt_hash=result.sealed.receipt_hash
    )


async def test_appends_in_one_batch_chain_in_order(db: Database) -> None:
    """Exchanges of one trace in one batch take consecutive hops in the order given."""
    await commit(db, pending("a"))
    await commit(db, *(pending(f"b{i}") for i in range(20)))
    assert len(await receipts_of(db, "trace-1")) == 21


async def test_many_traces_in_one_batch(db: Database) -> None:
    """Every trace of a batch grows by its own exchanges, whether new or old."""
    await commit(db, *(pending(f"a{i}", trace=f"t{i}") for i in range(5)))
    await commit(db, *(pending(f"b{i}", trace=f"t{i % 7}") for i in range(14)))
    lengths = [len(await receipts_of(db, f"t{i}")) for i in range(7)]
    assert lengths == [3, 3, 3, 3, 3, 2, 2]


async def test_two_tenants_with_one_trace_id_see_two_chains(db: Database) -> None:
    """A trace is (tenant, trace_id)."""
    await commit(db, pending("a"), pending("a", tenant="other"), pending("b", tenant="other"))
    assert len(await receipts_of(db, "trace-1")) == 1
    assert len(await receipts_of(db, "trace-1", tenant="other")) == 2


async def test_replay_is_byte_for_byte(db: Database) -> None:
    """The same call again yields the stored answer, and nothing is written."""
    [first] = await commit(db, pending("a"))
    [again] = await commit(db, pending("a"))
    assert isinstance(first, Committed)
    assert again == Replay(
        answer=first.sealed.answer, receipt_hash=first.sealed.receipt_hash, trace_id="trace-1"
    )
    assert await db.read_current(count) == 1


async def test_replay_names_the_first_trace(db: Database) -> None:
    """A retry whose trace id was made by the server anew is told the first one."""
    await commit(db, pending("a"))
    [again] = await commit(db, pending("a", trace="made-anew"))
    assert isinstance(again, Replay)
    assert again.trace_id == "trace-1"
    assert await db.read_current(head, TENANT, "made-anew") is None


async def test_duplicate_in_one_batch_replays_the_first(db: Database) -> None:
    """A thousand calls with one key in one batch make one receipt."""
    results = await commit(db, *(pending("a") for _ in range(1000)))
    assert isinstance(results[0], Committed)
    assert all(isinstance(result, Replay) for result in results[1:])
    assert len(set(hashes(results))) == 1
    assert await db.read_current(count) == 1


async def test_other_body_under_the_same_key(db: Database) -> None:
    """A key with another fingerprint is refused, in the same batch and later."""
    results = await commit(db, pending("a"), pending("a", body=b"other"))
    assert results[1] == KeyReused()
    assert await commit(db, pending("a", body=b"other")) == [KeyReused()]


async def test_key_scope_is_the_tenant(db: Database) -> None:
    """Two tenants may use the same key hash and never see each other's answers."""
    mine = pending("a")
    theirs = replace(pending("a", tenant="other"), key_hash=mine.key_hash)
    results = await commit(db, mine, theirs)
    assert [type(result) for result in results] == [Committed, Committed]


async def test_keyless_receipt_is_appended(db: Database) -> None:
    """A receipt that nobody can retry has no key and no stored answer."""
    results = await commit(db, pending("a", keyed=False), pending("a2", keyed=False))
    assert [type(result) for result in results] == [Committed, Committed]
    assert await db.read_current(_rows_in_answers) == 0


async def _rows_in_answers(tx: ReadTx) -> int | None:
    return await tx.one(int, "SELECT count(*) FROM answers")


@pytest.mark.parametrize("wrong", [None, "sha256:" + "0" * 64])
async def test_explicit_predecessor_that_is_not_last(db: Database, wrong: str | None) -> None:
    """An exchange that names another predecessor writes nothing and does not use up its key."""
    [first] = await commit(db, pending("a"))
    assert isinstance(first, Committed)
    last = first.sealed.receipt_hash
    assert await commit(db, pending("b", expected_prev=wrong)) == [
        ChainMoved(head=Head(hop=1, receipt_hash=last))
    ]
    [second] = await commit(db, pending("b", expected_prev=last))
    assert isinstance(second, Committed)


async def test_explicit_predecessor_moves_within_the_batch(db: Database) -> None:
    """The second of two that name the same predecessor finds the chain moved."""
    results = await commit(db, pending("a", expected_prev=None), pending("b", expected_prev=None))
    assert isinstance(results[0], Committed)
    assert isinstance(results[1], ChainMoved)


async def test_chain_expected_where_none_is(db: Database) -> None:
    """Naming a predecessor on a trace that does not exist finds no head."""
    assert await commit(db, pending("a", expected_prev="sha256:" + "1" * 64)) == [
        ChainMoved(head=None)
    ]


async def test_fence_without_a_claim(db: Database) -> None:
    """An exchange that says it claimed its key, but did not, writes nothing."""
    assert await commit(db, pending("a", fence=7)) == [FenceLost(receipt_hash=None)]
    assert await db.read_current(count) == 0


async def test_usage_is_counted_once_per_receipt(db: Database) -> None:
    """Totals equal the receipts' units, per period and meter, whatever the batching."""
    await commit(
        db,
        pending("a", fu_tokens=10),
        pending("a", fu_tokens=10),
        pending("b", outcome="denied", vex_units=0, fu_tokens=5),
        pending("c", period="2026-12"),
    )
    await commit(db, pending("d"))
    november = await db.read_current(totals, TENANT, "2026-11")
    assert {total.meter: total.units for total in november} == {"vex": 2, "fu": 15}
    december = await db.read_current(totals, TENANT, "2026-12")
    assert {total.meter: total.units for total in december} == {"vex": 1}


async def test_wrong_hop_is_refused(db: Database) -> None:
    """A receipt sealed for another place in the chain is never written."""
    with pytest.raises(IntegrityViolated):
        await commit(db, pending("a", hop=5))
    assert await db.read_current(count) == 0


async def test_same_receipt_hash_twice_is_refused(db: Database) -> None:
    """No two rows carry one receipt hash, even if the code that seals errs."""
    [first] = await commit(db, pending("a"))
    assert isinstance(first, Committed)
    with pytest.raises(IntegrityViolated):
        await commit(db, pending("b", trace="t2", receipt_hash=first.sealed.receipt_hash))
    assert await db.read_current(head, TENANT, "t2") is None


async def test_chain_row_is_guarded_by_the_schema(db: Database) -> None:
    """Two receipts at one hop of one chain are refused by the schema itself."""
    await commit(db, pending("a"))

    async def fork(tx: Tx) -> None:
        await tx.execute(
            """
            INSERT INTO receipts (id, trace, hop, tenant, kind, outcome, ts_us, period, vex_units,
                fu_tokens, receipt_hash, jws, canonical)
            SELECT id + 1000, trace, hop, tenant, kind, outcome, ts_us, period, vex_units,
                fu_tokens, :other, jws, canonical FROM receipts
            """,
            other=b"0" * 32,
        )

    with pytest.raises(IntegrityViolated):
        await db.transact(fork)


async def test_a_fault_while_sealing_leaves_nothing(db: Database) -> None:
    """If sealing fails, the whole transaction is rolled back and the error reaches the caller."""
    with pytest.raises(RuntimeError, match="no key"):
        await commit(db, pending("a"), pending("b", fault="no key"))
    assert await db.read_current(count) == 0
    assert hashes(await commit(db, pending("a")))


async def test_erased_answer(db: Database) -> None:
    """After erasure a replay yields the receipt and no content; the receipt stands."""
    [first] = await commit(db, pending("a"))
    assert isinstance(first, Committed)
    cid = text(b"payload of a")
    assert await db.transact(erase_payload, TENANT, cid) == 1
    [again] = await commit(db, pending("a"))
    assert again == Erased(
        receipt_hash=first.sealed.receipt_hash,
        canonical=first.sealed.canonical,
        jws=first.sealed.jws,
    )
    assert await db.read_current(by_hash, TENANT, first.sealed.receipt_hash)


async def test_known_before_the_work(db: Database) -> None:
    """What is known about a key can be asked without writing."""
    item = pending("a")
    fingerprint = item.fingerprint
    a = key(f"{TENANT}/a")
    assert await db.read_current(read_known, TENANT, a, fingerprint) is None
    [first] = await commit(db, item)
    assert isinstance(first, Committed)
    known = await db.read_current(read_known, TENANT, a, fingerprint)
    assert isinstance(known, Replay)
    assert known.answer == first.sealed.answer
    assert await db.read_current(read_known, TENANT, a, b"x" * 32) == KeyReused()
    assert await db.read_current(read_known, "other", a, fingerprint) is None


async def test_malformed_hash_is_an_error_not_a_row(db: Database) -> None:
    """A seal that hands over something that is no SHA-256 text writes nothing."""
    with pytest.raises(ValueError, match="sha256"):
        await commit(db, pending("a", receipt_hash="md5:1234"))
    assert await db.read_current(count) == 0


async def test_empty_batch(db: Database) -> None:
    """Nothing to do is not an error."""
    assert await commit(db) == []


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    batches=st.lists(
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), max_size=8), max_size=6
    )
)
async def test_any_batching_gives_the_same_log(
    db: Database, batches: list[list[tuple[int, int]]]
) -> None:
    """Whatever the batches: one receipt per key, hops consecutive, units equal to receipts."""
    # Each example has its own tenant, since the database is shared between examples.
    tenant = f"t{_fresh()}"
    seen: dict[int, str] = {}
    for batch in batches:
        items = [pending(str(name), trace=f"c{trace}", tenant=tenant) for name, trace in batch]
        for (name, _), found in zip(batch, hashes(await commit(db, *items)), strict=True):
            assert seen.setdefault(name, found) == found
    chains = [await receipts_of(db, f"c{trace}", tenant=tenant) for trace in range(3)]
    assert sorted(r.receipt_hash for c in chains for r in c) == sorted(seen.values())
    units = {t.meter: t.units for t in await db.read_current(totals, tenant, "2026-11")}
    assert units.get("vex", 0) == len(seen)


_examples = iter(range(10**9))


def _fresh() -> int:
    return next(_examples)


async def test_statement_that_fails_inside_is_not_swallowed(db: Database) -> None:
    """A unit that catches a constraint's refusal and goes on is rolled back all the same."""

    async def careless(tx: Tx) -> str:
        with contextlib.suppress(StorageError):
            await commit_exchanges(tx, [pending("b", receipt_hash=first)], seal)
        return "fine"

    [first] = hashes(await commit(db, pending("a")))
    with pytest.raises(StorageError):
        await db.transact(careless)
    assert await db.read_current(count) == 1
