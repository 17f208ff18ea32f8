"""Why a gateway does not start."""

from __future__ import annotations

from signet.core.errors import SignetError


class StartRefused(SignetError):
    """The gateway cannot start as it is set up; the message says what to mend."""

    code = "start_refused"
