"""Whose an address is, in words that are the same each time that a network is built.

Subnets and hardware addresses come from a lab's counter, so the same test has others in another worker, or after other
tests. The fate of a packet must not depend on them (decision 0036): a wire is told what they stand for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_poorcontainer.network.topology import Node, Switch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_poorcontainer.network.topology import Cable, Port, Segment

__all__ = ["identities"]


def identities(cable: Cable) -> dict[bytes, str]:
    """Return whose packets may pass a cable: of all interfaces and subnets from which there is a way to it.

    By packed addresses of 4 and 16 bytes and Ethernet addresses of 6, which are an interface's ("server/eth0"), and by
    the addresses of subnets with one byte more, the length of their prefix.
    """
    known: dict[bytes, str] = {}
    for segment in _reached(cable):
        subnet = segment.subnet
        known[subnet.packed + bytes((subnet.prefix,))] = segment.name
        if subnet.packed6:
            known[subnet.packed6 + bytes((subnet.prefix6,))] = segment.name
        for port in segment.ports:
            known.update(dict.fromkeys(_addresses(port), f"{port.node.name}/{port.name}"))
    return known


def _addresses(port: Port) -> Iterator[bytes]:
    place = port.place
    yield from (one for one in (place.ip, place.ip6, place.mac) if one)


def _reached(cable: Cable) -> dict[Segment, None]:
    """Return the segments that hang together with a cable, whoever forwards between them."""
    found: dict[Segment, None] = {}
    seen: set[Node | Switch] = set()
    ahead: list[Node | Switch] = list(cable.ends)
    while ahead:
        one = ahead.pop()
        if one in seen:
            continue
        seen.add(one)
        if isinstance(one, Switch):
            ahead += [other for together in one.together.values() for other in together]
        mine = one.segments.values() if isinstance(one, Switch) else [port.segment for port in one.ports]
        for segment in mine:
            if segment not in found:
                found[segment] = None
                ahead += [port.node for port in segment.ports]
    return found
