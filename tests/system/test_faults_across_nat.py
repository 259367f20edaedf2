"""Faults between two hosts of which a router hides one, or two routers both: in force, or an error that says why."""

import contextlib
import time

import pytest

from pytest_poorcontainer import Network, UsageError, machine

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["network"].works, reason=machine.fixtures_ready()["network"].reason
)


@pytest.fixture
def site():
    """A host with two cables behind a router, one in front of it, and a port that leads in; the server listens."""
    with Network() as network, contextlib.ExitStack() as stack:
        router = network.router("edge")
        network.link("inside", router)
        network.link("inside", network.switch("spare"))  # so that the outside has fewer cables
        network.link(router, "outside")
        router.masquerade()
        router.forward_port(8080, network["inside"], 80)
        stack.enter_context(network["inside"].listen(("", 80)))
        stack.enter_context(network["outside"].listen(("", 80)))
        yield network


def outer(network):
    """Return the outer address of the router."""
    return network["edge"].cables[-1].cable.ports[0].place.all()[0]


def took(client, address, port):
    """Return how long a connection takes to come about."""
    began = time.perf_counter()
    client.connect((address, port), timeout=5).close()
    return time.perf_counter() - began


@pytest.mark.parametrize("names", [("outside", "inside"), ("inside", "outside")])
def test_what_passes_a_router_that_masquerades_is_impaired(site, names):
    """Whoever is named first, and whoever connects."""
    inside, outside = site["inside"], site["outside"]
    with site.between(*names).impair(delay="20ms"):
        assert took(inside, outside.ip, 80) >= 0.04
        assert took(outside, outer(site), 8080) >= 0.04
    assert took(outside, outer(site), 8080) < 0.04


def test_a_port_is_not_refused_across_a_router_that_masquerades(site):
    """What was dropped for who comes from outside is an error that says what can be done; the other way is refused."""
    inside, outside = site["inside"], site["outside"]
    between = site.between(outside, inside)
    for direction in (None, outside):
        with pytest.raises(UsageError, match=r"edge masquerades.*inside.cable.reject\(80\).*direction='inside'"):
            between.reject(80, direction=direction)
    with between.reject(80, direction="inside"), pytest.raises(ConnectionRefusedError):
        inside.connect((outside.ip, 80), timeout=5)
    with inside.cables[0].reject(80), pytest.raises(ConnectionRefusedError):
        outside.connect((outer(site), 8080), timeout=5)
    assert took(outside, outer(site), 8080) < 5


def test_hosts_that_are_hidden_from_each_other_are_not_impaired_silently(site):
    """Behind a router each: no cable has packets with the addresses of both."""
    other = site.router("r2")
    site.link("far", other)
    site.link(other, site["outside"])
    backbone = site.link(other, site["edge"])
    other.masquerade(backbone)
    site["edge"].masquerade(backbone)
    with pytest.raises(UsageError, match=r"r2 and edge masquerade.*impair a cable on the way, such as inside.cable"):
        site.between("inside", "far").impair(delay="1ms")
