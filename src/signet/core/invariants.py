"""What every repair must leave as it was, whoever made it.

Held against a heuristic repair and against a model's answer alike: every scalar of the original
text reappears unchanged under the name it had, and none is added.
"""

from __future__ import annotations

from signet.core.errors import Fault
from signet.receipts.canonical import Json


def violations(
    original: str, repaired: str, *, schema: Json | None = None, limit: int = 20
) -> tuple[Fault, ...]:
    """What `repaired` (strict JSON) says that `original` does not, or the reverse; () is good.

    Codes are `semantic_violation` and `semantic_violation_<subject>`; pointers lead into
    `repaired`.
    """
    raise NotImplementedError
