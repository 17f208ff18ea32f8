"""A JSON value as this library holds it; at the door its numbers are exact (`int`, `Decimal`)."""

from __future__ import annotations

from decimal import Decimal
from typing import TypeAlias

Json: TypeAlias = "bool | int | Decimal | float | str | list[Json] | dict[str, Json] | None"
