"""Faults inside of faults of the same kind: each is in force until its own end, in whatever order they end."""

import contextlib
import signal
from pathlib import Path

import pytest
from wiring import datagrams

from pytest_poorcontainer import LabError, Network, eventually, machine
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
    """The same datagrams are lost, whatever else the inner one says, unless it has a seed of its own."""
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


def test_a_cut_inside_of_a_cut_leaves_the_link_cut(pair):
    """Each until its own end, whole cuts and one-way cuts, in any order; heal() ends all of them."""
    link = pair.link
    with link.cut():
        with link.cut(), link.cut(direction="a"):
            pass
        assert link.state == "cut"
        assert datagrams(pair.a, pair.b, 3) == []
    assert link.state == "up"
    with link.cut(direction="a"):
        with link.cut():
            assert datagrams(pair.b, pair.a, 3) == []
        assert datagrams(pair.a, pair.b, 3) == []
        assert len(datagrams(pair.b, pair.a, 3)) == 3
    first, second = link.cut(), link.cut(direction="b")
    with first:
        pass
    assert len(datagrams(pair.a, pair.b, 3)) == 3
    assert datagrams(pair.b, pair.a, 3) == []
    link.heal()
    assert link.state == "up"
    with second:
        pass
    with link.cut():
        with link.cut():
            link.heal()
        assert len(datagrams(pair.a, pair.b, 3)) == 3


def test_a_cable_is_plugged_in_when_the_last_wants_it(pair):
    """Unplugged by two it stays without a carrier until both are over, or until plug()."""
    link = pair.link
    with link.unplug():
        with link.unplug():
            pass
        assert link.state == "unplugged"
        assert datagrams(pair.a, pair.b, 3) == []
    assert len(datagrams(pair.a, pair.b, 3)) == 3
    with link.unplug():
        with link.unplug():
            link.plug()
        assert link.state == "up"


def test_a_cut_between_two_hosts_is_over_with_the_last(pair):
    """As on a link."""
    with Network() as network:
        a, b = network.lan(2)
        between = network.between(a, b)
        with between.cut():
            with between.cut(), between.cut(direction=a):
                pass
            assert datagrams(a, b, 3) == datagrams(b, a, 3) == []
        assert len(datagrams(a, b, 3)) == 3
        with between.cut(direction=a):
            with between.cut():
                pass
            assert datagrams(a, b, 3) == []
            assert len(datagrams(b, a, 3)) == 3
        assert len(datagrams(a, b, 3)) == 3


def state(pid):
    """Return the state of a process as a letter."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_what_is_frozen_twice_goes_on_after_the_second(pair):
    """A host in itself, and with a service of it, in both orders; what one thaws is what it froze itself."""
    service, sleeper = pair.a.start(["sleep", "1000"]), pair.a.popen(["sleep", "1000"])
    both = (service.pid, sleeper.pid)
    with pair.a.freeze():
        with pair.a.freeze():
            pass
        assert [state(pid) for pid in both] == ["T", "T"]
    assert "T" not in [state(pid) for pid in both]
    for one, other in ((pair.a, service), (service, pair.a)):
        one.freeze()
        other.freeze()
        one.thaw()
        assert state(service.pid) == "T"
        other.thaw()
        assert "T" not in [state(pid) for pid in both]
    sleeper.kill()
    sleeper.wait()


def test_a_service_is_thawed_by_a_step_of_a_timeline(pair):
    """As it is frozen by one; twice thawed is thawed."""
    service = pair.a.start(["sleep", "1000"])
    with Network() as network, network.faults.timeline([(0, service.freeze), (0.01, service.thaw)]) as timeline:
        timeline.wait(20)
        assert [what for _, what in timeline.done] == [f"{service}: freeze", f"{service}: thaw"]
        assert state(service.pid) != "T"
        service.thaw()


def test_more_impairments_than_a_cable_has_room_for_are_refused_and_the_others_stay():
    """Each between one host and another, at the cable of the one: the first too many leaves the others in force."""
    with Network() as network, contextlib.ExitStack() as stack:
        first, *others = network.lan(34)
        for other in others[:32]:
            stack.enter_context(network.between(first, other).impair(loss=1))
        with pytest.raises(LabError, match="a cable has room for 32 impairments each way"):
            network.between(first, others[32]).impair(loss=1)
        assert datagrams(first, others[0], 3) == datagrams(first, others[31], 3) == []
        assert len(datagrams(first, others[32], 3)) == 3
        with first.cable.unplug():  # which sets the faults anew
            pass
        assert datagrams(first, others[31], 3) == []
        assert len(datagrams(first, others[32], 3)) == 3
