"""What the database is asked for has names and words as every family has."""

from __future__ import annotations

import re
from dataclasses import fields

from signet.telemetry.vitals import Vitals


def test_each_is_declared_in_words() -> None:
    """Each field makes a family's name and carries its sentence."""
    for told in fields(Vitals):
        assert re.fullmatch(r"[a-z_]+", told.name)
        assert told.metadata["doc"].endswith(".")
