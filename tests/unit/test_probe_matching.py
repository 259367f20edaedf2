"""Which probe an answer means: marks that survive, marks that do not, and answers that are lies."""

import socket
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP

from pytest_poorcontainer.probe import packet
from pytest_poorcontainer.probe.flow import Echo, Tcp, Udp
from pytest_poorcontainer.probe.packet import ACK, RST, SYN
from pytest_poorcontainer.probe.parse import parse

FOUR = (socket.inet_aton("10.9.0.1"), socket.inet_aton("10.9.8.2"))
SIX = (socket.inet_pton(socket.AF_INET6, "fd09::1"), socket.inet_pton(socket.AF_INET6, "fd09:8::2"))
ROUTER = {4: socket.inet_aton("10.9.3.2"), 6: socket.inet_pton(socket.AF_INET6, "fd09:3::2")}
PORTS = (1234, 80)
SENT = 10


def exceeded(quoted, version=4, code=0):
    """Return "time exceeded" from a router that quotes these bytes."""
    if version == 4:
        body = struct.pack("!BBHI", 11, code, 0, 0) + quoted
        return packet.ip(ROUTER[4], FOUR[0], 1, 60, body[:2] + struct.pack("!H", packet.checksum(body)) + body[4:])
    return packet.ip(ROUTER[6], SIX[0], 58, 60, struct.pack("!BBHI", 3, code, 0, 0) + quoted)


def flows():
    """Return a flow of each kind and family."""
    return [make(*ends, *ports) for ends in (FOUR, SIX) for make, ports in ((Tcp, [PORTS]), (Udp, [PORTS]), (Echo, []))]


def matched(flow, data):
    """Return what a flow makes of a packet, None also for what is no answer at all."""
    reply = parse(data, 1.0)
    return None if reply is None else flow.match(reply, SENT)


@pytest.mark.parametrize("flow", flows(), ids=lambda flow: f"{flow.kind}{flow.version}")
def test_a_whole_quote_names_its_probe(flow):
    """Each probe is found by a quote of all of it, with nothing changed; another flow does not take it for its own."""
    other = Tcp(*(FOUR if flow.version == 4 else SIX), (1235, 80))
    for index in range(SENT):
        data = exceeded(flow.packet(index, 1), flow.version)
        assert matched(flow, data) == (index, ())
        assert matched(other, data) is None


@pytest.mark.parametrize("flow", flows(), ids=lambda flow: f"{flow.kind}{flow.version}")
def test_eight_bytes_behind_the_header_are_enough(flow):
    """A router that quotes as little as RFC 792 asks for is matched; over IPv6 a TCP flow knows no more than that."""
    header = 20 if flow.version == 4 else 40
    for index in range(SENT):
        found = matched(flow, exceeded(flow.packet(index, 1)[: header + 8], flow.version))
        assert found is not None
        assert found.probe == (None if flow.kind == "tcp" and flow.version == 6 else index)


def rewritten(data, place, value):
    """Return a packet with other bytes at a place, and checksums that are right, as a box on the way leaves it."""
    shown = IP(data[:place] + value + data[place + len(value) :])
    del shown.chksum
    if TCP in shown and len(data) == shown.len:
        del shown[TCP].chksum
    return bytes(shown)


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [
        (4, b"\0\0", "id"),
        (1, b"\x20", "dscp"),
        (12, b"\xc0\0\2\1", "source address"),
        (16, b"\xc0\0\2\1", "target address"),
        (20, b"\xff\xff", "source port"),
        (22, b"\xff\xff", "target port"),
        (24, b"\1\2\3\4", "sequence"),
        (42, b"\4\0", "mss"),
    ],
)
def test_one_field_that_was_rewritten_is_a_change_and_no_more(place, value, what):
    """The probe is found nevertheless, and what was sent and seen is told."""
    flow = Tcp(*FOUR, PORTS)
    for index in range(SENT):
        found = matched(flow, exceeded(rewritten(flow.packet(index, 1), place, value)))
        assert found is not None
        assert found.probe == index
        assert [change.what for change in found.changes] == [what]


def test_with_identification_and_timestamps_gone_the_answer_is_ours_but_of_no_known_probe():
    """The engine asks again, one TTL at a time."""
    flow = Tcp(*FOUR, PORTS)
    quoted = rewritten(flow.packet(3, 1)[:28], 4, b"\0\0")
    assert matched(flow, exceeded(quoted)).probe is None


def answer(flow, flags, index=0, **changed):
    """Return a segment of the target's."""
    fields = {"ports": flow.ports[::-1], "sequence": 77, "acknowledged": flow.sequence + 1, "source": flow.target}
    fields |= changed
    options = packet.timestamp_option(5, (flow._stamp + index) % (1 << 32)) if flags & SYN else b""
    acknowledged = fields["acknowledged"] % (1 << 32)
    body = packet.tcp(fields["source"], flow.source, fields["ports"], fields["sequence"], acknowledged, flags, options)
    return packet.ip(fields["source"], flow.source, 6, 60, body)


def test_a_syn_ack_names_its_probe_by_the_timestamp_that_it_echoes():
    """All probes have one sequence number; the echo tells which of them was answered."""
    flow = Tcp(*FOUR, PORTS)
    for index in range(SENT):
        assert matched(flow, answer(flow, SYN | ACK, index)) == (index, ())


def test_a_reset_names_its_probe_once_each_has_a_number_of_its_own():
    """At a closed port nothing is half open, so sequence numbers may differ, and the reset acknowledges them."""
    flow = Tcp(*FOUR, PORTS)
    assert matched(flow, answer(flow, RST | ACK)).probe is None
    flow.spread = True
    for index in range(1, SENT):
        assert matched(flow, answer(flow, RST | ACK, acknowledged=flow.sequence + index + 1)).probe == index


def test_a_reset_with_another_number_is_taken_with_a_finding():
    """A box rewrites sequence numbers and not the answers: it is our answer, and odd."""
    flow = Tcp(*FOUR, PORTS)
    found = matched(flow, answer(flow, RST | ACK, acknowledged=flow.sequence + 99_999_999))
    assert [change.what for change in found.changes] == ["sequence"]


@pytest.mark.parametrize(
    "changed",
    [
        {"ports": (81, 1234)},
        {"ports": (80, 1235)},
        {"source": ROUTER[4], "acknowledged": 12345},
    ],
)
def test_answers_of_others_are_not_ours(changed):
    """Another port, or another address that does not even know our number."""
    flow = Tcp(*FOUR, PORTS)
    assert matched(flow, answer(flow, RST | ACK, **changed)) is None


def test_an_error_about_somebody_elses_connection_is_not_ours():
    """Each mark by itself may coincide: a foreign quote with our identification alone is not taken."""
    flow, foreign = Tcp(*FOUR, PORTS), Tcp(FOUR[0], ROUTER[4], (999, 22))
    quoted = rewritten(foreign.packet(0, 1), 4, struct.pack("!H", flow.ident(3)))
    assert matched(flow, exceeded(quoted)) is None


def test_a_quote_of_a_probe_that_was_never_sent_is_a_lie():
    """An index beyond the last probe is refused, so no hop comes of it."""
    flow = Tcp(*FOUR, PORTS)
    assert matched(flow, exceeded(flow.packet(SENT, 1))) is None
    assert matched(flow, exceeded(flow.packet(SENT - 1, 1))).probe == SENT - 1


FLOWS = flows()


@given(st.binary(max_size=200))
@example(b"\x45" + bytes(19))
@example(b"\x4f" + bytes(30))
@example(b"\x60" + bytes(39))
@settings(max_examples=500)
def test_garbage_is_read_without_an_exception_and_is_nobodys(data):
    """Whatever bytes come, the parser says what they are or None, and no flow takes them for an answer of its own."""
    for flow in FLOWS:
        assert matched(flow, data) is None


@given(st.data())
@settings(max_examples=500)
def test_spoiled_answers_never_name_a_wrong_hop(data):
    """A true answer of which any bytes were changed or cut off names the true probe, none, or is not taken."""
    flow = data.draw(st.sampled_from([one for one in FLOWS if one.kind == "tcp"]))
    index = data.draw(st.integers(0, SENT - 1))
    original = exceeded(flow.packet(index, 1), flow.version)
    spoiled = bytearray(original)
    start = 28 if flow.version == 4 else 48  # behind the outer headers: the quote
    for _ in range(data.draw(st.integers(0, 4))):
        spoiled[data.draw(st.integers(start, len(spoiled) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(start, len(spoiled)))
    found = matched(flow, bytes(spoiled[:cut]))
    assert found is None or found.probe in (None, index)
