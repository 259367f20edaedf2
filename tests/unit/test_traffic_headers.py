"""Headers are read as scapy reads them, and nothing that arrives makes the reader stumble."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1Q, Ether
from sent import ether

from pytest_poorcontainer.traffic.conversations import conversations
from pytest_poorcontainer.traffic.frames import Frame, unpacked
from pytest_poorcontainer.traffic.headers import Packet, parsed, parsed_ip

SEEDS = [
    bytes(packet)
    for packet in (
        ether("a", IP(src="10.0.0.1", dst="10.0.0.2") / TCP(options=[("MSS", 1460), ("SAck", (1, 2, 3, 4))]) / b"data"),
        ether("a", IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=53, dport=53) / b"x"),
        ether("b", IP(src="10.0.0.2", dst="10.0.0.1") / ICMP(type=3, code=3) / IP() / UDP()),
        ether("a", IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment(offset=9) / TCP()),
        ether("a", IPv6(src="fd00::1", dst="fd00::2") / ICMPv6ND_NS(tgt="fd00::2")),
        ether("a", Dot1Q(vlan=5) / Dot1Q(vlan=6) / ARP(psrc="10.0.0.1", pdst="10.0.0.2")),
    )
]


@given(st.binary(max_size=400))
def test_no_bytes_raise(data):
    """Random bytes give a packet, as a frame and as what an ICMP error quotes."""
    assert isinstance(parsed(data, len(data) + 1), Packet)
    assert isinstance(parsed_ip(data), Packet)


@settings(max_examples=300)
@given(st.sampled_from(SEEDS), st.data())
@example(SEEDS[0], None)
def test_no_change_of_a_real_frame_raises(seed, data):
    """A real frame with bytes changed, or cut anywhere, gives a packet; so does a conversation made of it."""
    frame = bytearray(seed)
    for _ in range(0 if data is None else data.draw(st.integers(0, 6))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    end = len(frame) if data is None else data.draw(st.integers(0, len(frame)))
    cut = bytes(frame[:end])
    assert isinstance(parsed(cut, len(frame)), Packet)
    found = conversations([Frame(0, 1, True, len(frame), cut), Frame(1, 2, True, len(seed), seed)])
    assert all(each.steps for each in found)


@given(st.binary(max_size=200))
def test_no_run_of_records_raises(data):
    """Records that make no sense, or are cut short, give the frames that are whole."""
    for frame in unpacked(data):
        assert len(frame.data) <= len(data)


def test_every_cut_of_a_frame_says_so():
    """Whatever of a header is missing is told by ``truncated``."""
    whole = SEEDS[0]
    headers = 14 + 20 + 20
    assert [cut for cut in range(headers) if not parsed(whole[:cut], len(whole)).truncated] == []
    assert not parsed(whole[:headers], len(whole)).truncated


def test_tcp_is_read():
    """Addresses, ports, flags, numbers, the size of the data and the blocks of a selective acknowledgment."""
    options = [("Timestamp", (1, 2)), ("NOP", None), ("SAck", (100, 200, 300, 400))]
    segment = TCP(sport=40000, dport=80, flags="PA", seq=7, ack=9, window=512, options=options)
    data = bytes(ether("a", IP(src="10.0.0.1", dst="10.0.0.2", ttl=9, id=77) / segment / b"four"))
    packet = parsed(data)
    assert (packet.source, packet.source_port, packet.target, packet.target_port) == ("10.0.0.1", 40000, "10.0.0.2", 80)
    assert (packet.flags, packet.sequence, packet.acknowledgment, packet.window) == ("PSH,ACK", 7, 9, 512)
    assert (packet.payload, packet.hops, packet.number) == (4, 9, 77)
    assert packet.sacks == ((100, 200), (300, 400))
    assert (packet.link_source, packet.network, packet.protocol) == ("02:00:00:00:00:01", "ipv4", "tcp")


def test_the_payload_is_that_of_the_wire_not_of_the_snaplen():
    """Of a frame of which the first bytes were kept, the whole size counts."""
    data = bytes(ether("a", IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / (b"x" * 1000)))
    assert parsed(data[:100], len(data)).payload == 1000


def test_joined_segments_without_a_length_have_that_of_the_frame():
    """More than 64 KiB of TCP in one (BIG TCP) have no length in the IP header: the frame's counts."""
    data = bytes(ether("a", IP(src="10.0.0.1", dst="10.0.0.2", len=0) / TCP() / b"x"))
    assert parsed(data[:54], 200_054).payload == 200_000


@pytest.mark.parametrize(
    ("packet", "protocol", "fields"),
    [
        (IPv6(src="fd00::1", dst="fd00::2") / UDP(sport=5, dport=6) / b"abc", "udp", {"source_port": 5, "payload": 3}),
        (IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrHopByHop() / TCP(dport=9), "tcp", {"target_port": 9}),
        (
            IPv6(dst="fd00::2") / IPv6ExtHdrFragment(offset=5, nh=17) / b"rest",
            "udp",
            {"fragment": True, "source_port": 0},
        ),
        (IPv6(dst="fd00::2") / ICMPv6ND_NS(tgt="fd00::7"), "icmp6", {"kind": 135, "asked": "fd00::7"}),
        (IPv6(dst="fd00::2") / ICMPv6EchoRequest(id=3, seq=4), "icmp6", {"mark": (3, 4), "quoted": None}),
        (IP(dst="10.0.0.2", proto=89) / b"x", "ospf", {"network": "ipv4"}),
        (IP(dst="10.0.0.2", proto=253) / b"x", "ip-253", {}),
        (IP(dst="10.0.0.2", frag=4, proto=17) / b"x", "udp", {"fragment": True, "source_port": 0}),
        (ARP(op=1, psrc="10.0.0.1", pdst="10.0.0.2"), "arp", {"kind": 1, "target": "10.0.0.2"}),
        (Dot1Q(vlan=7) / IP(dst="10.0.0.2") / TCP(dport=3), "tcp", {"vlans": (7,), "target_port": 3}),
        (Dot1Q(vlan=7) / Dot1Q(vlan=8) / ARP(), "arp", {"vlans": (7, 8)}),
    ],
)
def test_other_protocols_are_read(packet, protocol, fields):
    """IPv6 with its extensions, fragments, ICMPv6, ARP, VLANs, protocols known and not."""
    found = parsed(bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet))
    assert found.protocol == protocol
    assert {name: getattr(found, name) for name in fields} == fields
    assert not found.truncated


def test_an_icmp_error_quotes_what_it_is_about():
    """The eight bytes of TCP that RFC 792 asks for give ports and sequence; an error in an error is left alone."""
    inner = bytes(IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1000, dport=2000, seq=5))[:28]
    packet = parsed(bytes(ether("b", IP(src="10.0.0.2", dst="10.0.0.1") / ICMP(type=3, code=1) / inner)))
    about = packet.quoted
    assert about is not None
    assert (about.protocol, about.source_port, about.target_port, about.sequence) == ("tcp", 1000, 2000, 5)
    nested = IP() / ICMP(type=3) / IP() / ICMP(type=3) / IP()
    quoted = parsed(bytes(ether("b", nested))).quoted
    assert quoted is not None
    assert quoted.quoted is None
