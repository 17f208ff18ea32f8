"""Several PostgreSQL statements become one, so that a batch waits for one answer and not for each.

What is joined are whole statements as they stand in the code; nothing else is put into them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

_MARK = re.compile(r"\$(\d+)")


@lru_cache(maxsize=64)
def arrays_of(statements: tuple[str, ...]) -> str:
    """One statement whose only row has, for each SELECT, an array of that one's rows.

    The marks `$1`, `$2`, ... of each statement go on behind those of the one before.
    """
    return f"SELECT {', '.join(map(_array, _renumbered(statements)))}"


@lru_cache(maxsize=64)
def counts_of(statements: tuple[str, ...], asked: tuple[str, ...] = (), guards: int = 0) -> str:
    """One statement that carries out all of them, and tells how many rows each touched.

    The counts are taken in this order, which is what makes the statements run in it. Behind them
    its row has an array of rows for each SELECT of `asked`, which is answered last. The first
    `guards` have to touch as many rows as the last arguments say, one for each; otherwise nothing
    behind them is begun, and the server reports a division by zero.
    """
    texts = _renumbered((*statements, *asked))
    steps = [f"s{n} AS ({text} RETURNING 1)" for n, text in enumerate(texts[: len(statements)])]
    told = [f"(SELECT count(*) FROM s{n})" for n in range(len(statements))]  # noqa: S608
    last = _last_mark(texts)
    for n in range(guards):
        wanted = f"count(*) = ${last + n + 1}::bigint"
        told[n] = f"(SELECT count(*) / ({wanted})::int FROM s{n})"  # noqa: S608
    arrays = map(_array, texts[len(statements) :])
    return f"WITH {', '.join(steps)} SELECT {', '.join((*told, *arrays))}"


def _array(text: str) -> str:
    return f"ARRAY(SELECT x FROM ({text}) AS x)"  # noqa: S608


def _renumbered(statements: Sequence[str]) -> list[str]:
    texts: list[str] = []
    before = 0
    for statement in statements:
        last = before + _last_mark((statement,))
        texts.append(
            _MARK.sub(lambda found, behind=before: f"${behind + int(found[1])}", statement)
        )
        before = last
    return texts


def _last_mark(texts: Sequence[str]) -> int:
    return max(int(found[1]) for text in texts for found in _MARK.finditer(text))
