"""Names become addresses once, and hostile answers become failures."""

import asyncio
from ipaddress import ip_address

import pytest
from tests.egress.stage import StaticNames, address_record

from signet.egress.outcome import NotSentCode
from signet.egress.resolve import LookupFailed, Names, QueryKind, Record

pytestmark = pytest.mark.anyio

SERVFAIL = LookupFailed(NotSentCode.RESOLUTION_FAILED)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def cname(owner: str, value: str, ttl_s: int = 60) -> Record:
    return Record(owner=owner, kind="CNAME", value=value, ttl_s=ttl_s)


async def look_up(*answer: str | Record, host: str = "a.example") -> tuple[str, ...]:
    names = Names(StaticNames({host: answer}), Clock())
    return tuple(map(str, await names.addresses(host)))


async def test_both_families_are_asked_and_ipv4_comes_first() -> None:
    """A and AAAA are asked by absolute name, and every address comes back."""
    resolver = StaticNames({"a.example": ["2606:4700::1", "8.8.8.8", "8.8.4.4"]})
    addresses = await Names(resolver, Clock()).addresses("a.example")
    assert [str(a) for a in addresses] == ["8.8.8.8", "8.8.4.4", "2606:4700::1"]
    assert sorted(resolver.asked) == [("a.example", "A"), ("a.example", "AAAA")]


@pytest.mark.parametrize("steps", [1, 8])
async def test_a_chain_of_aliases_is_followed(steps: int) -> None:
    """Up to eight CNAMEs lead to the addresses, in whatever order and letter case they stand."""
    chain = [cname(f"n{i}.example", f"N{i + 1}.Example.") for i in range(1, steps)]
    records = [address_record(f"n{steps}.EXAMPLE", "8.8.8.8"), *reversed(chain)]
    assert await look_up(cname("A.example", "n1.example"), *records) == ("8.8.8.8",)


@pytest.mark.parametrize(
    "records",
    [
        [cname("a.example", "n1")] + [cname(f"n{i}", f"n{i + 1}") for i in range(1, 9)],
        [cname("a.example", "b.example"), cname("b.example", "a.example")],
        [cname("a.example", "a.example")],
    ],
    ids=["nine steps", "a loop", "a self-reference"],
)
async def test_a_chain_without_end_fails(records: list[Record]) -> None:
    """Nine steps or a circle is no answer."""
    with pytest.raises(LookupFailed) as caught:
        await look_up(*records, address_record("n9", "8.8.8.8"))
    assert caught.value.code is NotSentCode.RESOLUTION_FAILED


async def test_records_of_other_owners_are_not_taken() -> None:
    """An answer may carry records nobody asked for; only the chain from the name counts."""
    assert await look_up(
        address_record("a.example", "8.8.8.8"),
        address_record("evil.example", "1.1.1.1"),
        address_record("xa.example", "1.1.1.1"),
    ) == ("8.8.8.8",)
    with pytest.raises(LookupFailed) as caught:
        await look_up(address_record("evil.example", "1.1.1.1"))
    assert caught.value.code is NotSentCode.NO_RESOLUTION


async def test_an_alias_shadows_addresses_beside_it() -> None:
    """RFC 1034 §3.6.2: a name with a CNAME has no other data; a lie beside it is ignored."""
    assert await look_up(
        cname("a.example", "b.example"),
        address_record("a.example", "1.1.1.1"),
        address_record("b.example", "8.8.8.8"),
    ) == ("8.8.8.8",)


@pytest.mark.parametrize("value", ["", "8.8.8", "0x08080808", "8.8.8.8 ", "::1%lo", "localhost"])
async def test_a_malformed_address_is_no_answer(value: str) -> None:
    """A record that holds no address spoils the family it came in."""
    record = Record(owner="a.example", kind="A", value=value, ttl_s=60)
    with pytest.raises(LookupFailed) as caught:
        await look_up(record)
    assert caught.value.code is NotSentCode.RESOLUTION_FAILED


@pytest.mark.parametrize("host", ["localhost", "db.localhost"])
async def test_localhost_is_never_asked(host: str) -> None:
    """RFC 6761 §6.3: these names mean loopback, whatever a name server would say."""
    resolver = StaticNames({host: ["8.8.8.8"]})
    addresses = await Names(resolver, Clock()).addresses(host)
    assert [str(a) for a in addresses] == ["127.0.0.1", "::1"]
    assert resolver.asked == []


class HalfBroken(StaticNames):
    """Answers A and fails for AAAA."""

    async def query(self, name: str, kind: QueryKind) -> list[Record]:
        if kind == "AAAA":
            raise SERVFAIL
        return list(await super().query(name, kind))


async def test_half_an_answer_will_do_to_connect() -> None:
    """Many name servers fail for AAAA; their A records still count."""
    names = Names(HalfBroken({"a.example": ["8.8.8.8"]}), Clock())
    assert await names.addresses("a.example") == (ip_address("8.8.8.8"),)


async def test_half_an_answer_does_not_prove_absence() -> None:
    """No A record and a failed AAAA is a failure, not a name without addresses."""
    with pytest.raises(LookupFailed) as caught:
        await Names(HalfBroken({}), Clock()).addresses("a.example")
    assert caught.value.code is NotSentCode.RESOLUTION_FAILED


@pytest.mark.parametrize(("ttl_s", "kept_s"), [(0, 1), (1, 1), (30, 30), (60, 60), (86400, 60)])
async def test_answers_are_kept_for_their_time(ttl_s: int, kept_s: int) -> None:
    """The TTL is held between 1 and 60 seconds; then the name is asked anew."""
    clock = Clock()
    resolver = StaticNames({"a.example": [address_record("a.example", "8.8.8.8", ttl_s)]})
    names = Names(resolver, clock)
    await names.addresses("a.example")
    clock.now += kept_s - 0.01
    await names.addresses("a.example")
    assert len(resolver.asked) == 2
    clock.now += 0.02
    await names.addresses("a.example")
    assert len(resolver.asked) == 4


async def test_the_shortest_ttl_of_the_chain_counts() -> None:
    """An alias that changes soon is asked again soon, however long its target lives."""
    clock = Clock()
    resolver = StaticNames(
        {"a.example": [cname("a.example", "b.example", 5), address_record("b.example", "8.8.8.8")]}
    )
    names = Names(resolver, clock)
    await names.addresses("a.example")
    clock.now += 6
    await names.addresses("a.example")
    assert len(resolver.asked) == 4


async def test_failures_are_kept_for_a_second() -> None:
    """A dead name is not asked by every request, but soon again."""
    clock = Clock()
    resolver = StaticNames({"a.example": SERVFAIL})
    names = Names(resolver, clock)
    for _ in range(3):
        with pytest.raises(LookupFailed):
            await names.addresses("a.example")
    assert len(resolver.asked) == 2
    clock.now += 1.1
    with pytest.raises(LookupFailed):
        await names.addresses("a.example")
    assert len(resolver.asked) == 4


async def test_many_who_ask_make_one_question() -> None:
    """A hundred requests for one new name ask it once."""
    resolver = StaticNames({"a.example": ["8.8.8.8"]})
    names = Names(resolver, Clock())
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(names.addresses("a.example")) for _ in range(100)]
    assert {task.result() for task in tasks} == {(ip_address("8.8.8.8"),)}
    assert len(resolver.asked) == 2


class Stuck(StaticNames):
    """Never answers the first question, and answers all later ones."""

    async def query(self, name: str, kind: QueryKind) -> list[Record]:
        first = len(self.asked) < 2
        records = list(await super().query(name, kind))
        if first:
            await asyncio.sleep(3600)
        return records


async def test_one_who_gives_up_does_not_take_the_others_along() -> None:
    """If the asker runs out of time, the next in line asks anew."""
    names = Names(Stuck({"a.example": ["8.8.8.8"]}), Clock())

    async def impatient() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await names.addresses("a.example")

    async with asyncio.TaskGroup() as group:
        group.create_task(impatient())
        await asyncio.sleep(0)
        patient = group.create_task(names.addresses("a.example"))
    assert patient.result() == (ip_address("8.8.8.8"),)


async def test_the_cache_is_bounded() -> None:
    """A caller who names a new host every time does not fill the memory."""
    resolver = StaticNames({})
    names = Names(resolver, Clock())
    for number in range(4100):
        with pytest.raises(LookupFailed):
            await names.addresses(f"n{number}.example")
    before = len(resolver.asked)
    with pytest.raises(LookupFailed):
        await names.addresses("n4099.example")
    assert len(resolver.asked) == before
    with pytest.raises(LookupFailed):
        await names.addresses("n0.example")
    assert len(resolver.asked) == before + 2
