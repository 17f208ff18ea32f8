"""URLs become parts, or are refused; where two readers could differ, they are refused."""

import json
from pathlib import Path
from unicodedata import bidirectional

import ada_url
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from signet.egress.errors import TargetInvalid
from signet.egress.target import parse_host, parse_target
from signet.egress.verdict import Verdict

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "egress" / "urls.json").read_text("utf-8")
)


@pytest.mark.parametrize(
    ("url", "verdict"),
    [(row["url"], row["verdict"]) for row in VECTORS["refused"]],
    ids=[ascii(row["note"]) for row in VECTORS["refused"]],
)
def test_hostile_urls_are_refused(url: str, verdict: str) -> None:
    """Every hostile URL of the corpus is refused, for the reason the corpus states."""
    with pytest.raises(TargetInvalid) as caught:
        parse_target(url)
    assert caught.value.verdict == verdict


@pytest.mark.parametrize("row", VECTORS["accepted"], ids=lambda row: ascii(row["url"][:60]))
def test_valid_urls_are_read_exactly(row: dict[str, object]) -> None:
    """Every valid URL of the corpus is taken apart as the corpus states."""
    target = parse_target(str(row["url"]))
    parts = {name: getattr(target, name) for name in ("scheme", "host", "port", "request_target")}
    assert {"url": row["url"], **parts} == row


@pytest.mark.parametrize("row", VECTORS["accepted"], ids=lambda row: ascii(row["url"][:60]))
def test_the_corpus_agrees_with_the_browsers(row: dict[str, object]) -> None:
    """Whatever we accept, a WHATWG parser reads the same host and port from it."""
    check_against_ada(str(row["url"]))


def test_the_corpora_are_large_enough() -> None:
    """At least 300 hostile URLs guard the parser."""
    assert len(VECTORS["refused"]) >= 300


def check_against_ada(url: str) -> None:
    target = parse_target(url)
    try:
        oracle = ada_url.URL(url)
    except ValueError:
        # The oracle knows an older Unicode, in which newer marks have no direction; it then finds
        # fault with right-to-left labels (RFC 5893). It refuses, it does not read another host.
        assert any(bidirectional(character) in {"R", "AL", "AN"} for character in url)
        return
    assert oracle.hostname.strip("[]").removesuffix(".") == target.host
    assert int(oracle.port or {"https": 443, "http": 80}[target.scheme]) == target.port
    assert oracle.protocol == target.scheme + ":"
    assert (oracle.username, oracle.password) == ("", "")


_PIECES = st.one_of(
    st.sampled_from(["example", "com", "xn--", "0x7f", "127", "::1", "443", "%2e", "%00", ".."]),
    st.sampled_from("a.-01[]:@/\\?#%_* \t\néßẞ。①İıſσςΣａ中ä\u200d\u0308\u00ad"),
)


@settings(max_examples=600, deadline=None)
@given(
    st.one_of(
        st.lists(_PIECES, max_size=8).map("".join),
        st.text(max_size=12),
        st.text(st.characters(categories=["L", "M", "N"]), max_size=10),
        st.from_regex(r"[a-z0-9.\-]{1,20}", fullmatch=True),
        st.from_regex(r"[0-9a-fx.]{1,16}", fullmatch=True),
        st.from_regex(r"\[[0-9a-f:.]{1,20}\]", fullmatch=True),
    ),
    st.sampled_from(["", "/", "/a?b#c", ":8443/", "/é"]),
)
@example("ẞ.de", "")
@example("İ.com", "/")
def test_everything_accepted_means_the_same_to_a_browser(host: str, rest: str) -> None:
    """For any URL that we accept, our host equals that of ada-url."""
    url = f"https://{host}{rest}"
    try:
        parse_target(url)
    except TargetInvalid:
        return
    check_against_ada(url)


def test_a_capital_sigma_has_one_small_letter() -> None:
    """UTS-46 maps each letter by itself; only a word as a whole would end in another sigma."""
    check_against_ada("https://exampleΣ")
    assert parse_host("ΣΑΣ.example") == parse_host("σασ.example")


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40))
def test_no_text_makes_the_parser_stumble(text: str) -> None:
    """Any text is either a target or `TargetInvalid`; no other exception escapes."""
    for url in (text, "https://" + text, "https://a.example/" + text, f"https://[{text}]/"):
        try:
            target = parse_target(url)
        except TargetInvalid:
            continue
        assert target.request_target.isascii()
        assert not set(target.request_target) & set(" \r\n\t\0\\")
        assert not set(target.authority) & set(" \r\n\t\0\\@/?#%")


@settings(max_examples=200, deadline=None)
@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]{2,10}){1,3}", fullmatch=True))
def test_ordinary_names_are_accepted_and_canonical(host: str) -> None:
    """Reading a canonical host again changes nothing, in any letter case, with or without dot."""
    try:
        canonical, _ = parse_host(host)
    except TargetInvalid:
        assert "xn--" in host
        return
    assert canonical == host
    assert parse_host(host.upper() + ".") == (canonical, None)


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://example.com/", "example.com"),
        ("https://example.com:443/", "example.com"),
        ("https://example.com:8443/", "example.com:8443"),
        ("http://example.com:80/", "example.com"),
        ("http://example.com:443/", "example.com:443"),
        ("https://[2606:4700::1]/", "[2606:4700::1]"),
        ("https://[2606:4700::1]:444/", "[2606:4700::1]:444"),
        ("https://8.8.8.8/", "8.8.8.8"),
    ],
)
def test_the_host_field_names_the_port_only_if_it_must(url: str, authority: str) -> None:
    """RFC 9110 §7.2: the port is left out when it is the scheme's own."""
    assert parse_target(url).authority == authority


def test_path_is_the_request_target_without_query() -> None:
    """A policy compares paths; a query is no part of one."""
    assert parse_target("https://a.example/x/y?z=/w").path == "/x/y"


def test_the_longest_url_is_still_read() -> None:
    """The cap on URLs is 8192 characters, not one less."""
    url = "https://a.example/"
    assert parse_target(url + "a" * (8192 - len(url))).host == "a.example"
    with pytest.raises(TargetInvalid):
        parse_target(url + "a" * (8193 - len(url)))


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("https://" + "a" * 8192, "too long"),
        ("https://a.example/ b", "space"),
        ("//a.example/", "scheme"),
        ("ftp://a.example/", "https"),
        ("https:/a.example/", "//"),
        ("https://user@a.example/", "user information"),
        ("https://a%2e.example/", "percent"),
        ("https://[fe80::1%25eth0]/", "percent"),
        ("https:///path", "no host"),
        ("https://a.example:0/", "port"),
        ("https://[::1/", "brackets"),
        ("https://[::1]443/", "brackets"),
        ("https://[::g]/", "IPv6"),
        ("https://①.example/", "stand for others"),
        ("https://a_b.example/", "letters, digits and hyphens"),
        ("https://☃.example/", "IDNA"),
        ("https://" + "a." * 200 + "example/", "too long"),
        ("https://127.1/", "dotted quad"),
        ("https://a.example/<", "percent-encoded"),
        ("https://a.example/../b", "dot segment"),
    ],
)
def test_a_refusal_says_what_is_wrong(url: str, word: str) -> None:
    """A person learns which rule the URL broke."""
    with pytest.raises(TargetInvalid, match=word):
        parse_target(url)


@pytest.mark.parametrize("text", ["[::1", "[::1%lo]", "[", "", ".", "a.."])
def test_a_host_alone_is_read_as_strictly(text: str) -> None:
    """Lists name hosts without a URL around them; the same rules hold."""
    with pytest.raises(TargetInvalid):
        parse_host(text)


def test_messages_never_repeat_the_url() -> None:
    """A URL may carry credentials; what is wrong with it is said without quoting it."""
    with pytest.raises(TargetInvalid) as caught:
        parse_target("https://user:hunter2@example.com/")
    assert "hunter2" not in str(caught.value)
    assert caught.value.verdict is Verdict.URL_INVALID
