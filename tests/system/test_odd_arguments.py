"""What networks and faults are given that makes no sense: an error says what it met and what was expected."""

import math
import re

import pytest
from talk import told

from pytest_poorcontainer import Network, UsageError, machine

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["network"].works, reason=machine.fixtures_ready()["network"].reason
)


@pytest.fixture(scope="module")
def stage():
    """A network with hosts a to d on switch s, a router r on it, and a host that is joined to nothing; and another."""
    with Network() as network, Network() as other:
        network.lan(["a", "b", "c", "d"], switch="s")
        network.link(network.router("r"), network.switches[0])
        network.host("lone")
        other.lan(["x"], switch="t")
        yield network, other


MAKING = {
    "sysctls that are none": (lambda n, _: n.host("h", sysctls=5), "sysctls= is a mapping such as"),
    "a list of sysctls": (lambda n, _: n.host("h", sysctls=["net.ipv4.ip_forward"]), "sysctls= is a mapping such as"),
    "a sysctl of no name": (lambda n, _: n.host("h", sysctls={5: 1}), "those below net, such as"),
    "a sysctl that leads away": (
        lambda n, _: n.host("h", sysctls={"net/../vm/swappiness": 60}),
        "those below net, such as net.ipv4.tcp_syn_retries, not 'net/../vm/swappiness'",
    ),
    "a sysctl of two lines": (lambda n, _: n.host("h", sysctls={"net.ipv4.ip_forward": "1\n2"}), "a text of one line"),
    "a sysctl of nothing": (lambda n, _: n.host("h", sysctls={"net.ipv4.ip_forward": None}), "not None"),
    "addresses that are none": (lambda n, _: n.link("h", "s", addresses=5), "addresses= is a mapping such as"),
    "a list of addresses": (lambda n, _: n.link("h", "s", addresses=["10.0.0.1"]), "addresses= is a mapping"),
    "a subnet that is a number": (lambda n, _: n.link("h", "i", subnet=5), "5 is no IPv4 subnet: expected one like"),
    "a loopback": (lambda n, _: n.link("h", "i", subnet="127.0.0.0/24"), "no host can have an address of 127.0.0.0/24"),
    "multicasts": (lambda n, _: n.link("h", "i", subnet="224.0.0.0/24"), "no host can have an address of 224.0.0.0/24"),
    "a link's own": (lambda n, _: n.link("h", "i", subnet6="fe80::/64"), "no host can have an address of fe80::/64"),
    "IPv6 on a narrow cable": (
        lambda n, _: n.link("h", "i", mtu=1000, subnet6="fd00::/64"),
        "subnet6='fd00::/64' is for a cable with an mtu of 1280 or more (RFC 8200), not 1000",
    ),
    "the subnet's own address": (
        lambda n, _: n.link("h", "i", subnet="192.0.2.0/24", addresses={"h": "192.0.2.0"}),
        "the first and the last of 192.0.2.0/24 are no host's",
    ),
    "the broadcast address": (
        lambda n, _: n.link("h", "i", subnet="192.0.2.0/24", addresses={"h": "192.0.2.255"}),
        "the first and the last of 192.0.2.0/24 are no host's",
    ),
    "hosts that are none": (lambda n, _: n.lan(None), "a number of hosts, or a list of their names, not None"),
    "half a host": (lambda n, _: n.lan(2.5), "a number of hosts, or a list of their names, not 2.5"),
    "names without order": (lambda n, _: n.lan({"h", "i"}), "a list of their names"),
    "names that are gone": (lambda n, _: n.lan(name for name in ["h"]), "a list of their names"),
    "a name twice": (lambda n, _: n.lan(["h", "h"]), "there is a host 'h' in this network already"),
    "another's host": (lambda n, o: n.link("h", o["x"]), "there is no host 'x' in this network"),
    "another's switch": (lambda n, o: n.lan(1, switch=o.switches[0]), "is no switch of this network"),
    "a port for another's host": (
        lambda n, o: n["r"].forward_port(80, o["x"]),
        "a host of this network that lives, network[name], not to <Host x>",
    ),
    "a port for a name": (lambda n, _: n["r"].forward_port(80, "a"), "network[name], not to 'a'"),
}

PARTS = {
    "nobody": (lambda p, _: p(), "at least two groups, with a host in each"),
    "an empty group": (lambda p, _: p([], ["a"]), "at least two groups, with a host in each"),
    "everybody": (lambda p, _: p(["a", "b", "c", "d"]), "at least two groups, with a host in each"),
    "a stranger": (lambda p, o: p(["a"], [o["x"]]), "there is no host 'x' in this network"),
    "no host": (lambda p, _: p(None, ["a"]), "a host, a name, or a list of them, not None"),
    "one that is joined to nothing": (lambda p, _: p(["lone"], ["a"]), "lone is joined to nothing"),
    "one twice in a group": (lambda p, _: p(["a", "a"], ["b"]), "a is in one group twice"),
    "one in two groups": (lambda p, _: p(["a", "b"], ["b"]), "b is in two groups"),
    "halves with one twice": (lambda p, _: p.halves(["a", "a"]), "a is there twice"),
    "a ring with one twice": (lambda p, _: p.ring(["a", "b", "a", "b"]), "a is there twice"),
    "a bridge with one twice": (lambda p, _: p.bridge("a", ["b", "b", "c"]), "b is there twice"),
    "a ring of three": (lambda p, _: p.ring(["a", "b", "c"]), "at least 4 hosts, and there are 3"),
}

FAULTS = {
    "loss of 300 %": (lambda w: w.impair(loss="300%"), "no more than all packets can be concerned"),
    "a loss that is no number": (lambda w: w.impair(loss=math.nan), "not nan"),
    "a delay of ever": (lambda w: w.impair(delay=math.inf), "not inf"),
    "a delay of less than nothing": (lambda w: w.impair(delay=-1), "it cannot be negative"),
    "a unit that is none": (lambda w: w.impair(delay="5 parsecs"), "'parsecs' is no unit of time"),
    "a seed that is none": (lambda w: w.impair(loss=0.1, seed="x"), "seed is an int, not 'x'"),
    "a port that is none": (lambda w: w.blackhole("http"), "a port is a number from 1 to 65535, not 'http'"),
    "another protocol": (lambda w: w.reject(80, protocol="sctp"), "'tcp' or 'udp', not 'sctp'"),
    "a size that is none": (lambda w: w.mtu_black_hole(math.nan), "a number of bytes from 68 to 65535, not nan"),
    "a size of no packet": (
        lambda w: w.mtu_black_hole(10**12),
        "a number of bytes from 68 to 65535, not 1000000000000",
    ),
    "a direction of nobody": (lambda w: w.cut(direction="q"), "direction= names who sends what is concerned"),
}

TIMES = {
    "no steps": (lambda f: f.timeline(None), "a timeline is a list of steps, [(seconds, function), ...], not None"),
    "a time that is none": (lambda f: f.timeline([(math.nan, print)]), "(seconds from the start, function), not (nan"),
    "a time that never comes": (
        lambda f: f.timeline([(math.inf, print)]),
        "(seconds from the start, function), not (inf",
    ),
    "a fault and not its function": (lambda f: f.timeline([(0, None)]), "(seconds from the start, function), not (0"),
    "a seed that is none": (lambda f: f.nemesis(seed=1.5), "seed is an int, not 1.5"),
    "pauses that are none": (
        lambda f: f.nemesis(every=1),
        "every= is the shortest and the longest time in seconds, not 1",
    ),
    "pauses of text": (lambda f: f.nemesis(every=("1s", "2s")), "in seconds, not ('1s', '2s')"),
    "faults of ever": (lambda f: f.nemesis(last=(0, math.inf)), "last= is the shortest and the longest time"),
    "a name in place of hosts": (lambda f: f.nemesis(hosts="ab"), "hosts= is a list of hosts or their names, not 'ab'"),
    "a host twice": (lambda f: f.nemesis(hosts=["a", "a"]), "a is there twice"),
    "a host without a cable": (lambda f: f.nemesis(hosts=["a", "lone"]), "lone is joined to nothing"),
}


@pytest.mark.parametrize(("do", "message"), MAKING.values(), ids=MAKING)
def test_what_cannot_be_made_is_refused(stage, do, message):
    """Nothing of it is there afterwards."""
    before = [host.name for host in stage[0].hosts], len(stage[0].links)
    with pytest.raises(UsageError, match=re.escape(message)):
        do(*stage)
    assert ([host.name for host in stage[0].hosts], len(stage[0].links)) == before


@pytest.mark.parametrize(("do", "message"), PARTS.values(), ids=PARTS)
def test_what_cannot_be_parted_is_refused(stage, do, message):
    """Nobody is parted from anybody by it."""
    with pytest.raises(UsageError, match=re.escape(message)):
        do(stage[0].partition, stage[1])


@pytest.mark.parametrize("where", ["cable", "between"])
@pytest.mark.parametrize(("do", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_that_makes_no_sense_is_refused(stage, where, do, message):
    """On a cable and between two hosts alike; what is there goes on as it was."""
    network, _ = stage
    way = network["a"].cable if where == "cable" else network.between("a", "b")
    with pytest.raises(UsageError, match=re.escape(message)):
        do(way)
    assert (network["a"].cable.state, network["a"].cable.medium) == ("up", "veth")


@pytest.mark.parametrize(("do", "message"), TIMES.values(), ids=TIMES)
def test_faults_at_no_time_are_refused(stage, do, message):
    """Before any is begun."""
    with pytest.raises(UsageError, match=re.escape(message)):
        do(stage[0].faults)


def test_who_is_joined_to_nothing_is_no_part_of_anything(stage):
    """A fault between it and another is refused; shapes of all hosts, and a nemesis, are without it."""
    network, _ = stage
    way = network.between("a", "lone")
    for do in (way.cut, lambda: way.blackhole(80), lambda: way.mtu_black_hole(1000)):
        with pytest.raises(UsageError, match="lone is joined to nothing: there is no traffic between a and lone"):
            do()
    with pytest.raises(UsageError, match="cannot impair what is between a and lone: there is no cable between them"):
        way.impair(delay="1ms")
    with network.partition.halves() as fault:
        assert fault.what == "partition a b | c d"
    with network.faults.nemesis(seed=1, every=(60, 60)) as nemesis:
        assert not [line for line in nemesis.plan(5) if "lone" in line]


def test_a_lan_on_a_switch_that_is_there_has_cables_of_the_mtu_that_was_asked_for():
    """As one on a new switch has; the switch's other cables keep theirs."""
    with Network() as network:
        first = network.lan(1)
        wide = network.lan(["w"], switch=first.switch, mtu=1400)
        new = network.lan(["v"], switch="new", mtu=9000)
        read = ["cat", "/sys/class/net/eth0/mtu"]
        assert [told(host, *read) for host in (first[0], wide[0], new[0])] == ["1500\n", "1400\n", "9000\n"]


def test_a_lan_has_the_root_that_was_asked_for():
    """All its hosts, each with changes of its own; another host on their switch has the machine's."""
    with Network() as network:
        nodes = network.lan(2, rootfs=["/bin/sh", "ls"])
        other = network.lan(["other"], switch=nodes.switch)[0]
        nodes[0].write("/mark", "mine")
        programs = [set(told(node, "ls", "/bin").split()) for node in (*nodes, other)]
        assert programs[0] == programs[1]
        assert {"sh", "ls"} <= programs[0] < programs[2]
        assert "cat" not in programs[0]
        assert ["mark" in told(node, "ls", "/").split() for node in (*nodes, other)] == [True, False, False]
        with nodes[1].listen(("", 80)):
            for client in (nodes[0], other):
                client.connect((nodes[1].name, 80)).close()
