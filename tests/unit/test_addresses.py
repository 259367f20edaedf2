"""The addresses of links: private, different, and the same as text and as bytes."""

import ipaddress
import socket

import pytest

from pytest_poorcontainer.network import addresses
from pytest_poorcontainer.network.addresses import Addresses, hosts_text

LINKS = [1, 2, 255, 256, 65534, 65535]


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("end", [0, 1])
def test_text_and_bytes_say_the_same(link, end):
    """What the lab gets packed is what the test reads as text, in canonical form, of private ranges."""
    found = Addresses.of(link, end)
    assert socket.inet_aton(found.ip) + b"\x18" == found.packed_ip()
    assert ipaddress.ip_address(found.ip).is_private
    if found.ip6:
        assert socket.inet_pton(socket.AF_INET6, found.ip6) + b"\x40" == found.packed_ip6()
        assert str(ipaddress.ip_address(found.ip6)) == found.ip6
        assert ipaddress.ip_address(found.ip6).is_private


def test_no_two_ends_are_alike():
    """Sixty-five thousand links have as many subnets; then they begin again."""
    ips = {Addresses.of(link, end).ip for link in range(1, 65536) for end in (0, 1)}
    assert len(ips) == 2 * 65535
    assert Addresses.of(65536, 0) == Addresses.of(1, 0)


def test_a_mac_is_local_and_for_one():
    """The two lowest bits of its first byte say: locally administered, unicast (IEEE 802, 8.2)."""
    assert Addresses.of(77, 1).packed_mac()[0] & 3 == 2


def test_without_ipv6_there_is_none(monkeypatch):
    """A kernel without IPv6 has hosts with one address each."""
    monkeypatch.setattr(addresses, "has_ipv6", lambda: False)
    found = Addresses.of(1, 0)
    assert (found.ip6, found.packed_ip6(), found.all()) == ("", b"", [found.ip])
    assert ":" not in hosts_text({"a": found}).partition("::1")[2].partition("\n")[2]
