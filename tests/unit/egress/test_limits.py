"""The bounds that hold when nobody says otherwise."""

from signet.egress.limits import Limits


def test_defaults_are_the_documented_ones() -> None:
    """Ten seconds for everything, 64 KiB of head, one MiB of body."""
    limits = Limits()
    assert limits.deadline_s == 10.0
    assert limits.max_head == 65536
    assert limits.max_body == 1048576


def test_idle_connections_go_before_servers_close_them() -> None:
    """A kept connection is dropped before the five seconds after which common servers do it."""
    assert Limits().idle_s < 5.0


def test_a_response_of_the_largest_size_fits_in_its_reads() -> None:
    """Pieces of a network segment's size never meet the bound on reads, at any body limit."""
    for max_body in (0, 1 << 20, 64 << 20):
        limits = Limits(max_body=max_body)
        assert limits.max_reads * 1024 > limits.max_wire
