"""The labelled corpus: what each broken text means, or that nobody can know what it means.

`repairable.jsonl` holds texts with the value that was meant, `refused.jsonl` texts that have no one
meaning. A label follows the rule (punctuation, quoting, wrappers and literals may change; numbers
and strings may not), not the implementation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from signet.receipts.canonical import Json

_HERE = Path(__file__).parent / "corpus"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One text. `meaning` is the repaired value as JSON text, None where it must be refused."""

    dialect: str
    text: str
    meaning: str | None
    schema: Json


def spelled(text: str) -> object:
    """The value of strict JSON with every number as it is spelled."""
    return json.loads(text, parse_int=_number, parse_float=_number)


def _number(digits: str) -> tuple[str]:
    return (digits,)


def _cases(name: str) -> Iterator[Case]:
    for line in (_HERE / name).read_text(encoding="utf-8").splitlines():
        # The meaning is kept as the text it is, so that `12.50` stays `12.50`.
        record = json.loads(line)
        meaning = line.partition(', "value": ')[2].removesuffix("}") if "value" in record else None
        yield Case(
            dialect=record["dialect"],
            text=record["text"],
            meaning=meaning,
            schema=record.get("schema"),
        )


REPAIRABLE = tuple(_cases("repairable.jsonl"))
REFUSED = tuple(_cases("refused.jsonl"))
