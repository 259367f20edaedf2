"""Topologies without a kernel: names, addresses, loops, and the routes that are computed for them."""

import itertools

import pytest

from pytest_poorcontainer import UsageError
from pytest_poorcontainer.network import subnets
from pytest_poorcontainer.network.routes import routes
from pytest_poorcontainer.network.subnets import Subnet, address_text
from pytest_poorcontainer.network.topology import Topology


@pytest.fixture(autouse=True)
def _dual_stack(monkeypatch):
    """Two address families, whatever this machine has."""
    monkeypatch.setattr(subnets, "has_ipv6", lambda: True)


@pytest.fixture
def topology():
    """An empty topology whose numbers begin at 1."""
    return Topology(itertools.count(1).__next__)


def shown(found, node):
    """Return a host's routes as text."""
    return sorted(
        f"{address_text(one.destination) if one.prefix else 'default'}/{one.prefix} via {address_text(one.gateway)}"
        for one in found[node]
        if len(one.gateway) == 4
    )


def chain(topology, routers):
    """Return a client, routers and a server in a row."""
    nodes = [topology.add_node("client"), *(topology.add_node(f"r{n}", forwards=True) for n in range(routers))]
    nodes.append(topology.add_node("server"))
    for a, b in itertools.pairwise(nodes):
        topology.join(a, b)
    return nodes


def test_ends_of_a_chain_have_a_default_route_and_routers_one_for_each_subnet(topology):
    """Who has one way out needs no more; a router answers for subnets that there are not."""
    client, first, second, server = chain(topology, 2)
    found = routes(topology.nodes.values(), topology.segments)
    assert shown(found, client) == [f"default/0 via {address_text(first.ports[0].place.ip)}"]
    assert shown(found, server) == [f"default/0 via {address_text(second.ports[1].place.ip)}"]
    assert len(shown(found, first)) == len(shown(found, second)) == 1
    assert not any("default" in line for line in shown(found, first))


def test_every_host_reaches_every_subnet_by_the_fewest_routers(topology):
    """In a square of routers each is reached over one of the two short ways, never over the long one."""
    square = [topology.add_node(f"r{n}", forwards=True) for n in range(4)]
    for a, b in zip(square, [*square[1:], square[0]], strict=True):
        topology.join(a, b)
    leaf = topology.add_node("leaf")
    topology.join(leaf, square[0])
    found = routes(topology.nodes.values(), topology.segments)
    places = {one.place.ip: one.node for node in topology.nodes.values() for one in node.ports}

    def steps(node, segment):
        """Follow the routes to a subnet; return how many routers were passed."""
        for passed in range(10):
            if any(port.segment is segment for port in node.ports):
                return passed
            gateways = {(one.destination, one.prefix): one.gateway for one in found[node] if len(one.gateway) == 4}
            node = places[gateways.get((segment.subnet.packed, segment.subnet.prefix), gateways.get((b"", 0)))]
        raise AssertionError("the routes go round")

    assert max(steps(node, segment) for node in topology.nodes.values() for segment in topology.segments) == 2
    assert sorted(steps(leaf, segment) for segment in topology.segments) == [0, 1, 1, 2, 2]


def test_hosts_without_a_router_between_them_have_no_routes(topology):
    """A LAN needs none, and a host on two of them that does not forward is no way from one to the other."""
    left, right = topology.add_switch("left"), topology.add_switch("right")
    nodes = [topology.add_node(name) for name in ("a", "b", "both")]
    for node, switch in ((nodes[0], left), (nodes[1], right), (nodes[2], left), (nodes[2], right)):
        topology.join(node, switch)
    assert not any(routes(topology.nodes.values(), topology.segments).values())


def test_what_is_behind_a_router_that_masquerades_is_unknown_outside(topology):
    """Inside there is a way out, outside there is none in."""
    client, router, server = chain(topology, 1)
    router.outside.add(router.ports[1].segment)
    found = routes(topology.nodes.values(), topology.segments)
    assert shown(found, client)
    assert not found[server]


def test_addresses_are_those_that_were_asked_for_and_free_ones_else(topology):
    """A subnet and an address may be chosen; the others are the first that are free."""
    a, b = topology.add_node("a"), topology.add_node("b")
    topology.join(a, b, subnet="192.0.2.0/30", addresses={"a": ["192.0.2.2", "fd00::9"]}, subnet6="fd00::/64")
    assert (a.all(), b.all()) == (["192.0.2.2", "fd00::9"], ["192.0.2.1", "fd00::1"])


@pytest.mark.parametrize(("text", "count"), [("192.0.2.0/24", 254), ("192.0.2.0/30", 2), ("192.0.2.0/31", 2)])
def test_a_subnet_has_room_for_so_many(text, count):
    """Network and broadcast address are nobody's, but in a subnet of two addresses (RFC 3021)."""
    subnet = Subnet(1, text)
    places = [subnet.place(f"h{n}") for n in range(count)]
    assert len({place.ip for place in places}) == len({place.mac for place in places}) == count
    with pytest.raises(UsageError, match=f"all {count} of {text} are taken; give a larger subnet="):
        subnet.place("more")


def test_a_narrow_link_has_no_ipv6(topology):
    """IPv6 needs 1280 bytes (RFC 8200), so a cable of less has IPv4 alone."""
    a, b = topology.add_node("a"), topology.add_node("b")
    topology.join(a, b, mtu=1279)
    assert len(a.all()) == len(b.all()) == 1


def test_switches_that_are_joined_are_one_subnet(topology):
    """Hosts on two switches with a cable between them have addresses of one subnet, whoever came first."""
    first, second, third = (topology.add_switch(name) for name in ("s1", "s2", "s3"))
    topology.join(topology.add_node("a"), first)
    topology.join(first, second)
    topology.join(second, third)
    topology.join(topology.add_node("b"), third)
    assert len(topology.segments) == 1
    assert len(topology.segments[0].ports) == 2


def test_each_vlan_of_a_trunk_is_one_subnet(topology):
    """Another VLAN of the same switches is another one, and a second cable for other VLANs is no loop."""
    first, second = topology.add_switch("s1"), topology.add_switch("s2")
    strands = topology.join(first, second, vlans=[7, 8]).strands
    assert [strand.vlan for strand in strands] == [7, 8]
    topology.join(first, second)
    for number, vlan in enumerate((7, 8, 0, 9)):
        topology.join(topology.add_node(f"a{number}"), first, vlan=vlan)
        topology.join(topology.add_node(f"b{number}"), second, vlan=vlan)
    same = [topology.nodes[f"a{n}"].ports[0].segment is topology.nodes[f"b{n}"].ports[0].segment for n in range(4)]
    assert same == [True, True, True, False]
    assert len({port.segment for node in topology.nodes.values() for port in node.ports}) == 5


def loop_in_a_vlan(topology):
    """Join three switches in a ring: in VLAN 7 there is one, in the others not."""
    for a, b, vlans in (("s", "u", [7, 8]), ("u", "v", [7]), ("v", "s", [8]), ("v", "s", [7])):
        topology.join(topology.switches[a], topology.switches[b], vlans=vlans)


def mistakes():
    """Yield (name, what is done to a topology with hosts a, b on switch s and switches t, u, what is said)."""
    yield "a name twice", lambda t: t.add_node("a"), "there is a host 'a' in this network already"
    yield "a name in capitals", lambda t: t.add_switch("A"), "there is a host 'a' in this network already"
    yield "no name", lambda t: t.add_node("a b"), "is no host name"
    yield "itself", lambda t: t.join(t.nodes["a"], t.nodes["a"]), "a cannot be joined to itself"
    yield "a loop", lambda t: t.join(t.switches["u"], t.switches["t"]), "would be a loop"
    yield "two subnets", lambda t: t.join(t.switches["s"], t.switches["w"]), "join switches before both of them"
    yield "an MTU", lambda t: t.join(t.nodes["a"], t.nodes["b"], mtu=67), "mtu is a number of bytes from 68 to"
    yield "a VLAN", lambda t: t.join(t.nodes["a"], t.switches["t"], vlan=4095), "vlan is a number from 1 to 4094"
    yield "a VLAN of hosts", lambda t: t.join(t.nodes["a"], t.nodes["b"], vlan=5), "from a host to a switch"
    yield (
        "a VLAN of switches",
        lambda t: t.join(t.switches["s"], t.switches["t"], vlan=5),
        r"which ones cross, vlans=\[5\]",
    )
    yield "VLANs of hosts", lambda t: t.join(t.nodes["a"], t.switches["t"], vlans=[5]), "has a cable to each"
    for name, vlans in (("no", []), ("double", [5, 5]), ("high", [4095]), ("named", ["5"]), ("one", 5)):
        yield (
            f"{name} VLANs",
            lambda t, vlans=vlans: t.join(t.switches["s"], t.switches["t"], vlans=vlans),
            "vlans= is a list of different numbers from 1 to 4094, or 0 for what is of no VLAN",
        )
    yield "a loop in a VLAN", loop_in_a_vlan, "a cable from v to s would be a loop in VLAN 7"
    yield (
        "a subnet of switches",
        lambda t: t.join(t.switches["s"], t.switches["t"], subnet="192.0.2.0/24"),
        "has no subnet of its own: give subnet= to the first host on s or t",
    )
    yield "an address twice", lambda t: with_addresses(t, "192.0.2.1", "192.0.2.1"), "d cannot have .* c has it"
    yield "an address elsewhere", lambda t: with_addresses(t, "10.9.9.9", "192.0.2.1"), "it is not in 192.0.2.0/29"
    yield "no address", lambda t: with_addresses(t, "300.1.1.1", "192.0.2.1"), "'300.1.1.1' is no IP address"
    yield (
        "addresses that are none",
        lambda t: with_addresses(t, 5, "192.0.2.1"),
        "an address or a list of them for c, not 5",
    )
    yield "addresses of others", lambda t: with_addresses(t, a="192.0.2.1"), "names 'a', which is no host at an end"
    yield "no subnet", lambda t: t.join(t.nodes["a"], t.nodes["b"], subnet="x"), "'x' is no IPv4 subnet"
    yield "an overlap", lambda t: t.join(t.nodes["a"], t.nodes["b"], subnet="10.0.0.0/8"), "overlap: 10.0.0.0/8 and"
    yield (
        "a subnet too late",
        lambda t: t.join(t.add_node("c"), t.switches["s"], subnet="192.0.2.0/24"),
        "give subnet= when its first host comes",
    )


def with_addresses(topology, *two, **more):
    """Join two new hosts c and d with these addresses."""
    given = dict(zip("cd", two, strict=False)) | more
    topology.join(topology.add_node("c"), topology.add_node("d"), subnet="192.0.2.0/29", addresses=given)


@pytest.mark.parametrize(("do", "message"), [pytest.param(do, said, id=name) for name, do, said in mistakes()])
def test_what_cannot_be_is_refused_in_words(topology, do, message):
    """Loops, names and addresses that are taken, numbers out of range: each says what it met and what was expected."""
    switches = {name: topology.add_switch(name) for name in "stuvw"}
    for name in "ab":
        topology.join(topology.add_node(name), switches["s"])
    topology.join(topology.add_node("z"), switches["w"])
    for a, b in ("tu", "uv"):
        topology.join(switches[a], switches[b])
    with pytest.raises(UsageError, match=message):
        do(topology)


def test_what_could_not_be_built_is_forgotten(topology):
    """After a failed step the names, the ports and the subnets are free again."""
    a, s, t = topology.add_node("a"), topology.add_switch("s"), topology.add_switch("t")

    @topology.change()
    def fails():
        topology.join(a, topology.add_node("b"), subnet="192.0.2.0/24")
        topology.join(s, t)
        topology.join(topology.add_node("c"), s, subnet="198.51.100.0/24")
        topology.join(a, s, addresses={"a": "198.51.100.7"})
        topology.add_switch("A")

    with pytest.raises(UsageError, match="there is a host 'a'"):
        fails()
    assert a.ports == topology.segments == topology.cables == []
    assert (list(topology.nodes), s.segments, t.segments) == (["a"], {}, {})
    topology.join(a, topology.add_node("b"), subnet="192.0.2.0/24")
    assert a.all()[0] == "192.0.2.1"
    topology.join(s, t)
    topology.join(a, s, subnet="198.51.100.0/24")
    with pytest.raises(UsageError, match=r"d cannot have 198\.51\.100\.1: a has it"):
        topology.join(topology.add_node("d"), t, addresses={"d": "198.51.100.1"})
    topology.join(topology.nodes["d"], t, addresses={"d": "198.51.100.7"})


def test_a_cable_whose_second_address_is_refused_leaves_no_port(topology):
    """Neither end has an interface of it, and its addresses and its subnet are free again."""
    a, b = topology.add_node("a"), topology.add_node("b")
    with pytest.raises(UsageError, match="b cannot have"):
        topology.join(a, b, subnet="192.0.2.0/24", addresses={"a": "192.0.2.7", "b": "192.0.2.7"})
    assert a.ports == b.ports == topology.cables == topology.segments == []
    cable = topology.join(a, b, subnet="192.0.2.0/24", addresses={"a": "192.0.2.7"})
    assert [port.name for port in cable.ports] == ["eth0", "eth0"]


def test_a_host_whose_address_is_refused_gives_its_switch_no_subnet(topology):
    """The next one may say which."""
    switch, host = topology.add_switch("s"), topology.add_node("a")
    with pytest.raises(UsageError, match="a cannot have"):
        topology.join(host, switch, subnet="192.0.2.0/24", addresses={"a": "10.9.9.9"})
    topology.join(host, switch, subnet="198.51.100.0/24")
    assert host.all()[0] == "198.51.100.1"
