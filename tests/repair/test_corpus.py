"""The corpus, held against the repair: nothing silently wrong, nearly everything mended."""

from __future__ import annotations

import pytest
from tests.repair.cases import REFUSED, REPAIRABLE, Case, spelled

from signet.core.invariants import violations
from signet.core.repair import Repaired, Unrepairable, repair


def _label(case: Case) -> str:
    return f"{case.dialect}-{case.text[:40]!r}"


def test_the_corpus_is_large_and_half_of_it_must_be_refused() -> None:
    """The corpus has at least 250 cases, half of which have no one meaning."""
    assert len(REPAIRABLE) + len(REFUSED) >= 250
    assert len(REFUSED) >= len(REPAIRABLE)


@pytest.mark.parametrize("case", REPAIRABLE, ids=_label)
def test_a_text_with_one_meaning_gets_it(case: Case) -> None:
    """The repaired text says exactly what was meant, with every number as it was spelled."""
    result = repair(case.text, schema=case.schema)
    assert isinstance(result, Repaired), result
    assert case.meaning is not None
    assert spelled(result.text) == spelled(case.meaning)


@pytest.mark.parametrize("case", REPAIRABLE, ids=_label)
def test_a_repair_is_idempotent(case: Case) -> None:
    """What was repaired needs no further repair."""
    first = repair(case.text, schema=case.schema)
    assert isinstance(first, Repaired)
    second = repair(first.text, schema=case.schema)
    assert isinstance(second, Repaired)
    assert (second.text, second.edits) == (first.text, ())


@pytest.mark.parametrize("case", REPAIRABLE, ids=_label)
def test_the_invariants_hold_for_every_repair(case: Case) -> None:
    """The guard, which reads the original by itself, finds nothing changed."""
    result = repair(case.text, schema=case.schema)
    assert isinstance(result, Repaired)
    assert violations(case.text, result.text, schema=case.schema) == ()


@pytest.mark.parametrize("case", REFUSED, ids=_label)
def test_a_text_without_one_meaning_is_refused(case: Case) -> None:
    """Nothing is made of a text that could mean two things."""
    result = repair(case.text, schema=case.schema)
    assert isinstance(result, Unrepairable), result
    assert result.code
    assert 0 <= result.offset <= len(case.text)
