"""Money in minor units, exactly (ISO 4217).

"12.30 EUR" becomes 1230 cents by decimal arithmetic; nothing is ever rounded. An amount finer
than its currency's minor unit is an error, because silently dropping half a cent changes what the
agent asked for.
"""

from __future__ import annotations

from decimal import Decimal

from signet.core.errors import SignetError

# The largest integer that every JSON reader keeps exact (RFC 7493 §2.2).
MAX_MINOR = 2**53 - 1


class AmountError(SignetError):
    """The root of what can be wrong with an amount of money."""

    code = "amount_invalid"


class UnknownCurrency(AmountError):
    """Not an active ISO 4217 alphabetic code with a minor unit."""

    code = "currency_unknown"


class AmountMalformed(AmountError):
    """Not a finite decimal number."""

    code = "amount_malformed"


class AmountTooFine(AmountError):
    """Finer than the currency's minor unit."""

    code = "amount_too_fine"


class AmountOutOfRange(AmountError):
    """More than 2^53 - 1 minor units either way."""

    code = "amount_out_of_range"


def exponent(currency: str) -> int:
    """How many decimals the currency's minor unit has: EUR 2, JPY 0, KWD 3.

    Raises `UnknownCurrency`.
    """
    raise NotImplementedError


def to_minor(amount: Decimal | int | str, currency: str) -> int:
    """The amount as an integer count of the currency's minor unit; negative amounts stay negative.

    A string must be a plain JSON-like decimal. Raises an `AmountError` leaf, in bounded time
    whatever the exponent ("1e999990" is never expanded).
    """
    raise NotImplementedError
