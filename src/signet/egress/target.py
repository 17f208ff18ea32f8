"""URL text to `Target`: one strict parser, after which no URL string travels on.

URL libraries disagree about hostile URLs, and the gap between the one that checks and the one
that connects is where requests are smuggled inside. So this module reads less than RFC 3986
allows, refuses whatever two readers could read differently, and hands on parts. Hosts are
IDNA 2008 (RFC 5891); of the mappings of UTS-46 only letter case is applied, the rest is refused.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Literal
from urllib.parse import quote

import idna

from signet.egress.errors import TargetInvalid
from signet.egress.verdict import Verdict

Scheme = Literal["https", "http"]
IPAddress = IPv4Address | IPv6Address

DEFAULT_PORT: Final[dict[Scheme, int]] = {"https": 443, "http": 80}
MAX_URL_CHARS: Final = 8192
MAX_HOST_CHARS: Final = 253

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_LDH_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
# RFC 3986 §3.3 and §3.4: pchar, "/" and "?"; a percent sign only before two hexadecimal digits.
_REQUEST_TARGET = re.compile(r"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*")
_DOT_SEGMENTS = frozenset({".", ".."})


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a request goes, as parts.

    `host` is canonical: lower-case A-labels without a trailing dot, or an IP address in its
    shortest text (IPv6 without brackets). `request_target` is origin-form (RFC 9112 §3.2.1).
    Made by `parse_target` only; nothing else checks what the parts contain.
    """

    scheme: Scheme
    host: str
    port: int
    request_target: str
    address: IPAddress | None = None

    @property
    def authority(self) -> str:
        """The value of the Host field: the port only if it is not the scheme's own."""
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        return host if self.port == DEFAULT_PORT[self.scheme] else f"{host}:{self.port}"

    @property
    def path(self) -> str:
        """The request target without its query."""
        return self.request_target.partition("?")[0]


def parse_target(url: str) -> Target:
    """Read an absolute http or https URL strictly. Raises `TargetInvalid`.

    Whether http may be used at all is for the policy to say. A fragment is dropped, as it never
    belongs to a request (RFC 9110 §4.2.5).
    """
    if len(url) > MAX_URL_CHARS:
        raise _invalid("the URL is too long")
    for character in url:
        if character == "\\" or unicodedata.category(character) in _UNSEEN:
            raise _invalid("the URL contains a space, a control character or a backslash")
    scheme = _scheme(url)
    rest = url[len(scheme) + 1 :]
    if not rest.startswith("//"):
        raise _invalid("the scheme is not followed by //")
    authority, tail = _cut_authority(rest[2:])
    host_text, port = _split_authority(authority, scheme)
    host, address = parse_host(host_text)
    return Target(
        scheme=scheme,
        host=host,
        port=port,
        request_target=_request_target(tail.partition("#")[0]),
        address=address,
    )


def parse_host(text: str) -> tuple[str, IPAddress | None]:
    """Return the canonical form of a host, and the address if it is one. Raises `TargetInvalid`."""
    if text.startswith("["):
        return _ipv6_literal(text)
    # Full-width letters, circled digits, the Kelvin sign and their like become other characters
    # under UTS-46; a reader that does not map them sees another host. Only letter case may differ.
    if not unicodedata.is_normalized("NFKC", text):
        raise _invalid("the host contains characters that stand for others")
    # Letter by letter: of a whole word Python makes a final sigma, which UTS-46 does not.
    lower = "".join(map(str.lower, text))
    labels = [_ascii_label(label) for label in lower.removesuffix(".").split(".")]
    host = ".".join(labels)
    if len(host) > MAX_HOST_CHARS:
        raise _invalid("the host name is too long")
    if not _NUMERIC_LABEL.fullmatch(labels[-1]):
        return host, None
    # A name that ends in a number is an IPv4 address to some readers (octal, hexadecimal, short
    # or overlong forms); only the one spelling that all of them read alike is taken.
    try:
        if text.endswith("."):
            raise ValueError
        return host, IPv4Address(host)
    except ValueError as error:
        raise _invalid("the host ends in a number but is not a dotted quad") from error


# Control, surrogate, private-use and unassigned characters, separators and every kind of space:
# invisible in a log, dropped or mapped by some readers. (Format characters are left to IDNA, which
# allows the joiners U+200C and U+200D in their contexts.)
_UNSEEN = frozenset({"Cc", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})


def _scheme(url: str) -> Scheme:
    match = _SCHEME.match(url)
    if match is None:
        raise _invalid("the URL has no scheme")
    scheme = match[1].lower()
    if scheme == "https":
        return "https"
    if scheme == "http":
        return "http"
    raise TargetInvalid(Verdict.SCHEME_NOT_HTTPS, "the scheme is not https")


def _cut_authority(rest: str) -> tuple[str, str]:
    for index, character in enumerate(rest):
        if character in "/?#":
            return rest[:index], rest[index:]
    return rest, ""


def _split_authority(authority: str, scheme: Scheme) -> tuple[str, int]:
    if "@" in authority:
        raise _invalid("the URL carries user information")
    if "%" in authority:
        raise _invalid("the host contains a percent sign (an escape or a zone id)")
    if authority.startswith("["):
        host, bracket, rest = authority.partition("]")
        host += bracket
        colon, port_text = rest[:1], rest[1:]
        if not bracket or (rest and colon != ":"):
            raise _invalid("the brackets of the IPv6 address do not match")
    else:
        host, colon, port_text = authority.partition(":")
    if not host:
        raise _invalid("the URL has no host")
    if not colon:
        return host, DEFAULT_PORT[scheme]
    if not _PORT.fullmatch(port_text) or int(port_text) > 65535:
        raise _invalid("the port is not a number between 1 and 65535")
    return host, int(port_text)


def _ipv6_literal(text: str) -> tuple[str, IPAddress]:
    if not text.endswith("]") or "%" in text:
        raise _invalid("the IPv6 address is malformed")
    try:
        address = IPv6Address(text[1:-1])
    except ValueError as error:
        raise _invalid("the IPv6 address is malformed") from error
    return str(address), address


def _ascii_label(label: str) -> str:
    if label.isascii() and not label.startswith("xn--"):
        if not _LDH_LABEL.fullmatch(label):
            raise _invalid("the host contains a label that is not letters, digits and hyphens")
        return label
    try:
        return idna.alabel(label).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise _invalid("the host contains a label that IDNA 2008 does not allow") from error


def _request_target(tail: str) -> str:
    text = tail if tail.startswith("/") else "/" + tail
    if not text.isascii():
        # RFC 3987 §3.1: an IRI's characters travel as the percent-encoded octets of UTF-8.
        text = "".join(c if c.isascii() else quote(c, safe="") for c in text)
    if not _REQUEST_TARGET.fullmatch(text):
        raise _invalid("the path or query contains a character that must be percent-encoded")
    for segment in text.partition("?")[0].split("/"):
        # Servers resolve these after the policy compared the path; "..;" is what Java servers
        # make of a segment with parameters.
        plain = segment.partition(";")[0].replace("%2e", ".").replace("%2E", ".")
        if plain in _DOT_SEGMENTS:
            raise _invalid("the path contains a dot segment")
    return text


def _invalid(detail: str) -> TargetInvalid:
    return TargetInvalid(Verdict.URL_INVALID, detail)
