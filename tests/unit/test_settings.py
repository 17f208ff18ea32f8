"""The environment as one frozen tree: every fault at once, no secret told."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from signet.settings import (
    Declared,
    Environment,
    Settings,
    SettingsInvalid,
    declared_settings,
    environment_secrets,
    read_settings,
    secret_values,
)

SEED = base64.urlsafe_b64encode(bytes(range(32))).decode()


def _fault(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsInvalid) as caught:
        read_settings(environ)
    assert len(caught.value.faults) == 1
    return f"{caught.value.faults[0].pointer}: {caught.value.faults[0].detail}"


def test_nothing_set_is_a_working_default() -> None:
    """An empty environment is SQLite on loopback, with every setting at its default."""
    environment = read_settings({})
    assert environment.settings == Settings()
    assert environment.settings.storage.kind == "sqlite"
    assert environment.settings.server.host == "127.0.0.1"
    assert {origin.source for origin in environment.origins} == {"default"}
    assert environment.unknown == ()


def test_an_empty_value_is_no_value() -> None:
    """`SP_PORT=` in a compose file means the default."""
    assert read_settings({"SP_PORT": "", "PORT": ""}).settings.server.port == 8088


def test_names_are_declared_once() -> None:
    """No two settings answer to one variable, and each says what it is for."""
    names = [name for declared in declared_settings() for name in (declared.name, *declared.also)]
    assert len(names) == len(set(names))
    assert all(declared.doc.endswith(".") for declared in declared_settings())


def test_defaults_can_be_read_back() -> None:
    """What is shown as a default, where it is a value, is what the reader takes."""
    for declared in declared_settings():
        if declared.default and " " not in declared.default and declared.default != "none":
            assert read_settings({declared.name: declared.default})


def test_older_names_are_read_and_newer_ones_win() -> None:
    """The names of the original protocol still work."""
    seed = base64.b64encode(b"\xff" * 32).decode()
    environment = read_settings(
        {
            "AB_PRIVATE_KEY_B64": seed,
            "AB_KID": "old",
            "SP_KID": "new",
            "AB_HEL_ALLOWLIST": "a.example, b.example,",
            "PORT": "9000",
        }
    )
    assert environment.settings.identity.private_key_b64 == seed
    assert environment.settings.identity.kid == "new"
    assert environment.settings.egress.allowlist == ("a.example", "b.example")
    assert environment.settings.server.port == 9000


def test_a_value_may_stand_in_a_file(tmp_path: Path) -> None:
    """`SP_X_FILE` names a file with the value, blanks at its ends not counted."""
    path = tmp_path / "seed"
    path.write_text(f"{SEED}\n")
    environment = read_settings({"SP_PRIVATE_KEY_B64_FILE": str(path)})
    assert environment.settings.identity.private_key_b64 == SEED
    origin = next(o for o in environment.origins if o.declared.name == "SP_PRIVATE_KEY_B64")
    assert origin.source == f"SP_PRIVATE_KEY_B64_FILE ({path})"


def test_a_value_and_a_file_contradict_each_other(tmp_path: Path) -> None:
    """Both at once is a fault: nobody could say which holds."""
    path = tmp_path / "port"
    path.write_text("1")
    assert "either SP_PORT or SP_PORT_FILE" in _fault({"SP_PORT": "1", "SP_PORT_FILE": str(path)})


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    """Missing files and files that are no text are named."""
    missing = tmp_path / "missing"
    assert str(missing) in _fault({"SP_PORT_FILE": str(missing)})
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    assert "UTF-8" in _fault({"SP_PORT_FILE": str(binary)})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("SP_PORT", ["-1", "65536", "8o88", "1.5", "٣", " 80", "9" * 30]),
        ("SP_MAX_BODY_BYTES", ["0", "1023", "1MB", str((64 << 20) + 1)]),
        ("SP_DRAIN_SECONDS", ["-1", "601", "inf", "nan", "1e2", "1,5"]),
        ("SP_STORAGE", ["mysql", "SQLite", "sqlite "]),
        ("SP_ANSWER_RETENTION_SECONDS", ["86399", "1d"]),
        ("SP_PRIVATE_KEY_B64", ["x", SEED[:-4], SEED + "AAAA", "é" * 43, "!" * 43]),
        ("SP_KEY_PEPPER", ["x", SEED[:-4], "é" * 43, "!" * 43]),
        ("SP_CANON_PROFILE", ["legacy-json", "JCS"]),
        ("SP_MAX_DEPTH", ["3", "513", "x"]),
        ("SP_HEL_MODE", ["off", "REPORT"]),
        ("SP_FORWARD_SECONDS", ["0", "0.4", "121"]),
        ("SP_LOG_LEVEL", ["verbose", "INFO"]),
        ("SP_ISSUER", ["a\nb", "a\x00b", "x" * 513, "\udcff"]),
        ("SP_DATA_DIR", ["\udcff"]),
        ("SP_TRUSTED_PROXIES", ["10.0.0.1/8", "proxy", "10.0.0.0/33", "10.0.0.1 10.0.0.2"]),
        ("SP_OPENAI_BASE_URL", ["foo", "ftp://h", "https://", "https://u:p@h/v1", "https://h/?q"]),
        ("SP_STRIPE_BASE_URL", ["foo", "//h", "https://h:0", "https://h:x", "https://u@h"]),
        ("SP_API_KEYS", ["{", "[]", '{"a":1}', '{"a":{"tenant":"x"},"a":{"tenant":"y"}}', "NaN"]),
    ],
)
def test_a_malformed_value_is_named_by_its_variable(name: str, values: list[str]) -> None:
    """Each bad value is one fault that names the variable and says what is expected."""
    for value in values:
        assert _fault({name: value}).startswith(f"{name}: expected "), value


def test_all_faults_are_reported_at_once() -> None:
    """An operator mends everything in one go."""
    with pytest.raises(SettingsInvalid) as caught:
        read_settings({"SP_PORT": "x", "SP_STORAGE": "x", "SP_LOG_LEVEL": "x"})
    named = [fault.pointer for fault in caught.value.faults]
    assert named == ["SP_PORT", "SP_STORAGE", "SP_LOG_LEVEL"]


def test_peppers() -> None:
    """Either alphabet of base64 is read, longer is welcome, and the one before needs one after."""
    url, plain = "_-" * 22, "/+" * 22
    peppers = [
        read_settings({"SP_KEY_PEPPER": text}).settings.exchange.key_pepper
        for text in (url[:43] + "8", plain[:43] + "8", "A" * 86)
    ]
    assert peppers[0] == peppers[1] != peppers[2]
    assert _fault({"SP_KEY_PEPPER_PREVIOUS": SEED}).startswith("SP_KEY_PEPPER: expected")


def test_faults_tell_no_secret() -> None:
    """Neither a key of `SP_API_KEYS` nor a seed nor a pepper is repeated in a fault."""
    secrets = {
        "SP_API_KEYS": [
            '{"sk-live-secret": {"tenant": "x"}, "sk-live-secret": {"tenant": "x"}}',
            '{"sk-live-secret": {"tenant": "x", "colour": 1}}',
            '{"sk-live-secret": {"tenant": 1e999}}',
            '{"sk-live-secret": {"tenant": 99999999999999999999}}',
            '{"sk-live-secret": {"tenant": "a", "tenant": "a"}}',
            '{"sk-live-secret": {"tenant": "a"}',
            '{"sk-live-secret": "\\ud800"}',
        ],
        "SP_PRIVATE_KEY_B64": ["sk-live-secret"],
        "SP_KEY_PEPPER": ["sk-live-secret"],
    }
    for name, values in secrets.items():
        for value in values:
            with pytest.raises(SettingsInvalid) as caught:
                read_settings({name: value})
            assert "sk-live-secret" not in repr(caught.value.faults), value
            assert "sk-live-secret" not in str(caught.value)


def test_secrets_are_masked_where_they_are_shown() -> None:
    """A secret that was set shows as a mask; one that was not, as its default."""
    environment = read_settings({"SP_PRIVATE_KEY_B64": SEED, "SP_PORT": "1"})
    shown = {origin.declared.name: origin.shown for origin in environment.origins}
    assert shown["SP_PRIVATE_KEY_B64"] == "********"
    assert shown["SP_METRICS_TOKEN"] == ""
    assert shown["SP_PORT"] == "1"
    assert SEED not in repr([origin.shown for origin in environment.origins])


@pytest.mark.parametrize("text", [SEED, SEED.rstrip("="), base64.b64encode(b"\xfb" * 32).decode()])
def test_seeds_come_in_both_alphabets(text: str) -> None:
    """base64url and plain base64, padded or not."""
    assert read_settings({"SP_PRIVATE_KEY_B64": text}).settings.identity.private_key_b64 == text


def test_destinations_are_read_from_their_file(tmp_path: Path) -> None:
    """`SP_DESTINATIONS` names a JSON array; anything else is a fault."""
    path = tmp_path / "destinations.json"
    path.write_text(json.dumps([{"host": "a.example", "idempotent": True}]))
    settings = read_settings({"SP_DESTINATIONS": str(path)}).settings
    assert settings.egress.destinations == ({"host": "a.example", "idempotent": True},)
    for text in ("{}", "[", '[{"a":1,"a":2}]', "\ufeff[]"):
        path.write_text(text)
        assert _fault({"SP_DESTINATIONS": str(path)}).startswith("SP_DESTINATIONS: ")
    path.unlink()
    assert _fault({"SP_DESTINATIONS": str(path)}).startswith("SP_DESTINATIONS: ")


def test_postgres_needs_its_url_and_a_shared_key() -> None:
    """Values that are each in order and together are not."""
    with pytest.raises(SettingsInvalid) as caught:
        read_settings({"SP_STORAGE": "postgres"})
    named = [fault.pointer for fault in caught.value.faults]
    assert named == ["SP_POSTGRES_URL", "SP_PRIVATE_KEY_B64"]


def test_what_signs_nothing_needs_no_key() -> None:
    """On PostgreSQL its URL is enough, and still needed; a key that is there must be one."""
    url = {"SP_STORAGE": "postgres", "SP_POSTGRES_URL": "postgresql://h/d"}
    settings = read_settings(url, signs=False).settings
    assert settings.storage.postgres_url == "postgresql://h/d"
    for wrong in ({"SP_STORAGE": "postgres"}, {**url, "SP_PRIVATE_KEY_B64": "x"}):
        with pytest.raises(SettingsInvalid):
            read_settings(wrong, signs=False)


def test_a_database_is_told_by_a_url_of_its_own_kind() -> None:
    """Another program's URL is refused by the name of its variable, where PostgreSQL is asked for;
    where it is not, the variable may be another program's, and is told to be of no use."""
    with pytest.raises(SettingsInvalid) as caught:
        read_settings(
            {
                "SP_STORAGE": "postgres",
                "SP_PRIVATE_KEY_B64": SEED,
                "DATABASE_URL": "mysql://u:s3cret@h/d",
                "SP_POSTGRES_REPLICA_URL": "h",
            }
        )
    named = [fault.pointer for fault in caught.value.faults]
    assert named == ["SP_POSTGRES_URL", "SP_POSTGRES_REPLICA_URL"]
    assert "s3cret" not in repr(caught.value.faults)
    assert read_settings({"DATABASE_URL": "mysql://u:s3cret@h/d"}).idle == ("DATABASE_URL",)
    asked = {"SP_STORAGE": "postgres", "SP_PRIVATE_KEY_B64": SEED}
    assert read_settings({**asked, "SP_POSTGRES_URL": "postgres://h/d"}).idle == ()


def test_unknown_names_are_told_with_what_was_meant() -> None:
    """A misspelt variable is not silently ignored; those of others are none of our business."""
    environment = read_settings({"SP_PROT": "1", "SP_ZZZZZZ": "1", "PATH": "/bin", "sp_port": "1"})
    assert environment.unknown == ("SP_PROT (did you mean SP_PORT?)", "SP_ZZZZZZ")


def test_the_tree_is_frozen() -> None:
    """Nothing changes a setting after it was read."""
    environment: Environment = read_settings({})
    with pytest.raises(dataclasses.FrozenInstanceError):
        environment.settings.server.port = 1  # type: ignore[misc]


class TestCollector:
    """Where traces go."""

    def test_the_standard_variable_is_read(self) -> None:
        """Ours comes first; headers are percent-encoded as the standard has them."""
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "https://standard:4318/otlp",
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20abc, x=1",
        }
        told = read_settings(environ).settings.telemetry
        assert told.otlp_endpoint == "https://standard:4318/otlp"
        assert told.otlp_headers == (("authorization", "Bearer abc"), ("x", "1"))
        told = read_settings({**environ, "SP_OTLP_ENDPOINT": "http://ours"}).settings.telemetry
        assert told.otlp_endpoint == "http://ours"

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("SP_OTLP_ENDPOINT", "collector:4318"),
            ("SP_OTLP_ENDPOINT", "ftp://collector"),
            ("SP_OTLP_ENDPOINT", "http://"),
            ("SP_OTLP_ENDPOINT", "http://c:99999"),
            ("SP_OTLP_ENDPOINT", "http://c:0"),
            ("SP_OTLP_ENDPOINT", "http://[::1"),
            ("SP_OTLP_ENDPOINT", "http://c?x=1"),
            ("SP_OTLP_ENDPOINT", "http://\u0441"),
            ("SP_OTLP_HEADERS", "no value, here: none"),
            ("SP_OTLP_HEADERS", "x=a%0d%0ab"),
            ("SP_TRACE_RATIO", "1.5"),
            ("SP_TRACE_RATIO", "-0"),
            ("SP_TRACE_RATIO", "half"),
        ],
    )
    def test_faults(self, name: str, text: str) -> None:
        """What cannot be used is named before anything starts; a header's value is not repeated."""
        with pytest.raises(SettingsInvalid) as caught:
            read_settings({name: text})
        assert [fault.pointer for fault in caught.value.faults] == [name]


class TestSecrets:
    """What no log and no sentence may show."""

    ENVIRON: Mapping[str, str] = {
        "SP_PRIVATE_KEY_B64": SEED,
        "SP_POSTGRES_URL": "postgresql://signet:p%40ssword@db/signet",
        "SP_METRICS_TOKEN": "metrics-token",
        "SP_KEY_PEPPER": "-_" * 21 + "8=",
        "SP_STRIPE_API_KEY": "sk_test_1234567890",
        "SP_OTLP_HEADERS": "x-token=otlp%20token",
        "SP_API_KEYS": '{"acme-key-value": {"tenant": "acme"}}',
    }

    def test_of_the_settings(self) -> None:
        """Every secret value, and a password also by itself; API keys are not kept."""
        found = secret_values(read_settings(self.ENVIRON).settings)
        wanted = {SEED, "metrics-token", "sk_test_1234567890", "otlp token", "p%40ssword"}
        wanted |= {"-_" * 21 + "8", "+/" * 21 + "8"}
        assert {*wanted, "p@ssword", self.ENVIRON["SP_POSTGRES_URL"]} == set(found)

    def test_of_the_environment(self, tmp_path: Path) -> None:
        """API keys too, from a file as well, and whatever cannot be read is no error."""
        file = tmp_path / "keys"
        file.write_text(self.ENVIRON["SP_API_KEYS"])
        environ = {
            **{k: v for k, v in self.ENVIRON.items() if k != "SP_API_KEYS"},
            "SP_API_KEYS_FILE": str(file),
            "SP_OPENAI_API_KEY_FILE": str(tmp_path / "none"),
        }
        found = environment_secrets(environ)
        assert {"acme-key-value", "p@ssword", SEED} <= set(found)


@pytest.mark.parametrize("declared", declared_settings(), ids=lambda one: one.name)
def test_every_setting_from_a_file(declared: Declared, tmp_path: Path) -> None:
    """Each variable has its `_FILE`; both at once are refused, by name."""
    file = tmp_path / "value"
    file.write_text("x\n")
    for name in (declared.name, *declared.also):
        with pytest.raises(SettingsInvalid) as caught:
            read_settings({name: "x", f"{name}_FILE": str(file)})
        details = {f.pointer: f.detail for f in caught.value.faults}
        assert details[declared.name] == f"expected either {name} or {name}_FILE, not both"
        with pytest.raises(SettingsInvalid) as caught:
            read_settings({f"{name}_FILE": str(tmp_path / "none")})
        details = {f.pointer: f.detail for f in caught.value.faults}
        assert "cannot be read" in details[declared.name]
