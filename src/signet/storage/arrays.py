"""Columns of texts and numbers go to PostgreSQL as array literals (PostgreSQL manual, 8.15.6).

asyncpg asks of every element of an array whether it is an array itself, which costs more than all
else that is done with it. A literal is one text, put together by one `join`. Bytes stay as they
are: as a literal they would be twice as long.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, cast

from signet.storage.tx import Value

_Column = Sequence[Value]

_MARK: Final = re.compile(r"\$(\d+)::(text|bigint)\[\]")


@lru_cache(maxsize=256)
def with_literals(sql: str) -> tuple[str, Sequence[Callable[[_Column], object]]]:
    """The statement as it takes literals, and what makes the argument of each column in order."""
    kinds = {int(found[1]): found[2] for found in _MARK.finditer(sql)}
    last = max(int(number) for number in re.findall(r"\$(\d+)", sql))
    text = _MARK.sub(lambda found: f"${found[1]}::text::{found[2]}[]", sql)
    return text, [_MAKE.get(kinds.get(number, ""), _as_it_is) for number in range(1, last + 1)]


def texts(column: _Column) -> str:
    """An array literal of texts; None becomes NULL."""
    try:
        joined = '","'.join(cast("Sequence[str]", column))
    except TypeError:  # a NULL among them
        return _quoted(column)
    if "\\" in joined or joined.count('"') != 2 * (len(column) - 1):
        return _quoted(column)
    return f'{{"{joined}"}}'


def numbers(column: _Column) -> str:
    """An array literal of integers; None becomes NULL."""
    literal = ",".join(map(str, column))
    return f"{{{literal.replace('None', 'NULL')}}}"


def _quoted(column: _Column) -> str:
    return f"{{{','.join(map(_element, cast('Sequence[str | None]', column)))}}}"


def _element(text: str | None) -> str:
    if text is None:
        return "NULL"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _as_it_is(column: _Column) -> object:
    return column


_MAKE: Final[dict[str, Callable[[_Column], object]]] = {"text": texts, "bigint": numbers}
