"""The errors of the receipts library."""

from signet.receipts import errors
from signet.receipts.report import Step


def test_one_root() -> None:
    """Every error of the library can be caught as ReceiptError."""
    leaves = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ]
    assert all(issubclass(leaf, errors.ReceiptError) for leaf in leaves)
    assert len(leaves) == 7


def test_the_message_names_the_place() -> None:
    """What a person reads says where; the whole document goes without saying."""
    assert str(errors.ParseError("Bad.", code="invalid_json", pointer="/a/0")) == "Bad. (at /a/0)"
    assert str(errors.ParseError("Bad.", code="invalid_json")) == "Bad."


def test_a_hostile_name_does_not_make_a_huge_error() -> None:
    """A pointer is cut, so that a megabyte in does not become a megabyte out."""
    error = errors.ParseError("Bad.", code="invalid_json", pointer="/" + "a" * 10**6)
    assert len(error.pointer) == 1024
    assert len(str(error)) < 1100


def test_a_verification_error_says_step_hop_and_member() -> None:
    """The three coordinates of a failed proof are attributes, not only words."""
    error = errors.VerificationError("No.", step=Step.CHAIN, code="x", hop=3, member="hop")
    assert (error.step, error.code, error.hop, error.member) == (Step.CHAIN, "x", 3, "hop")
