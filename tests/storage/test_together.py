"""Statements that travel together keep their own parameters and their order."""

from __future__ import annotations

from signet.storage.together import arrays_of, counts_of


def test_reads() -> None:
    """Each SELECT becomes an array of rows, its marks behind those of the one before."""
    assert arrays_of(("SELECT a FROM t WHERE b = $2 AND c = $1 AND d = $2", "SELECT $1::int")) == (
        "SELECT ARRAY(SELECT x FROM (SELECT a FROM t WHERE b = $2 AND c = $1 AND d = $2) AS x),"
        " ARRAY(SELECT x FROM (SELECT $3::int) AS x)"
    )


def test_writes() -> None:
    """Each write becomes a step, and the steps are counted in the order given."""
    assert counts_of(("DELETE FROM t WHERE a = $1", "INSERT INTO t SELECT $1, $2")) == (
        "WITH s0 AS (DELETE FROM t WHERE a = $1 RETURNING 1),"
        " s1 AS (INSERT INTO t SELECT $2, $3 RETURNING 1)"
        " SELECT (SELECT count(*) FROM s0), (SELECT count(*) FROM s1)"
    )


def test_writes_and_reads() -> None:
    """What is asked stands behind the counts, its marks behind those of the writes."""
    assert counts_of(("DELETE FROM t WHERE a = $1",), ("SELECT a FROM t WHERE b = $1",)) == (
        "WITH s0 AS (DELETE FROM t WHERE a = $1 RETURNING 1)"
        " SELECT (SELECT count(*) FROM s0),"
        " ARRAY(SELECT x FROM (SELECT a FROM t WHERE b = $2) AS x)"
    )


def test_guards() -> None:
    """The counts that are wanted come last, behind all that is asked."""
    delete, select = "DELETE FROM t WHERE a = $1", "SELECT a FROM t WHERE b = $1"
    assert counts_of((delete, delete), (select,), 1) == (
        "WITH s0 AS (DELETE FROM t WHERE a = $1 RETURNING 1),"
        " s1 AS (DELETE FROM t WHERE a = $2 RETURNING 1)"
        " SELECT (SELECT count(*) / (count(*) = $4::bigint)::int FROM s0),"
        " (SELECT count(*) FROM s1), ARRAY(SELECT x FROM (SELECT a FROM t WHERE b = $3) AS x)"
    )
