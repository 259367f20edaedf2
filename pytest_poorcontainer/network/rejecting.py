"""Ports that are refused by the fabric: nft's reject at the plugs of those who send, where frames come by."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.network import messages, nft
from pytest_poorcontainer.network.fabric import fabric_of
from pytest_poorcontainer.network.program import PASS_ON, TCP, Match, compiled
from pytest_poorcontainer.network.topology import Switch
from pytest_poorcontainer.network.ways import Fault, drop

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_poorcontainer.network.link import Link
    from pytest_poorcontainer.network.topology import Port
    from pytest_poorcontainer.network.ways import Place, Way

__all__ = ["reject"]

_numbers = itertools.count(1)
_HEADERS = {4: (12, 16, 4), 6: (8, 24, 16)}  # where sender and receiver stand in the IP header, and their length
_TYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}


class _Source(NamedTuple):
    """A plug at which packets to be refused come in. One that redirects has to be told not to."""

    plug: int
    redirects: bool
    match: Match


def reject(way: Way, port: int, number: int, protocol: str, places: Sequence[Place]) -> Fault:
    """Answer packets to a port at the cables of who sends them, and let none of them through."""
    what = f"{way}: {protocol} port {port} is refused"
    narrowed = [
        dataclasses.replace(one, match=dataclasses.replace(one.match, protocol=number, to_port=port))
        for one in places
        if not one.match.to_group
    ]
    sources = [source for one in narrowed for source in _sources(one)]
    if not sources:
        raise UsageError(f"cannot refuse a port on {way}: there is no host at it; name the two hosts in between()")
    lab = narrowed[0].link.lab
    mark = next(_numbers)
    with contextlib.ExitStack() as stack:
        # A wire takes a frame before the fabric refuses it: so it is also dropped where it would arrive.
        rest = [one for one in narrowed if not isinstance(one.link.cable.ends[one.towards], Switch)]
        links: Sequence[Link] = [one.link for one in narrowed]
        if rest:
            stack.callback(drop(what, rest))
        fd = lab.fabric_socket(socket.AF_NETLINK, socket.SOCK_RAW, nft.NETFILTER)
        table = nft.Ruleset(fd, nft.NETDEV, f"pc{mark}", what)
        stack.callback(table.close)
        for plug in dict.fromkeys(source.plug for source in sources):
            table.chain(f"p{plug}", "filter", nft.INGRESS, 0, f"p{plug}")
        for source in sources:
            for expressions in _rules(source.match):
                table.rule(f"p{source.plug}", *expressions)
        table.commit()
        stack.callback(table.remove)
        fabric = fabric_of(lab)
        redirecting = [source for source in sources if source.redirects]
        for source in redirecting:
            program = compiled([source.match], PASS_ON) or ()
            fabric.send([messages.keep_filter(source.plug, mark, program, what)])
            stack.callback(fabric.send, [messages.unkeep(source.plug, mark, what)])
        return Fault(what, dict.fromkeys(links), stack.pop_all().close)


def _sources(place: Place) -> Iterator[_Source]:
    """Yield the plugs of the hosts from which what passes here comes."""
    cable = place.link.cable
    sender, receiver = cable.ends[1 - place.towards], cable.ends[place.towards]
    if not isinstance(sender, Switch):
        yield _Source(cable.plug(1 - place.towards), not isinstance(receiver, Switch), place.match)
        return
    port = cable.ports[place.towards]
    if port is None or place.match.senders is not None:
        return  # of two hosts the one that sends is known
    to = frozenset(port.node.packed())
    for other in port.segment.ports:
        if other is not port:
            yield _Source(other.plug, _redirects(other), dataclasses.replace(place.match, receivers=to))


def _redirects(port: Port) -> bool:
    return len(port.segment.ports) == 2 and port.segment.direct  # noqa: PLR2004 - the two ends of a cable


def _rules(match: Match) -> Iterator[list[bytes]]:
    """Yield the expressions of each rule: nft compares with one address at a time."""
    for version, (sender_at, receiver_at, size) in _HEADERS.items():
        senders, receivers = (
            [None] if some is None else sorted(one for one in some if len(one) == size)
            for some in (match.senders, match.receivers)
        )
        for sender, receiver in itertools.product(senders, receivers):
            expressions = [nft.meta(nft.META_PROTOCOL), nft.equal(_TYPES[version])]
            for address, offset in ((sender, sender_at), (receiver, receiver_at)):
                if address is not None:
                    expressions += [nft.payload(1, offset, size), nft.equal(address)]
            expressions += [nft.meta(nft.META_L4PROTO), nft.equal(bytes((match.protocol or 0,)))]
            expressions += [nft.payload(2, 2, 2), nft.equal(struct.pack(">H", match.to_port))]
            yield [*expressions, nft.reject(tcp=match.protocol == TCP)]
