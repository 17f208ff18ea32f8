"""Tables of plain text."""

from __future__ import annotations

from signet.cli.tables import table


def test_columns() -> None:
    """Columns are as wide as their widest cell, numbers flush right, no blanks at a line's end."""
    rows = [("acme", "1", "x"), ("b", "1,000", "")]
    assert table(("who", ">units", "what"), rows) == (
        "who   units  what\n"
        "acme      1  x\n"
        "b     1,000"
    )  # fmt: skip


def test_no_rows() -> None:
    """The head stands alone."""
    assert table(("a", ">b"), []) == "a  b"
