"""Frames for tests, made by scapy: two hosts, a at 10.0.0.1 (interface 1) and b at 10.0.0.2 (interface 2)."""

from __future__ import annotations

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from pytest_poorcontainer.traffic.frames import Frame
from pytest_poorcontainer.traffic.ladder import Names

MACS = {"a": "02:00:00:00:00:01", "b": "02:00:00:00:00:02"}
IPS = {"a": "10.0.0.1", "b": "10.0.0.2"}
OWNERS = {1: "a", 2: "b", 3: "r"}
NAMES = Names({"10.0.0.1": "a", "10.0.0.2": "b", "fd00::1": "a", "fd00::2": "b"}, OWNERS, OWNERS)
MS = 1_000_000


def framed(packet, at=0, interface=1, snaplen=None):
    """Return a scapy packet as a frame at ``at`` milliseconds; ``snaplen`` cuts it."""
    data = bytes(packet)
    return Frame(int(at * MS), interface, True, len(data), data[:snaplen])


def ether(sender, packet):
    """Return the packet in an Ethernet frame from a or b to the other one."""
    other = "b" if sender == "a" else "a"
    return Ether(src=MACS[sender], dst=MACS[other]) / packet


def tcp(sender, flags, *, at, seq=0, ack=0, data=b"", ports=(40000, 80), **fields):
    """Return a TCP segment from a (the client) or b as a frame."""
    other = "b" if sender == "a" else "a"
    source, target = ports if sender == "a" else ports[::-1]
    options = fields.pop("options", [])
    number = fields.pop("number", at)
    interface = fields.pop("interface", 1 if sender == "a" else 2)
    segment = TCP(sport=source, dport=target, flags=flags, seq=seq, ack=ack, options=options, **fields)
    packet = IP(src=IPS[sender], dst=IPS[other], id=int(number) & 0xFFFF) / segment / data
    return framed(ether(sender, packet), at, interface)
