"""Probes as bytes: what scapy, an independent reader, makes of them; and the numbers that mark them."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6

from pytest_poorcontainer.probe import packet
from pytest_poorcontainer.probe.flow import Echo, Tcp, Udp
from pytest_poorcontainer.probe.packet import ACK, CWR, ECE, FIN, PSH, SYN, URG
from pytest_poorcontainer.probe.parse import parse

FOUR = (socket.inet_aton("10.9.0.1"), socket.inet_aton("10.9.8.2"))
SIX = (socket.inet_pton(socket.AF_INET6, "fd09::1"), socket.inet_pton(socket.AF_INET6, "fd09:8::2"))


def read(data):
    """Return a packet as scapy reads it."""
    return (IP if data[0] >> 4 == 4 else IPv6)(data)


def right(data):
    """Whether scapy, which computes them anew, finds all checksums as they are."""
    again = read(data)
    for layer in (IP, TCP, UDP, ICMP, ICMPv6EchoRequest):
        if layer in again:
            for name in ("chksum", "cksum"):
                if name in again[layer].fields:
                    del again[layer].fields[name]
    return bytes(again) == data


@pytest.mark.parametrize("ends", [FOUR, SIX], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("make", [Tcp, Udp], ids=["tcp", "udp"])
def test_a_probe_is_a_correct_packet(ends, make):
    """Addresses, ports, TTL and every checksum are right, for odd lengths too."""
    flow = make(*ends, (1234, 80), tos=8)
    for index in (0, 1, 100):
        for payload in (0, 1, 333):
            data = flow.packet(index, 7, payload)
            assert right(data)
            shown = read(data)
            assert (shown.sport, shown.dport) == (1234, 80)
            assert (shown.ttl if IP in shown else shown.hlim) == 7
            assert (shown.tos if IP in shown else shown.tc) == 8


@pytest.mark.parametrize("ends", [FOUR, SIX], ids=["IPv4", "IPv6"])
def test_echo_requests_are_correct_and_one_flow(ends):
    """Checksums are right, and the same for every sequence number, so that no router takes them for several flows."""
    flow = Echo(*ends)
    packets = [flow.packet(index, 3) for index in range(5)]
    assert all(right(data) for data in packets)
    start = 20 if ends is FOUR else 40
    assert len({data[start : start + 6] for data in packets}) == 1
    assert [int.from_bytes(data[start + 6 : start + 8], "big") for data in packets] == list(range(5))


@given(mark=st.integers(1, 0xFFFE), length=st.integers(8, 200), ports=st.tuples(*[st.integers(1, 65535)] * 2))
def test_a_datagram_has_the_checksum_that_it_was_to_have(mark, length, ports):
    """Whatever the mark, the payload is made so that the checksum is that mark, and is right."""
    for ends in (FOUR, SIX):
        datagram = packet.udp_with_checksum(*ends, ports, mark, length)
        assert struct.unpack_from("!H", datagram, 6) == (mark,)
        assert right(packet.ip(*ends, 17, 64, datagram, ident=1))


def test_probes_of_a_flow_differ_in_their_marks_alone():
    """One sequence number and one pair of ports for all TTLs; identification and timestamp tell them apart."""
    flow = Tcp(*FOUR, (1234, 80))
    shown = [read(flow.packet(index, ttl)) for index, ttl in enumerate((64, 1, 2, 3))]
    assert len({(one.sport, one.dport, one[TCP].seq) for one in shown}) == 1
    assert len({one.id for one in shown}) == 4
    assert len({dict(one[TCP].options)["Timestamp"][0] for one in shown}) == 4
    assert 0 not in {one.id for one in shown}  # the kernel would put one of its own in


def test_a_syn_that_asks_for_ecn_says_so():
    """ECE and CWR are set, and the packet is ECT(0) (RFC 3168)."""
    shown = read(Tcp(*FOUR, (1, 2), ecn=True).packet(0, 64))
    assert int(shown[TCP].flags) == SYN | ECE | CWR
    assert shown.tos & 3 == 2


@pytest.mark.parametrize(
    ("text", "flags"), [("syn", SYN), ("SYN,ACK", SYN | ACK), ("fin+psh+urg", FIN | PSH | URG), ("ack", ACK)]
)
def test_flags_are_read_as_people_write_them(text, flags):
    """Commas and plus signs, large and small letters."""
    assert packet.flags_of(text) == flags


def test_an_unknown_flag_is_named():
    """The error has the wrong name, and all right ones."""
    with pytest.raises(ValueError, match=r"'sin'; there are fin, syn"):
        packet.flags_of("sin")


@pytest.mark.parametrize("ends", [FOUR, SIX], ids=["IPv4", "IPv6"])
def test_our_own_packets_read_back(ends):
    """The parser reads of a segment what was written into it."""
    flow = Tcp(*ends, (1234, 80))
    reply = parse(flow.packet(3, 9), 1.5)
    assert (reply.kind, reply.source, reply.ttl, reply.at) == ("tcp", ends[0], 9, 1.5)
    assert (reply.segment.source_port, reply.segment.target_port, reply.segment.flags) == (1234, 80, SYN)
    assert reply.segment.mss == flow.mss
    assert flow.recognise(reply.segment) == "probe"
