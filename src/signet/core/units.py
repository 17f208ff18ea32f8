"""Money in minor units, exactly (ISO 4217).

"12.30 EUR" becomes 1230 cents by decimal arithmetic; nothing is ever rounded. An amount finer
than its currency's minor unit is an error, because silently dropping half a cent changes what the
agent asked for.
"""

from __future__ import annotations

import re
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, Inexact, Rounded

from signet.core.errors import SignetError

# The largest integer that every JSON reader keeps exact (RFC 7493 §2.2).
MAX_MINOR = 2**53 - 1

# ISO 4217 list one (active codes) as published by its maintenance agency, SIX, on 2026-01-01.
# Left out are the codes without a minor unit ("N.A."): metals, bond units, XDR, XSU, XUA, XTS, XXX.
_CODES_BY_EXPONENT = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: (
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD "
        "CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP "
        "GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK "
        "LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO "
        "NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS "
        "SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST "
        "XAD XCD XCG YER ZAR ZMW ZWG"
    ),
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}

MINOR_UNIT_EXPONENTS = {
    code: exponent for exponent, codes in _CODES_BY_EXPONENT.items() for code in codes.split()
}

# The number grammar of RFC 8259 §6, with leading zeros allowed: agents write "007.50" and there is
# only one thing it can mean. Decimal() alone also takes "NaN", " 1 ", "1_0" and Arabic digits.
_DECIMAL_TEXT = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
_MAX_TEXT = 64
# Moves the point of any amount, and would rather raise than round.
_EXACTLY = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[Inexact, Rounded])


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

    Raises `UnknownCurrency`; codes are upper case, as ISO 4217 writes them.
    """
    found = MINOR_UNIT_EXPONENTS.get(currency)
    if found is None:
        raise UnknownCurrency(f"{currency[:8]!r} is not an active ISO 4217 currency code.")
    return found


def to_minor(amount: object, currency: str) -> int:
    """The amount as an integer count of the currency's minor unit; negative amounts stay negative.

    An amount is a Decimal, an int, or a string in JSON's number grammar. Raises an `AmountError`
    leaf, in bounded time whatever the exponent ("1e999990" is never expanded).
    """
    return scaled(amount, exponent(currency), unit=currency)


def scaled(amount: object, places: int, *, unit: str = "The number") -> int:
    """The amount as an integer count of 10^-places, exactly; `unit` names it in messages.

    Raises as `to_minor`, in bounded time.
    """
    decimal = to_decimal(amount)
    if not decimal:
        return 0
    # adjusted() is the power of ten of the first digit: the size is known before any expansion.
    if decimal.adjusted() + places > 15:
        raise AmountOutOfRange(f"The amount exceeds {MAX_MINOR} of its smallest unit.")
    shifted = decimal.scaleb(places, _EXACTLY)
    minor = int(shifted)
    if minor != shifted:
        raise AmountTooFine(f"{unit} has {places} decimal places; the amount has more.")
    if abs(minor) > MAX_MINOR:
        raise AmountOutOfRange(f"The amount exceeds {MAX_MINOR} of its smallest unit.")
    return minor


def to_decimal(amount: object) -> Decimal:
    """A finite Decimal of exactly what was given. Raises `AmountMalformed`, `AmountOutOfRange`."""
    if isinstance(amount, str):
        if len(amount) > _MAX_TEXT or not _DECIMAL_TEXT.fullmatch(amount):
            raise AmountMalformed('An amount is a decimal number such as "1234.50".')
        return Decimal(amount)
    # bool is an int to Python, but `true` is no amount.
    if isinstance(amount, bool) or not isinstance(amount, (int, Decimal)):
        raise AmountMalformed("An amount is a decimal number, not another type.")
    if isinstance(amount, int):
        # Decimal(int) is quadratic in the digits, so the range is checked first.
        if abs(amount) > MAX_MINOR:
            raise AmountOutOfRange(f"The amount exceeds {MAX_MINOR}.")
        return Decimal(amount)
    if not amount.is_finite():
        raise AmountMalformed("An amount is a finite number.")
    return amount


def plain(decimal: Decimal) -> str:
    """The shortest plain spelling, without exponent: 1E+2 is "100", 1.50 is "1.5", -0 is "0".

    Raises `AmountOutOfRange` beyond 64 digits either way of the point.
    """
    if not decimal:
        return "0"
    _, digits, power = decimal.as_tuple()
    assert isinstance(power, int)
    if decimal.adjusted() > _MAX_TEXT or len(digits) > _MAX_TEXT or power < -_MAX_TEXT:
        raise AmountOutOfRange(f"The number needs more than {_MAX_TEXT} digits.")
    text = f"{decimal:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def with_places(count: int, places: int) -> str:
    """The inverse of `scaled`, as text: (1230, 2) is "12.30", (-5, 3) is "-0.005"."""
    if not places:
        return str(count)
    digits = str(abs(count)).zfill(places + 1)
    return f"{'-' if count < 0 else ''}{digits[:-places]}.{digits[-places:]}"
