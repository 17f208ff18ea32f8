"""What is noted of a request at the door."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from starlette.requests import Request

from signet.api.proxies import Proxies
from signet.api.visits import actor_of, begin, visit_of
from signet.core.ids import TenantId
from signet.core.tenant import Principal, Tenant


def request(*headers: tuple[bytes, bytes], client: tuple[str, int] | None) -> Request:
    """A request with these headers from that client."""
    return Request({"type": "http", "headers": list(headers), "client": client})


def test_the_visit_is_found_again() -> None:
    """The endpoint sees the visit that the guard began."""
    one = request(client=("192.0.2.7", 1))
    visit = begin(one, now_us=5, addresses=True)
    assert visit_of(one) is visit
    assert (visit.origin.address, visit.origin.received_us) == ("192.0.2.7", 5)


def test_addresses_can_be_left_out() -> None:
    """No address is kept where the operator says so, or where there is none."""
    assert begin(request(client=("192.0.2.7", 1)), now_us=5, addresses=False).origin.address is None
    assert begin(request(client=None), now_us=5, addresses=True).origin.address is None


def test_behind_a_proxy_it_is_the_caller_s() -> None:
    """Where the proxy is a named one; anybody else's word is not taken."""
    one = request((b"x-forwarded-for", b"192.0.2.7"), client=("10.0.0.1", 1))
    named = Proxies(networks=(ip_network("10.0.0.1"),))
    behind = begin(one, now_us=5, addresses=True, proxies=named).origin
    assert behind.address == "192.0.2.7"
    assert begin(one, now_us=5, addresses=True).origin.address == "10.0.0.1"
    assert begin(one, now_us=5, addresses=False, proxies=named).origin.address is None


def test_a_plain_request_id_is_kept() -> None:
    """A caller's own id is kept, so that it is found in log, audit and answer."""
    one = request((b"x-request-id", b"abc-1.2_3"), client=None)
    assert begin(one, now_us=5, addresses=True).origin.request_id == "abc-1.2_3"


@pytest.mark.parametrize("hostile", [b"", b"x" * 65, b"a b", b"a\r\nb", b"\xff", b"a\n", b'"'])
def test_any_other_is_replaced(hostile: bytes) -> None:
    """What could break a log or a header becomes an id of ours, no two alike."""
    ids = {
        begin(
            request((b"x-request-id", hostile), client=None), now_us=5, addresses=True
        ).origin.request_id
        for _ in range(50)
    }
    assert len(ids) == 50
    assert all(len(one) == 16 and one.isalnum() for one in ids)


def test_who_asks_is_named_by_key_and_origin() -> None:
    """The audit log says which key it was, and from where."""
    one = request(client=("192.0.2.7", 1))
    visit = begin(one, now_us=5, addresses=True)
    tenant = Tenant(id=TenantId("acme"))
    actor = actor_of(one, Principal(key_id="key_1", tenant=tenant, scopes=frozenset()))
    assert (actor.key_id, actor.origin) == ("key_1", visit.origin)
