"""The two waves on a network that is a table: what is sent when, and hard cases that real kernels do not make."""

import random
import socket
import struct

import pytest

from pytest_poorcontainer.probe import packet
from pytest_poorcontainer.probe.engine import Engine
from pytest_poorcontainer.probe.flow import Tcp
from pytest_poorcontainer.probe.packet import ACK, RST, SYN
from pytest_poorcontainer.probe.parse import parse
from pytest_poorcontainer.probe.trace import Limits, Tracer
from pytest_poorcontainer.probe.verdict import findings, is_forged, judge, loop_of

CLIENT, SERVER = socket.inet_aton("10.0.0.1"), socket.inet_aton("10.0.99.9")


def address(ttl):
    """Return the address of the router at a distance."""
    return f"10.0.{ttl}.1"


class Net:
    """A wire whose other end is made up: ``routers`` in a row, and a server that answers with ``flags``."""

    def __init__(self, routers, flags=SYN | ACK, **odd):
        self.routers = routers
        self.flags = flags
        self.odd = odd
        self.log = []
        self.ttls = []
        self._queue = []

    def send(self, data, _target, _scope):
        """Take a probe in; the answer waits to be received."""
        ttl = data[8]
        self.ttls.append(ttl)
        if ttl <= self.routers:
            self._exceed(ttl, data)
        elif data[9] == 17 or (data[9] == 1 and self.odd.get("no_echo")):
            return 1.0
        elif data[9] == 1:  # an echo request
            body = data[20:22] + b"\0\0" + data[24:]
            body = b"\0\0" + struct.pack("!H", packet.checksum(b"\0\0" + body[2:])) + body[4:]
            self._queue.append(packet.ip(SERVER, CLIENT, 1, 64 - self.routers, body))
        elif self.flags is not None:
            segment = parse(data, 0.0).segment
            options = packet.timestamp_option(1, segment.tsval) if self.flags & SYN else b""
            ports = (segment.target_port, segment.source_port)
            body = packet.tcp(SERVER, CLIENT, ports, 5, (segment.sequence + 1) % 2**32, self.flags, options)
            left = 64 - self.odd.get("back", self.routers)
            self._queue.append(packet.ip(SERVER, CLIENT, 6, left, body))
        return 1.0

    def _exceed(self, ttl, data):
        mute = data[9] == 6 and ttl in self.odd.get("mute", ())
        if mute or ttl in self.odd.get("silent", ()) or random.random() < self.odd.get("loss", 0):
            return
        if "quote" in self.odd:
            data = data[:4] + b"\0\0" + data[6:10] + b"\0\0" + data[12 : self.odd["quote"]]
            data = data[:10] + struct.pack("!H", packet.checksum(data[:20])) + data[12:]
        body = struct.pack("!BBHI", 11, 0, 0, 0) + data
        body = body[:2] + struct.pack("!H", packet.checksum(body)) + body[4:]
        source = socket.inet_aton(self.odd.get("names", {}).get(ttl, address(ttl)))
        self._queue.append(packet.ip(source, CLIENT, 1, 65 - ttl, body))

    def receive(self, _seconds):
        """Return the answers, in an order of their own."""
        found, self._queue = self._queue, []
        if self.odd.get("shuffled"):
            random.shuffle(found)
        return [parse(data, 1.001) for data in found]

    def close(self):
        """Have nothing to close."""


def traced(net, **limits):
    """Trace to the server; return the facts."""
    engine = Engine(net)
    track = engine.track(Tcp(CLIENT, SERVER, (1000, 80)))
    tracer = Tracer(engine, track, Limits(**limits))
    if tracer.knock(0.001):
        tracer.rest()
    else:
        tracer.search()
        tracer.wait(0.001)
    return track.facts


def path(facts):
    """Return the addresses of the routers by their TTL."""
    return {ttl: seen[0].address for ttl, seen in sorted(facts.hops.items()) if ttl < 64}


def whole(routers):
    """Return the path over so many routers."""
    return {ttl: address(ttl) for ttl in range(1, routers + 1)}


@pytest.mark.parametrize("routers", range(29))
def test_an_open_port_costs_one_syn_more_than_there_are_hops(routers):
    """However far it is: the full probe, one for each router, and no second SYN for the server."""
    net = Net(routers)
    assert path(traced(net)) == whole(routers)
    # The second 64 is the echo request that checks the distance; it has the TTL of the target.
    assert sorted(net.ttls) == sorted([64, *range(1, routers + 1), routers + 1])


@pytest.mark.parametrize("routers", range(0, 29, 4))
def test_a_closed_port_is_asked_once_more_with_the_ttl_of_its_distance(routers):
    """A reset may be forged; the second, which has a number of its own, shows how far it really is."""
    net = Net(routers, RST | ACK)
    facts = traced(net)
    assert path(facts) == whole(routers)
    assert sorted(net.ttls) == sorted([64, *range(1, routers + 2)])
    assert facts.ended_at() == routers + 1
    assert not is_forged(facts)


@pytest.mark.parametrize("flags", [SYN | ACK, RST | ACK])
@pytest.mark.parametrize("back", [2, 9])
def test_a_way_back_of_another_length_is_seen_through(flags, back):
    """The distance that the answer's TTL suggests is corrected, whether it is too small or too large."""
    facts = traced(Net(6, flags, back=back))
    assert path(facts) == whole(6)


def test_a_target_that_answers_no_echo_requests_is_checked_by_a_datagram():
    """One more try, and then a SYN settles it; where the path goes on, the datagram shows it."""
    net = Net(6, no_echo=True)
    assert path(traced(net)) == whole(6)
    assert net.ttls.count(7) == 4  # two echo requests, a datagram, the SYN
    assert path(traced(Net(6, back=3, no_echo=True))) == whole(6)


def test_a_router_that_is_silent_about_the_flow_alone_does_not_end_the_path():
    """Another flow's probe expired there, so that the way goes on; its place stays open after three tries."""
    net = Net(6, back=3, mute=(4,))
    assert path(traced(net)) == {ttl: name for ttl, name in whole(6).items() if ttl != 4}


def test_answers_may_come_in_any_order():
    """The marks tell them apart."""
    for _ in range(20):
        assert path(traced(Net(12, shuffled=True))) == whole(12)


def test_lost_answers_are_asked_for_again():
    """With a third of all answers lost, three tries find most hops, and none is ever wrong."""
    found = [path(traced(Net(10, loss=0.3))) for _ in range(10)]
    assert all(one.items() <= whole(10).items() for one in found)
    assert sum(len(one) for one in found) > 90


@pytest.mark.parametrize("flags", [SYN | ACK, RST | ACK])
def test_answers_whose_marks_are_all_lost_are_found_one_at_a_time(flags):
    """Identification 0 and eight bytes of TCP are all that is quoted: the hops are right nevertheless."""
    assert path(traced(Net(5, flags, quote=28))) == whole(5)


def test_silent_hops_stay_open():
    """What never answers is missing, and is asked three times at most."""
    net = Net(8, silent=(3, 4))
    assert path(traced(net)) == {ttl: name for ttl, name in whole(8).items() if ttl not in (3, 4)}
    assert net.ttls.count(3) <= 4


def test_the_window_grows_to_the_last_ttl_and_no_further():
    """A target that does not answer is looked for up to the limit."""
    net = Net(40, None)
    traced(net, last=20)
    assert max(ttl for ttl in net.ttls if ttl != 64) == 20


def test_first_and_last_ttl_and_queries_are_obeyed():
    """No other TTL is sent, and each as often as was asked for."""
    net = Net(9)
    facts = traced(net, first=3, queries=3)
    assert sorted(path(facts)) == list(range(3, 10))
    assert all(len(facts.hops[ttl]) == 3 for ttl in range(3, 10))
    assert min(net.ttls) == 3


def test_loops_are_circles_and_not_repetitions():
    """A circle of two or three is a loop; one address twice in a row, or the target's own many times, is none."""
    target = "10.0.99.9"
    two = {ttl: "10.7.7.1" if ttl % 2 else "10.7.7.2" for ttl in range(3, 41)}
    facts = traced(Net(40, None, names=two))
    assert loop_of(facts, target) == (3, ["10.7.7.1", "10.7.7.2"])
    assert judge(facts, 4, SYN, target).state == "loop"
    assert loop_of(traced(Net(6, names={3: "10.7.7.1", 4: "10.7.7.1"})), target) is None
    virtual = traced(Net(6, names=dict.fromkeys(range(3, 7), target)))
    assert loop_of(virtual, target) is None
    assert [one.what for one in findings(virtual, target, 0)] == ["dnat"]
