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
    arrays = [f"ARRAY(SELECT x FROM ({text}) AS x)" for text in _renumbered(statements)]  # noqa: S608
    return f"SELECT {', '.join(arrays)}"


@lru_cache(maxsize=64)
def counts_of(statements: tuple[str, ...]) -> str:
    """One statement that carries out all of them, and tells how many rows each touched.

    The counts are taken in this order, which is what makes the statements run in it.
    """
    steps = [f"s{n} AS ({text} RETURNING 1)" for n, text in enumerate(_renumbered(statements))]
    counts = [f"(SELECT count(*) FROM s{n})" for n in range(len(statements))]  # noqa: S608
    return f"WITH {', '.join(steps)} SELECT {', '.join(counts)}"


def _renumbered(statements: Sequence[str]) -> list[str]:
    texts: list[str] = []
    before = 0
    for statement in statements:
        last = before + max(int(found[1]) for found in _MARK.finditer(statement))
        texts.append(
            _MARK.sub(lambda found, behind=before: f"${behind + int(found[1])}", statement)
        )
        before = last
    return texts
