"""The verdicts are a stable vocabulary."""

from signet.egress.verdict import Verdict


def test_codes_are_stable() -> None:
    """The reasons that receipts and metrics carry are exactly these."""
    assert {verdict.value for verdict in Verdict} == {
        "ok",
        "HEL_URL_INVALID",
        "HEL_SCHEME_NOT_HTTPS",
        "HEL_HOST_NOT_ALLOWED",
        "HEL_METHOD_NOT_ALLOWED",
        "HEL_PATH_NOT_ALLOWED",
        "HEL_CONTENT_TYPE_NOT_ALLOWED",
        "HEL_BODY_TOO_LARGE",
        "HEL_RESOLVED_LOOPBACK",
        "HEL_RESOLVED_PRIVATE",
        "HEL_RESOLVED_LINKLOCAL",
        "HEL_RESOLVED_RESERVED",
        "HEL_PEER_MISMATCH",
    }
