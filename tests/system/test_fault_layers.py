"""Faults inside of faults of the same kind: each is in force until its own end, in whatever order they end."""

import contextlib
import signal

import pytest
from wiring import datagrams

from pytest_poorcontainer import Network, eventually, machine
from pytest_poorcontainer.network.wire import WireDied

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["network"].works, reason=machine.fixtures_ready()["network"].reason
)


@pytest.fixture
def pair():
    """Two hosts of a network of their own."""
    with Network() as network:
        yield network.pair()


def test_a_layer_without_a_seed_keeps_that_of_the_one_around_it(pair):
    """The same datagrams are lost, whatever else the inner one says; one with a seed of its own decides for its time."""
    met = []
    for inner in ({}, {"delay": "1ms"}, {"delay": "1ms", "seed": 8}):
        with pair.link.impair(loss="50%", seed=7), contextlib.ExitStack() as stack:
            if inner:
                stack.enter_context(pair.link.impair(**inner))
            met.append(sorted(datagrams(pair.a, pair.b, 100)))
    assert met[0] == met[1] != met[2]


def test_what_is_left_of_a_delay_and_its_jitter_is_in_force(pair):
    """The layer with the delay may end first; what the other says is told as wrong only to who asks for it."""
    outer = pair.link.impair(delay="5ms")
    with pair.link.impair(jitter="5ms"):
        outer.end()
        assert pair.link.impairment["a"].delay == pair.link.impairment["a"].jitter == 0
        assert len(datagrams(pair.a, pair.b, 5)) == 5
    assert pair.link.medium == "veth"


def test_a_dead_link_with_several_layers_is_whole_after_the_last(pair):
    """Each end tells that the wire has died, and takes its layer out all the same."""
    outer, inner = pair.link.impair(delay="1ms"), pair.link.impair(loss="1%")
    signal.pidfd_send_signal(pair.link._impairments.carrier._pidfd, signal.SIGKILL)
    eventually(lambda: is_dead(pair.link), timeout=5)
    for layer in (inner, outer):
        assert pair.link.state == "dead"
        with pytest.raises(WireDied):
            layer.end()
    assert pair.link.state == "up"
    assert pair.link.medium == "veth"
    assert len(datagrams(pair.a, pair.b, 3)) == 3


def is_dead(link):
    """Assert that the wire of a link has died."""
    assert link.state == "dead"
