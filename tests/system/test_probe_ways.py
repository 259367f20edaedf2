"""All ways of a target, and how large a packet may be on them."""

import shutil
import sys
from pathlib import Path

import pytest

from pytest_poorcontainer import Network, TcpProbe, UsageError, machine

sys.path.insert(0, str(Path(__file__).parents[1] / "scenarios"))
from topology import UNLIMITED, Topology

READY = machine.fixtures_ready()["tcp_probe"]
pytestmark = [
    pytest.mark.skipif(not READY.works, reason=READY.reason),
    pytest.mark.skipif(not (shutil.which("ip") and shutil.which("nft")), reason="needs iproute2 and nftables"),
]
EVEN = [("c", "r1"), ("r1", "a"), ("r1", "b"), ("a", "a2"), ("b", "b2"), ("a2", "r2"), ("b2", "r2"), ("r2", "s")]
EVEN_LINKS = {("r1", "a"), ("r1", "b"), ("a", "a2"), ("b", "b2"), ("a2", "r2"), ("b2", "r2"), ("r2", "s")}
UNEVEN = [("c", "r1"), ("r1", "a"), ("r1", "b"), ("a", "a2"), ("a2", "r2"), ("b", "r2"), ("r2", "s")]
UNEVEN_LINKS = {("r1", "a"), ("r1", "b"), ("a", "a2"), ("a2", "r2"), ("b", "r2"), ("r2", "s")}
UNEVEN_SETUP = {
    "r1": """
ip route replace 10.9.7.0/24 nexthop via 10.9.2.2 nexthop via 10.9.3.2
ip route replace fd09:0:0:7::/64 nexthop via fd09:0:0:2::2 nexthop via fd09:0:0:3::2
"""
}
MUTE = """
nft 'add table inet f; add chain inet f outgoing { type filter hook output priority 0; }'
nft 'add rule inet f outgoing icmp code frag-needed drop; add rule inet f outgoing icmpv6 type packet-too-big drop'
"""


@pytest.mark.parametrize(
    ("links", "setup", "wanted", "ways"),
    [(EVEN, None, EVEN_LINKS, 2), (UNEVEN, UNEVEN_SETUP, UNEVEN_LINKS, 2)],
    ids=["even", "uneven"],
)
def test_all_ways_are_found_and_none_is_invented(links, setup, wanted, ways):
    """Open and closed ports, both families, time after time: the links of the graph are those of the network."""
    with Topology(links, setup) as topology:
        client, server = topology.nodes["c"], topology.nodes["s"]
        tcp_probe = TcpProbe()
        tcp_probe.know(*topology.nodes.values())
        with server.listen((server.ip, 80)), server.listen((server.ip6, 80)):
            for version in (4, 6):
                for port, state in ((80, "open"), (81, "closed")):
                    for _ in range(5):
                        found = tcp_probe(client, (server, port), version=version, mda=True)
                        assert found.state == state
                        assert set(found.graph.named()) == wanted, found.graph
                        assert len({tuple(map(found.graph.name, way)) for way in found.graph.paths}) == ways
                        assert found.graph.sure
        with pytest.raises(AssertionError, match="expected one way"):
            found.assert_single_path()
        assert '"r1" -> "a";' in found.graph.dot()
        assert len(found.json()["graph"]["links"]) >= len(wanted)


def test_one_way_is_one_way():
    """A chain has no second way, whatever the confidence."""
    with Network() as network:
        chain = network.chain(3)
        found = TcpProbe()(chain.client, (chain.server, 80), mda=0.99)
        found.assert_single_path()
        assert found.graph.confidence == 0.99


def test_limits_of_routers_are_told_and_nothing_is_claimed():
    """A router with the kernel's limits answers few of many flows: the graph says so, and is not sure."""
    with Topology(EVEN, limited=["a", "b"]) as topology:
        assert "icmp_ratelimit" in UNLIMITED
        tcp_probe = TcpProbe()
        tcp_probe.know(*topology.nodes.values())
        found = tcp_probe(topology.nodes["c"], (topology.nodes["s"], 80), mda=True)
        assert set(found.graph.named()) <= EVEN_LINKS
        assert not found.graph.sure
        assert any("limits its answers" in note for note in found.graph.notes)


@pytest.mark.parametrize("version", [4, 6])
def test_a_bottleneck_is_measured_and_placed(version):
    """Routers say how much they can forward; the second time is no different, though the kernel has learnt it."""
    with Topology(
        [("c", "r1"), ("r1", "r2"), ("r2", "r3"), ("r3", "s")], mtus={"c-r1": 9000, "r2-r3": 1400}
    ) as topology:
        client, server = topology.nodes["c"], topology.nodes["s"]
        tcp_probe = TcpProbe()
        tcp_probe.know(*topology.nodes.values())
        with server.listen((server.ip, 80)), server.listen((server.ip6, 80)):
            for port in (80, 81, 80):
                mtu = tcp_probe(client, (server, port), version=version, pmtu=True).mtu
                assert (mtu.bytes, mtu.interface, mtu.hop, mtu.name, mtu.black_hole) == (1400, 9000, 2, "r2", False)


@pytest.mark.parametrize("version", [4, 6])
def test_a_black_hole_is_measured_and_placed(version):
    """Nobody says that packets are too large: the size is searched for, and so is the hop behind which they vanish."""
    links, mtus = [("c", "r1"), ("r1", "r2"), ("r2", "r3"), ("r3", "s")], {"r2-r3": 1337}
    with Topology(links, {"r2": MUTE}, mtus=mtus) as topology:
        tcp_probe = TcpProbe()
        tcp_probe.know(*topology.nodes.values())
        mtu = tcp_probe(topology.nodes["c"], (topology.nodes["s"], 80), version=version, pmtu=True).mtu
        assert (mtu.bytes, mtu.hop, mtu.name, mtu.black_hole) == (1337, 2, "r2", True)
        assert "black hole" in str(mtu)


def test_no_bottleneck_is_none():
    """The first cable's size arrives."""
    with Network() as network:
        chain = network.chain(2)
        mtu = TcpProbe()(chain.client, (chain.server, 80), pmtu=True).mtu
        assert (mtu.bytes, mtu.interface, mtu.hop) == (1500, 1500, 0)


def test_a_target_that_answers_nothing_cannot_be_measured():
    """The error says what would be needed."""
    with (
        Topology(
            [("c", "r1"), ("r1", "s")],
            {"s": "nft 'add table inet f; add chain inet f i { type filter hook input priority 0; policy drop; }'"},
        ) as topology,
        pytest.raises(UsageError, match="answers neither this port nor echo requests"),
    ):
        TcpProbe()(topology.nodes["c"], (topology.nodes["s"], 80), pmtu=True, patience=0.0)
