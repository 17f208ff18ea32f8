"""The client end to end: rules, names, one attempt, one outcome."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from tests.egress.peers import Conversation, Peer
from tests.egress.stage import (
    HOST,
    OK,
    PUBLIC_IP,
    URL,
    Authority,
    LoopbackDialler,
    StaticNames,
    address_record,
    answering,
    read_request,
    stage,
)
from tests.unit.egress.test_transport import own_addresses

from signet.egress import (
    AddressRules,
    EgressClient,
    Indeterminate,
    IndeterminateCode,
    Limits,
    LookupFailed,
    NotSent,
    NotSentCode,
    Policy,
    Record,
    Refused,
    RequestInvalid,
    Responded,
    SyncInLoop,
    Verdict,
    asafe_forward,
    classify,
    parse_target,
    safe_forward,
)
from signet.egress.resolve import QueryKind

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


async def test_a_request_arrives_as_given_and_its_answer_is_told(authority: Authority) -> None:
    """The body goes out byte for byte; status, size, hash and address come back."""
    seen: list[tuple[bytes, bytes]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(
            b"HTTP/1.1 201 Created\r\nContent-Type: text/plain\r\nRetry-After: 7\r\n"
            b"Set-Cookie: a=b\r\nContent-Length: 5\r\n\r\nhello"
        )

    async with stage(authority) as s:
        await s.serve(handle)
        outcome = await s.send(body=b'{"a":1}', headers={"X-A": "b"}, keep_body=True)
    assert outcome == Responded(
        status=201,
        host=HOST,
        pinned_ip=PUBLIC_IP,
        response_size=5,
        response_hash="sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        content_type="text/plain",
        retry_after="7",
        body=b"hello",
    )
    ((head, body),) = seen
    assert head.startswith(b"POST /hook HTTP/1.1\r\nHost: api.example.com\r\n")
    assert b"X-A: b\r\n" in head
    assert body == b'{"a":1}'


async def test_cookies_are_not_kept(authority: Authority) -> None:
    """What one answer sets, the next request does not carry."""
    heads: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            heads.append((await read_request(reader))[0])
            writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")

    async with stage(authority) as s:
        await s.serve(handle)
        await s.send()
        await s.send()
    assert len(heads) == 2
    assert b"cookie" not in heads[1].lower()


async def test_the_environment_has_no_say(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxy variables, netrc and their like change nothing about where a request goes."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with stage(authority) as s:
        await s.serve(answering(OK))
        assert isinstance(await s.send(), Responded)
        assert s.dialler.dialled == [(PUBLIC_IP, 443)]


REBINDING: dict[str, tuple[Sequence[str | Record], Verdict]] = {
    "loopback": (["127.0.0.1"], Verdict.RESOLVED_LOOPBACK),
    "loopback over IPv6": (["::1"], Verdict.RESOLVED_LOOPBACK),
    "unspecified": (["0.0.0.0"], Verdict.RESOLVED_RESERVED),
    "metadata": (["169.254.169.254"], Verdict.RESOLVED_LINKLOCAL),
    "private": (["10.0.0.1"], Verdict.RESOLVED_PRIVATE),
    "shared": (["100.64.0.1"], Verdict.RESOLVED_PRIVATE),
    "unique local": (["fd00::1"], Verdict.RESOLVED_PRIVATE),
    "link-local": (["fe80::1"], Verdict.RESOLVED_LINKLOCAL),
    "mapped loopback": (["::ffff:127.0.0.1"], Verdict.RESOLVED_RESERVED),
    "NAT64 of metadata": (["64:ff9b::a9fe:a9fe"], Verdict.RESOLVED_RESERVED),
    "6to4 of loopback": (["2002:7f00:1::"], Verdict.RESOLVED_RESERVED),
    "multicast": (["224.0.0.1"], Verdict.RESOLVED_RESERVED),
    "broadcast": (["255.255.255.255"], Verdict.RESOLVED_RESERVED),
    "Azure's agent": (["168.63.129.16"], Verdict.RESOLVED_RESERVED),
    "public, then private": ([PUBLIC_IP, "10.0.0.1"], Verdict.RESOLVED_PRIVATE),
    "private, then public": (["192.168.1.1", PUBLIC_IP], Verdict.RESOLVED_PRIVATE),
    "public, and loopback over IPv6": ([PUBLIC_IP, "::1"], Verdict.RESOLVED_LOOPBACK),
    "forty public, one private": (
        [f"8.8.8.{i}" for i in range(40)] + ["10.0.0.1"],
        Verdict.RESOLVED_PRIVATE,
    ),
    "an alias of metadata": (
        [
            Record(owner=HOST, kind="CNAME", value="metadata.internal", ttl_s=60),
            address_record("metadata.internal", "169.254.169.254"),
        ],
        Verdict.RESOLVED_LINKLOCAL,
    ),
}


@pytest.mark.parametrize("name", REBINDING)
async def test_names_that_lead_inside_are_refused(authority: Authority, name: str) -> None:
    """No socket is opened, and what the name resolved to is not told."""
    answer, verdict = REBINDING[name]
    async with stage(authority, names={HOST: answer}) as s:
        outcome = await s.send()
        assert outcome == Refused(code=verdict, host=HOST)
        assert s.dialler.dialled == []
    told = repr(outcome)
    for item in answer:
        assert str(item if isinstance(item, str) else item.value) not in told


@pytest.mark.parametrize(
    ("url", "verdict"),
    [
        ("https://127.0.0.1/", Verdict.RESOLVED_LOOPBACK),
        ("https://[::1]/", Verdict.RESOLVED_LOOPBACK),
        ("https://169.254.169.254/latest/meta-data/", Verdict.RESOLVED_LINKLOCAL),
        ("https://10.1.2.3/", Verdict.RESOLVED_PRIVATE),
        ("https://[::ffff:7f00:1]/", Verdict.RESOLVED_RESERVED),
        ("https://localhost/", Verdict.RESOLVED_LOOPBACK),
        ("https://db.localhost/", Verdict.RESOLVED_LOOPBACK),
        ("http://api.example.com/", Verdict.SCHEME_NOT_HTTPS),
    ],
)
async def test_addresses_in_urls_are_judged_too(
    authority: Authority, url: str, verdict: Verdict
) -> None:
    """A literal needs no name server, but the same rule."""
    async with stage(authority) as s:
        outcome = await s.send(url)
        assert isinstance(outcome, Refused)
        assert outcome.code is verdict
        assert (s.names.asked, s.dialler.dialled) == ([], [])


async def test_a_listed_address_is_still_judged(authority: Authority) -> None:
    """Naming an inner address in a list does not make it reachable."""
    policy = Policy.parse(["127.0.0.1", "localhost", "169.254.169.254"])
    async with stage(authority) as s:
        for host in ("127.0.0.1", "localhost", "169.254.169.254"):
            assert isinstance(await s.send(f"https://{host}/", policy=policy), Refused)
        assert s.dialler.dialled == []


async def test_report_mode_does_not_relax_the_address_rule(authority: Authority) -> None:
    """What a list would refuse may pass for a trial; an inner address may not."""
    policy = Policy.parse([], mode="report")
    async with stage(authority, names={HOST: [PUBLIC_IP], "in.example": ["10.0.0.1"]}) as s:
        await s.serve(answering(OK))
        assert isinstance(await s.send(policy=policy), Responded)
        inner = await s.send("https://in.example/", policy=policy)
        assert inner == Refused(code=Verdict.RESOLVED_PRIVATE, host="in.example")


async def test_a_refusal_by_the_list_asks_no_name_server(authority: Authority) -> None:
    """What is not allowed costs neither a query nor a socket."""
    async with stage(authority) as s:
        outcome = await s.send(policy=Policy.parse(["other.example"]))
        assert outcome == Refused(code=Verdict.HOST_NOT_ALLOWED, host=HOST)
        assert (s.names.asked, s.dialler.dialled) == ([], [])


async def test_the_policy_is_asked_on_every_request(authority: Authority) -> None:
    """A kept connection does not outlive the permission to use it."""
    async with stage(authority) as s:
        await s.serve(answering(OK))
        assert isinstance(await s.send(policy=Policy.parse([HOST])), Responded)
        assert isinstance(await s.send(policy=Policy()), Refused)
        assert isinstance(await s.send(policy=Policy.parse([HOST])), Responded)
        assert len(s.connections) == 1


async def test_the_policy_sees_method_size_and_content_type(authority: Authority) -> None:
    """What a destination restricts is compared with what would be sent."""
    entry = {"host": HOST, "methods": ["PUT"], "max_body": 2, "content_types": ["text/plain"]}
    policy = Policy.parse([entry])
    async with stage(authority) as s:
        await s.serve(answering(OK))
        good = {"method": "PUT", "headers": {"content-TYPE": "text/plain"}}
        assert isinstance(await s.send(policy=policy, **good), Responded)
        for change, verdict in [
            ({"method": "POST"}, Verdict.METHOD_NOT_ALLOWED),
            ({"body": b"abc"}, Verdict.BODY_TOO_LARGE),
            ({"headers": {}}, Verdict.CONTENT_TYPE_NOT_ALLOWED),
        ]:
            outcome = await s.send(policy=policy, **(good | change))
            assert isinstance(outcome, Refused)
            assert outcome.code is verdict


async def test_plain_http_needs_an_explicit_entry(authority: Authority) -> None:
    """Listed as http it is sent without TLS, to the same judged addresses."""
    policy = Policy.parse([f"http://{HOST}"])
    async with stage(authority, names={HOST: [PUBLIC_IP]}) as s:
        await s.serve(answering(OK), port=80, plain=True)
        assert isinstance(await s.send(f"http://{HOST}/", policy=policy), Responded)
        assert isinstance(await s.send(f"https://{HOST}/", policy=policy), Refused)
        s.names.table[HOST] = ["10.0.0.1"]
    async with stage(authority, names={HOST: ["10.0.0.1"]}) as s:
        outcome = await s.send(f"http://{HOST}/", policy=policy)
        assert outcome == Refused(code=Verdict.RESOLVED_PRIVATE, host=HOST)


async def test_an_answer_that_flips_is_judged_again(authority: Authority) -> None:
    """A name that was public is refused as soon as a fresh answer is not."""
    limits = Limits(idle_s=0.01)
    names = {HOST: [address_record(HOST, PUBLIC_IP, ttl_s=0)]}
    async with stage(authority, limits=limits, names=names) as s:
        await s.serve(answering(OK))
        assert isinstance(await s.send(), Responded)
        s.names.table[HOST] = ["169.254.169.254"]
        await asyncio.sleep(1.1)
        assert await s.send() == Refused(code=Verdict.RESOLVED_LINKLOCAL, host=HOST)
        assert s.dialler.dialled == [(PUBLIC_IP, 443)]


class Flipping(StaticNames):
    """Answers with a public address first and with loopback ever after."""

    async def query(self, name: str, kind: QueryKind) -> list[Record]:
        first = (name, kind) not in self.asked
        self.asked.append((name, kind))
        if kind == "AAAA":
            return []
        return [address_record(name, PUBLIC_IP if first else "127.0.0.1", ttl_s=0)]


async def test_names_are_resolved_once_per_connection(authority: Authority) -> None:
    """The address that was judged is the address that is dialled: there is no second question."""
    dialler, names = LoopbackDialler(), Flipping({})
    async with EgressClient(resolver=names, dialler=dialler, trust=authority.pem) as client:
        await client.send(parse_target(URL), b"{}", {}, None)
    assert names.asked.count((HOST, "A")) == 1
    assert dialler.dialled == [(PUBLIC_IP, 443)]


async def test_an_own_address_is_refused_even_if_its_network_is_opened(
    authority: Authority,
) -> None:
    """A private network that the operator opened does not include this machine itself."""
    own = map(ip_address, own_addresses())
    private = [a for a in own if classify(a) is Verdict.RESOLVED_PRIVATE]
    if not private:
        pytest.skip("this machine has no private interface address")
    for address in private:
        network = ip_network((address, address.max_prefixlen))
        assert isinstance(network, IPv4Network | IPv6Network)
        dialler = LoopbackDialler()
        async with EgressClient(
            resolver=StaticNames({HOST: [str(address)]}),
            dialler=dialler,
            trust=authority.pem,
            rules=AddressRules(private=(network,)),
        ) as client:
            outcome = await client.send(parse_target(URL), b"{}", {}, None)
        assert outcome == Refused(code=Verdict.RESOLVED_LOOPBACK, host=HOST)
        assert dialler.dialled == []


async def test_an_opened_private_network_is_reached(authority: Authority) -> None:
    """What the operator names at start is allowed; its neighbour is not."""
    rules = AddressRules(private=(IPv4Network("10.77.77.0/30"),))
    dialler = LoopbackDialler()
    names = StaticNames({HOST: ["10.77.77.1"], "b.example": ["10.77.77.4"]})
    async with EgressClient(
        resolver=names, dialler=dialler, trust=authority.pem, rules=rules
    ) as client:
        outcome = await client.send(parse_target(URL), b"{}", {}, None)
        assert outcome == NotSent(code=NotSentCode.CONNECT_FAILED, host=HOST)
        refused = await client.send(parse_target("https://b.example/"), b"{}", {}, None)
        assert isinstance(refused, Refused)
    assert dialler.dialled == [("10.77.77.1", 443)]


async def test_the_next_address_is_tried_before_anything_is_sent(authority: Authority) -> None:
    """An address that refuses the connection or the handshake is passed over."""
    names = {HOST: ["8.8.8.8", "8.8.4.4", PUBLIC_IP]}
    async with stage(authority, names=names) as s:
        await s.serve(answering(OK), ip="8.8.4.4", tls=authority.issue(["other.example"]))
        await s.serve(answering(OK))
        outcome = await s.send()
        assert isinstance(outcome, Responded)
        assert outcome.pinned_ip == PUBLIC_IP
        assert [ip for ip, _ in s.dialler.dialled] == names[HOST]


async def test_a_silent_address_does_not_use_up_the_deadline(authority: Authority) -> None:
    """Each address gets its share of the time that is left."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    names = {HOST: ["8.8.8.8", PUBLIC_IP]}
    async with stage(authority, limits=Limits(deadline_s=16.0), names=names) as s:
        await s.serve(silent, ip="8.8.8.8", plain=True)
        await s.serve(answering(OK))
        assert isinstance(await s.send(), Responded)


async def test_a_name_with_many_addresses_is_not_scanned(authority: Authority) -> None:
    """At most four addresses are dialled for one request."""
    async with stage(authority, names={HOST: [f"8.8.8.{i}" for i in range(100)]}) as s:
        assert await s.send() == NotSent(code=NotSentCode.CONNECT_FAILED, host=HOST)
        assert len(s.dialler.dialled) == 4


async def test_after_the_first_byte_nothing_is_tried_again(authority: Authority) -> None:
    """A lost connection is not repaired by sending twice, not even to another address."""
    names = {HOST: ["8.8.8.8", PUBLIC_IP]}

    async def vanish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)

    async with stage(authority, names=names) as s:
        await s.serve(vanish, ip="8.8.8.8")
        await s.serve(answering(OK))
        outcome = await s.send()
        assert isinstance(outcome, Indeterminate)
        assert outcome.code is IndeterminateCode.CONNECTION_LOST
        assert s.connections == [("8.8.8.8", 443)]


def test_a_kept_connection_that_breaks_is_not_tried_again(authority: Authority) -> None:
    """The server reads the second request and goes: it may have acted, so nobody asks again."""

    def once(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.send(OK)
        conversation.read_request()
        conversation.reset()

    async def twice(peer: Peer) -> None:
        dialler = LoopbackDialler()
        dialler.ports[PUBLIC_IP, 443] = peer.port
        async with EgressClient(
            resolver=StaticNames({HOST: [PUBLIC_IP]}), dialler=dialler, trust=authority.pem
        ) as client:
            assert isinstance(await client.send(parse_target(URL), b"1", {}, None), Responded)
            second = await client.send(parse_target(URL), b"2", {}, None)
            assert isinstance(second, Indeterminate)

    with Peer(once, authority.issue()) as peer:
        asyncio.run(twice(peer))
    assert [request[-1:] for request in peer.requests] == [b"1", b"2"]


def test_an_end_in_the_kernel_is_seen_before_the_request(authority: Authority) -> None:
    """If the server closed a kept connection while this loop was busy, a new one is made."""
    gone = threading.Event()

    def once(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.send(OK)
        conversation.reset()
        gone.set()

    async def twice(peer: Peer) -> None:
        dialler = LoopbackDialler()
        dialler.ports[PUBLIC_IP, 443] = peer.port
        async with EgressClient(
            resolver=StaticNames({HOST: [PUBLIC_IP]}), dialler=dialler, trust=authority.pem
        ) as client:
            assert isinstance(await client.send(parse_target(URL), b"1", {}, None), Responded)
            assert gone.wait(240)  # blocking on purpose: the loop must not see the end come
            assert isinstance(await client.send(parse_target(URL), b"2", {}, None), Responded)

    with Peer(once, authority.issue()) as peer:
        asyncio.run(twice(peer))
    assert peer.connections == 2


async def test_the_last_word_before_the_first_byte(authority: Authority) -> None:
    """A veto leaves nothing sent, and the connection fit for the next request."""
    seen: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append((await read_request(reader))[1])
            writer.write(OK)

    async with stage(authority) as s:
        await s.serve(handle)
        outcome = await s.send(body=b"1", before_first_byte=lambda: False)
        assert outcome == NotSent(code=NotSentCode.VETOED, host=HOST)
        assert isinstance(await s.send(body=b"2", before_first_byte=lambda: True), Responded)
        assert seen == [b"2"]
        assert len(s.connections) == 1


async def test_the_last_word_comes_after_the_handshake(authority: Authority) -> None:
    """The hook runs once the connection stands: nothing slow lies between it and the send."""
    async with stage(authority) as s:
        await s.serve(answering(OK))
        connections: list[int] = []

        def note() -> bool:
            connections.append(len(s.dialler.dialled))
            return True

        await s.send(before_first_byte=note)
        assert connections == [1]
        await s.send("https://127.0.0.1/", before_first_byte=note)
        await s.send(policy=Policy(), before_first_byte=note)
        assert connections == [1]


async def test_a_failing_hook_sends_nothing(authority: Authority) -> None:
    """An exception of the caller's own goes to the caller, and the connection survives."""

    def broken() -> bool:
        raise LookupError("lease store")

    async with stage(authority) as s:
        await s.serve(answering(OK))
        with pytest.raises(LookupError):
            await s.send(before_first_byte=broken)
        assert isinstance(await s.send(), Responded)
        assert len(s.connections) == 1


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (NotSentCode.RESOLUTION_FAILED, NotSentCode.RESOLUTION_FAILED),
        (NotSentCode.NO_RESOLUTION, NotSentCode.NO_RESOLUTION),
    ],
)
async def test_name_failures_are_not_sent(
    authority: Authority, code: NotSentCode, expected: NotSentCode
) -> None:
    """Every failure of names is `not_sent`, never a refusal."""
    async with stage(authority, names={HOST: LookupFailed(code)}) as s:
        assert await s.send() == NotSent(code=expected, host=HOST)
    async with stage(authority, names={}) as s:
        assert await s.send() == NotSent(code=NotSentCode.NO_RESOLUTION, host=HOST)


class Silent(StaticNames):
    """A name server that never answers."""

    async def query(self, name: str, kind: QueryKind) -> list[Record]:
        await asyncio.sleep(3600)
        return []


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (Limits(resolve_s=0.1, deadline_s=60.0), NotSentCode.RESOLUTION_FAILED),
        (Limits(resolve_s=60.0, deadline_s=0.1), NotSentCode.DEADLINE),
    ],
)
async def test_names_have_a_deadline_of_their_own(limits: Limits, code: NotSentCode) -> None:
    """A silent name server costs its own bound, or the request's if that is shorter."""
    async with EgressClient(resolver=Silent({}), limits=limits) as client:
        async with asyncio.timeout(240):
            outcome = await client.send(parse_target(URL), b"{}", {}, None)
    assert outcome == NotSent(code=code, host=HOST)


async def test_a_deadline_can_be_shortened_not_lengthened(authority: Authority) -> None:
    """The caller's deadline holds if it is the earlier one."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await reader.read()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with stage(authority, limits=Limits(deadline_s=600.0)) as s:
        await s.serve(once)
        await s.send()  # the next one needs no handshake, which a busy machine could be late with
        async with asyncio.timeout(240):
            outcome = await s.send(deadline_s=0.5)
        assert isinstance(outcome, Indeterminate)
        assert outcome.code is IndeterminateCode.DEADLINE
    async with stage(authority, limits=Limits(deadline_s=0.5)) as s:
        await s.serve(silent, plain=True)
        async with asyncio.timeout(240):
            outcome = await s.send(deadline_s=600.0)
        assert outcome == NotSent(code=NotSentCode.DEADLINE, host=HOST)


@pytest.mark.parametrize("deadline_s", [0.0, -1.0])
async def test_no_time_left_sends_nothing(authority: Authority, deadline_s: float) -> None:
    """A request that comes too late does not leave."""
    async with stage(authority) as s:
        await s.serve(answering(OK))
        outcome = await s.send(deadline_s=deadline_s)
        assert outcome == NotSent(code=NotSentCode.DEADLINE, host=HOST)
        await s.send()
        kept = await s.send(deadline_s=deadline_s)
        assert kept == NotSent(code=NotSentCode.DEADLINE, host=HOST)


async def test_a_cancelled_request_leaves_no_connection_behind(authority: Authority) -> None:
    """Cancelling in the middle closes the connection instead of keeping it half used."""
    arrived = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        arrived.set()
        await asyncio.sleep(0.2)
        writer.write(OK)

    async with stage(authority) as s:
        await s.serve(slow)
        async with asyncio.TaskGroup() as group:
            cancelled = group.create_task(s.send())
            await arrived.wait()
            cancelled.cancel()
        await s.send()
        assert len(s.connections) == 2


async def test_what_cannot_be_sent_is_said_before_anything_happens(authority: Authority) -> None:
    """A forbidden header or method raises, and no name is asked."""
    async with stage(authority) as s:
        for options in ({"headers": {"Host": "x"}}, {"method": "BREW"}):
            with pytest.raises(RequestInvalid):
                await s.send(**options)
        assert s.names.asked == []


async def test_many_slow_peers_hold_nobody_up(authority: Authority) -> None:
    """A hundred requests that hang leave a request to another host as it was."""

    arrived = asyncio.Semaphore(0)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        arrived.release()
        await reader.read()

    names = {"slow.example.com": ["8.8.8.8"], HOST: [PUBLIC_IP]}
    async with stage(authority, names=names, limits=Limits(deadline_s=90.0)) as s:
        await s.serve(silent, ip="8.8.8.8", tls=authority.issue(["slow.example.com"]))
        await s.serve(answering(OK))
        async with asyncio.TaskGroup() as group:
            hanging = [group.create_task(s.send("https://slow.example.com/")) for _ in range(100)]
            for _ in range(Limits().max_per_host):  # the others wait for their turn
                await arrived.acquire()
            assert isinstance(await s.send(), Responded)
            assert not any(task.done() for task in hanging)
            for task in hanging:
                task.cancel()


def test_safe_forward_returns_the_promised_dictionary(authority: Authority) -> None:
    """`safe_forward(url, payload)` posts compact JSON and returns exactly these members."""
    dialler = LoopbackDialler()

    def echo(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.send(OK)

    with Peer(echo, authority.issue()) as peer:
        dialler.ports[PUBLIC_IP, 443] = peer.port
        result = safe_forward(
            URL,
            {"b": 1, "a": "é"},
            headers={"X-A": "1"},
            policy=Policy.parse([HOST]),
            resolver=StaticNames({HOST: [PUBLIC_IP]}),
            dialler=dialler,
            trust=authority.pem,
        )
    assert result == {
        "status_code": 200,
        "host": HOST,
        "pinned_ip": PUBLIC_IP,
        "response_size": 2,
        "outcome": "responded",
    }
    (request,) = peer.requests
    assert request.endswith(b"\r\n\r\n" + '{"b":1,"a":"é"}'.encode())
    assert b"X-A: 1\r\n" in request


def test_safe_forward_refuses_by_itself() -> None:
    """Without any set-up, what leads inside or is no URL is a 403 with its reason."""
    for url, reason in [
        ("https://127.0.0.1/", "HEL_RESOLVED_LOOPBACK"),
        ("https://localhost/", "HEL_RESOLVED_LOOPBACK"),
        ("https://169.254.169.254/", "HEL_RESOLVED_LINKLOCAL"),
        ("https://10.0.0.1/", "HEL_RESOLVED_PRIVATE"),
        ("http://example.com/", "HEL_SCHEME_NOT_HTTPS"),
        ("file:///etc/passwd", "HEL_SCHEME_NOT_HTTPS"),
        ("https://user@example.com/", "HEL_URL_INVALID"),
        ("", "HEL_URL_INVALID"),
    ]:
        result = safe_forward(url, {})
        assert result["status_code"] == 403
        assert result["outcome"] == "refused"
        assert result.get("error") == reason
        assert result["pinned_ip"] is None


async def test_safe_forward_inside_a_loop_raises() -> None:
    """It would block the loop; the async twin is named in the message."""
    with pytest.raises(SyncInLoop, match="asafe_forward"):
        safe_forward("https://127.0.0.1/", {})
    assert (await asafe_forward("https://127.0.0.1/", {}))["outcome"] == "refused"


@pytest.mark.parametrize("payload", [{"a": float("nan")}, {1, 2}, object(), "\ud800"])
def test_a_payload_that_is_no_json_is_an_error(payload: object) -> None:
    """Nothing is guessed about what the caller meant."""
    with pytest.raises(RequestInvalid):
        safe_forward("https://127.0.0.1/", payload)


def test_a_payload_nested_without_end_is_an_error() -> None:
    """Depth is bounded, and no RecursionError escapes."""
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(RequestInvalid):
        safe_forward("https://127.0.0.1/", nested)


def test_bytes_go_out_as_they_are(authority: Authority) -> None:
    """The canonical bytes that were hashed are the bytes that arrive."""
    payload = json.dumps({"a": 1}).encode() + b"\n"

    def take(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.send(OK)

    dialler = LoopbackDialler()
    with Peer(take, authority.issue()) as peer:
        dialler.ports[PUBLIC_IP, 443] = peer.port
        names = StaticNames({HOST: [PUBLIC_IP]})
        safe_forward(URL, payload, resolver=names, dialler=dialler, trust=authority.pem)
    assert peer.requests[0].endswith(b"\r\n\r\n" + payload)
