"""HEL, the host egress list: what may be reached is listed, all else is refused.

Pure rules. An entry is a text (`host`, `*.example.com` for exactly one label, `host:port`,
`http://host` where plain http is meant, a bare IP address) or an object that narrows it further
and says how to deliver there. A policy allows what one of its grants allows, unless a narrowing
list does not. Whether the *addresses* behind a name are acceptable is no policy's to say: see
`address.py`, which no setting here relaxes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, cast

from signet.egress.errors import PolicyInvalid, TargetInvalid
from signet.egress.signing import webhook_key
from signet.egress.target import DEFAULT_PORT, Scheme, Target, parse_host
from signet.egress.verdict import Verdict

Mode = Literal["enforce", "report"]
Delivery = Literal["sync", "queued"]

METHODS: Final = frozenset({"DELETE", "GET", "PATCH", "POST", "PUT"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """One entry of a list. `None` leaves a dimension unrestricted.

    `host` is canonical, or "*." and a canonical suffix. `max_body` is bytes of the request,
    `schedule` the seconds before each attempt of a queued delivery. The last five members do not
    decide whether a request may go out; they travel with the decision for those who send.
    """

    scheme: Scheme = "https"
    host: str
    port: int
    methods: frozenset[str] | None = None
    path_prefix: str | None = None
    max_body: int | None = None
    content_types: frozenset[str] | None = None
    idempotent: bool = False
    delivery: Delivery = "sync"
    secret: str | None = field(default=None, repr=False)
    schedule: tuple[float, ...] | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a policy asks about a request besides its target. `body_size` is bytes."""

    method: str = "POST"
    body_size: int = 0
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the policy said, and which policy said it.

    In report mode `allowed` is True while `verdict` tells what enforcing would have refused.
    `destination` is the grant that allowed the request.
    """

    verdict: Verdict
    allowed: bool
    policy_hash: str
    destination: Destination | None = None

    @property
    def reported(self) -> bool:
        """True if only report mode let this request pass."""
        return self.allowed and self.verdict is not Verdict.OK


class _RuleList:
    """Destinations indexed by host, so that a long list costs what a short one does."""

    __slots__ = ("_by_host", "destinations")

    def __init__(self, destinations: Iterable[Destination]) -> None:
        self.destinations = tuple(destinations)
        self._by_host: dict[str, list[Destination]] = {}
        for destination in self.destinations:
            self._by_host.setdefault(destination.host, []).append(destination)

    def judge(self, target: Target, request: Request) -> tuple[Verdict, Destination | None]:
        wildcard = "*." + target.host.partition(".")[2]
        candidates = self._by_host.get(target.host, [])
        if target.address is None:
            candidates = candidates + self._by_host.get(wildcard, [])
        verdict = Verdict.HOST_NOT_ALLOWED
        for destination in candidates:
            found = _judge(destination, target, request)
            if found is Verdict.OK:
                return found, destination
            if verdict is Verdict.HOST_NOT_ALLOWED:
                verdict = found  # the first entry that names the host explains the refusal
        if verdict is Verdict.HOST_NOT_ALLOWED and target.scheme != "https":
            verdict = Verdict.SCHEME_NOT_HTTPS
        return verdict, None


class Policy:
    """A host egress list in force, with the lists that narrow it. Immutable."""

    __slots__ = ("_grants", "_limits", "hash", "mode")

    def __init__(
        self,
        grants: Iterable[Destination] = (),
        *,
        limits: Iterable[Iterable[Destination]] = (),
        mode: Mode = "enforce",
    ) -> None:
        self._grants = _RuleList(grants)
        self._limits = tuple(_RuleList(limit) for limit in limits)
        self.mode: Mode = mode
        self.hash = self._compute_hash()

    @classmethod
    def parse(
        cls, entries: Iterable[str | Mapping[str, object]], *, mode: Mode = "enforce"
    ) -> Policy:
        """Return the policy of `entries`. Raises `PolicyInvalid` naming the entry at fault."""
        return cls(map(parse_destination, entries), mode=mode)

    @property
    def destinations(self) -> tuple[Destination, ...]:
        """The grants, in the order given."""
        return self._grants.destinations

    def extended_by(self, other: Policy) -> Policy:
        """Return a policy that also grants what `other` grants; the limits of both hold."""
        return Policy(
            (*self.destinations, *other.destinations),
            limits=(*self._limit_lists(), *other._limit_lists()),
            mode=self.mode,
        )

    def narrowed_by(self, other: Policy) -> Policy:
        """Return a policy that allows only what `other`'s grants allow as well."""
        return Policy(
            self.destinations,
            limits=(*self._limit_lists(), other.destinations, *other._limit_lists()),
            mode=self.mode,
        )

    def decide(self, target: Target, request: Request) -> Decision:
        """Say whether `request` may go to `target`, as far as lists can say it.

        Report mode lets pass what a list refuses, but never plain http: that is a rule about
        URLs, which only an explicit entry may lift.
        """
        verdict, destination = self._grants.judge(target, request)
        for limit in self._limits:
            if verdict is not Verdict.OK:
                break
            verdict, _ = limit.judge(target, request)
        reportable = self.mode == "report" and verdict is not Verdict.SCHEME_NOT_HTTPS
        return Decision(
            verdict=verdict,
            allowed=verdict is Verdict.OK or reportable,
            policy_hash=self.hash,
            destination=destination,
        )

    def _limit_lists(self) -> tuple[tuple[Destination, ...], ...]:
        return tuple(limit.destinations for limit in self._limits)

    def _compute_hash(self) -> str:
        rules = {
            "engine": "HEL",
            "mode": self.mode,
            "grants": _rules_in_order(self.destinations),
            "limits": [_rules_in_order(limit) for limit in self._limit_lists()],
        }
        text = json.dumps(rules, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return "sha256:" + hashlib.sha256(text.encode("ascii")).hexdigest()


def _judge(destination: Destination, target: Target, request: Request) -> Verdict:
    if destination.port != target.port:
        return Verdict.HOST_NOT_ALLOWED
    if destination.scheme != target.scheme:
        return Verdict.SCHEME_NOT_HTTPS if target.scheme == "http" else Verdict.HOST_NOT_ALLOWED
    if destination.methods is not None and request.method not in destination.methods:
        return Verdict.METHOD_NOT_ALLOWED
    if destination.path_prefix is not None and not _path_within(
        target.path, destination.path_prefix
    ):
        return Verdict.PATH_NOT_ALLOWED
    if destination.content_types is not None:
        media_type = request.content_type.partition(";")[0].strip().lower()
        if media_type not in destination.content_types:
            return Verdict.CONTENT_TYPE_NOT_ALLOWED
    if destination.max_body is not None and request.body_size > destination.max_body:
        return Verdict.BODY_TOO_LARGE
    return Verdict.OK


# A server that decodes these before it resolves dot segments can be led out of the prefix
# ("/api/..%2fadmin"); %25 hides the same thing under a second layer, with %C0 and %C1, which occur
# in no UTF-8, overlong forms of a dot or slash begin, and %3B and control characters end a segment
# for some ("..%3b").
_AMBIGUOUS_IN_PATH = re.compile(r"%(?:2[fF]|25|3[bB]|5[cC]|[01][0-9a-fA-F]|7[fF]|[cC][01])")


def _path_within(path: str, prefix: str) -> bool:
    if _AMBIGUOUS_IN_PATH.search(path):
        return False
    return path == prefix or path.startswith(prefix if prefix.endswith("/") else prefix + "/")


def _rules_in_order(destinations: Iterable[Destination]) -> list[dict[str, object]]:
    # Only what decides is hashed: a delivery schedule is no rule, and the hash of a secret among
    # few others would be a way to guess it.
    return [
        {
            "scheme": d.scheme,
            "host": d.host,
            "port": d.port,
            "methods": None if d.methods is None else sorted(d.methods),
            "path_prefix": d.path_prefix,
            "max_body": d.max_body,
            "content_types": None if d.content_types is None else sorted(d.content_types),
        }
        for d in destinations
    ]


_RULE_MEMBERS = ("host", "port", "methods", "path_prefix", "max_body", "content_types")
_DELIVERY_MEMBERS = ("idempotent", "delivery", "secret", "schedule", "concurrency")
_MEMBERS = frozenset((*_RULE_MEMBERS, *_DELIVERY_MEMBERS))


def parse_destination(entry: str | Mapping[str, object]) -> Destination:
    """Read one entry of a list. Raises `PolicyInvalid`."""
    if isinstance(entry, str):
        scheme, host, port = _parse_place(entry, entry)
        return Destination(scheme=scheme, host=host, port=port or DEFAULT_PORT[scheme])
    return _Fields(entry).destination()


class _Fields:
    """The members of a destination object, each read with its own check."""

    def __init__(self, entry: Mapping[str, object]) -> None:
        self._entry = entry
        unknown = set(entry) - _MEMBERS
        if unknown:
            raise self._invalid(f"unknown member {min(unknown)!r}")

    def destination(self) -> Destination:
        place = self._text("host")
        if place is None:
            raise self._invalid("member 'host' is missing")
        scheme, host, port_in_host = _parse_place(place, place)
        port = self._integer("port", 1, 65535)
        if port is not None and port_in_host is not None:
            raise self._invalid("the port is given twice")
        idempotent = self._entry.get("idempotent", False)
        if not isinstance(idempotent, bool):
            raise self._invalid("member 'idempotent' must be true or false")
        return Destination(
            scheme=scheme,
            host=host,
            port=port or port_in_host or DEFAULT_PORT[scheme],
            methods=self._methods(),
            path_prefix=self._path_prefix(),
            max_body=self._integer("max_body", 0, None),
            content_types=self._content_types(),
            idempotent=idempotent,
            delivery=self._delivery(),
            secret=self._secret(),
            schedule=self._schedule(),
            concurrency=self._integer("concurrency", 1, None),
        )

    def _methods(self) -> frozenset[str] | None:
        methods = self._texts("methods")
        if methods is not None and not methods <= METHODS:
            raise self._invalid(f"member 'methods' may contain {', '.join(sorted(METHODS))}")
        return methods

    def _content_types(self) -> frozenset[str] | None:
        types = self._texts("content_types")
        if types is not None and not all(_MEDIA_TYPE.fullmatch(text) for text in types):
            raise self._invalid("member 'content_types' must hold lower-case media types")
        return types

    def _path_prefix(self) -> str | None:
        prefix = self._text("path_prefix")
        if prefix is not None and (not _PREFIX.fullmatch(prefix) or _leaves_prefix(prefix)):
            raise self._invalid("member 'path_prefix' must be a plain absolute path")
        return prefix

    def _delivery(self) -> Delivery:
        value = self._entry.get("delivery", "sync")
        if value == "sync":
            return "sync"
        if value == "queued":
            return "queued"
        raise self._invalid("member 'delivery' must be 'sync' or 'queued'")

    def _secret(self) -> str | None:
        secret = self._text("secret")
        if secret is not None:
            try:
                webhook_key(secret)
            except PolicyInvalid as error:
                raise self._invalid(str(error)) from error
        return secret

    def _schedule(self) -> tuple[float, ...] | None:
        value = self._entry.get("schedule")
        if value is None:
            return None
        if not isinstance(value, list | tuple):
            raise self._invalid("member 'schedule' must be a list of seconds")
        seconds: list[float] = []
        for item in cast("list[object]", value):
            if isinstance(item, bool) or not isinstance(item, int | float) or not 0 <= item < 1e8:
                raise self._invalid("member 'schedule' must be a list of seconds")
            seconds.append(float(item))
        return tuple(seconds)

    def _text(self, name: str) -> str | None:
        value = self._entry.get(name)
        if value is not None and (not isinstance(value, str) or not value):
            raise self._invalid(f"member '{name}' must be a text")
        return value

    def _texts(self, name: str) -> frozenset[str] | None:
        value = self._entry.get(name)
        if value is None:
            return None
        if not isinstance(value, list | tuple | set | frozenset):
            raise self._invalid(f"member '{name}' must be a list of texts")
        texts: set[str] = set()
        for item in cast("list[object]", value):
            if not isinstance(item, str):
                raise self._invalid(f"member '{name}' must be a list of texts")
            texts.add(item)
        return frozenset(texts)

    def _integer(self, name: str, low: int, high: int | None) -> int | None:
        value = self._entry.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._invalid(f"member '{name}' must be an integer")
        if value < low or (high is not None and value > high):
            raise self._invalid(f"member '{name}' is out of range")
        return value

    def _invalid(self, detail: str) -> PolicyInvalid:
        return PolicyInvalid(f"destination {self._entry.get('host')!r}: {detail}")


_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+")
_PREFIX = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,=:@/%]*")


def _leaves_prefix(prefix: str) -> bool:
    segments = prefix.replace("%2e", ".").replace("%2E", ".").split("/")
    return bool(_AMBIGUOUS_IN_PATH.search(prefix)) or "." in segments or ".." in segments


_PLACE = re.compile(r"(?:(https?)://)?(\*\.)?(\[[^\]]*\]|[^:/\[\]]+)(?::([1-9][0-9]{0,4}))?")


def _parse_place(text: str, entry: str) -> tuple[Scheme, str, int | None]:
    """Split `[scheme://][*.]host[:port]`; an IPv6 address may stand bare, without a port."""
    if text.count(":") > 1 and "[" not in text and "/" not in text:
        text = f"[{text}]"
    match = _PLACE.fullmatch(text)
    if match is None or (match[4] and int(match[4]) > 65535):
        raise PolicyInvalid(f"destination {entry!r}: expected host, *.host or host:port")
    try:
        host, address = parse_host(match[3])
    except TargetInvalid as error:
        raise PolicyInvalid(f"destination {entry!r}: {error}") from error
    if match[2]:
        if address is not None or "." not in host:
            raise PolicyInvalid(f"destination {entry!r}: a wildcard needs a domain of two labels")
        host = "*." + host
    return "http" if match[1] == "http" else "https", host, int(match[4]) if match[4] else None
