"""Amounts become minor units exactly, or not at all."""

from __future__ import annotations

import time
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signet.core.units import (
    MAX_MINOR,
    MINOR_UNIT_EXPONENTS,
    AmountError,
    AmountMalformed,
    AmountOutOfRange,
    AmountTooFine,
    UnknownCurrency,
    exponent,
    to_minor,
)

CURRENCIES = st.sampled_from(sorted(MINOR_UNIT_EXPONENTS))


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        (Decimal("123.45"), "USD", 12345),
        ("123.45", "USD", 12345),
        ("123.450", "USD", 12345),
        ("0.07", "EUR", 7),
        ("4.35", "EUR", 435),
        ("1e2", "EUR", 10000),
        ("1.5E-1", "EUR", 15),
        (500, "JPY", 500),
        ("500.00", "JPY", 500),
        ("1.234", "KWD", 1234),
        ("1.2345", "CLF", 12345),
        (Decimal("-12.30"), "EUR", -1230),
        ("-0", "EUR", 0),
        ("0e999999", "EUR", 0),
        ("007.50", "EUR", 750),
        ("90071992547409.91", "USD", MAX_MINOR),
        (-MAX_MINOR, "JPY", -MAX_MINOR),
    ],
)
def test_an_amount_becomes_minor_units_exactly(amount: object, currency: str, minor: int) -> None:
    """The currency's own exponent decides, and trailing zeros do not matter."""
    assert to_minor(amount, currency) == minor


@pytest.mark.parametrize(
    ("amount", "currency"),
    [
        ("0.001", "USD"),
        ("1.5", "JPY"),
        ("1.2345", "KWD"),
        ("1e-999990", "USD"),
        (Decimal("1e-999990"), "USD"),
        (Decimal("12.345"), "EUR"),
        ("0.000000000000000000000000001", "CLF"),
    ],
)
def test_finer_than_the_minor_unit_is_refused(amount: object, currency: str) -> None:
    """Nothing is rounded: an amount the currency cannot express is an error."""
    with pytest.raises(AmountTooFine):
        to_minor(amount, currency)


@pytest.mark.parametrize(
    "amount",
    [
        "NaN",
        "sNaN",
        "Infinity",
        "-inf",
        "",
        " 1",
        "1 ",
        "1_000",
        "1,000.00",
        "$5",
        "+5",
        ".5",
        "5.",
        "١٢",
        "１２",
        "0x10",
        "1e",
        "(100)",
        "1" * 65,
        "1\n",
        True,
        False,
        None,
        1.5,
        [1],
        {"amount": 1},
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("Infinity"),
    ],
)
def test_what_is_no_decimal_number_is_refused(amount: object) -> None:
    """Only JSON's number grammar counts, in ASCII, whole, finite, and never a float or a bool."""
    with pytest.raises(AmountMalformed):
        to_minor(amount, "EUR")


@pytest.mark.parametrize(
    "amount",
    [
        "1e999990",
        "-1e999990",
        Decimal("1e999990"),
        pytest.param(10**100_000, id="10**100000"),
        pytest.param(-(10**100_000), id="-10**100000"),
        "90071992547409.92",
        MAX_MINOR,
        "9" * 64,
        pytest.param(Decimal("1" * 100_000), id="100000 digits"),
    ],
)
def test_a_huge_amount_is_refused_at_once(amount: object) -> None:
    """An exponent is never expanded: the refusal takes no time and no memory."""
    started = time.process_time()
    with pytest.raises(AmountOutOfRange):
        to_minor(amount, "EUR")
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    "currency", ["", "EURO", "eur", "XXX", "XAU", "DEM", "ZZZ", "€", "E" * 999]
)
def test_an_unknown_currency_is_refused_in_few_words(currency: str) -> None:
    """Withdrawn codes, metals and lower case are no currencies, and the message stays short."""
    with pytest.raises(UnknownCurrency) as refused:
        to_minor("1", currency)
    assert len(refused.value.detail) < 100


def test_the_table_is_the_published_one() -> None:
    """List one of 2026-01-01 has 165 codes with a minor unit; spot checks of every exponent."""
    assert len(MINOR_UNIT_EXPONENTS) == 165
    assert [exponent(code) for code in ("EUR", "JPY", "KWD", "CLF", "ISK", "UGX", "MGA")] == [
        *(2, 0, 3, 4, 0, 0, 2)
    ]


@settings(deadline=None)
@given(minor=st.integers(-MAX_MINOR, MAX_MINOR), currency=CURRENCIES)
def test_minor_units_and_decimals_are_the_same_amount(minor: int, currency: str) -> None:
    """Whatever an integer of minor units spells as a decimal comes back as that integer."""
    amount = Decimal(minor).scaleb(-exponent(currency))
    assert to_minor(amount, currency) == to_minor(f"{amount:f}", currency) == minor


@settings(deadline=None)
@given(amount=st.one_of(st.decimals(), st.text(max_size=80), st.integers()), currency=CURRENCIES)
def test_any_amount_is_exact_or_refused(amount: object, currency: str) -> None:
    """There is no third way: the result equals the amount shifted, or a refusal of ours."""
    try:
        minor = to_minor(amount, currency)
    except AmountError:
        return
    assert Decimal(minor) == Decimal(str(amount)).scaleb(exponent(currency))
