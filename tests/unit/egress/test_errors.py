"""One root, few leaves, stable codes."""

from signet.egress import errors
from signet.egress.verdict import Verdict


def test_every_error_has_a_code_of_its_own() -> None:
    """Each leaf can be told from the others by its code, and caught by the root."""
    leaves = errors.EgressError.__subclasses__()
    codes = {leaf.code for leaf in leaves}
    assert len(codes) == len(leaves) == 4
    assert errors.EgressError.code not in codes


def test_target_invalid_carries_its_verdict() -> None:
    """A caller can turn a bad URL into a refusal without reading the message."""
    error = errors.TargetInvalid(Verdict.URL_INVALID, "the URL has no host")
    assert error.verdict is Verdict.URL_INVALID
    assert str(error) == "the URL has no host"
