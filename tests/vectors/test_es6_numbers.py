"""The ES6 number sequence of the RFC 8785 reference repository, by its published SHA-256."""

import hashlib

import pytest
from tests.vectors import es6_numbers

from signet.receipts.canonical import number_text


@pytest.mark.parametrize("count", es6_numbers.PUBLISHED)
def test_the_first_lines_hash_to_the_published_value(count: int) -> None:
    """Every double of the sequence is spelled as ECMAScript spells it."""
    digest = hashlib.sha256()
    for line in es6_numbers.lines(count, number_text):
        digest.update(line)
    assert digest.hexdigest() == es6_numbers.PUBLISHED[count]
