"""Lists allow what they name and nothing beside it."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signet.egress.errors import PolicyInvalid
from signet.egress.policy import Destination, Policy, Request, parse_destination
from signet.egress.target import parse_target
from signet.egress.verdict import Verdict

POST = Request()


def judge(policy: Policy, url: str, request: Request = POST) -> Verdict:
    return policy.decide(parse_target(url), request).verdict


@pytest.mark.parametrize(
    ("entry", "url", "verdict"),
    [
        ("example.com", "https://example.com/", Verdict.OK),
        ("EXAMPLE.com.", "https://example.com/", Verdict.OK),
        ("example.com", "https://example.com./", Verdict.OK),
        ("example.com", "https://www.example.com/", Verdict.HOST_NOT_ALLOWED),
        ("example.com", "https://example.com.evil.com/", Verdict.HOST_NOT_ALLOWED),
        ("example.com", "https://notexample.com/", Verdict.HOST_NOT_ALLOWED),
        ("example.com", "https://example.com:8443/", Verdict.HOST_NOT_ALLOWED),
        ("example.com:8443", "https://example.com:8443/", Verdict.OK),
        ("example.com:8443", "https://example.com/", Verdict.HOST_NOT_ALLOWED),
        ("example.com:443", "https://example.com/", Verdict.OK),
        ("example.com", "http://example.com/", Verdict.SCHEME_NOT_HTTPS),
        ("example.com:80", "http://example.com/", Verdict.SCHEME_NOT_HTTPS),
        ("other.com", "http://example.com/", Verdict.SCHEME_NOT_HTTPS),
        ("http://example.com", "http://example.com/", Verdict.OK),
        ("http://example.com", "https://example.com/", Verdict.HOST_NOT_ALLOWED),
        ("http://example.com:443", "https://example.com/", Verdict.HOST_NOT_ALLOWED),
        ("http://example.com:8080", "http://example.com:8080/", Verdict.OK),
        ("https://example.com", "https://example.com/", Verdict.OK),
        ("*.example.com", "https://a.example.com/", Verdict.OK),
        ("*.example.com", "https://example.com/", Verdict.HOST_NOT_ALLOWED),
        ("*.example.com", "https://a.b.example.com/", Verdict.HOST_NOT_ALLOWED),
        ("*.example.com", "https://a.example.com.evil.com/", Verdict.HOST_NOT_ALLOWED),
        ("*.example.com:8443", "https://a.example.com:8443/", Verdict.OK),
        ("*.example.com:8443", "https://a.example.com/", Verdict.HOST_NOT_ALLOWED),
        ("münchen.de", "https://xn--mnchen-3ya.de/", Verdict.OK),
        ("xn--mnchen-3ya.de", "https://MÜNCHEN.de/", Verdict.OK),
        ("8.8.8.8", "https://8.8.8.8/", Verdict.OK),
        ("8.8.8.8", "https://8.8.4.4/", Verdict.HOST_NOT_ALLOWED),
        ("dns.google", "https://8.8.8.8/", Verdict.HOST_NOT_ALLOWED),
        ("[2606:4700::1]", "https://[2606:4700::1]/", Verdict.OK),
        ("2606:4700:0::1", "https://[2606:4700::1]/", Verdict.OK),
        ("[2606:4700::1]:8443", "https://[2606:4700::1]:8443/", Verdict.OK),
        ("localhost", "https://localhost/", Verdict.OK),
    ],
)
def test_an_entry_allows_exactly_what_it_names(entry: str, url: str, verdict: Verdict) -> None:
    """Hosts, ports, schemes and one-label wildcards match as written."""
    assert judge(Policy.parse([entry]), url) is verdict


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "*",
        "*.",
        "*.com",
        "**.example.com",
        "a.*.com",
        "*example.com",
        "example.com/",
        "example.com/path",
        "https://example.com/",
        "ftp://example.com",
        "example.com:0",
        "example.com:65536",
        "example.com:abc",
        "example.com:",
        "a b.com",
        "a_b.com",
        "0x7f.1",
        "127.1",
        "*.8.8.8.8",
        "user@example.com",
        "example.com?x",
        "[::1",
        "::g",
        "exam%70le.com",
        "*.*.example.com",
        "http:example.com",
        "//example.com",
        "．com",
        "10.0.0.0/8",
        "a,b.com",
    ],
)
def test_what_cannot_be_understood_is_an_error_at_start(entry: str) -> None:
    """A misspelt entry is refused when the list is read, naming the entry."""
    with pytest.raises(PolicyInvalid) as caught:
        Policy.parse([entry])
    assert repr(entry) in str(caught.value)


def test_the_empty_list_denies_everything() -> None:
    """Deny by default."""
    assert judge(Policy(), "https://example.com/") is Verdict.HOST_NOT_ALLOWED
    assert not Policy().decide(parse_target("https://example.com/"), POST).allowed


API = {
    "host": "api.example.com",
    "methods": ["POST", "PUT"],
    "path_prefix": "/v1",
    "max_body": 100,
    "content_types": ["application/json"],
    "idempotent": True,
    "delivery": "queued",
    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "schedule": [0, 5, 300],
    "concurrency": 4,
}


@pytest.mark.parametrize(
    ("path", "request_", "verdict"),
    [
        ("/v1", POST, Verdict.OK),
        ("/v1/orders", POST, Verdict.OK),
        ("/v1?x=1", POST, Verdict.OK),
        ("/v1/orders?x=/../", POST, Verdict.OK),
        ("/v1/a%20b", POST, Verdict.OK),
        ("/v10", POST, Verdict.PATH_NOT_ALLOWED),
        ("/v1x/", POST, Verdict.PATH_NOT_ALLOWED),
        ("/V1", POST, Verdict.PATH_NOT_ALLOWED),
        ("/", POST, Verdict.PATH_NOT_ALLOWED),
        ("//v1", POST, Verdict.PATH_NOT_ALLOWED),
        ("/v1/..%2fadmin", POST, Verdict.PATH_NOT_ALLOWED),
        ("/v1/%2Fadmin", POST, Verdict.PATH_NOT_ALLOWED),
        ("/v1/..%5cadmin", POST, Verdict.PATH_NOT_ALLOWED),
        ("/v1/%252e%252e/admin", POST, Verdict.PATH_NOT_ALLOWED),
        ("/v1/a%00", POST, Verdict.PATH_NOT_ALLOWED),
        ("/v1/..%3b/admin", POST, Verdict.PATH_NOT_ALLOWED),
        ("/v1/..%09/admin", POST, Verdict.PATH_NOT_ALLOWED),
        ("/v1/..%7F/admin", POST, Verdict.PATH_NOT_ALLOWED),
        ("/v1/%c0%ae%c0%ae/admin", POST, Verdict.PATH_NOT_ALLOWED),
        ("/v1/%C1%9Cadmin", POST, Verdict.PATH_NOT_ALLOWED),
        ("/v1/%C3%A9", POST, Verdict.OK),
        ("/v1", Request(method="PUT"), Verdict.OK),
        ("/v1", Request(method="DELETE"), Verdict.METHOD_NOT_ALLOWED),
        ("/v1", Request(method="post"), Verdict.METHOD_NOT_ALLOWED),
        ("/v1", Request(body_size=100), Verdict.OK),
        ("/v1", Request(body_size=101), Verdict.BODY_TOO_LARGE),
        ("/v1", Request(content_type="application/json; charset=utf-8"), Verdict.OK),
        ("/v1", Request(content_type="APPLICATION/JSON"), Verdict.OK),
        ("/v1", Request(content_type="text/plain"), Verdict.CONTENT_TYPE_NOT_ALLOWED),
        ("/v1", Request(content_type="application/jsonx"), Verdict.CONTENT_TYPE_NOT_ALLOWED),
    ],
)
def test_an_object_narrows_its_host(path: str, request_: Request, verdict: Verdict) -> None:
    """Methods, path, body size and content type are each held."""
    assert judge(Policy.parse([API]), f"https://api.example.com{path}", request_) is verdict


def test_an_object_is_read_whole() -> None:
    """What does not decide travels with the decision, for those who send."""
    decision = Policy.parse([API]).decide(parse_target("https://api.example.com/v1"), POST)
    assert decision.destination == Destination(
        host="api.example.com",
        port=443,
        methods=frozenset({"POST", "PUT"}),
        path_prefix="/v1",
        max_body=100,
        content_types=frozenset({"application/json"}),
        idempotent=True,
        delivery="queued",
        secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        schedule=(0.0, 5.0, 300.0),
        concurrency=4,
    )
    assert "MfKQ" not in repr(decision)


@pytest.mark.parametrize(
    "change",
    [
        {"host": None},
        {"host": 7},
        {"host": ""},
        {"unknown": 1},
        {"port": 0},
        {"port": 65536},
        {"port": "443"},
        {"port": True},
        {"port": 443, "host": "api.example.com:443"},
        {"methods": "POST"},
        {"methods": ["BREW"]},
        {"methods": [1]},
        {"path_prefix": "v1"},
        {"path_prefix": "/a/../b"},
        {"path_prefix": "/a/%2e%2e/b"},
        {"path_prefix": "/a%2fb"},
        {"path_prefix": "/a?b"},
        {"path_prefix": 1},
        {"max_body": -1},
        {"max_body": 1.5},
        {"content_types": ["json"]},
        {"content_types": ["Application/JSON"]},
        {"idempotent": "yes"},
        {"idempotent": 1},
        {"delivery": "later"},
        {"secret": "short"},
        {"secret": "whsec_!!!"},
        {"schedule": 5},
        {"schedule": [-1]},
        {"schedule": ["1"]},
        {"schedule": [True]},
        {"schedule": [float("inf")]},
        {"schedule": [float("nan")]},
        {"concurrency": 0},
    ],
)
def test_a_malformed_object_is_an_error_at_start(change: dict[str, object]) -> None:
    """Every member is checked when the list is read, and the secret is not in the message."""
    with pytest.raises(PolicyInvalid) as caught:
        parse_destination({**API, **change})
    assert "MfKQ" not in str(caught.value)


def test_the_port_may_stand_in_either_place() -> None:
    """`host:port` and the member `port` mean the same."""
    assert parse_destination({"host": "a.example:8443"}) == parse_destination(
        {"host": "a.example", "port": 8443}
    )


def test_several_entries_for_one_host_are_alternatives() -> None:
    """A request may go out if any one entry allows it; the first one explains a refusal."""
    policy = Policy.parse(
        [
            {"host": "a.example", "path_prefix": "/x", "max_body": 1},
            {"host": "*.example", "path_prefix": "/y"} | {"host": "a.example"},
        ]
    )
    assert judge(policy, "https://a.example/x") is Verdict.OK
    assert judge(policy, "https://a.example/y", Request(body_size=9)) is Verdict.OK
    assert judge(policy, "https://a.example/z") is Verdict.PATH_NOT_ALLOWED


def test_an_exact_entry_and_a_wildcard_may_both_match() -> None:
    """The wildcard allows what the exact entry for the same host does not."""
    policy = Policy.parse([{"host": "a.b.example", "methods": ["PUT"]}, "*.b.example"])
    assert judge(policy, "https://a.b.example/") is Verdict.OK


def test_narrowing_needs_both_lists() -> None:
    """A key's list takes away from its tenant's and adds nothing."""
    policy = Policy.parse(["a.example", "b.example"]).narrowed_by(
        Policy.parse(["b.example", "c.example"])
    )
    assert judge(policy, "https://a.example/") is Verdict.HOST_NOT_ALLOWED
    assert judge(policy, "https://b.example/") is Verdict.OK
    assert judge(policy, "https://c.example/") is Verdict.HOST_NOT_ALLOWED


def test_narrowing_keeps_the_grants_destination() -> None:
    """The secret and the schedule are those of the grant, not of the list that narrows."""
    policy = Policy.parse([API]).narrowed_by(Policy.parse(["api.example.com"]))
    decision = policy.decide(parse_target("https://api.example.com/v1"), POST)
    assert decision.destination is not None
    assert decision.destination.concurrency == 4


def test_narrowing_holds_every_dimension() -> None:
    """A narrowing entry's path, method and size rules hold like a grant's."""
    policy = Policy.parse(["a.example"]).narrowed_by(
        Policy.parse([{"host": "a.example", "path_prefix": "/v1"}])
    )
    assert judge(policy, "https://a.example/v1") is Verdict.OK
    assert judge(policy, "https://a.example/v2") is Verdict.PATH_NOT_ALLOWED


def test_extending_adds_grants_and_keeps_limits() -> None:
    """A tenant's list adds to the global one; what was narrowed stays narrowed."""
    both = Policy.parse(["a.example"]).extended_by(Policy.parse(["b.example"]))
    assert judge(both, "https://a.example/") is Verdict.OK
    assert judge(both, "https://b.example/") is Verdict.OK
    narrowed = Policy.parse(["a.example"]).narrowed_by(Policy.parse(["c.example"]))
    assert judge(both.extended_by(narrowed), "https://a.example/") is Verdict.HOST_NOT_ALLOWED
    assert judge(narrowed.extended_by(both), "https://b.example/") is Verdict.HOST_NOT_ALLOWED


def test_report_mode_lets_pass_and_tells() -> None:
    """In report mode the verdict is the one that enforcing would have given."""
    policy = Policy.parse(["a.example"], mode="report")
    decision = policy.decide(parse_target("https://b.example/"), POST)
    assert (decision.verdict, decision.allowed, decision.reported) == (
        Verdict.HOST_NOT_ALLOWED,
        True,
        True,
    )
    allowed = policy.decide(parse_target("https://a.example/"), POST)
    assert (allowed.allowed, allowed.reported) == (True, False)


def test_report_mode_never_lets_plain_http_pass() -> None:
    """What protects the payload on the wire is not a list to be tried out."""
    policy = Policy.parse(["a.example"], mode="report")
    for url in ("http://a.example/", "http://b.example/"):
        assert not policy.decide(parse_target(url), POST).allowed


def test_the_hash_names_the_rules_in_force() -> None:
    """Same rules, same hash; another rule, order or mode, another hash; never the secret."""
    entries = ["a.example", API]
    reference = Policy.parse(entries).hash
    assert reference == Policy.parse(["https://A.example:443", dict(API)]).hash
    assert reference == Policy.parse([entries[0], {**API, "secret": "A" * 32}]).hash
    assert reference.startswith("sha256:")
    assert len(reference) == 71
    others = {
        Policy.parse(["a.example"]).hash,
        Policy.parse(entries[::-1]).hash,
        Policy.parse(entries, mode="report").hash,
        Policy.parse([entries[0], {**API, "max_body": 99}]).hash,
        Policy.parse([entries[0], {**API, "methods": ["POST"]}]).hash,
        Policy.parse([entries[0], {**API, "path_prefix": "/v2"}]).hash,
        Policy.parse([entries[0], {**API, "content_types": ["text/plain"]}]).hash,
        Policy.parse(["http://a.example:443", API]).hash,
        Policy.parse(["a.example:444", API]).hash,
        Policy.parse(entries).narrowed_by(Policy.parse(entries)).hash,
        Policy().hash,
    }
    assert len(others) == 11
    assert reference not in others


def test_the_hash_is_the_same_in_every_process() -> None:
    """Receipts of two nodes with the same list carry the same hash."""
    rules = (
        '{"engine":"HEL","grants":[{"content_types":null,"host":"*.example.org","max_body":null,'
        '"methods":["POST","PUT"],"path_prefix":null,"port":8443,"scheme":"https"}],'
        '"limits":[],"mode":"enforce"}'
    )
    policy = Policy.parse([{"host": "*.example.org:8443", "methods": ["PUT", "POST"]}])
    assert policy.hash == "sha256:" + hashlib.sha256(rules.encode()).hexdigest()


@given(
    st.lists(st.sampled_from(["a.example", "b.example", "*.a.example", "http://a.example"])),
    st.lists(st.sampled_from(["a.example", "b.example", "*.a.example", "http://a.example"])),
    st.sampled_from(["https://a.example/", "https://x.a.example/", "http://a.example/"]),
)
def test_narrowing_never_widens(first: list[str], second: list[str], url: str) -> None:
    """A narrowed policy allows a subset of what each list allows alone."""
    target = parse_target(url)
    one, two = Policy.parse(first), Policy.parse(second)
    if one.narrowed_by(two).decide(target, POST).allowed:
        assert one.decide(target, POST).allowed
        assert two.decide(target, POST).allowed
