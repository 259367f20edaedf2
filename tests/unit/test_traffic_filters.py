"""Filters mean what pcap-filter(7) says, with and without tcpdump."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from sent import ether, framed

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.traffic import bpf, filters
from pytest_poorcontainer.traffic.filters import compiled

TCPDUMP = shutil.which("tcpdump", path="/usr/sbin:/usr/bin:/sbin:/bin")
V4 = {"src": "10.0.0.1", "dst": "10.0.0.2"}
V6 = {"src": "fd00::1", "dst": "fd00::2"}
FRAMES = {
    "syn": ether("a", IP(**V4) / TCP(sport=40000, dport=80, flags="S")),
    "syn6": ether("a", IPv6(**V6) / TCP(sport=40000, dport=80, flags="S")),
    "rst": ether("b", IP(src="10.0.0.2", dst="10.0.0.1") / TCP(sport=80, dport=40000, flags="RA")),
    "options": ether("a", IP(**V4, options=[b"\x01"] * 4) / TCP(sport=5, dport=443, flags="PA") / b"data"),
    "dns": ether("a", IP(**V4) / UDP(sport=5353, dport=53) / (b"q" * 100)),
    "udp6": ether("a", IPv6(**V6) / UDP(sport=1, dport=2)),
    "fragment": ether("a", IP(**V4, frag=9, proto=17) / b"\x00\x35\x00\x35"),
    "ping": ether("a", IP(**V4) / ICMP(type=8)),
    "unreachable": ether("b", IP(src="10.0.0.2", dst="10.0.0.1") / ICMP(type=3, code=3) / IP() / UDP()),
    "ping6": ether("a", IPv6(**V6) / ICMPv6EchoRequest()),
    "arp": Ether(src="02:00:00:00:00:01", dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, psrc="10.0.0.1", pdst="10.0.0.2"),
    "other": ether("a", IP(src="192.168.7.1", dst="192.168.7.9") / TCP(sport=80, dport=80)),
    "multicast": Ether(src="02:00:00:00:00:01", dst="01:00:5e:00:00:05")
    / IP(src="10.0.0.1", dst="224.0.0.5", proto=89),
}
NAMES = {"a": ["10.0.0.1", "fd00::1"], "b": ["10.0.0.2", "fd00::2"]}


def wanted(text):
    """Return the names of the frames that a filter wants."""
    found = compiled(text, lambda name: NAMES.get(name, ()))
    return {name for name, packet in FRAMES.items() if found.matches(framed(packet))}


EXAMPLES = {
    "": set(FRAMES),
    "tcp": {"syn", "syn6", "rst", "options", "other"},
    "tcp port 80": {"syn", "syn6", "rst", "other"},
    "tcp dst port 80": {"syn", "syn6", "other"},
    "port 53": {"dns"},
    "tcp port 80 or 443": {"syn", "syn6", "rst", "options", "other"},
    "portrange 400-500": {"options"},
    "host 10.0.0.2 and not tcp": {"dns", "fragment", "ping", "unreachable", "arp"},
    "src host b": {"rst", "unreachable"},
    "host a and port 80": {"syn", "syn6", "rst"},
    "net 192.168.0.0/16": {"other"},
    "net fd00::/64": {"syn6", "udp6", "ping6"},
    "icmp or icmp6": {"ping", "unreachable", "ping6"},
    "icmp[icmptype] == icmp-unreach": {"unreachable"},
    "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn": {"syn", "syn6", "other"},
    "tcp[tcpflags] & tcp-rst != 0": {"rst"},
    "arp": {"arp"},
    "ether broadcast": {"arp"},
    "multicast": {"arp", "multicast"},
    "ip proto 89": {"multicast"},
    "proto ospf": {"multicast"},
    "ether src 02:00:00:00:00:02": {"rst", "unreachable"},
    "greater 140": {"dns"},
    "less 45 and arp": {"arp"},
    "(udp or icmp) and host a": {"dns", "udp6", "fragment", "ping", "unreachable"},
    "ip[8] == 64 and tcp": {"syn", "rst", "options", "other"},
    "tcp[2:2] == 443": {"options"},
}


@pytest.mark.parametrize("text", EXAMPLES)
def test_a_filter_wants_what_it_says(text):
    """Each kind of word picks the frames that it names; names of hosts stand for all their addresses."""
    assert wanted(text) == EXAMPLES[text]


@pytest.mark.skipif(TCPDUMP is None, reason="needs tcpdump (apt-get install tcpdump)")
@pytest.mark.parametrize("text", [text for text in EXAMPLES if "host a" not in text and "host b" not in text])
def test_tcpdump_wants_the_same(text):
    """Our program and that of tcpdump pick the same frames; but of ``tcp[...]``, which is for IPv4 alone there."""
    assert TCPDUMP is not None
    done = subprocess.run([TCPDUMP, "-ddd", "-y", "EN10MB", text], capture_output=True, text=True, check=True)
    program = bpf.read_listing(done.stdout)
    theirs = {name for name, packet in FRAMES.items() if bpf.matches(program, bytes(packet), len(bytes(packet)))}
    only_ours = {"syn6"} if text.startswith("tcp[") else set()
    assert EXAMPLES[text] - only_ours == theirs


@pytest.mark.skipif(TCPDUMP is None, reason="needs tcpdump (apt-get install tcpdump)")
def test_what_is_not_known_here_goes_to_tcpdump():
    """A word that only tcpdump knows works where that is installed."""
    assert wanted("ip6 protochain 58") == {"ping6"}


@pytest.mark.parametrize(
    "text", ["tcp prot 80", "port", "host", "tcp[", "(tcp", "tcp)", "and", "5 5", "tcp port 80 xyz", "[}"]
)
def test_what_is_no_filter_is_an_error_that_names_the_words(text, monkeypatch):
    """Without tcpdump the error says what was not understood, and what would be."""
    monkeypatch.setattr(filters.shutil, "which", lambda *_, **__: None)
    filters._by_tcpdump.cache_clear()
    with pytest.raises(UsageError, match="cannot understand the filter") as caught:
        compiled(text)
    assert "install tcpdump" in str(caught.value)


@pytest.mark.parametrize("text", ["port 70000", "portrange 9-5", "net 10.0.0.1/8", "less 99999999999", "port 5-6"])
def test_a_number_that_cannot_be_is_an_error(text):
    """Ports, ranges, networks and lengths that do not exist are refused with what was expected."""
    with pytest.raises(UsageError, match="filter"):
        compiled(text)


def test_an_unknown_name_is_an_error(monkeypatch):
    """A host that nobody knows is named in the error."""
    monkeypatch.setattr(filters.shutil, "which", lambda *_, **__: None)
    filters._by_tcpdump.cache_clear()
    with pytest.raises(UsageError, match="nobody-here"):
        compiled("host nobody-here", lambda _: ())


def test_vlan_tags_are_looked_through():
    """As in the kernel, which keeps them beside the frame, a tag does not hide what is behind it."""
    tagged = Ether() / Dot1Q(vlan=3) / IP(**V4) / TCP(dport=80)
    assert compiled("tcp port 80").matches(framed(tagged))


def test_many_alternatives_are_one_program():
    """A filter may be longer than a conditional jump of the machine reaches (255 instructions)."""
    text = " or ".join(f"tcp port {number}" for number in range(1, 60))
    found = compiled(text)
    assert len(found.program) > 600
    assert found.matches(framed(ether("a", IP(**V4) / TCP(sport=9999, dport=59))))
    assert not found.matches(framed(ether("a", IP(**V4) / TCP(sport=9999, dport=60))))


@given(st.text(alphabet="tcpudhosnr 0123456789.[]()&|!=<>/:-ai", max_size=40))
def test_any_text_is_a_filter_or_a_usage_error(text):
    """No text makes the compiler raise anything else (tcpdump apart, which is not asked here)."""
    from pytest_poorcontainer.traffic.filter_code import assembled
    from pytest_poorcontainer.traffic.filter_words import Unknown, understood

    try:
        program = assembled(understood(text, lambda _: ()))
    except (Unknown, UsageError):
        return
    assert isinstance(bpf.run(program, bytes(FRAMES["syn"]), 54), int)


@given(st.binary(max_size=120), st.sampled_from(sorted(EXAMPLES)))
def test_no_bytes_stop_a_program(data, text):
    """A frame of any bytes is wanted or not."""
    found = compiled(text, lambda name: NAMES.get(name, ()))
    assert bpf.matches(found.program, data, len(data)) in (True, False)
