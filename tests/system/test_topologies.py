"""Networks of many hosts, on the real thing: they can be used when they are there, in any shape."""

import json
import re
import select
import shutil
import socket
import sys
import time
from pathlib import Path

import pytest
from talk import peer, told

from pytest_poorcontainer import (
    Container,
    LabError,
    Network,
    PoorContainerError,
    Unavailable,
    UsageError,
    eventually,
    machine,
)
from pytest_poorcontainer.lab.client import Lab
from pytest_poorcontainer.network import TopologyError
from pytest_poorcontainer.network.fabric import fabric_of
from pytest_poorcontainer.network.netlink import Request, attributes

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["network"].works, reason=machine.fixtures_ready()["network"].reason
)

STALLED = 0.9  # seconds; a lost first packet is repeated after one
TOPOLOGIES = Path(__file__).parents[1] / "unit" / "topologies"


@pytest.fixture
def network():
    """A network of its own."""
    with Network() as network:
        yield network


def reach(client, server, port=80):
    """Connect over both families by address; return which addresses the server saw."""
    seen = []
    for address in server.addresses[:2]:
        with server.listen((address, port)) as listening, client.connect((address, port), timeout=STALLED):
            seen.append(peer(listening))
    return seen


def test_a_lan_can_be_used_when_it_is_there(network):
    """Every host reaches every other at once, over both families and by name."""
    nodes = network.lan(4)
    assert [node.name for node in nodes] == ["n1", "n2", "n3", "n4"]
    for server in nodes:
        with server.listen(("", 80)):
            for client in nodes:
                client.connect((server.name, 80), timeout=STALLED).close()
        assert reach(nodes[0] if server is not nodes[0] else nodes[1], server)
    assert told(nodes[0], "getent", "ahostsv4", "n4").split()[0] == nodes[3].ip


def test_names_may_be_given_and_switches_used_again(network):
    """Two LANs on one switch are one subnet; hosts that came later are known to those before."""
    first = network.lan(["web", "db"], switch="office", subnet="192.0.2.0/24")
    second = network.lan(2, switch=first.switch)
    assert [host.ip for host in (*first, *second)] == [f"192.0.2.{n}" for n in range(1, 5)]
    assert reach(first[0], second[1]) == [first[0].ip, first[0].ip6]
    assert told(first[0], "getent", "hosts", "n2").split()[0] in second[1].addresses


def test_a_chain_is_passed_in_its_order(network):
    """The time to live is one less behind each router, and routers answer every probe."""
    chain = network.chain(3)
    client, *routers, server = chain
    assert (chain.client, chain.routers, chain.server) == (client, routers, server)
    assert reach(client, server) == [client.ip, client.ip6]
    with client.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
        waiting = select.poll()
        waiting.register(probe, 0)  # errors come anyhow
        for ttl, router in enumerate(routers, 1):
            probe.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
            for _ in range(20):  # more than the kernel answers in a second by default
                probe.sendto(b"", (server.ip, 33434))
                assert waiting.poll(1000 * STALLED)
                ancillary = probe.recvmsg(100, 512, socket.MSG_ERRQUEUE)[1]
                # The address behind struct sock_extended_err is that of who answers.
                assert socket.inet_ntoa(ancillary[0][2][20:24]) in router.addresses


def test_no_first_connect_stalls_in_any_topology():
    """The first connection over each family succeeds at once in LANs, chains, behind switches in a row."""
    for _ in range(10):
        with Network() as network:
            lan = network.lan(6)
            assert reach(lan[0], lan[5]) == [lan[0].ip, lan[0].ip6]
            chain = network.chain(2)
            assert reach(chain.server, chain.client) == [chain.server.ip, chain.server.ip6]
            left, right = network.switch(), network.switch()
            network.link(left, right)
            network.link("left", left)
            network.link("right", right)
            assert reach(network["left"], network["right"]) == [network["left"].ip, network["left"].ip6]


def test_subnets_are_joined_by_routers(network):
    """Hosts of two LANs reach each other when a router joins them, and not before."""
    left, right = network.lan(["a"], switch="left"), network.lan(["b"], switch="right")
    with pytest.raises(OSError, match="unreachable"):
        left[0].connect((right[0].ip, 80), timeout=STALLED)
    router = network.router("r")
    network.link(router, left.switch)
    network.link(router, right.switch)
    assert reach(left[0], right[0]) == [left[0].ip, left[0].ip6]
    assert len(router.addresses) == 4
    assert told(router, "sysctl", "-n", "net.ipv4.icmp_ratelimit") == "0\n"


def test_vlans_of_a_switch_are_apart(network):
    """Hosts of one VLAN reach each other, those of two only by a router that is in both."""
    switch = network.switch("office")
    for name, vlan in (("a", 10), ("b", 10), ("c", 20)):
        network.link(name, switch, vlan=vlan)
    a, b, c = (network[name] for name in "abc")
    assert reach(a, b)
    with pytest.raises(OSError, match="unreachable"):
        a.connect((c.ip, 80), timeout=STALLED)
    router = network.router("stick")
    network.link(router, switch, vlan=10)
    network.link(router, switch, vlan=20)
    assert reach(a, c)


def test_a_link_has_the_mtu_that_was_asked_for(network):
    """Both interfaces have it, large packets pass, and a narrow one has no IPv6."""
    wide, narrow = network.link("a", "b", mtu=9000), network.link("c", "d", mtu=576)
    assert (str(wide), str(narrow)) == ("a -- b", "c -- d")
    for name, mtu in (("a", 9000), ("b", 9000), ("c", 576), ("d", 576)):
        assert f" mtu {mtu} " in told(network[name], "ip", "link", "show", "eth0")
    assert len(network["c"].addresses) == 1
    with (
        network["b"].socket(socket.AF_INET, socket.SOCK_DGRAM) as ear,
        network["a"].socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth,
    ):
        ear.bind(("", 9))
        ear.settimeout(STALLED)
        mouth.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO: do not fragment
        mouth.sendto(bytes(8972), (network["b"].ip, 9))
        assert len(ear.recv(9000)) == 8972
        with pytest.raises(OSError, match="too long"):
            mouth.sendto(bytes(8973), (network["b"].ip, 9))


def test_a_router_hides_what_is_behind_it(network):
    """Outside only the router's address is seen, nothing comes in, but for the ports that are led to somebody."""
    inside, outside = network.lan(["i"], switch="in"), network.lan(["o"], switch="out")
    router = network.router("nat")
    network.link(router, inside.switch)
    network.link(router, outside.switch)
    inner, outer = inside[0], outside[0]
    assert reach(outer, inner)
    router.masquerade(outside.switch)
    router.masquerade(outside.switch)
    assert reach(inner, outer) == router.addresses[2:]
    told(outer, "ip", "route", "add", "default", "via", router.addresses[2])
    with inner.listen(("", 80)), pytest.raises(OSError, match="timed out"):
        outer.connect((inner.ip, 80), timeout=0.2)
    router.forward_port(8080, inner, 80, out=outside.switch)
    for address, own in zip(router.addresses[2:], inner.addresses, strict=True):
        with inner.listen((own, 80)) as server, outer.connect((address, 8080), timeout=STALLED):
            assert peer(server) in outer.addresses
    with pytest.raises(UsageError, match="out= is a cable of nat"):
        router.masquerade(network.switch("elsewhere"))


def test_a_gateway_leads_to_chosen_ports_of_the_machine(network):
    """A service of the machine's loopback is reached at the gateway's port, and no other is."""
    nodes = network.lan(2)
    with socket.create_server(("127.0.0.1", 0)) as service, socket.create_server(("127.0.0.1", 0)) as other:
        gateway = network.gateway(nodes.switch, {5432: service.getsockname()[1]})
        for address in ("gateway", gateway.ip6):
            with nodes[0].connect((address, 5432), timeout=STALLED) as client:
                service.settimeout(STALLED)
                accepted = service.accept()[0]
                with accepted:
                    accepted.sendall(b"from the machine")
                    assert client.recv(100) == b"from the machine"
        with pytest.raises(ConnectionRefusedError):
            nodes[0].connect((gateway.ip, other.getsockname()[1]), timeout=STALLED)


def test_hosts_have_sysctls_and_limits_of_their_own(network):
    """What is said where a host is made, or for the whole network, and what is none of it is named."""
    host = network.host("a", sysctls={"net.ipv4.tcp_syn_retries": 2}, rlimits={"nofile": 99})
    assert told(host, "sysctl", "-n", "net.ipv4.tcp_syn_retries") == "2\n"
    assert told(host, "sh", "-c", "ulimit -n") == "99\n"
    with pytest.raises(UsageError, match="those below net"):
        network.host("b", sysctls={"kernel.hostname": "x"})
    with pytest.raises(UsageError, match=r"a host has no colour=; what it can have: rootfs, .*sysctls"):
        network.host("b", colour="red")
    with pytest.raises(PoorContainerError, match="set ipv4/no_such_thing=1"):
        network.host("b", sysctls={"net.ipv4.no_such_thing": 1})
    assert [one.name for one in network.hosts] == ["a"]
    assert network.host("b").name == "b"  # the name is free again


def test_without_routes_hosts_know_their_own_cables_only():
    """For tests of routing daemons."""
    with Network(routes=False) as network:
        chain = network.chain(1)
        assert "via" not in told(chain.client, "ip", "route")


def test_a_failed_step_leaves_a_network_as_it_was(network):
    """Nothing of a LAN stays of which one name is taken, and the rest goes on."""
    nodes = network.lan(2)
    live = len(Lab.current()._live)
    with pytest.raises(UsageError, match="there is a host 'n2'"):
        network.lan(["x", "n2", "y"], switch="new")
    assert (len(network.hosts), len(network.links), len(network.switches)) == (2, 2, 1)
    assert len(Lab.current()._live) == live
    network.lan(["x"], switch="new")
    assert reach(nodes[0], nodes[1])


def test_what_the_kernel_refuses_leaves_no_address_no_loop_and_no_bridge(network):
    """Addresses, subnets and names are free again, switches may be joined after all, and work."""
    left, right = network.switch("left"), network.switch("right")
    nowhere = {"sysctls": {"net.ipv4.no_such_thing": 1}}
    for _ in range(2):
        with pytest.raises(LabError, match="no_such_thing"):
            network.lan(2, switch=left, subnet="192.0.2.0/24", **nowhere)
    network.lan(["a"], switch=left, subnet="198.51.100.0/24")
    for _ in range(2):

        def plan_both(plan):
            plan.cables.append(network.topology.join(left, right))
            plan.cables.append(network.topology.join(network.plan_host(plan, "b", None, {}), right))
            plan.cables[-1].mtu = 1 << 20  # which no veth has

        with pytest.raises(LabError, match="create the veth of b"):
            network.build(plan_both)
    network.link(left, right)
    network.link("b", right, addresses={"b": "198.51.100.2"})
    assert reach(network["a"], network["b"]) == [network["a"].ip, network["a"].ip6]


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (lambda n: n.lan(0), "a number of hosts from 1 up"),
        (lambda n: n.lan("ab"), "a list of their names, not 'ab'"),
        (lambda n: n.lan([]), "a list of their names"),
        (lambda n: n.lan(True), "a list of their names, not True"),
        (lambda n: n.chain(-1), "the number of routers, from 0 up, not -1"),
        (lambda n: n.link("a", 5), "there is no host 5 in this network; its hosts are none yet"),
        (lambda n: n["nobody"], "there is no host 'nobody' in this network"),
        (lambda n: n.between("a", "b"), "there is no host 'a'"),
        (lambda n: n.gateway("a", []), "at least one port"),
        (lambda n: n.gateway("a", 80), "a list of ports, or a mapping"),
        (lambda n: n.gateway("a", [0]), "a port is a number from 1 to 65535, not 0"),
        (lambda n: n.draw("gif"), "drawn as 'ascii' or 'svg', not 'gif'"),
        (lambda n: n.host("a").cable, "a host with one cable, it has none"),
        (lambda n: n.host("a").ip, "a has no address: it is joined to nothing"),
    ],
)
def test_bad_input_is_named(network, do, message):
    """What is no number, name, port or form is refused with what was expected."""
    with pytest.raises(UsageError, match=re.escape(message)):
        do(network)


def test_a_switch_and_a_host_of_another_network_are_strangers(network):
    """What belongs elsewhere is not joined by mistake."""
    with Network() as other:
        switch, host = other.switch("s"), other.host("a")
        with pytest.raises(UsageError, match="is no switch of this network"):
            network.link("b", switch)
        with pytest.raises(UsageError, match="there is no host 'a' in this network"):
            network.link(host, "b")


def test_a_closed_network_says_so():
    """When it is closed all hosts are, and nothing can be added."""
    with Network() as network:
        nodes = network.lan(3)
        pair = network.pair()
    network.close()
    assert all(host.closed for host in (*nodes, *pair))
    for do in (lambda: network.lan(1), network.switch, lambda: network.host("x"), nodes[0].cable.cut):
        with pytest.raises(PoorContainerError, match="closed"):
            do()


def test_two_hundred_hosts_in_one_network(network):
    """The last reaches the first, all names are known, and nothing of them is left when the network ends."""
    nodes = network.lan(200)
    assert reach(nodes[199], nodes[0]) == [nodes[199].ip, nodes[199].ip6]
    assert len(told(nodes[77], "cat", "/etc/hosts").splitlines()) == 402
    pids = [node.pid for node in nodes]
    network.close()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_file_of_topology_becomes_a_network(network):
    """Subnets, routers, translation, impairments and services are as the file says."""
    network.load(TOPOLOGIES / "good.toml")
    a, server = network["a"], network["server"]
    assert a.ip == "192.168.1.1"
    assert told(server, "sysctl", "-n", "net.ipv4.tcp_syn_retries") == "2\n"
    began = time.monotonic()
    with a.connect((server.name, 80), timeout=5):
        assert time.monotonic() - began >= 0.01  # 5 ms each way
    server.services[0].stop()
    with server.listen(("", 80)) as listening, a.connect((server.name, 80), timeout=5):
        assert peer(listening) in network["r2"].addresses


def test_switches_of_a_file_are_joined_whatever_stands_first(network, tmp_path):
    """Hosts of two switches with a cable between these at the end of the file are one subnet."""
    place = tmp_path / "joined.toml"
    place.write_text(
        '[switches.a]\nhosts = ["x"]\n[switches.b]\nhosts = 1\nsubnet = "192.0.2.0/24"\n[[links]]\nends = ["a", "b"]\n'
    )
    network.load(place)
    assert reach(network["x"], network["n1"]) == [network["x"].ip, network["x"].ip6]
    assert network["x"].ip == "192.0.2.1"


def test_what_cannot_be_built_is_told_with_its_line(network, tmp_path):
    """What only the topology can know, such as a loop, is told with file and line too."""
    place = tmp_path / "loop.toml"
    place.write_text('[switches.a]\n[switches.b]\n[[links]]\nends = ["a", "b"]\n[[links]]\nends = ["b", "a"]\n')
    with pytest.raises(TopologyError, match=r"loop.toml:5: links\[1\]: a cable from b to a would be a loop"):
        network.load(place)
    assert not network.switches
    place.write_text('[switches.a]\nhosts = 2\nsubnet = "192.0.2.0/99"\n')
    with pytest.raises(TopologyError, match=r"loop.toml:3: .*no IPv4 subnet"):
        network.load(place)


def test_a_picture_shows_hosts_cables_and_what_is_wrong_with_them(network):
    """As text, and as an SVG document that is well-formed and refers to nothing outside."""
    from xml.etree import ElementTree

    nodes = network.lan(2, switch="office")
    network.link(nodes[0], "far")
    nodes[1].cable.unplug()
    text = network.draw()
    assert text.splitlines()[0].startswith("[office] 10.")
    assert f"`-- n2  eth0 {nodes[1].ip}  (unplugged)" in text
    assert text.isascii()
    picture = network.draw("svg")
    tree = ElementTree.fromstring(picture)
    assert len(tree.findall("{http://www.w3.org/2000/svg}line")) == 3
    assert not re.findall(r"(?:href|src|url)\b", picture)


def fabric_interfaces(network):
    """Return the names of all interfaces in the fabric: plugs p..., bridges b..."""
    replies = fabric_of(network.links[0].lab)._netlink.dump(Request(18, 0, bytes(16), "list the interfaces"))
    return [value.rstrip(b"\0").decode() for _, body in replies for code, value in attributes(body, 16) if code == 3]


def test_bridges_of_closed_networks_are_used_again(network):
    """When the kernel has freed the last host on them; not while one is in use. What they join is whole, and apart."""
    network.lan(1)
    fabric_of(network.links[0].lab)._spare.clear()  # those of other tests, whose hosts may be held by somebody
    before = {name for name in fabric_interfaces(network) if name.startswith("p")}

    def settled():
        assert not {name for name in fabric_interfaces(network) if name.startswith("p")} - before

    counts = []
    for number in range(12):
        with Network() as other:
            nodes = other.lan(3, mtu=9000 if number % 2 else None)
            tagged = other.link("t", nodes.switch, vlan=5)
            assert reach(nodes[0], nodes[2]) == [nodes[0].ip, nodes[0].ip6]
            with pytest.raises(OSError, match="unreachable"):
                nodes[0].connect((other["t"].ip, 80), timeout=STALLED)
            if number % 2:
                with nodes[1].socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
                    ear.bind((nodes[1].ip, 9))
                    ear.settimeout(STALLED)
                    with nodes[0].socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
                        mouth.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER: no fragments
                        mouth.sendto(bytes(8900), ear.getsockname())
                    assert len(ear.recv(9000)) == 8900
            with tagged.cut():
                pass
            used = {bridge for one in (network, other) for switch in one.switches for bridge in switch.bridges.values()}
            assert len(used) == 3
        eventually(settled, timeout=20)
        counts.append(len([name for name in fabric_interfaces(network) if name.startswith("b")]))
    assert len(set(counts[6:])) == 1, counts


def test_the_fabric_is_not_seen_by_hosts(network):
    """A host has the interfaces of its cables and lo; no bridge, no plug, no filter."""
    nodes = network.lan(2)
    links = json.loads(told(nodes[0], "ip", "-j", "link"))
    assert sorted(link["ifname"] for link in links) == ["eth0", "lo"]
    assert "bpf" not in told(nodes[0], "tc", "filter", "show", "dev", "eth0", "egress")


@pytest.mark.skipif(sys.version_info < (3, 10) or not shutil.which("ip"), reason="needs ip(8)")
def test_containers_alone_are_not_disturbed(network):
    """A container without a network lives beside a network."""
    network.lan(2)
    with Container() as alone:
        assert "eth0" not in told(alone, "ip", "link")


def test_unavailable_parts_of_a_kernel_are_named(network, monkeypatch):
    """Without nf_tables' translation a router says what is missing, and forwards as before."""
    from pytest_poorcontainer.network import nft

    chain = network.chain(1)
    monkeypatch.setattr(nft, "masquerade", lambda: nft._expression("no_such"))
    with pytest.raises(Unavailable, match="nf_tables does not work here"):
        chain.routers[0].masquerade()
    assert reach(chain.client, chain.server)
