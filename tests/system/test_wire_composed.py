"""The wire beside other faults, on links of all kinds, and with hosts that change their own interfaces meanwhile."""

import contextlib
import signal
import socket
import threading
from pathlib import Path

import pytest
from wiring import datagrams, echoes, stream

from pytest_poorcontainer import Network, WireDied, WireOverflow, machine

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)

FAULTS = [
    {"delay": "1ms", "jitter": "1ms"},
    {"loss": "1%"},
    {"corrupt": "2%"},
    {"duplicate": "5%"},
    {"reorder": "5%"},
    {"rate": "200mbit"},
    {"delay": "1ms", "loss": "1%", "corrupt": "1%", "duplicate": "1%", "reorder": "1%", "rate": "500mbit"},
]


@pytest.fixture
def pair():
    """Two hosts of a network of their own."""
    with Network() as network:
        yield network.pair()


@pytest.mark.parametrize("mtu", [576, 1280, 9000, 65535])
def test_any_mtu_meets_any_fault(mtu):
    """Streams arrive whole, and datagrams of a full frame as the wire counts them, over links of all sizes."""
    with Network() as network:
        link = network.link("a", "b", mtu=mtu)
        a, b = network["a"], network["b"]
        for fault in FAULTS:
            with link.impair(**fault, seed=3) as impaired:
                stream(a, b, 1 << 20)
                before = impaired.counts[1]
                arrived = datagrams(a, b, 100, size=min(mtu, 9000) - 28)
                after = impaired.counts[1]
            lost = after.lost + after.corrupted - before.lost - before.corrupted
            assert after.refused == after.overflow == after.overrun == 0
            assert len(set(arrived)) >= 100 - lost
            assert len(arrived) <= 100 + after.duplicated - before.duplicated


def test_impairments_of_several_links_and_of_two_hosts_add_up():
    """Each cable on the way adds its own; on one cable what is for two hosts alone replaces what it says anew."""
    with Network() as network:
        chain = network.chain(1)
        first, second = chain.links
        with first.impair(delay="3ms"), second.impair(delay="4ms"), first.impair(loss=0):
            assert min(echoes(chain.client, chain.server, 3)) >= 0.014
            with network.between(chain.client, chain.server).impair(delay="10ms"):
                assert min(echoes(chain.client, chain.server, 3)) >= 0.028
            assert len(datagrams(chain.client, chain.server, 20)) == 20


def test_members_of_a_vlan_are_impaired_each():
    """Hosts of one VLAN of a switch, each on an impaired cable, reach each other through both wires."""
    with Network() as network:
        switch = network.switch("s")
        links = [network.link(name, switch, vlan=5) for name in ("a", "b")]
        with links[0].impair(delay="2ms"), links[1].impair(delay="3ms"):
            assert min(echoes(network["a"], network["b"], 3)) >= 0.01
            stream(network["a"], network["b"], 1 << 20)


def test_what_is_under_way_when_a_cable_is_pulled_is_no_error_of_the_wire(pair):
    """Pulled and plugged in again with packets in its queues, over and over: they are lost as cut, and no others."""
    with (
        pair.link.impair(delay="20ms", rate="10mbit") as impaired,
        pair.a.socket(socket.AF_INET, socket.SOCK_DGRAM) as source,
    ):
        assert len(datagrams(pair.a, pair.b, 3)) == 3
        source.connect((pair.b.ip, 9))
        for _ in range(5):
            for _ in range(50):
                with contextlib.suppress(ConnectionRefusedError):  # nobody listens there
                    source.send(b"x" * 1000)
            with pair.link.unplug():
                pass
            assert len(datagrams(pair.a, pair.b, 3)) == 3
        towards_b = impaired.counts[1]
    assert towards_b.cut > 0
    assert towards_b.refused == towards_b.overflow == 0


def test_a_wire_that_is_killed_under_traffic_is_an_error_that_names_the_link(pair):
    """Whenever it dies, its block raises, the link is whole afterwards, and nothing of it is left."""
    stop = threading.Event()

    def flood():
        with pair.a.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
            source.connect((pair.b.ip, 9))
            while not stop.is_set():
                with contextlib.suppress(ConnectionRefusedError):
                    source.send(b"x" * 1000)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        for _ in range(5):
            with pytest.raises(WireDied, match="the wire between a and b"), pair.link.impair(delay="1ms"):
                signal.pidfd_send_signal(pair.link._impairments.carrier._pidfd, signal.SIGKILL)
            assert (pair.link.state, pair.link.medium) == ("up", "veth")
    finally:
        stop.set()
        thread.join()
    assert len(datagrams(pair.a, pair.b, 5)) == 5


def test_two_hundred_impairments_leave_nothing_behind():
    """Of a cable between hosts and one to a switch: neither we nor the lab have more descriptors afterwards."""
    with Network() as network:
        a, b = network.lan(2)
        links = (network.pair().link, a.cable)

        def descriptors():
            return [sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()) for pid in ("self", links[0].lab.pid)]

        def impair(times):
            for number in range(times):
                with links[number % 2].impair(delay="1ms", loss="1%"):
                    pass

        impair(2)
        before = descriptors()
        impair(200)
        after = descriptors()
        assert all(now <= then for now, then in zip(after, before, strict=True)), (before, after)
        assert len(datagrams(a, b, 5)) == 5


@pytest.mark.parametrize("fault", ["cut", "unplug", "impair"])
@pytest.mark.parametrize(
    "change",
    [
        "ip link set eth0 mtu 1000",
        "echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6",
        "ip addr flush dev eth0",
        "ip link set eth0 down && ip link set eth0 name lan0 && ip link set lan0 up",
    ],
)
def test_a_host_may_change_its_interface(pair, fault, change):
    """A smaller MTU, no IPv6, no addresses, another name: faults come and go as before."""
    pair.b.run(["sh", "-c", change], check=True)
    said = {"delay": "1ms"} if fault == "impair" else {}
    for _ in range(2):
        with getattr(pair.link, fault)(**said):
            assert pair.link.medium == ("wire" if fault == "impair" else "veth")
    assert pair.link.state == "up"


def test_what_a_receiver_does_not_take_is_told_with_the_likely_causes(pair):
    """Frames that are too large for the interface that their receiver has made smaller: the error speaks of that."""
    pair.b.run(["ip", "link", "set", "eth0", "mtu", "1400"], check=True)
    impaired = pair.link.impair(delay="1ms")
    assert datagrams(pair.a, pair.b, 5, size=1450) == []
    with pytest.raises(WireOverflow, match=r"lost 5 of 5 packets to b .*made the MTU of its interface less"):
        impaired.end()
    assert pair.link.state == "up"
