"""Remove every check of `signet.egress`, one at a time, and see its test turn red.

    python -m tests.mutation.egress [--jobs N] [--only WORD]
    python -m tests.mutation.egress --table    the table of docs/security.md

Each mutation names the check in words, the text that is it, what stands there when it is gone, and
the one test that guards it. The mutants live in scratch copies of `src`. A test holds the table in
docs/security.md against this list, and this list against the sources.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOM = Path("signet/egress")


@dataclass(frozen=True)
class Mutation:
    """One check, its place, its removal, and the test that guards it."""

    check: str
    file: str
    old: str
    new: str
    test: str

    @property
    def node(self) -> str:
        """The test as pytest names it."""
        file, _, name = self.test.partition("::")
        folder = "tests/egress" if file in {"test_faults", "test_dns"} else "tests/unit/egress"
        return f"{folder}/{file}.py::{name}"


def _ifs(file: str, checks: dict[str, tuple[str, str]]) -> list[Mutation]:
    """Return mutations that make a condition false: `check: (condition, test)`."""
    return [
        Mutation(check, file, f"if {condition}:", "if False:", test)
        for check, (condition, test) in checks.items()
    ]


_SAYS = "test_target::test_a_refusal_says_what_is_wrong"
_HOSTILE = "test_target::test_hostile_urls_are_refused"
_ADDRESS = "test_address::test_each_address_gets_its_verdict"
_NARROWS = "test_policy::test_an_object_narrows_its_host"
_ENTRY = "test_policy::test_an_entry_allows_exactly_what_it_names"
_ENTRY_ERROR = "test_policy::test_what_cannot_be_understood_is_an_error_at_start"
_BROKEN = "test_http1::test_broken_responses_fail_however_they_are_cut"
_FAULTS = "test_faults::test_every_answer_ends_in_its_outcome"
_TLS = "test_transport::test_tls_settings"

TARGET = [
    *_ifs(
        "target.py",
        {
            "a URL has a bounded length": ("len(url) > MAX_URL_CHARS", _SAYS),
            "no space, control character or backslash": (
                'character == "\\\\" or unicodedata.category(character) in _UNSEEN',
                _HOSTILE,
            ),
            "the scheme is followed by //": ('not rest.startswith("//")', _SAYS),
            "no user information": ('"@" in authority', _SAYS),
            "no percent sign or zone id in the authority": ('"%" in authority', _SAYS),
            "brackets match": ('not bracket or (rest and colon != ":")', _SAYS),
            "there is a host": ("not host", _SAYS),
            "a port is canonical and between 1 and 65535": (
                "not _PORT.fullmatch(port_text) or int(port_text) > 65535",
                _HOSTILE,
            ),
            "no compatibility characters": (
                'not unicodedata.is_normalized("NFKC", text)',
                _HOSTILE,
            ),
            "a host has a bounded length": ("len(host) > MAX_HOST_CHARS", _HOSTILE),
            "labels are letters, digits and hyphens": ("not _LDH_LABEL.fullmatch(label)", _HOSTILE),
            "a dotted quad has no trailing dot": ('text.endswith(".")', _HOSTILE),
            "a bracketed address is closed and without zone": (
                'not text.endswith("]") or "%" in text',
                "test_target::test_a_host_alone_is_read_as_strictly",
            ),
            "the request target is RFC 3986": ("not _REQUEST_TARGET.fullmatch(text)", _HOSTILE),
            "no dot segments in the path": ("plain in _DOT_SEGMENTS", _HOSTILE),
        },
    ),
    Mutation(
        "only http and https are schemes",
        "target.py",
        'raise TargetInvalid(Verdict.SCHEME_NOT_HTTPS, "the scheme is not https")',
        'return "https"',
        _HOSTILE,
    ),
    Mutation(
        "a port is at most 65535",
        "target.py",
        " or int(port_text) > 65535",
        "",
        _HOSTILE,
    ),
    Mutation(
        "names that end in a number are dotted quads",
        "target.py",
        "not _NUMERIC_LABEL.fullmatch(labels[-1])",
        "True",
        _HOSTILE,
    ),
    Mutation(
        "hexadecimal last labels count as numbers",
        "target.py",
        "[0-9]+|0x[0-9a-f]*",
        "[0-9]+",
        _HOSTILE,
    ),
    Mutation(
        "labels are valid under IDNA 2008",
        "target.py",
        'return idna.alabel(label).decode("ascii")',
        'return label if label.isascii() else "xn--" + label.encode("punycode").decode("ascii")',
        _HOSTILE,
    ),
    Mutation(
        "A-labels are validated too",
        "target.py",
        'label.isascii() and not label.startswith("xn--")',
        "label.isascii()",
        _HOSTILE,
    ),
    Mutation(
        "escaped dot segments count",
        "target.py",
        '.replace("%2e", ".").replace("%2E", ".")',
        "",
        _HOSTILE,
    ),
    Mutation(
        "dot segments with parameters count",
        "target.py",
        'segment.partition(";")[0]',
        "segment",
        _HOSTILE,
    ),
    Mutation(
        "a host's letters are mapped one by one",
        "target.py",
        'lower = "".join(map(str.lower, text))',
        "lower = text.lower()",
        "test_target::test_a_capital_sigma_has_one_small_letter",
    ),
]

_IPV4_ROWS = (
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 168.63.129.16/32 169.254.0.0/16 "
    "172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 "
    "192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3"
)
_IPV6_ROWS = "2001::/23 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20"

ADDRESS = [
    *(
        # The row moves to the top of class E, where another row already refuses.
        Mutation(f"{row} is refused", "address.py", f'("{row}"', '("255.255.255.255/32"', _ADDRESS)
        for row in _IPV4_ROWS.split()
    ),
    *(
        Mutation(f"{row} is refused", "address.py", f'"{row}"', '"2001::/128"', _ADDRESS)
        for row in _IPV6_ROWS.split()
    ),
    Mutation(
        "IPv6 is inside 2000::/3",
        "address.py",
        'IPv6Network("2000::/3")',
        'IPv6Network("::/0")',
        _ADDRESS,
    ),
    Mutation("no ISATAP interface ids", "address.py", " or _is_isatap(address)", "", _ADDRESS),
    *_ifs(
        "address.py",
        {
            "no scope ids": (
                "address.scope_id is not None",
                "test_address::test_a_scope_id_is_refused_even_on_a_public_address",
            ),
            "named own addresses": (
                "address in rules.own",
                "test_address::test_own_addresses_count_as_loopback",
            ),
            "only private networks can be opened": (
                "any(_classify_plain(end) is not Verdict.RESOLVED_PRIVATE for end in ends)",
                "test_address::test_only_private_networks_can_be_opened",
            ),
            "NAT64 prefixes have the lengths of RFC 6052": (
                "prefix.prefixlen not in _NAT64_LENGTHS",
                "test_address::test_nat64_prefix_lengths_are_those_of_the_rfc",
            ),
            "the reserved octet of NAT64 is zero": (
                "octets[8] != 0",
                "test_address::test_nat64_reserved_octet_must_be_zero",
            ),
        },
    ),
    Mutation(
        "metadata stays refused in opened networks",
        "address.py",
        "verdict if _within(address, _METADATA) else Verdict.OK",
        "Verdict.OK",
        "test_address::test_private_networks_open_what_they_name_and_no_metadata",
    ),
    Mutation(
        "only private verdicts can be opened",
        "address.py",
        "verdict is Verdict.RESOLVED_PRIVATE and _within(address, rules.private)",
        "verdict is Verdict.RESOLVED_PRIVATE",
        "test_address::test_private_networks_open_what_they_name_and_no_metadata",
    ),
    Mutation(
        "NAT64 is judged by the address it embeds",
        "address.py",
        "else classify(embedded, rules)",
        "else Verdict.OK",
        "test_address::test_nat64_addresses_are_judged_by_what_they_embed",
    ),
]

POLICY = [
    *_ifs(
        "policy.py",
        {
            "the port is the entry's": ("destination.port != target.port", _ENTRY),
            "the scheme is the entry's": ("destination.scheme != target.scheme", _ENTRY),
            "the method is listed": (
                "destination.methods is not None and request.method not in destination.methods",
                _NARROWS,
            ),
            "the content type is listed": (
                "media_type not in destination.content_types",
                _NARROWS,
            ),
            "the body is within the entry's size": (
                "destination.max_body is not None and request.body_size > destination.max_body",
                _NARROWS,
            ),
            "no ambiguous escapes under a path prefix": (
                "_AMBIGUOUS_IN_PATH.search(path)",
                _NARROWS,
            ),
            "wildcards need a domain of two labels": (
                'address is not None or "." not in host',
                _ENTRY_ERROR,
            ),
            "unknown members are errors": (
                "unknown",
                "test_policy::test_a_malformed_object_is_an_error_at_start",
            ),
        },
    ),
    Mutation(
        "the path is within the prefix",
        "policy.py",
        'path == prefix or path.startswith(prefix if prefix.endswith("/") else prefix + "/")',
        "True",
        _NARROWS,
    ),
    Mutation(
        "a prefix ends at a segment",
        "policy.py",
        'prefix if prefix.endswith("/") else prefix + "/"',
        "prefix",
        _NARROWS,
    ),
    Mutation(
        "a wildcard is exactly one label",
        "policy.py",
        'target.host.partition(".")[2]',
        '".".join(target.host.split(".")[-2:])',
        _ENTRY,
    ),
    Mutation(
        "a wildcard matches no address",
        "policy.py",
        "if match[2]:\n        if address is not None or",
        "if match[2]:\n        if",
        _ENTRY_ERROR,
    ),
    Mutation(
        "narrowing lists hold",
        "policy.py",
        "verdict, _ = limit.judge(target, request)",
        "pass",
        "test_policy::test_narrowing_needs_both_lists",
    ),
    Mutation(
        "report mode never lets http pass",
        "policy.py",
        " and verdict is not Verdict.SCHEME_NOT_HTTPS",
        "",
        "test_policy::test_report_mode_never_lets_plain_http_pass",
    ),
    Mutation(
        "only report mode lets pass",
        "policy.py",
        'self.mode == "report"',
        "True",
        "test_policy::test_the_empty_list_denies_everything",
    ),
    Mutation(
        "a prefix without dot segments or escapes",
        "policy.py",
        " or _leaves_prefix(prefix)",
        "",
        "test_policy::test_a_malformed_object_is_an_error_at_start",
    ),
]

RESOLVE = [
    Mutation(
        "at most eight aliases",
        "resolve.py",
        "MAX_CNAME_STEPS: Final = 8",
        "MAX_CNAME_STEPS: Final = 9",
        "test_resolve::test_a_chain_without_end_fails",
    ),
    Mutation(
        "only records of the chain count",
        "resolve.py",
        "record.kind == kind and _fold(record.owner) == name",
        "record.kind == kind",
        "test_resolve::test_records_of_other_owners_are_not_taken",
    ),
    Mutation(
        "localhost is never asked",
        "resolve.py",
        'if host == "localhost" or host.endswith(".localhost"):',
        "if False:",
        "test_resolve::test_localhost_is_never_asked",
    ),
    Mutation(
        "answers are kept at most 60 seconds",
        "resolve.py",
        "_fold(host), MAX_TTL_S",
        "_fold(host), 10**9",
        "test_resolve::test_answers_are_kept_for_their_time",
    ),
    Mutation(
        "answers are kept at least a second",
        "resolve.py",
        "max(MIN_TTL_S, ttl_s)",
        "ttl_s",
        "test_resolve::test_answers_are_kept_for_their_time",
    ),
    Mutation(
        "one question for many who ask",
        "resolve.py",
        "        async with lock:\n",
        "        if lock:\n",
        "test_resolve::test_many_who_ask_make_one_question",
    ),
    Mutation(
        "the cache is bounded",
        "resolve.py",
        "if len(self._cache) > _MAX_CACHED_NAMES:",
        "if False:",
        "test_resolve::test_the_cache_is_bounded",
    ),
    Mutation(
        "names are absolute",
        "resolve.py",
        'query_dns(name + ".", kind)',
        'query_dns(name + ".example.", kind)',
        "test_dns::test_names_are_asked_as_they_are",
    ),
    Mutation(
        "a failed server is no empty answer",
        "resolve.py",
        "if error.args and error.args[0] in _NO_SUCH_RECORDS:",
        "if True:",
        "test_dns::test_a_server_that_fails_is_a_failure",
    ),
]

TRANSPORT = [
    *_ifs(
        "transport.py",
        {
            "the socket's peer is the validated address": (
                "not _is_peer(peer, address, target.port)",
                "test_faults::test_a_dialler_that_reached_another_peer_is_refused",
            ),
            "the wire is bounded in bytes and reads": (
                "self._bytes_left < 0 or self._reads_left < 0",
                _FAULTS,
            ),
            "nothing is read that nobody asked for": (
                "response is None",
                "test_transport::test_a_connection_that_speaks_unasked_is_dropped",
            ),
            "idle connections per host are bounded": (
                "idle_until <= loop.time() or len(connections) >= self._limits.max_idle_per_host",
                "test_transport::test_the_number_of_idle_connections_is_bounded",
            ),
            "idle connections are bounded in all": (
                "len(self._places) > self._limits.max_idle",
                "test_transport::test_the_number_of_idle_connections_is_bounded",
            ),
            "idle connections end by themselves": (
                "self._timer is None",
                "test_transport::test_idle_connections_close_by_themselves",
            ),
        },
    ),
    Mutation(
        "the peer's port is checked",
        "transport.py",
        " and peer[1] == port",
        "",
        "test_faults::test_a_dialler_that_reached_another_peer_is_refused",
    ),
    Mutation(
        "the reads are bounded",
        "transport.py",
        " or self._reads_left < 0",
        "",
        "test_transport::test_an_answer_in_countless_pieces_is_too_large",
    ),
    Mutation(
        "TLS 1.2 at least",
        "transport.py",
        "    context.minimum_version = ssl.TLSVersion.TLSv1_2\n",
        "    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED\n",
        _TLS,
    ),
    Mutation(
        "host names come from SAN only",
        "transport.py",
        "hostname_checks_common_name = False",
        "hostname_checks_common_name = True",
        "test_faults::test_bad_certificates_get_no_byte[common name only]",
    ),
    Mutation(
        "certificates are checked",
        "transport.py",
        "    context.minimum_version",
        "    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE\n"
        "    context.minimum_version",
        "test_faults::test_bad_certificates_get_no_byte",
    ),
    Mutation(
        "certificates are checked against the host",
        "transport.py",
        "    context.minimum_version",
        "    context.check_hostname = False\n    context.minimum_version",
        "test_faults::test_bad_certificates_get_no_byte",
    ),
    Mutation(
        "the certificate's host is the URL's, not the address",
        "transport.py",
        "server_hostname=host",
        "server_hostname=self.pinned_ip",
        "test_faults::test_good_certificates_prove_the_host",
    ),
    Mutation(
        "no session keys on disk",
        "transport.py",
        "ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)",
        "ssl.create_default_context(cadata=trust)",
        _TLS,
    ),
    Mutation(
        "no renegotiation",
        "transport.py",
        " | ssl.OP_NO_RENEGOTIATION",
        "",
        _TLS,
    ),
    Mutation(
        "an unsent rest is never followed by a request",
        "transport.py",
        "return not transport.get_write_buffer_size()",
        "return True",
        "test_transport::test_an_early_answer_ends_the_connection",
    ),
    Mutation(
        "old connections are not reused",
        "transport.py",
        "connection.idle_until > now and connection.reusable",
        "connection.reusable",
        "test_transport::test_old_connections_are_not_reused",
    ),
    Mutation(
        "connections have a bounded age",
        "transport.py",
        "connection.opened_at + self._limits.max_age_s",
        "loop.time() + 3600",
        "test_transport::test_old_connections_are_not_reused",
    ),
    *(
        Mutation(
            f"connections belong to one {part}",
            "transport.py",
            "return target.scheme, target.host, target.port",
            f"return {kept}",
            "test_transport::test_connections_are_never_shared_between_places",
        )
        for part, kept in (
            ("scheme", '"", target.host, target.port'),
            ("host", 'target.scheme, "", target.port'),
            ("port", "target.scheme, target.host, 0"),
        )
    ),
    Mutation(
        "requests to one place are bounded in number",
        "transport.py",
        "asyncio.Semaphore(self._limit)",
        "asyncio.Semaphore(10**6)",
        "test_transport::test_requests_to_one_place_are_bounded_in_number",
    ),
    Mutation(
        "own interfaces are recognised",
        "transport.py",
        "return source == address",
        "return False",
        "test_transport::test_own_interfaces_are_recognised",
    ),
    Mutation(
        "a clean end is one that TLS announced",
        "transport.py",
        "self._end(clean=self._tls is None)",
        "self._end(clean=True)",
        f"{_FAULTS}[cut body until close]",
    ),
]

HTTP1 = [
    *_ifs(
        "http1.py",
        {
            "methods are a closed set": (
                "method not in METHODS",
                "test_http1::test_methods_are_a_closed_set",
            ),
            "no header that frames or routes": (
                "folded in _RESERVED_FIELDS or not _TOKEN.fullmatch(name)",
                "test_http1::test_fields_that_steer_the_connection_cannot_be_set",
            ),
            "no header twice": (
                "folded in names",
                "test_http1::test_a_field_given_twice_is_refused",
            ),
            "no CR, LF, NUL or other control in a value": (
                "not _FIELD_VALUE.fullmatch(value)",
                "test_http1::test_field_values_cannot_begin_another_field",
            ),
            "the request head is bounded": (
                "len(head) > _MAX_REQUEST_HEAD",
                "test_http1::test_the_request_head_is_bounded",
            ),
            "an answer begins like HTTP": ("not _OPENING.startswith(self._opening)", _BROKEN),
            "an answer is HTTP/1.0 or HTTP/1.1": (
                'self._parser.get_http_version() not in ("1.0", "1.1")',
                _BROKEN,
            ),
            "the response head is bounded": ("room <= 0", _BROKEN),
            "no transfer coding but chunked": (
                'self._coding is not None or value.lower() != b"chunked"',
                _BROKEN,
            ),
            "no content coding": ('value.lower() not in (b"", b"identity")', _BROKEN),
            "no upgrade": ("status == 101", _BROKEN),
            "a stated length is within the limit": (
                "int(self._length) > self._limits.max_body",
                _BROKEN,
            ),
            "the body is counted while it streams": (
                "self.body_size > self._limits.max_body",
                _BROKEN,
            ),
        },
    ),
    Mutation(
        "a body until close needs a clean end",
        "http1.py",
        "self._head_done and self._until_close and clean",
        "self._head_done and self._until_close",
        "test_http1::test_a_body_until_close_counts_only_after_a_clean_end",
    ),
    Mutation(
        "an early end is a truncation",
        "http1.py",
        "self._head_done and self._until_close and clean",
        "self._head_done and clean",
        "test_http1::test_an_early_end_is_a_truncation",
    ),
    Mutation(
        "bytes after the response, in a read of their own, end the connection",
        "http1.py",
        "self.reusable = False  # bytes nobody asked for",
        "pass  # bytes nobody asked for",
        "test_http1::test_bytes_after_the_response_end_the_connection",
    ),
    Mutation(
        "bytes after the response, in the same read, end the connection",
        "http1.py",
        "        if self.finished:\n            self.reusable = False\n\n    def on_header(",
        "        pass\n\n    def on_header(",
        "test_http1::test_bytes_after_the_response_end_the_connection",
    ),
]

CLIENT = [
    Mutation(
        "the policy is asked",
        "client.py",
        "Verdict.OK if decision.allowed else decision.verdict",
        "Verdict.OK",
        "test_client::test_the_policy_is_asked_on_every_request",
    ),
    Mutation(
        "plain http needs a policy that says so",
        "client.py",
        'Verdict.OK if target.scheme == "https" else Verdict.SCHEME_NOT_HTTPS',
        "Verdict.OK",
        "test_client::test_addresses_in_urls_are_judged_too",
    ),
    Mutation(
        "the addresses are judged",
        "client.py",
        "verdict = self.judge(address)",
        "verdict = Verdict.OK",
        "test_client::test_names_that_lead_inside_are_refused",
    ),
    Mutation(
        "addresses in URLs are judged too",
        "client.py",
        "verdict = self.judge(address)",
        "verdict = Verdict.OK if attempt.target.address else self.judge(address)",
        "test_client::test_addresses_in_urls_are_judged_too",
    ),
    Mutation(
        "this machine's own addresses are refused",
        "client.py",
        "verdict is Verdict.OK and leads_home(address)",
        "False",
        "test_client::test_an_own_address_is_refused_even_if_its_network_is_opened",
    ),
    Mutation(
        "one bad address spoils the answer",
        "client.py",
        "for address in addresses:\n            # Any bad",
        "for address in addresses[:1]:\n            # Any bad",
        "test_client::test_names_that_lead_inside_are_refused",
    ),
    Mutation(
        "a bounded number of addresses is tried",
        "client.py",
        "addresses[:_MAX_ADDRESSES_TRIED]",
        "addresses",
        "test_client::test_a_name_with_many_addresses_is_not_scanned",
    ),
    Mutation(
        "each address has its share of the time",
        "client.py",
        "(attempt.deadline_at - _now()) / left",
        "3600.0",
        "test_client::test_a_silent_address_does_not_use_up_the_deadline",
    ),
    Mutation(
        "names have a deadline of their own",
        "client.py",
        "asyncio.timeout(self._limits.resolve_s)",
        "asyncio.timeout(3600)",
        "test_client::test_names_have_a_deadline_of_their_own",
    ),
    Mutation(
        "one deadline over everything",
        "client.py",
        "asyncio.timeout_at(attempt.deadline_at)",
        "asyncio.timeout(None)",
        "test_client::test_a_deadline_can_be_shortened_not_lengthened",
    ),
    Mutation(
        "the caller's deadline cannot lengthen the client's",
        "client.py",
        "min(bound_s, deadline_s)",
        "deadline_s",
        "test_client::test_a_deadline_can_be_shortened_not_lengthened",
    ),
    Mutation(
        "the caller has the last word before the first byte",
        "client.py",
        "before_first_byte is not None and not before_first_byte()",
        "False",
        "test_client::test_the_last_word_before_the_first_byte",
    ),
    Mutation(
        "a connection that broke is not kept",
        "client.py",
        "unused or (response.finished and response.reusable)",
        "True",
        "test_transport::test_bytes_behind_an_answer_do_not_reach_the_next_request",
    ),
    Mutation(
        "a closed kept connection is noticed first",
        "client.py",
        "        await asyncio.sleep(0)\n        await asyncio.sleep(0)\n",
        "",
        "test_client::test_an_end_in_the_kernel_is_seen_before_the_request",
    ),
    Mutation(
        "the synchronous form refuses to block a loop",
        "client.py",
        "raise SyncInLoop(",
        "print(",
        "test_client::test_safe_forward_inside_a_loop_raises",
    ),
    Mutation(
        "a payload is JSON",
        "client.py",
        "allow_nan=False",
        "allow_nan=True",
        "test_client::test_a_payload_that_is_no_json_is_an_error",
    ),
]

SIGNING = [
    *_ifs(
        "signing.py",
        {
            "webhook secrets have 24 to 64 bytes": (
                "not 24 <= len(key) <= 64",
                "test_signing::test_weak_or_malformed_secrets_are_refused",
            ),
            "a webhook id cannot shift the signed text": (
                "not _WEBHOOK_ID.fullmatch(webhook_id)",
                "test_signing::test_an_id_that_could_shift_the_signed_text_is_refused",
            ),
        },
    ),
    Mutation(
        "a malformed traceparent does not travel on",
        "signing.py",
        "if _NOTHING.fullmatch(match[1]) or _NOTHING.fullmatch(match[2]):",
        "if False:",
        "test_signing::test_a_malformed_trace_is_replaced",
    ),
]

MUTATIONS = (*TARGET, *ADDRESS, *POLICY, *RESOLVE, *TRANSPORT, *HTTP1, *CLIENT, *SIGNING)


def table() -> str:
    """Return the table of docs/security.md."""
    rows = [f"| {m.check} | `{m.file}` | `{m.test}` |" for m in MUTATIONS]
    return "\n".join(("| check | in | guarded by |", "|---|---|---|", *rows)) + "\n"


def survives(mutation: Mutation) -> str | None:
    """Return why `mutation` was not noticed, or None if its test turned red."""
    with tempfile.TemporaryDirectory(prefix="signet-mutant-") as directory:
        source = Path(directory) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        path = source / ROOM / mutation.file
        text = path.read_text("utf-8")
        if text.count(mutation.old) < 1:
            return "its text is not in the source"
        path.write_text(text.replace(mutation.old, mutation.new, 1), "utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, "-p", "no:randomly", "--timeout=60", mutation.node],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    if done.returncode == 1:
        return None  # 1: tests ran and failed; anything else is no verdict of a test
    return "the test stayed green" if done.returncode == 0 else done.stdout[-2000:] + done.stderr


def main() -> int:
    """Run the mutations and print those that survive."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        print(table(), end="")
        return 0
    chosen = [m for m in MUTATIONS if args.only in m.check or args.only in m.file]
    survivors = 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for mutation, reason in zip(chosen, pool.map(survives, chosen), strict=True):
            if reason is not None:
                survivors += 1
                print(f"SURVIVES {mutation.file}: {mutation.check} ({mutation.test})\n{reason}")
                sys.stdout.flush()
    print(f"{len(chosen) - survivors} of {len(chosen)} removals turned their test red")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
