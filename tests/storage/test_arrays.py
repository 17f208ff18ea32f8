"""Texts and numbers reach PostgreSQL as they are, whatever is in them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.postgres import Postgres

from signet.storage.arrays import numbers, texts, with_literals
from signet.storage.config import PostgresConfig
from signet.storage.database import open_database
from signet.storage.tx import PerRow, ReadTx, Value

# What an array literal gives a meaning to, and what else a text may hold.
TEXTS = (
    st.none()
    | st.text('{}",\\NULnul \n\t\x1fé𝄞')
    | st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))
)
NUMBERS = st.none() | st.integers(-(2**63), 2**63 - 1)
ROWS = st.lists(st.tuples(TEXTS, NUMBERS, st.none() | st.binary()), min_size=1, max_size=6)
STATEMENT = PerRow(
    sqlite="SELECT ?, ?, ?",
    postgres="SELECT * FROM unnest($1::text[], $2::bigint[], $3::bytea[])",
)


async def back(tx: ReadTx, several: Sequence[Sequence[tuple[Value, ...]]]) -> list[object]:
    """Each table's rows, as the server reads them."""
    return [await tx.each(lambda *row: row, STATEMENT, rows) for rows in several]


@given(several=st.lists(ROWS, min_size=1, max_size=5))
@pytest.mark.anyio
async def test_round_trip(postgres: Postgres, several: list[list[tuple[Value, ...]]]) -> None:
    """Every row comes back as it went."""
    url = postgres.url(postgres.empty_database())
    async with open_database(PostgresConfig(url=url)) as db:
        assert await db.read_current(back, several) == several


def test_literals() -> None:
    """The usual column takes one join; quotes and backslashes are escaped, None is NULL."""
    assert texts(("a", "b c", "")) == '{"a","b c",""}'
    assert texts(('say "x"', "NULL", None)) == r'{"say \"x\"","NULL",NULL}'
    assert texts(("back\\slash",)) == r'{"back\\slash"}'
    assert texts(('","',)) == r'{"\",\""}'
    assert numbers((1, None, -(2**63))) == "{1,NULL,-9223372036854775808}"


def test_a_number_among_texts_is_refused() -> None:
    """As the driver refuses it: nothing is turned into a text by the way."""
    with pytest.raises(AttributeError):
        texts(("a", 1))


def test_statement() -> None:
    """Texts and numbers go as literals, wherever they stand; the rest as it is."""
    sql, forms = with_literals(
        "INSERT INTO t SELECT ($2::bigint[])[1] FROM unnest($1::bytea[], $3::text[]) WHERE $4::text"
    )
    assert sql == (
        "INSERT INTO t SELECT ($2::text::bigint[])[1] FROM unnest($1::bytea[], $3::text::text[])"
        " WHERE $4::text"
    )
    column = ("a", None)
    assert [form is made for form, made in zip(forms[1:3], (numbers, texts), strict=True)]
    assert forms[0](column) is column
    assert forms[3](column) is column
