"""Whose the addresses are that a wire may see, whatever a counter has made of them."""

import itertools

import pytest

from pytest_poorcontainer.network.addresses import has_ipv6
from pytest_poorcontainer.network.identity import identities
from pytest_poorcontainer.network.subnets import packed
from pytest_poorcontainer.network.topology import Topology


def built(first):
    """Return a topology whose numbers begin here, and its cables: a - s1 = s2 - r - c, and one far from all."""
    topology = Topology(itertools.count(first).__next__)
    a, r, c, x, y = (topology.add_node(name, forwards=name == "r") for name in "arcxy")
    s1, s2 = (topology.add_switch(name) for name in ("s1", "s2"))
    ends = {"trunk": (s1, s2), "a": (a, s1), "r": (r, s2), "c": (r, c), "x": (x, y)}
    return topology, {name: topology.join(*both) for name, both in ends.items()}


@pytest.mark.parametrize("where", ["trunk", "a", "r", "c"])
def test_all_that_hangs_together_is_known_by_names(where):
    """From each cable the interfaces and subnets on all sides of switches and routers are seen, and no others."""
    _, cables = built(7)
    known = identities(cables[where])
    assert set(known.values()) == {"a/eth0", "r/eth0", "r/eth1", "c/eth0", "s1.0"}
    assert known[packed("10.0.8.1")] == "a/eth0"
    assert known[packed("10.0.8.0") + b"\x18"] == "s1.0"
    assert set(identities(cables["x"]).values()) == {"x/eth0", "y/eth0"}


def test_another_counter_changes_addresses_and_no_names():
    """Built again the same network has the same names in the same number, and not one address in common."""
    first, second = (identities(built(number)[1]["c"]) for number in (7, 700))
    assert sorted(first.values()) == sorted(second.values())
    assert not set(first) & set(second)
    kinds = [5, 17] if has_ipv6() else [5]
    assert sorted({len(address) for address in first}) == sorted({4, 6, *kinds, *([16] if has_ipv6() else [])})


def test_a_host_that_comes_later_is_known_then():
    """What is joined to a router afterwards is among those that a wire may see."""
    topology, cables = built(7)
    before = identities(cables["a"])
    late = topology.add_node("late")
    topology.join(late, topology.nodes["r"])
    added = set(identities(cables["a"]).values()) - set(before.values())
    assert added == {"late/eth0", "r/eth2"}
