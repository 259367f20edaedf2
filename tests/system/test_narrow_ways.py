"""Black holes for packets that are too large: on cables, between hosts, several at once; and what is left of them."""

import ctypes
import fcntl
import itertools
import os
import signal
import socket
import struct

import pytest
from talk import told

from pytest_poorcontainer import Network, UsageError, eventually, machine

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["network"].works, reason=machine.fixtures_ready()["network"].reason
)

SILENCE = 0.15  # seconds; inside one kernel an answer takes microseconds


@pytest.fixture
def network():
    """A network of its own."""
    with Network() as network:
        yield network


def features(host):
    """Return all features of a host's eth0 (linux/ethtool.h, ETHTOOL_GFEATURES): available, wanted, active, fixed."""
    buffer = ctypes.create_string_buffer(struct.pack("=II", 0x3A, 2), 8 + 2 * 16)
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x8946, bytearray(struct.pack("@16sP16x", b"eth0", ctypes.addressof(buffer))))
    return buffer.raw


def passes(sender, receiver, size):
    """Return whether an IP packet of that size arrives."""
    with (
        receiver.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear,
        sender.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth,
    ):
        ear.bind((receiver.ip, 0))
        ear.settimeout(SILENCE)
        mouth.sendto(bytes(size - 28), ear.getsockname())
        try:
            return len(ear.recv(2000)) == size - 28
        except TimeoutError:
            return False


def small_packets_pass(sender, receiver):
    """Assert that TCP in small segments, and UDP that is cut up by the interface (udp(7)), arrive whole."""
    with receiver.listen((receiver.ip, 0)) as listening, sender.socket() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 300)
        client.settimeout(5)
        client.connect(listening.getsockname())
        with listening.accept()[0] as accepted:
            accepted.settimeout(5)
            client.sendall(bytes(20_000))
            got = 0
            while got < 20_000:
                got += len(accepted.recv(20_000))
    with (
        receiver.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear,
        sender.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth,
    ):
        ear.bind((receiver.ip, 0))
        ear.settimeout(5)
        mouth.setsockopt(socket.IPPROTO_UDP, 103, 300)  # UDP_SEGMENT
        mouth.sendto(bytes(3000), ear.getsockname())
        assert [len(ear.recv(4000)) for _ in range(10)] == [300] * 10


def _switch_off_tcp6():
    """As ethtool -K eth0 tx-tcp6-segmentation off: its bit is 20 (linux/netdev_features.h)."""
    buffer = ctypes.create_string_buffer(struct.pack("=6I", 0x3B, 2, 1 << 20, 0, 0, 0), 24)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x8946, bytearray(struct.pack("@16sP16x", b"eth0", ctypes.addressof(buffer))))


def test_a_narrow_way_lets_small_packets_pass_only(network):
    """Small datagrams arrive, large ones and full segments vanish; afterwards a transfer goes on where it hung."""
    chain = network.chain(2)
    client, server = chain.client, chain.server
    offload = told(client, "sh", "-c", "ip -d link show eth0")
    with (
        server.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear,
        client.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth,
        server.listen((server.ip, 80)) as listening,
        client.connect((server.ip, 80)) as connection,
        listening.accept()[0] as accepted,
    ):
        ear.bind((server.ip, 99))
        ear.settimeout(SILENCE)
        accepted.settimeout(SILENCE)
        with chain.links[1].mtu_black_hole(1000):
            mouth.sendto(bytes(972), (server.ip, 99))
            assert len(ear.recv(2000)) == 972
            mouth.sendto(bytes(973), (server.ip, 99))
            with pytest.raises(TimeoutError):
                ear.recv(2000)
            connection.sendall(bytes(8000))
            with pytest.raises(TimeoutError):
                accepted.recv(1)
        accepted.settimeout(10)
        assert accepted.recv(1) == b"\0"
    assert told(client, "sh", "-c", "ip -d link show eth0") == offload
    with pytest.raises(UsageError, match="mtu is a number of bytes from 68 to 65535, not 1"):
        chain.links[1].mtu_black_hole(1)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_narrow_ways_end_in_any_order(network, order):
    """The narrowest that is left counts, what is small passes all the time; afterwards the interfaces are as before.

    On one cable, on another of the same switch, and between the two hosts.
    """
    nodes = network.lan(3)
    before = [features(node) for node in nodes]
    sizes = (1000, 600, 1300)
    ways = (nodes[0].cable, network.between(nodes[0], nodes[1]), nodes[1].cable)
    faults = [way.mtu_black_hole(size) for way, size in zip(ways, sizes, strict=True)]
    during = [features(node) for node in nodes]
    assert all(one != two for one, two in zip(before, during, strict=True))
    left = set(range(3))
    for ended in order:
        narrowest = min(sizes[one] for one in left)
        assert passes(nodes[0], nodes[1], narrowest)
        assert not passes(nodes[0], nodes[1], narrowest + 1)
        small_packets_pass(nodes[0], nodes[1])
        assert [features(node) for node in nodes] == during
        faults[ended].end()
        left.remove(ended)
    assert passes(nodes[0], nodes[1], 1500)
    assert [features(node) for node in nodes] == before


@pytest.mark.parametrize("vlans", [None, [0, 7]], ids=["cable", "trunk"])
def test_a_narrow_way_between_switches_is_one_for_all_hosts_on_them(network, vlans):
    """Large packets vanish, small ones pass whole; hosts' interfaces are as before after it."""
    left, right = network.switch(), network.switch()
    link = network.link(left, right, vlans=vlans)
    a, b = network.lan(["a"], switch=left)[0], network.lan(["b"], switch=right)[0]
    before = features(a), features(b)
    with link.mtu_black_hole(1000):
        assert passes(a, b, 1000)
        assert not passes(a, b, 1001)
        small_packets_pass(a, b)
    assert (features(a), features(b)) == before


def test_a_narrow_way_leaves_a_hosts_own_settings_alone(network):
    """What a host has switched off by itself is off afterwards, and a host that dies meanwhile is in nobody's way."""
    nodes = network.lan(3)
    nodes[0].call(_switch_off_tcp6)
    before = features(nodes[0]), features(nodes[1])
    with nodes[0].cable.mtu_black_hole(1000), nodes[1].cable.mtu_black_hole(1000):
        assert features(nodes[0]) != before[0]
        nodes[2].close()
    assert (features(nodes[0]), features(nodes[1])) == before
    with nodes[0].cable.mtu_black_hole(1000):
        os.kill(nodes[1].pid, signal.SIGKILL)
        eventually(nodes[1]._handle.has_ended, timeout=5)
    assert features(nodes[0]) == before[0]
