"""Values are compared and hashed by what they hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from signet.core.values import value_class


@value_class
class Point:
    """Two members."""

    x: int
    y: int = 0


def test_it_is_a_value() -> None:
    """Equal ones are one key of a dict, and a copy can differ in a member."""
    assert {Point(x=1): "a"}[Point(x=1, y=0)] == "a"
    assert replace(Point(x=1), y=2) == Point(x=1, y=2) != Point(x=1)


def test_it_has_these_members_only() -> None:
    """Members are named when it is made, and no other can be set."""
    with pytest.raises(TypeError):
        Point(1)  # pyright: ignore
    with pytest.raises(AttributeError):
        Point(x=1).z = 3  # pyright: ignore
