"""Routes by which every host reaches every subnet, computed from the topology: fewest routers win."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_poorcontainer.network.topology import Node, Port, Segment

__all__ = ["Route", "routes"]


class Route(NamedTuple):
    """A route of a host: where to (``prefix`` 0: everywhere), by which neighbour, out of which interface."""

    destination: bytes
    prefix: int
    gateway: bytes
    interface: int


def routes(nodes: Iterable[Node], segments: Iterable[Segment]) -> dict[Node, set[Route]]:
    """Return the routes that each host needs.

    A router gets one for each subnet, so that it answers for those that there are not; a host that has one way out gets
    a default route.
    """
    ways: dict[Node, dict[Segment, tuple[Port, Port]]] = {node: {} for node in nodes}
    for target in segments:
        for node, hop in _towards(target, ways).items():
            ways[node][target] = hop
    return {node: _of(node, found) for node, found in ways.items()}


def _towards(target: Segment, nodes: Iterable[Node]) -> dict[Node, tuple[Port, Port]]:
    """Return for each host that is not on ``target`` its own port and its neighbour's that lead there.

    A search in breadth from the target: a segment is reached by the first router that has a way; where several are as
    near, by the one that joined first.
    """
    via: dict[Segment, list[Port]] = {target: []}
    wave = [target]
    while wave:
        following: list[Segment] = []
        for segment in wave:
            for port in segment.ports:
                if not port.node.forwards:
                    continue
                # What is behind a router that masquerades is not known to those in front of it.
                hidden = segment not in port.node.outside
                for other in port.node.ports:
                    if other.segment in via or (hidden and other.segment in port.node.outside):
                        continue
                    via[other.segment] = [other]
                    following.append(other.segment)
        wave = following
    found: dict[Node, tuple[Port, Port]] = {}
    order = {segment: place for place, segment in enumerate(via)}
    for node in nodes:
        mine = [port for port in node.ports if port.segment in via]
        if not mine or any(port.segment is target for port in mine):
            continue
        nearest = min(mine, key=lambda port: order[port.segment])
        hop = via[nearest.segment][0]
        if hop.node is not node:
            found[node] = (nearest, hop)
    return found


def _of(node: Node, found: dict[Segment, tuple[Port, Port]]) -> set[Route]:
    hops = {(mine, hop) for mine, hop in found.values()}
    if not node.forwards and len(hops) == 1:
        mine, hop = next(iter(hops))
        return set(_pair(b"", 0, b"", 0, mine, hop))
    return {
        route
        for target, (mine, hop) in found.items()
        for route in _pair(
            target.subnet.packed, target.subnet.prefix, target.subnet.packed6, target.subnet.prefix6, mine, hop
        )
    }


def _pair(packed: bytes, prefix: int, packed6: bytes, prefix6: int, mine: Port, hop: Port) -> Iterable[Route]:
    yield Route(packed, prefix, hop.place.ip, mine.index)
    if hop.place.ip6 and mine.place.ip6:
        yield Route(packed6, prefix6, hop.place.ip6, mine.index)
