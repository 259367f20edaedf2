"""What ICMP, ICMPv6 and ARP messages say, in words: RFC 792, 1122, 1812, 4443, 4861; RFC 826."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pytest_poorcontainer.traffic.headers import Packet

__all__ = ["error_text", "kind_text"]

_UNREACHABLE: Final = {
    0: "network unreachable",
    1: "host unreachable",
    2: "protocol unreachable",
    3: "port unreachable",
    4: "too large, must not be fragmented",
    9: "network prohibited",
    10: "host prohibited",
    13: "prohibited",
}
_UNREACHABLE6: Final = {
    0: "no route",
    1: "prohibited",
    2: "beyond scope",
    3: "address unreachable",
    4: "port unreachable",
    5: "source prohibited",
    6: "route rejected",
}
_ERRORS: Final = {
    ("icmp", 3): _UNREACHABLE,
    ("icmp", 5): {0: "redirect", 1: "redirect"},
    ("icmp", 11): {0: "hop limit reached", 1: "fragments missing"},
    ("icmp", 12): {0: "bad header"},
    ("icmp6", 1): _UNREACHABLE6,
    ("icmp6", 2): {0: "too large"},
    ("icmp6", 3): {0: "hop limit reached", 1: "fragments missing"},
    ("icmp6", 4): {0: "bad header", 1: "unknown next header", 2: "unknown option"},
}
_KINDS: Final = {
    ("icmp", 0): "echo reply",
    ("icmp", 8): "echo request",
    ("icmp6", 128): "echo request",
    ("icmp6", 129): "echo reply",
    ("icmp6", 130): "multicast query",
    ("icmp6", 131): "multicast report",
    ("icmp6", 132): "multicast done",
    ("icmp6", 133): "router solicitation",
    ("icmp6", 134): "router advertisement",
    ("icmp6", 137): "redirect",
    ("icmp6", 143): "multicast report",
}
_ECHOES: Final = frozenset({("icmp", 0), ("icmp", 8), ("icmp6", 128), ("icmp6", 129)})


def error_text(packet: Packet) -> str:
    """Return what an error says."""
    words = _ERRORS.get((packet.protocol, packet.kind), {})
    return words.get(packet.code, f"error {packet.kind}, code {packet.code}")


def kind_text(packet: Packet) -> str:
    """Return what a message says that is no error."""
    key = (packet.protocol, packet.kind)
    if packet.protocol == "arp":
        who = packet.target if packet.kind == 1 else packet.source
        words = {1: f"who has {who}?", 2: f"{who} is {packet.link_source}"}
        return words.get(packet.kind, f"operation {packet.kind}")
    if key == ("icmp6", 135):
        return f"who has {packet.asked}?"
    if key == ("icmp6", 136):
        return f"{packet.asked} is {packet.link_source}"
    text = _KINDS.get(key, f"type {packet.kind}")
    return f"{text} {packet.mark[1]}" if key in _ECHOES else text
