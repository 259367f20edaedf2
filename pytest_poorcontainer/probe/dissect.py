"""What scapy does for us: user-made probes as bytes, and what was exchanged as scapy's packets.

Nothing else imports scapy, and it is imported only when one of these is asked for. Its routing is not used: it would be
that of the namespace in which scapy was imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["made", "packets"]


def _layers() -> Any:
    from scapy.config import conf  # noqa: PLC0415 - slow, and GPL: only for who asks

    conf.route_autoload = False
    conf.route6_autoload = False
    import scapy.layers.inet6  # noqa: PLC0415
    from scapy.layers import inet  # noqa: PLC0415

    return inet, scapy.layers.inet6


def packets(exchange: Iterable[tuple[float, bytes]]) -> Any:
    """Return the exchange as a scapy PacketList, in the order of time."""
    inet, inet6 = _layers()
    from scapy.plist import PacketList  # noqa: PLC0415

    shown = []
    for at, data in sorted(exchange, key=lambda packet: packet[0]):
        one = (inet.IP if data[:1] and data[0] >> 4 == 4 else inet6.IPv6)(data)  # noqa: PLR2004
        one.time = at
        shown.append(one)
    return PacketList(shown, name="probe")


def made(probe: Any, version: int, source: str, target: str) -> tuple[str, dict[str, Any]]:
    """Return what a scapy packet asks for: "tcp", "udp" or "icmp", and the arguments of such a flow.

    The layers below TCP and UDP are ours (TTL, identification), and of an IP layer only its type of service counts; so
    are the timestamps, since they mark our probes. Raises :class:`UsageError` for anything else than IP/TCP, IP/UDP or
    IP/ICMP, for another family or addresses, and for a payload of TCP without flags for it.
    """
    inet, inet6 = _layers()
    network = probe.getlayer(inet.IP) or probe.getlayer(inet6.IPv6) if hasattr(probe, "getlayer") else None
    if network is None:
        raise UsageError(f"probe= expects a scapy packet that begins with IP() or IPv6(), got {probe!r}")
    if (network.version or version) != version:
        raise UsageError(f"probe= is an IPv{network.version} packet, and {target} is IPv{version}: use the other layer")
    for field, ours in (("src", source), ("dst", target)):
        given = network.fields.get(field)
        if given is not None and given != ours:
            raise UsageError(f"probe= has {field}={given}, and the probe goes from {source} to {target}: leave it out")
    tos = int(getattr(network, "tos", getattr(network, "tc", 0)) or 0)
    segment = probe.getlayer(inet.TCP)
    if segment is not None:
        return "tcp", {"tos": tos, "flags": int(segment.flags) & 0xFF, "ports": _ports(segment)}
    datagram = probe.getlayer(inet.UDP)
    if datagram is not None:
        return "udp", {"tos": tos, "ports": _ports(datagram)}
    if probe.getlayer(inet.ICMP) is not None or probe.getlayer(inet6.ICMPv6EchoRequest) is not None:
        return "icmp", {"tos": tos, "ports": (None, None)}
    raise UsageError(f"probe= has neither TCP, UDP nor an echo request: {probe.summary()}")


def _ports(layer: Any) -> tuple[int | None, int | None]:
    return layer.fields.get("sport"), layer.fields.get("dport")
