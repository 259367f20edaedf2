"""Who hears whom: partitions, the traffic between two hosts, ports, resets; and what is left of them."""

import contextlib
import os
import re
import signal
import socket

import pytest
from talk import told

from pytest_poorcontainer import LabError, Network, PoorContainerError, Unavailable, UsageError, eventually, machine
from pytest_poorcontainer.network import canary
from pytest_poorcontainer.network.fabric import fabric_of
from pytest_poorcontainer.network.wire import WireDied

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["network"].works, reason=machine.fixtures_ready()["network"].reason
)

SILENCE = 0.15  # seconds; inside one kernel an answer takes microseconds
STALLED = 0.9


@pytest.fixture
def network():
    """A network of its own."""
    with Network() as network:
        yield network


@pytest.fixture
def nodes(network):
    """Five hosts on one switch that listen on port 80 over both families."""
    with contextlib.ExitStack() as stack:
        nodes = network.lan(5)
        for node in nodes:
            for address in node.addresses:
                stack.enter_context(node.listen((address, 80)))
        yield nodes


def hears(client, server, port=80, family=0):
    """Return whether a connection of one to the other comes about."""
    try:
        client.connect((server.addresses[family], port), timeout=SILENCE).close()
    except TimeoutError:
        return False
    return True


def graph(nodes):
    """Return who hears whom, as pairs of numbers; both families and both directions must agree."""
    found = set()
    for a, client in enumerate(nodes):
        for b, server in enumerate(nodes):
            if a < b:
                ways = {hears(x, y, family=f) for x, y in ((client, server), (server, client)) for f in (0, 1)}
                assert len(ways) == 1
                if ways == {True}:
                    found.add((a, b))
    return found


ALL = {(a, b) for a in range(5) for b in range(a + 1, 5)}

SHAPES = {
    "two groups": (lambda p, n: p(n[:2], n[2:]), ALL - {(a, b) for a in (0, 1) for b in (2, 3, 4)}),
    "three groups": (lambda p, n: p([n[0]], "n2", n[2:]), {(2, 3), (2, 4), (3, 4)}),
    "one from the rest": (lambda p, n: p(n[4]), ALL - {(a, 4) for a in range(4)}),
    "some are in no group": (lambda p, n: p([n[0]], [n[1]]), ALL - {(0, 1)}),
    "halves": (lambda p, n: p.halves(), ALL - {(a, b) for a in (0, 1) for b in (2, 3, 4)}),
    "isolate": (lambda p, n: p.isolate("n3"), ALL - {(0, 2), (1, 2), (2, 3), (2, 4)}),
    "bridge": (lambda p, n: p.bridge(n[2]), ALL - {(a, b) for a in (0, 1) for b in (3, 4)}),
    "ring": (lambda p, n: p.ring(), {(0, 1), (1, 2), (2, 3), (3, 4), (0, 4)}),
}


@pytest.mark.parametrize(("part", "expected"), SHAPES.values(), ids=SHAPES.keys())
def test_a_partition_parts_just_those(network, nodes, part, expected):
    """In each shape hosts hear those that they are to hear, over both families, and afterwards everybody."""
    with part(network.partition, nodes) as fault:
        assert graph(nodes) == expected
        assert fault.active
    assert not fault.active
    assert graph(nodes) == ALL


def test_partitions_compose_and_end_in_any_order(network, nodes):
    """Two that overlap are both in force until both have ended, whichever ends first."""
    first = network.partition(nodes[:1], nodes[1:2])
    second = network.partition(nodes[:2], nodes[2:])
    first.end()
    first.end()
    assert not hears(nodes[0], nodes[2])
    assert hears(nodes[0], nodes[1])
    third = network.between("n1", "n2").cut()
    second.end()
    assert graph(nodes) == ALL - {(0, 1)}
    third.heal()
    assert graph(nodes) == ALL


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ((["n1"], ["nobody"]), "there is no host 'nobody' in this network; its hosts are n1, n2, n3, n4, n5"),
        ((["n1"], ["n2", "n1"]), "n1 is in two groups of a partition"),
        ((["n1", "n1"], ["n2"]), "n1 is in one group twice"),
        ((["n1"], []), "at least two groups, with a host in each"),
        ((), "at least two groups"),
        ((5, ["n1"]), "a group of a partition is a host, a name, or a list of them, not 5"),
    ],
)
def test_a_partition_of_nobody_is_refused(network, nodes, groups, message):
    """Unknown hosts, hosts in two groups, groups of nobody: nothing is in force afterwards."""
    with pytest.raises(UsageError, match=re.escape(message)):
        network.partition(*groups)
    assert hears(nodes[0], nodes[1])


def test_small_networks_have_no_ring(network):
    """A shape that needs more hosts says how many."""
    network.lan(3)
    with pytest.raises(UsageError, match="needs at least 4 hosts, and there are 3"):
        network.partition.ring()


def test_a_partition_goes_through_routers(network):
    """Hosts are parted wherever they stand; routers go on forwarding for others."""
    chain = network.chain(2)
    network.link("other", chain.routers[0])
    client, server, other = chain.client, chain.server, network["other"]
    with server.listen((server.ip, 80)):
        with network.partition(client, server):
            assert not hears(client, server)
            assert hears(other, server)
        assert hears(client, server)


def test_a_partition_that_does_not_part_is_an_error(network, nodes, monkeypatch):
    """The canary that arrives in spite of it ends the partition and fails the test, and so does a deaf one."""
    from pytest_poorcontainer.network import link

    real = link.place_rules
    monkeypatch.setattr(link, "place_rules", lambda add=(), lift=(): None)
    with pytest.raises(LabError, match="a datagram of n1 has reached n2 in spite of it"):
        network.partition(nodes[:1], nodes[1:2])
    monkeypatch.setattr(link, "place_rules", real)
    monkeypatch.setattr(canary, "select", FakeSelect())
    with pytest.raises(LabError, match="n2 does not hear a datagram of its own"):
        network.partition(nodes[:1], nodes[1:2])
    assert graph(nodes[:2]) == {(0, 1)}


class FakeSelect:
    """An ear that hears nothing."""

    @staticmethod
    def select(*_):
        """Return nobody."""
        return [], [], []


def test_a_cut_may_go_one_way(nodes):
    """What one host sends is lost, the other way is open; and healing one way leaves the other."""
    link = nodes[0].cable
    with (
        nodes[1].socket(socket.AF_INET, socket.SOCK_DGRAM) as ear,
        nodes[0].socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth,
    ):
        for sock, node in ((ear, nodes[1]), (mouth, nodes[0])):
            sock.bind((node.ip, 99))
            sock.settimeout(SILENCE)
        with link.cut(direction=nodes[0]):
            assert link.state == "cut"
            mouth.sendto(b"lost", (nodes[1].ip, 99))
            ear.sendto(b"heard", (nodes[0].ip, 99))
            assert mouth.recv(9) == b"heard"
            with pytest.raises(TimeoutError):
                ear.recv(9)
            link.cut()
            link.heal(direction="n1")
            mouth.sendto(b"now", (nodes[1].ip, 99))
            assert ear.recv(9) == b"now"
            ear.sendto(b"lost", (nodes[0].ip, 99))
            with pytest.raises(TimeoutError):
                mouth.recv(9)
            link.heal()
    assert link.state == "up"
    with pytest.raises(UsageError, match="direction= names who sends what is concerned, 'n1' or 's1', not 'n2'"):
        link.cut(direction=nodes[1])


def test_between_two_hosts_goes_one_way_too(network, nodes):
    """The handle of two hosts, with a direction: the others hear both."""
    between = network.between(nodes[0], "n2")
    with between.cut(direction=nodes[0]):
        with (
            nodes[0].socket(socket.AF_INET, socket.SOCK_DGRAM) as ear,
            nodes[1].socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth,
        ):
            ear.bind((nodes[0].ip, 99))
            ear.settimeout(STALLED)
            mouth.sendto(b"heard", (nodes[0].ip, 99))
            assert ear.recv(9) == b"heard"
        assert not hears(nodes[0], nodes[1])
        assert hears(nodes[0], nodes[2])
    assert hears(nodes[0], nodes[1])
    with pytest.raises(UsageError, match="'n1' or 'n2', not 'n3'"):
        between.cut(direction=nodes[2])
    with pytest.raises(UsageError, match="two hosts, not n1 twice"):
        network.between(nodes[0], nodes[0])
    with pytest.raises(UsageError, match="not joined by one cable of their own"):
        between.unplug()


def test_a_cable_of_a_switch_is_unplugged_for_its_host_alone(network, nodes):
    """The host loses its carrier, the others none; plugged in again it is reached at once."""
    with nodes[2].cable.unplug() as link:
        assert link.state == "unplugged"
        assert "NO-CARRIER" in told(nodes[2], "ip", "link", "show", "eth0")
        assert "NO-CARRIER" not in told(nodes[0], "ip", "link", "show", "eth0")
        assert not hears(nodes[0], nodes[2])
        assert hears(nodes[0], nodes[1])
    nodes[0].connect((nodes[2].ip, 80), timeout=STALLED).close()


def test_switches_are_parted_by_the_cable_between_them(network):
    """Cut or unplugged, each side goes on for itself."""
    left, right = network.switch("left"), network.switch("right")
    trunk = network.link(left, right)
    for name, switch in (("a", left), ("b", left), ("c", right)):
        network.link(name, switch)
    a, b, c = (network[name] for name in "abc")
    with a.listen(("", 80)):
        for fault in (trunk.cut, trunk.unplug):
            with fault():
                assert not hears(c, a)
                assert hears(b, a)
            c.connect((a.ip, 80), timeout=STALLED).close()


def test_a_port_may_vanish_or_be_refused(network, nodes):
    """Packets to the port get no answer, or a reset; other ports, hosts and the other direction are left alone."""
    between = network.between(nodes[0], nodes[1])
    with nodes[1].listen((nodes[1].ip, 81)):
        with between.blackhole(80, direction="n1"):
            assert not hears(nodes[0], nodes[1])
            assert hears(nodes[0], nodes[1], 81)
            assert hears(nodes[1], nodes[0])
            assert hears(nodes[2], nodes[1])
        with between.reject(80):
            for family in (0, 1):
                with pytest.raises(ConnectionRefusedError):
                    nodes[0].connect((nodes[1].addresses[family], 80), timeout=STALLED)
            assert hears(nodes[0], nodes[1], 81)
            assert hears(nodes[2], nodes[1])
        assert graph(nodes[:3]) == {(0, 1), (0, 2), (1, 2)}
    with nodes[0].socket(socket.AF_INET, socket.SOCK_DGRAM) as client, between.reject(53, protocol="udp"):
        client.connect((nodes[1].ip, 53))
        client.settimeout(STALLED)
        client.send(b"?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(9)
    for port, protocol, message in ((0, "tcp", "a port is a number from 1"), (1, "sctp", "protocol is 'tcp' or 'udp'")):
        with pytest.raises(UsageError, match=message):
            between.blackhole(port, protocol=protocol)


@pytest.mark.parametrize("where", ["at the switch", "between two hosts", "on a cable on the way", "on a pair"])
def test_a_port_is_refused_wherever_the_fault_is(network, where):
    """At a cable to a switch, a cable between hosts, one between routers, and the cable of a pair."""
    if where == "at the switch":
        client, server = network.lan(2)
        way = server.cable
    elif where == "on a pair":
        client, server = pair = network.pair()
        way = pair.link
    else:
        chain = network.chain(2)
        client, server = chain.client, chain.server
        way = chain.links[1] if where == "on a cable on the way" else network.between(client, server)
    with server.listen((server.ip, 80)):
        assert hears(client, server)
        with way.reject(80), pytest.raises(ConnectionRefusedError):
            client.connect((server.ip, 80), timeout=STALLED)
        assert hears(client, server)


def test_a_refusal_that_the_kernel_cannot_do_is_an_error(network, nodes, monkeypatch):
    """Nothing is in force when a part is missing, and nothing stays."""
    from pytest_poorcontainer.network import nft

    monkeypatch.setattr(nft, "reject", lambda tcp: nft._expression("no_such"))
    with pytest.raises(Unavailable, match="nf_tables does not work here"):
        network.between(nodes[0], nodes[1]).reject(80)
    assert hears(nodes[0], nodes[1])


def test_connections_are_reset_and_new_ones_come_about(network, nodes):
    """The client's gets "connection reset by peer"; connections of others live."""
    with nodes[1].listen((nodes[1].ip, 81)) as server:
        mine, accepted = nodes[0].connect((nodes[1].ip, 81)), server.accept()[0]
        other, others = nodes[2].connect((nodes[1].ip, 81)), server.accept()[0]
        with mine, accepted, other, others:
            assert network.between(nodes[0], nodes[1]).reset() == 1
            for sock, error in ((mine, ConnectionResetError), (accepted, ConnectionAbortedError)):
                with pytest.raises(error):
                    sock.recv(1)
            others.send(b"x")
            assert other.recv(1) == b"x"
            assert network.between(nodes[0], nodes[1]).reset() == 0
        assert hears(nodes[0], nodes[1], 81)


def test_connections_that_pass_a_cable_are_reset_at_a_host_only(network):
    """A cable at a host knows them, one between routers or switches does not, and says so; a closed one is an error."""
    client, first, second, server = network.chain(2)
    trunk = network.link(network.switch("s1"), network.switch("s2"))
    with server.listen((server.ip, 81)) as listening:
        for way in (client.cable, server.cable, network.between(client, server)):
            with client.connect((server.ip, 81)) as sock, listening.accept()[0]:
                assert way.reset() == 1
                with pytest.raises(ConnectionError):
                    sock.recv(1)
        for link in (network.between(first, second).link, trunk):
            with pytest.raises(UsageError, match=r"only routers and switches at its ends.*between\(a, b\).reset\(\)"):
                link.reset()
    network.close()
    for way in (client.cable, network.between(client, server)):
        with pytest.raises(PoorContainerError, match=r"cannot reset the connections of .* closed"):
            way.reset()


def test_what_a_fault_touched_is_as_it_was(network, nodes):
    """Routes, rules, qdiscs and addresses of every host compare equal after faults of every kind."""

    def looks():
        commands = ("ip -d addr", "ip route", "ip -6 route", "ip rule", "tc qdisc", "ip -d link")
        return [re.sub(r"\d+sec", "", told(node, "sh", "-c", "; ".join(commands))) for node in nodes]

    before = looks()
    connection = nodes[0].connect((nodes[1].ip, 80))
    with network.partition.halves(), network.between(nodes[0], nodes[3]).reject(80), nodes[2].cable.unplug():
        network.partition.ring().end()
    with nodes[0].cable.cut(), nodes[4].cable.mtu_black_hole(500), nodes[3].cable.impair(delay="1ms"):
        pass
    assert looks() == before
    fabric = fabric_of(nodes[0].cable.lab)
    assert fabric is fabric_of(nodes[1].cable.lab)
    with connection:
        connection.sendall(b"still here")
    assert graph(nodes) == ALL


def test_a_connection_outlives_a_short_partition(network, nodes):
    """What was sent into the partition arrives after it."""
    with nodes[1].listen((nodes[1].ip, 81)) as server, nodes[0].connect((nodes[1].ip, 81)) as client:
        accepted = server.accept()[0]
        with network.partition(nodes[:1], nodes[1:]):
            client.sendall(b"sent into the dark")
        accepted.settimeout(10)
        assert accepted.recv(99) == b"sent into the dark"
        accepted.close()


def test_a_host_cannot_undo_a_partition(network, nodes):
    """Root in a host that flushes its qdiscs and rules does not get through."""
    with network.partition(nodes[:1], nodes[1:]):
        told(nodes[0], "ip", "link", "set", "eth0", "down")
        told(nodes[0], "ip", "link", "set", "eth0", "up")
        nodes[0].run(["nft", "flush", "ruleset"], capture_output=True)
        assert not hears(nodes[0], nodes[1])


def test_faults_on_a_closed_network_are_errors(network, nodes):
    """A fault that is left on ends with its network; another one cannot be put on."""
    fault, between = network.partition.halves(), network.between(nodes[0], nodes[1])
    network.close()
    fault.end()
    for do in (between.cut, lambda: between.blackhole(80), lambda: nodes[0].cable.impair(delay="1ms")):
        with pytest.raises(PoorContainerError, match="closed"):
            do()


def test_hosts_may_die_while_faults_are_in_force(network, nodes):
    """A host that is closed, or whose first process was killed, keeps no fault of others from ending."""
    with network.partition(nodes[:2], nodes[2:]), nodes[4].cable.cut():
        nodes[0].close()
        os.kill(nodes[2].pid, signal.SIGKILL)
        eventually(lambda: has_ended(nodes[2]), timeout=5)
    assert hears(nodes[1], nodes[3])
    assert hears(nodes[1], nodes[4])
    with network.partition(["n1", "n2"], ["n4"]):
        assert not hears(nodes[1], nodes[3])


def has_ended(host):
    """Assert that a host's first process is dead."""
    assert host._handle.has_ended()


def test_impairments_between_two_hosts_leave_the_others_alone(network, nodes):
    """A delay of 20 ms each way between two hosts; on the same cables others are as quick as before."""
    import time

    def took(client, server):
        began = time.perf_counter()
        client.connect((server.ip, 80), timeout=5).close()
        return time.perf_counter() - began

    with network.between(nodes[0], nodes[1]).impair(delay="20ms") as impaired:
        assert took(nodes[0], nodes[1]) >= 0.035
        assert took(nodes[1], nodes[0]) >= 0.035
        assert took(nodes[0], nodes[2]) < 0.035
        assert nodes[0].cable.medium == "wire"
        assert nodes[1].cable.medium == "veth"
        assert impaired.counts[0][0].packets > 0
        with nodes[0].cable.impair(delay="40ms"):
            assert took(nodes[0], nodes[2]) >= 0.07
        with network.partition(nodes[:1], nodes[1:]):
            assert not hears(nodes[0], nodes[1])
        assert took(nodes[0], nodes[1]) >= 0.035
    assert nodes[0].cable.medium == "veth"
    assert took(nodes[0], nodes[1]) < 0.035


def test_a_wire_that_has_died_keeps_no_other_cable_from_being_whole(network):
    """Two hosts with two cables between them: both wires are killed, both are told, and both are whole after it."""
    a, b = network.host("a"), network.host("b")
    links = [network.link(a, b), network.link(a, b)]
    impaired = network.between(a, b).impair(delay="1ms")
    assert [link.medium for link in links] == ["wire", "wire"]
    for link in links:
        signal.pidfd_send_signal(link._impairments.carrier._pidfd, signal.SIGKILL)
    eventually(lambda: are_dead(links), timeout=5)
    with pytest.raises(WireDied) as caught:
        impaired.end()
    assert isinstance(caught.value.__context__, WireDied)
    assert [link.state for link in links] == ["up", "up"]


def test_a_network_that_is_closed_tells_of_each_wire_that_has_died(network):
    """One is raised, the first, and the others are told with it; all hosts are gone."""
    nodes = network.lan(3)
    for node in nodes:
        node.cable.impair(delay="1ms")
        signal.pidfd_send_signal(node.cable._impairments.carrier._pidfd, signal.SIGKILL)
    eventually(lambda: are_dead(network.links), timeout=5)
    with pytest.raises(WireDied, match="n1") as caught:
        network.close()
    told = [caught.value, caught.value.__context__, caught.value.__context__.__context__]
    assert [re.search(r"n\d", str(error))[0] for error in told] == ["n1", "n2", "n3"]
    assert all(node.closed for node in nodes)


def are_dead(links):
    """Assert that nothing passes on these links, as their wires have died."""
    assert {link.state for link in links} == {"dead"}


def test_impairments_of_any_cable_are_on_a_wire(network):
    """Between hosts, to a switch, between two switches: delayed, and as it was afterwards, also when cut meanwhile."""
    left, right = network.switch(), network.switch()
    trunk = network.link(left, right)
    network.link("a", left)
    network.link("b", right)
    direct = network.link("c", "d")
    with network["b"].listen(("", 80)), network["d"].listen(("", 80)):
        for link, client, server in ((trunk, "a", "b"), (network["a"].cable, "a", "b"), (direct, "c", "d")):
            with link.impair(delay="5ms"):
                assert link.medium == "wire"
                assert hears(network[client], network[server])
                with link.cut():
                    assert not hears(network[client], network[server])
                with link.unplug():
                    assert not hears(network[client], network[server])
                network[client].connect((network[server].ip, 80), timeout=STALLED).close()
            assert link.medium == "veth"
            assert hears(network[client], network[server])
