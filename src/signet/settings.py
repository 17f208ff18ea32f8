"""The environment, read once, as one frozen tree.

Every setting is declared in one line with its variable, its reader, its default and what it is
for; `signet config`, the reference page and the faults of a bad start all come from that line.
Each `SP_X` may also be given as `SP_X_FILE`, the path of a file that holds the value. All faults
are reported at once. Only `app` and `cli` import this module; everything else is handed values.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast
from urllib.parse import unquote, urlsplit

from signet.core.api_keys import Pepper
from signet.core.errors import Fault, SignetError
from signet.core.ratelimit import MOST_AT_ONCE, MOST_BURST, MOST_PER_MINUTE
from signet.core.tenant import Keyring, KeyringInvalid, read_keyring
from signet.receipts.canonical import Json, parse
from signet.receipts.errors import ReceiptError

T = TypeVar("T")
Reader = Callable[[str], object]


class SettingsInvalid(SignetError):
    """The environment cannot be used; one fault a variable, `pointer` its name."""

    code = "settings_invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What is known of one setting before any environment is read."""

    name: str
    doc: str
    read: Reader
    default: str
    secret: bool
    also: tuple[str, ...]


def _setting(
    name: str,
    read: Callable[[str], T],
    default: T | None,
    doc: str,
    *,
    secret: bool = False,
    also: tuple[str, ...] = (),
    shown: str | None = None,
) -> T:
    """Declare a field. `also` are older names, read when the newer one is absent."""
    text = shown if shown is not None else "" if default is None else str(default)
    declared = Declared(name=name, doc=doc, read=read, default=text, secret=secret, also=also)
    return field(default=cast(T, default), metadata={"declared": declared})


# Readers: text to value, or a ValueError whose message says what is expected.


def _text(text: str) -> str:
    if not text:
        raise ValueError("a text that is not empty")
    return text


def _name(text: str) -> str:
    # What a receipt can carry: anything else would be found out at the first exchange only.
    if not re.fullmatch(r"[^\x00-\x1f\x7f]{1,512}", text):
        raise ValueError("1 to 512 characters without control characters")
    return text


def _path(text: str) -> Path:
    return Path(_text(text)).expanduser()


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text) or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return read


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text) or not low <= float(text) <= high:
            raise ValueError(f"seconds, from {low:g} to {high:g}")
        return float(text)

    return read


def _one_of(*choices: str) -> Callable[[str], Any]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return text

    return read


def _list(text: str) -> tuple[str, ...]:
    return tuple(entry.strip() for entry in text.split(",") if entry.strip())


def _networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(map(ip_network, _list(text)))
    except ValueError as error:
        raise ValueError("addresses or networks such as 10.0.0.0/8, comma-separated") from error


def _origin_url(text: str) -> str:
    expected = "a URL such as http://collector:4318"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(expected) from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(expected)
    if parts.query or parts.fragment or not text.isascii():
        raise ValueError(expected)
    return text


def _service_url(text: str) -> str:
    expected = "an http or https URL without a user or a query, such as https://api.example.com/v1"
    try:
        if urlsplit(_origin_url(text)).username is None:
            return text
    except ValueError as error:
        raise ValueError(expected) from error
    raise ValueError(expected)


def _headers(text: str) -> tuple[tuple[str, str], ...]:
    pairs = [entry.partition("=") for entry in _list(text)]
    # Values are percent-encoded, as the OpenTelemetry variable of this form has them.
    headers = tuple((name.strip(), unquote(value.strip())) for name, _, value in pairs)
    for name, value in headers:
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not value.isprintable():
            raise ValueError("headers as name=value, comma-separated")
    return headers


def _share(text: str) -> float:
    if not re.fullmatch(r"[01](\.[0-9]{1,6})?", text) or float(text) > 1:
        raise ValueError("a number from 0 to 1")
    return float(text)


def _destinations(text: str) -> tuple[Json, ...]:
    document = parse(Path(text).read_bytes())
    if not isinstance(document, list):
        raise ValueError("the path of a file with a JSON array of destinations")
    return tuple(document)


def _keyring(text: str) -> Keyring:
    try:
        return read_keyring(parse(text))
    except ReceiptError as error:
        # Without its pointer: that begins with the key itself.
        raise ValueError(f"a JSON object, key to tenant: {error.detail}") from error
    except KeyringInvalid as error:
        places = "; ".join(f"{f.pointer or '(all)'}: {f.detail}" for f in error.faults)
        raise ValueError(f"a JSON object, key to tenant: {places}") from error


def _pepper(text: str) -> Pepper:
    compact = text.strip().rstrip("=").replace("+", "-").replace("/", "_")
    try:
        secret = base64.b64decode(
            compact + "=" * (-len(compact) % 4), altchars=b"-_", validate=True
        )
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) < 32:
        raise ValueError("32 random bytes or more in base64 (`openssl rand -base64 32`)")
    return Pepper(secret=secret)


def _seed(text: str) -> str:
    compact = text.strip().rstrip("=").replace("+", "-").replace("/", "_")
    try:
        seed = base64.b64decode(compact + "=" * (-len(compact) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        seed = b""
    if len(seed) != 32:
        raise ValueError(
            "an Ed25519 seed: 32 bytes in base64url (`signet keys generate` makes one)"
        )
    return text.strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where the gateway listens, and what it takes in."""

    host: str = _setting("SP_HOST", _text, "127.0.0.1", "Address to listen on.")
    port: int = _setting(
        "SP_PORT", _whole(0, 65535), 8088, "Port to listen on; 0 takes a free one.", also=("PORT",)
    )
    max_body_bytes: int = _setting(
        "SP_MAX_BODY_BYTES", _whole(1024, 64 << 20), 1 << 20, "Largest request body, in bytes."
    )
    header_bytes: int = _setting(
        "SP_HEADER_BYTES",
        _whole(1024, 1 << 20),
        32 << 10,
        "Largest head of a request: its target and headers, in bytes.",
    )
    header_count: int = _setting(
        "SP_HEADER_COUNT", _whole(8, 1000), 100, "How many headers a request may have."
    )
    header_s: float = _setting(
        "SP_HEADER_SECONDS",
        _seconds(1, 600),
        10.0,
        "How long a request's headers may take to arrive.",
    )
    body_s: float = _setting(
        "SP_BODY_SECONDS",
        _seconds(1, 3600),
        30.0,
        "How long a body may take to arrive, and an answer may wait to be read on.",
    )
    request_s: float | None = _setting(
        "SP_REQUEST_SECONDS",
        _seconds(1, 3600),
        None,
        "How long a request may wait for its answer to begin; its exchange goes on after that.",
        shown="SP_FORWARD_SECONDS + SP_FALLBACK_SECONDS + SP_BODY_SECONDS",
    )
    keep_alive_s: int = _setting(
        "SP_KEEP_ALIVE_SECONDS",
        _whole(1, 3600),
        75,
        "How long a connection may be idle; load balancers in front must close first.",
    )
    max_connections: int = _setting(
        "SP_MAX_CONNECTIONS",
        _whole(8, 1_000_000),
        2000,
        "Connections that each process keeps open; past them the longest idle one is closed.",
    )
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = _setting(
        "SP_TRUSTED_PROXIES",
        _networks,
        (),
        "Addresses and networks of proxies in front; their `X-Forwarded-For` says who called.",
        shown="none",
    )
    drain_s: float = _setting(
        "SP_DRAIN_SECONDS", _seconds(0, 600), 20.0, "How long a stop waits for work in progress."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """Where everything is kept."""

    kind: Literal["sqlite", "postgres"] = _setting(
        "SP_STORAGE", _one_of("sqlite", "postgres"), "sqlite", "The storage engine."
    )
    data_dir: Path = _setting(
        "SP_DATA_DIR",
        _path,
        Path("data"),
        "Directory for the SQLite file and a signing key that the gateway made itself.",
    )
    db_path: Path | None = _setting(
        "SP_DB_PATH",
        _path,
        None,
        "The SQLite file.",
        also=("AB_DB_PATH",),
        shown="signet.db in SP_DATA_DIR",
    )
    postgres_url: str | None = _setting(
        "SP_POSTGRES_URL",
        _text,
        None,
        "PostgreSQL connection URL; several hosts may be named.",
        secret=True,
        also=("DATABASE_URL",),
    )
    postgres_replica_url: str | None = _setting(
        "SP_POSTGRES_REPLICA_URL",
        _text,
        None,
        "Hot standbys for reads that decide nothing.",
        secret=True,
        shown="none",
    )
    postgres_pool_size: int = _setting(
        "SP_POSTGRES_POOL_SIZE", _whole(1, 200), 10, "Connections each process may open."
    )
    postgres_statement_cache: int = _setting(
        "SP_POSTGRES_STATEMENT_CACHE",
        _whole(0, 10_000),
        100,
        "Prepared statements kept on a connection; 0 behind a pooler in transaction mode.",
    )
    answer_retention_s: int = _setting(
        "SP_ANSWER_RETENTION_SECONDS",
        _whole(86_400, 366 * 86_400),
        7 * 86_400,
        "How long an answer can be replayed; a day at least.",
    )
    payload_retention_days: int | None = _setting(
        "SP_PAYLOAD_RETENTION_DAYS",
        _whole(1, 36_500),
        None,
        "Age at which payloads are erased, where the tenant does not say; receipts stand.",
        shown="for ever",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentitySettings:
    """Who signs."""

    issuer: str = _setting(
        "SP_ISSUER", _name, "signet", "This deployment's name, `iss` in every receipt."
    )
    private_key_b64: str | None = _setting(
        "SP_PRIVATE_KEY_B64",
        _seed,
        None,
        "Ed25519 signing seed, 32 bytes base64url.",
        secret=True,
        also=("AB_PRIVATE_KEY_B64",),
        shown="a key file in SP_DATA_DIR",
    )
    next_private_key_b64: str | None = _setting(
        "SP_NEXT_PRIVATE_KEY_B64",
        _seed,
        None,
        "The signing seed that takes over at the next `signet keys rotate`; published meanwhile.",
        secret=True,
        shown="none",
    )
    kid: str | None = _setting(
        "SP_KID",
        _name,
        None,
        "A second name under which the signing key is published.",
        also=("AB_KID",),
        shown="the key's RFC 7638 thumbprint",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeSettings:
    """Who may call, and what a call may become."""

    api_keys: Keyring = _setting(
        "SP_API_KEYS",
        _keyring,
        Keyring({}),
        "API keys: a JSON object, key to tenant settings.",
        secret=True,
        also=("AB_API_KEYS",),
        shown="none",
    )
    key_pepper: Pepper | None = _setting(
        "SP_KEY_PEPPER",
        _pepper,
        None,
        "Secret under which API keys made at run time are hashed, 32 bytes base64;"
        " the same on all nodes.",
        secret=True,
        shown="none",
    )
    key_pepper_previous: Pepper | None = _setting(
        "SP_KEY_PEPPER_PREVIOUS",
        _pepper,
        None,
        "The one before, for the keys that were hashed under it.",
        secret=True,
        shown="none",
    )
    registry_dir: Path | None = _setting(
        "SP_REGISTRY_DIR", _path, None, "Directory of your own types and mappings."
    )
    registry_max_documents: int = _setting(
        "SP_REGISTRY_MAX_DOCUMENTS",
        _whole(0, 10_000),
        200,
        "Types, tools and mappings that a tenant, or everybody, may register through the API.",
    )
    registry_max_bytes: int = _setting(
        "SP_REGISTRY_MAX_BYTES",
        _whole(0, 64 << 20),
        4 << 20,
        "Bytes that they may have together; one of them, a sixteenth of that.",
    )
    canon_profile: Literal["nfc+jcs", "jcs"] = _setting(
        "SP_CANON_PROFILE",
        _one_of("nfc+jcs", "jcs"),
        "nfc+jcs",
        "How payloads are made canonical, where the tenant does not say.",
    )
    max_depth: int = _setting(
        "SP_MAX_DEPTH", _whole(4, 512), 64, "Deepest nesting of JSON that is read."
    )
    mapping_timeout_s: float = _setting(
        "SP_MAPPING_SECONDS", _seconds(0.05, 30), 2.0, "How long one JSONata mapping may run."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressSettings:
    """What may leave, and how."""

    allowlist: tuple[str, ...] = _setting(
        "SP_HEL_ALLOWLIST",
        _list,
        (),
        "Hosts that every tenant may forward to, comma-separated.",
        also=("AB_HEL_ALLOWLIST",),
        shown="none",
    )
    destinations: tuple[Json, ...] = _setting(
        "SP_DESTINATIONS",
        _destinations,
        (),
        "File of destinations with their own rules: a JSON array.",
        shown="none",
    )
    mode: Literal["enforce", "report"] = _setting(
        "SP_HEL_MODE",
        _one_of("enforce", "report"),
        "enforce",
        "`report` lets pass and counts what the lists would refuse; address rules always hold.",
    )
    forward_s: float = _setting(
        "SP_FORWARD_SECONDS",
        _seconds(0.5, 120),
        10.0,
        "The one deadline of a forward: names, connection, TLS, writing and reading.",
    )
    max_response_bytes: int = _setting(
        "SP_MAX_RESPONSE_BYTES",
        _whole(0, 64 << 20),
        1 << 20,
        "Largest response body that is read, in bytes.",
    )
    private_networks: tuple[str, ...] = _setting(
        "SP_EGRESS_PRIVATE_NETWORKS",
        _list,
        (),
        "Private networks that may be reached; loopback and metadata never.",
        shown="none",
    )
    nat64_prefixes: tuple[str, ...] = _setting(
        "SP_EGRESS_NAT64_PREFIXES",
        _list,
        (),
        "NAT64 prefixes whose addresses are judged by the IPv4 address inside.",
        shown="none",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """How fast and how much at once a tenant or a key may ask, where it does not say itself."""

    rate_per_minute: int | None = _setting(
        "SP_RATE_PER_MINUTE",
        _whole(1, MOST_PER_MINUTE),
        None,
        "Requests a tenant may make in a minute, over all nodes.",
        shown="no limit",
    )
    rate_burst: int | None = _setting(
        "SP_RATE_BURST",
        _whole(1, MOST_BURST),
        None,
        "How many of them may come at once.",
        shown="a sixth of the rate",
    )
    key_rate_per_minute: int | None = _setting(
        "SP_KEY_RATE_PER_MINUTE",
        _whole(1, MOST_PER_MINUTE),
        None,
        "Requests one key may make in a minute, over all nodes.",
        shown="no limit",
    )
    key_rate_burst: int | None = _setting(
        "SP_KEY_RATE_BURST",
        _whole(1, MOST_BURST),
        None,
        "How many of them may come at once.",
        shown="a sixth of the rate",
    )
    concurrency: int | None = _setting(
        "SP_CONCURRENCY",
        _whole(1, MOST_AT_ONCE),
        None,
        "Requests a tenant may have in progress in one process.",
        shown="no limit",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackSettings:
    """The model that mends what our own rules cannot; none, where neither key nor URL is set."""

    api_key: str | None = _setting(
        "SP_OPENAI_API_KEY",
        _text,
        None,
        "API key of the LLM service.",
        secret=True,
        also=("OPENAI_API_KEY",),
        shown="none",
    )
    base_url: str | None = _setting(
        "SP_OPENAI_BASE_URL",
        _service_url,
        None,
        "Any OpenAI-compatible service, version path included.",
        shown="https://api.openai.com/v1",
    )
    model: str = _setting("SP_OPENAI_MODEL", _text, "gpt-4o-mini", "The model to ask.")
    api: Literal["chat", "responses"] = _setting(
        "SP_OPENAI_API", _one_of("chat", "responses"), "chat", "Which of its APIs to speak."
    )
    fallback_s: float = _setting(
        "SP_FALLBACK_SECONDS", _seconds(0.5, 120), 20.0, "How long one call may take."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BillingSettings:
    """Who pays what, and where it is invoiced."""

    reserved_config: Path | None = _setting(
        "SP_RESERVED_CONFIG",
        _path,
        None,
        "File of reserved capacity and overage tiers; see reserved.json.example.",
        also=("AB_RESERVED_CONFIG",),
    )
    stripe_api_key: str | None = _setting(
        "SP_STRIPE_API_KEY",
        _text,
        None,
        "Stripe secret key; without one nothing is sent to Stripe.",
        secret=True,
        also=("AB_STRIPE_API_KEY", "STRIPE_API_KEY"),
        shown="none",
    )
    stripe_base_url: str = _setting(
        "SP_STRIPE_BASE_URL", _service_url, "https://api.stripe.com", "The origin of Stripe's API."
    )
    stripe_verify: Literal["on", "off"] = _setting(
        "SP_STRIPE_VERIFY",
        _one_of("on", "off"),
        "on",
        "`off` starts without asking Stripe about the configured items.",
    )
    stripe_delay_s: int = _setting(
        "SP_STRIPE_DELAY_SECONDS",
        _whole(0, 3600),
        60,
        "How long usage is gathered before Stripe is told.",
    )
    grace_hours: int = _setting(
        "SP_BILLING_GRACE_HOURS",
        _whole(0, 720),
        48,
        "How long after its end a month stays open before its statement is made.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """What is written down of who did what."""

    addresses: Literal["on", "off"] = _setting(
        "SP_AUDIT_ADDRESSES",
        _one_of("on", "off"),
        "on",
        "`off` keeps the addresses of clients out of the audit log.",
    )
    retention_days: int | None = _setting(
        "SP_AUDIT_RETENTION_DAYS",
        _whole(1, 36_500),
        None,
        "Age at which audit entries are removed from the beginning of their chain.",
        shown="for ever",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """What an operator sees."""

    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "SP_LOG_LEVEL",
        _one_of("debug", "info", "warning", "error"),
        "info",
        "The least that is logged.",
    )
    metrics_token: str | None = _setting(
        "SP_METRICS_TOKEN",
        _text,
        None,
        "Bearer token for /metrics; without one it is served to loopback only.",
        secret=True,
    )
    otlp_endpoint: str | None = _setting(
        "SP_OTLP_ENDPOINT",
        _origin_url,
        None,
        "Base URL of an OTLP/HTTP collector that takes traces; without one there are none.",
        also=("OTEL_EXPORTER_OTLP_ENDPOINT",),
        shown="none",
    )
    otlp_headers: tuple[tuple[str, str], ...] = _setting(
        "SP_OTLP_HEADERS",
        _headers,
        (),
        "Headers for that collector, such as its token: name=value, comma-separated.",
        secret=True,
        also=("OTEL_EXPORTER_OTLP_HEADERS",),
        shown="none",
    )
    trace_ratio: float = _setting(
        "SP_TRACE_RATIO",
        _share,
        1.0,
        "Which share of the traces that begin here is kept, 0 to 1.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set."""

    server: ServerSettings = field(default_factory=ServerSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    identity: IdentitySettings = field(default_factory=IdentitySettings)
    exchange: ExchangeSettings = field(default_factory=ExchangeSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    egress: EgressSettings = field(default_factory=EgressSettings)
    fallback: FallbackSettings = field(default_factory=FallbackSettings)
    billing: BillingSettings = field(default_factory=BillingSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """One setting in force: the text it was read from, and where that came from."""

    declared: Declared
    text: str
    source: str

    @property
    def shown(self) -> str:
        """The text, or a mask where it is a secret."""
        return "********" if self.declared.secret and self.source != "default" else self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Settings with the origin of each, and the `SP_*` names that mean nothing.

    `idle` are variables that say where a PostgreSQL is, when another engine is in use.
    """

    settings: Settings
    origins: tuple[Origin, ...]
    unknown: tuple[str, ...]
    idle: tuple[str, ...]


def secret_values(settings: Settings) -> tuple[str, ...]:
    """Return the texts that no log may show. API keys are not among them: only hashes are kept."""
    found: list[str] = []
    for section, attribute, declared in _declarations():
        value: object = getattr(getattr(settings, section), attribute)
        if declared.secret and isinstance(value, str):
            found.append(value)
        elif declared.secret and isinstance(value, Pepper):
            spelled = (base64.b64encode(value.secret), base64.urlsafe_b64encode(value.secret))
            found += [text.decode().rstrip("=") for text in spelled]
        elif declared.secret and isinstance(value, tuple):
            found += [text for _, text in cast("tuple[tuple[str, str], ...]", value)]
    for url in (settings.storage.postgres_url, settings.storage.postgres_replica_url):
        found += _passwords(url or "")
    return tuple(found)


def environment_secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the texts of secret variables, API keys among them, however wrong they may be.

    For the one sentence of a command that fails: nothing else may hold API keys.
    """
    found: list[str] = []
    for declared in declared_settings():
        try:
            origin = _origin(declared, environ)
        except (ValueError, OSError):
            continue
        if declared.secret and origin.source != "default":
            found += [origin.text, *_passwords(origin.text)]
            if declared.name == "SP_API_KEYS":
                found += re.findall(r'"((?:[^"\\]|\\.)*)"\s*:\s*\{', origin.text)
    return tuple(found)


def _passwords(url: str) -> Iterator[str]:
    """The password of a connection URL, as it is written there and as it is meant."""
    user_info, at, _ = url.partition("://")[2].partition("/")[0].rpartition("@")
    password = user_info.partition(":")[2] if at else ""
    if password:
        yield password
        yield unquote(password)


def declared_settings() -> tuple[Declared, ...]:
    """Return every setting there is, in the order of the tree."""
    return tuple(declared for _, _, declared in _declarations())


_OF_POSTGRES: Final = ("SP_POSTGRES_URL", "SP_POSTGRES_REPLICA_URL")
_NOT_OURS: Final = re.compile(r"SP_[A-Z0-9_]+")


def read_settings(environ: Mapping[str, str], *, signs: bool = True) -> Environment:
    """Read the tree from `environ`; raise `SettingsInvalid` with the faults of all variables.

    What signs nothing (`signs` false) needs no signing key, not even on PostgreSQL.
    """
    faults: list[Fault] = []
    origins: list[Origin] = []
    sections: dict[str, dict[str, object]] = {}
    for section, attribute, declared in _declarations():
        try:
            origin = _origin(declared, environ)
            origins.append(origin)
            if origin.source != "default":
                sections.setdefault(section, {})[attribute] = declared.read(origin.text)
        except (ValueError, OSError, ReceiptError) as error:
            faults.append(_fault(declared, error))
    settings = _assemble(sections)
    faults += _contradictions(settings, signs=signs)
    if faults:
        raise SettingsInvalid("the environment cannot be used", faults=tuple(faults))
    return Environment(
        settings=settings,
        origins=tuple(origins),
        unknown=tuple(_unknown_names(environ)),
        idle=tuple(_idle(settings, origins)),
    )


def _declarations() -> Iterator[tuple[str, str, Declared]]:
    for section in fields(Settings):
        assert section.default_factory is not MISSING
        sample = section.default_factory()
        assert is_dataclass(sample)
        for leaf in fields(sample):
            yield section.name, leaf.name, leaf.metadata["declared"]


def _origin(declared: Declared, environ: Mapping[str, str]) -> Origin:
    for name in (declared.name, *declared.also):
        text, file = environ.get(name), environ.get(f"{name}_FILE")
        if text and file:
            raise ValueError(f"either {name} or {name}_FILE, not both")
        if text:
            if not text.isascii() and _is_no_text(text):
                raise ValueError("UTF-8 text")
            return Origin(declared=declared, text=text, source=name)
        if file:
            content = Path(file).read_text("utf-8").strip()
            return Origin(declared=declared, text=content, source=f"{name}_FILE ({file})")
    return Origin(declared=declared, text=declared.default, source="default")


def _is_no_text(text: str) -> bool:
    """Whether a variable has bytes that are no UTF-8: Python keeps those as lone surrogates."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _fault(declared: Declared, error: ValueError | OSError | ReceiptError) -> Fault:
    if isinstance(error, OSError):
        detail = f"its file cannot be read: {error.strerror} ({error.filename})"
    elif isinstance(error, UnicodeDecodeError):
        detail = "its file is not UTF-8 text"
    elif isinstance(error, ReceiptError):
        detail = f"its file is not I-JSON: {error}"
    else:
        detail = f"expected {error}"
    return Fault(pointer=declared.name, code="setting_invalid", detail=detail)


def _assemble(sections: Mapping[str, Mapping[str, object]]) -> Settings:
    built: dict[str, Any] = {}
    for section in fields(Settings):
        factory = cast(Callable[..., object], section.default_factory)
        built[section.name] = factory(**sections.get(section.name, {}))
    return Settings(**built)


def _contradictions(settings: Settings, *, signs: bool) -> Iterator[Fault]:
    """Values that are each in order and together are not."""
    if settings.exchange.key_pepper_previous and not settings.exchange.key_pepper:
        detail = "expected the pepper in force, because SP_KEY_PEPPER_PREVIOUS is set"
        yield Fault(pointer="SP_KEY_PEPPER", code="setting_missing", detail=detail)
    if settings.storage.kind == "postgres":
        for name, url in zip(
            _OF_POSTGRES,
            (settings.storage.postgres_url, settings.storage.postgres_replica_url),
            strict=True,
        ):
            if url is not None and not re.match(r"postgres(ql)?://", url):
                detail = "expected a URL such as postgresql://user@host/database"
                yield Fault(pointer=name, code="setting_invalid", detail=detail)
        if settings.storage.postgres_url is None:
            detail = "expected a connection URL, because SP_STORAGE is postgres"
            yield Fault(pointer="SP_POSTGRES_URL", code="setting_missing", detail=detail)
        if signs and settings.identity.private_key_b64 is None:
            detail = (
                "expected the signing seed that all nodes share, because SP_STORAGE is postgres"
                " (`signet keys generate` makes one)"
            )
            yield Fault(pointer="SP_PRIVATE_KEY_B64", code="setting_missing", detail=detail)


def _idle(settings: Settings, origins: Iterable[Origin]) -> Iterator[str]:
    """Name the database of who forgot to ask for it: nothing goes elsewhere unnoticed."""
    if settings.storage.kind == "sqlite":
        for origin in origins:
            if origin.declared.name in _OF_POSTGRES and origin.source != "default":
                yield origin.source.partition(" ")[0]


def _unknown_names(environ: Mapping[str, str]) -> Iterator[str]:
    """Name each `SP_*` variable that nothing reads, with the one that was probably meant."""
    known = {name for d in declared_settings() for name in (d.name, *d.also)}
    known |= {f"{name}_FILE" for name in known}
    for name in sorted(environ):
        if _NOT_OURS.fullmatch(name) and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            yield f"{name} (did you mean {close[0]}?)" if close else name
