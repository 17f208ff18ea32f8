"""The verdict on a destination: one enum for policy, log, metric and receipt.

The values are stable, are shown to tenants, and name a class of destination, never an address:
what a name resolved to inside a network is nothing an outsider may learn.
"""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """Why a request may go out (`OK`) or may not."""

    OK = "ok"
    # What the URL says.
    URL_INVALID = "HEL_URL_INVALID"
    SCHEME_NOT_HTTPS = "HEL_SCHEME_NOT_HTTPS"
    # What the host egress list says.
    HOST_NOT_ALLOWED = "HEL_HOST_NOT_ALLOWED"
    METHOD_NOT_ALLOWED = "HEL_METHOD_NOT_ALLOWED"
    PATH_NOT_ALLOWED = "HEL_PATH_NOT_ALLOWED"
    CONTENT_TYPE_NOT_ALLOWED = "HEL_CONTENT_TYPE_NOT_ALLOWED"
    BODY_TOO_LARGE = "HEL_BODY_TOO_LARGE"
    # What the addresses say.
    RESOLVED_LOOPBACK = "HEL_RESOLVED_LOOPBACK"
    RESOLVED_PRIVATE = "HEL_RESOLVED_PRIVATE"
    RESOLVED_LINKLOCAL = "HEL_RESOLVED_LINKLOCAL"
    RESOLVED_RESERVED = "HEL_RESOLVED_RESERVED"
    # What the socket says: the connection does not end at the address that was validated.
    PEER_MISMATCH = "HEL_PEER_MISMATCH"
