"""VLANs that cross from switch to switch: who reaches whom, what faults do to a trunk, and files that say so."""

import time

import pytest

from pytest_poorcontainer import Network, UsageError, machine
from pytest_poorcontainer.lab import events

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["network"].works, reason=machine.fixtures_ready()["network"].reason
)

SILENCE = 0.15  # seconds; inside one kernel an answer takes microseconds


@pytest.fixture
def network():
    """A network of its own."""
    with Network() as network:
        yield network


def hears(client, server):
    """Return whether connections of one to the other come about, over both families alike."""
    answers = [answers_at(client, server, address) for address in server.addresses]
    assert len(set(answers)) == 1
    return answers[0]


def answers_at(client, server, address):
    """Return whether a connection to one address comes about."""
    try:
        with server.listen((address, 80)), client.connect((address, 80), timeout=SILENCE):
            return True
    except OSError:
        return False


def test_vlans_cross_a_trunk_and_stay_apart(network):
    """Hosts of one VLAN on two switches reach each other, those of two do not, nor what the trunk does not carry."""
    a, b = network.switch("a"), network.switch("b")
    trunk = network.link(a, b, vlans=[10, 20])
    for vlan in (10, 20, 30, 0):
        for switch in (a, b):
            network.link(f"{switch.name}{vlan}", switch, vlan=vlan)
    hosts = network.hosts
    reached = {(x.name, y.name) for x in hosts for y in hosts if x is not y and hears(x, y)}
    assert reached == {("a10", "b10"), ("b10", "a10"), ("a20", "b20"), ("b20", "a20")}
    assert (trunk.vlans, network.links[0], len(network.links)) == ((10, 20), trunk, 9)
    with pytest.raises(UsageError, match=r"a is 10\..* and b is 10\..* in VLAN 30: join switches before both of them"):
        network.link(a, b, vlans=[30])


def test_a_trunk_may_carry_what_is_of_no_vlan_too(network):
    """0 in the list; over several switches in a row, with a router on one of them that is in two VLANs."""
    switches = [network.switch(name) for name in "abc"]
    network.link(switches[0], switches[1], vlans=[0, 10])
    network.link(switches[1], switches[2], vlans=(0, 10))
    for name, switch, vlan in (("plain", 0, 0), ("other", 2, 0), ("ten", 0, 10)):
        network.link(name, switches[switch], vlan=vlan)
    assert hears(network["plain"], network["other"])
    assert not hears(network["plain"], network["ten"])
    router = network.router("stick")
    network.link(router, switches[2])
    network.link(router, switches[2], vlan=10)
    assert hears(network["plain"], network["ten"])


def test_a_trunk_may_be_cut_and_unplugged(network):
    """All its VLANs fall silent and come back, in nested blocks after the last; one way too; each is noted once."""
    a, b = network.switch("a"), network.switch("b")
    trunk = network.link(a, b, vlans=[10, 20])
    for name, switch, vlan in (("a10", a, 10), ("b10", b, 10), ("a20", a, 20), ("b20", b, 20), ("c20", a, 20)):
        network.link(name, switch, vlan=vlan)
    ten, twenty = (network["a10"], network["b10"]), (network["a20"], network["b20"])

    def heard():
        return [hears(*pair) for pair in (ten, twenty)]

    began = time.time_ns()
    with trunk.cut() as link, link.cut(direction="a"):
        assert (link, trunk.state, heard()) == (trunk, "cut", [False, False])
        assert hears(network["c20"], network["a20"])
    assert (trunk.state, heard()) == ("up", [True, True])
    first, second = trunk.unplug(), trunk.unplug()
    with first:
        assert (trunk.state, heard()) == ("unplugged", [False, False])
    assert trunk.state == "unplugged"
    with second:
        pass
    assert (trunk.state, heard()) == ("up", [True, True])
    trunk.cut()
    trunk.heal()
    trunk.unplug()
    trunk.plug()
    assert heard() == [True, True]
    noted = [event.what for event in events.since(began) if event.what.startswith("a -- b: ")]
    assert noted == [
        f"a -- b: {what}"
        for what in ("cut", "cut, what a sends", "heal", "unplug", "unplug", "plug", "cut", "heal", "unplug", "plug")
    ]


def test_faults_of_a_way_hold_for_every_vlan_of_a_trunk(network):
    """Black holes for a port and for large packets; what would be a host's own is refused with the way out."""
    a, b = network.switch("a"), network.switch("b")
    trunk = network.link(a, b, vlans=[10, 20])
    for name, switch, vlan in (("a10", a, 10), ("b10", b, 10), ("a20", a, 20), ("b20", b, 20)):
        network.link(name, switch, vlan=vlan)
    pairs = [(network["a10"], network["b10"]), (network["a20"], network["b20"])]
    with trunk.blackhole(80):
        assert [hears(*pair) for pair in pairs] == [False, False]
    with trunk.mtu_black_hole(68):  # a SYN of IPv6 has more, one of IPv4 has not
        for client, server in pairs:
            with server.listen((server.ip6, 80)), pytest.raises(TimeoutError):
                client.connect((server.ip6, 80), timeout=SILENCE)
    assert [hears(*pair) for pair in pairs] == [True, True]
    with pytest.raises(UsageError, match="there is no host at it; name the two hosts in between"):
        trunk.reject(80)
    with pytest.raises(UsageError, match="only routers and switches at its ends"):
        trunk.reset()


def test_a_trunk_may_be_impaired(network):
    """Packets of all its VLANs come late, each way; afterwards no wire is left; a rate would be had by each of them."""
    a, b = network.switch("a"), network.switch("b")
    trunk = network.link(a, b, vlans=[10, 20])
    for name, switch, vlan in (("a10", a, 10), ("b10", b, 10), ("a20", a, 20), ("b20", b, 20)):
        network.link(name, switch, vlan=vlan)

    def seconds(vlan):
        client, server = network[f"a{vlan}"], network[f"b{vlan}"]
        with server.listen((server.ip, 80)):
            began = time.monotonic()
            client.connect((server.ip, 80)).close()
            return time.monotonic() - began

    with trunk.impair(delay="30ms") as impaired:
        assert (trunk.medium, set(trunk.impairment), len(impaired.counts)) == ("wire", {"a", "b"}, 2)
        assert min(seconds(10), seconds(20)) >= 0.06
        impaired.change(delay="1ms")
        with trunk.cut():
            assert not hears(network["a10"], network["b10"])
    assert (trunk.medium, trunk.impairment) == ("veth", {})
    assert [hears(network[f"a{vlan}"], network[f"b{vlan}"]) for vlan in (10, 20)] == [True, True]
    with pytest.raises(UsageError, match=r"it carries several VLANs, and each would have it.*vlans=\[10\]"):
        trunk.impair(rate="1mbit")
    trunk.impair(delay="1ms")  # and left on


def test_a_file_may_say_which_vlans_cross(network, tmp_path):
    """It is built and impaired as the file says, and drawn with the VLANs of the cable."""
    place = tmp_path / "office.toml"
    links = [(host, host[0], f"vlan = {host[1:]}") for host in ("a10", "a20", "b10", "b20")]
    links.append(("a", "b", 'vlans = [10, 20]\nimpair = { delay = "1ms" }'))
    place.write_text(
        "[switches.a]\n[switches.b]\n"
        + "".join(f"[hosts.{host}]\n" for host, _, _ in links[:4])
        + "".join(f'[[links]]\nends = ["{one}", "{other}"]\n{more}\n' for one, other, more in links)
    )
    network.load(place)
    assert hears(network["a10"], network["b10"])
    assert not hears(network["a10"], network["b20"])
    assert "[b] vlan 10, 20  (impaired)" in network.draw()
    assert "a -- b: up, impaired vlan 10, 20" in network.draw("svg")
    place.write_text('[switches.a]\n[switches.b]\n[[links]]\nends = ["a", "b"]\nvlans = [0, 4095]\n')
    with (
        Network() as other,
        pytest.raises(UsageError, match=r"office.toml:3: links\[0\]: vlans= is a list of different"),
    ):
        other.load(place)
