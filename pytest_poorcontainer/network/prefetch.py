"""Pairs of hosts: as they are asked of the lab, now or ahead of the time at which they are wanted."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

from pytest_poorcontainer.container.ahead import STOCK_MAX, Ahead, Stock
from pytest_poorcontainer.network.addresses import Addresses, hosts_text
from pytest_poorcontainer.network.host import INTERFACE
from pytest_poorcontainer.network.subnets import Place, Subnet
from pytest_poorcontainer.network.topology import FIRST_INDEX, Cable, Node, Port, Segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_poorcontainer.container.settings import Settings
    from pytest_poorcontainer.lab import Lab
    from pytest_poorcontainer.lab.client import Spec
    from pytest_poorcontainer.lab.handle import Handle
    from pytest_poorcontainer.network.host import Host

__all__ = ["STOCK_MAX", "Made", "Stock", "cable_of", "created", "order", "taken"]


_MTU = 1500  # MTU of preload/lab/link.c


class Made(NamedTuple):
    """What the lab has made: two containers, the number of the link between them, and their addresses by name."""

    lab: Lab
    number: int
    handles: list[Handle]
    named: dict[str, Addresses]


def created(lab: Lab, names: Sequence[str], settings: Settings) -> Made:
    """Make a pair now. Raises :class:`LabError` with the step that failed."""
    number = lab.new_link()
    named = _named(number, names)
    made = Made(lab, number, lab.create(_specs(lab, named, settings), number), named)
    settings.created(made.handles)
    return made


def order(stock: Stock, lab: Lab, names: Sequence[str], settings: Settings) -> None:
    """Let one more pair be built, unless there are enough. Raises :class:`LabError` if it cannot be asked for."""

    def ask() -> Ahead | None:
        number = lab.new_link()
        ordered = lab.order(_specs(lab, _named(number, names), settings), number)
        return None if ordered is None else Ahead(lab, ordered, number)

    stock.order(settings, ask)


def taken(stock: Stock, names: Sequence[str], settings: Settings) -> Made | None:
    """Return a pair of these names that was built ahead, as soon as it is there; None when there is none that lives."""
    ahead = stock.take(settings, names)
    if ahead is None:
        return None
    handles = ahead.order.handles
    named = _named(ahead.link, names)
    if ahead.order.names != list(names):
        text = hosts_text(named)
        for handle, name in zip(handles, names, strict=True):
            handle.rename(name, text)
    settings.created(handles)
    return Made(ahead.lab, ahead.link, handles, named)


def cable_of(made: Made, hosts: tuple[Host, Host]) -> Cable:
    """Return what faults have to know of the cable of a pair."""
    subnet = Subnet(made.number)
    segment = Segment(subnet, _MTU, f"{hosts[0].name}/{INTERFACE}")
    segment.direct = True
    nodes = (Node(hosts[0].name), Node(hosts[1].name))
    cable = Cable(made.number, nodes, (None, None), 0, _MTU)
    ports = []
    for end, (node, host) in enumerate(zip(nodes, hosts, strict=True)):
        addresses = made.named[host.name]
        ip, ip6 = addresses.packed_ip()[:-1], addresses.packed_ip6()[:-1]
        place = Place(ip, subnet.prefix, ip6, subnet.prefix6, addresses.packed_mac())
        port = Port(node, INTERFACE, FIRST_INDEX, place, segment, cable.plug(end))
        node.ports.append(port)
        node.is_made(host)
        ports.append(port)
    segment.ports = ports
    cable.ports = (ports[0], ports[1])
    return cable


def _named(number: int, names: Sequence[str]) -> dict[str, Addresses]:
    """Return the addresses of the hosts on link ``number``, by name, the first end first."""
    return {name: Addresses.of(number, end) for end, name in enumerate(names)}


def _specs(lab: Lab, named: dict[str, Addresses], settings: Settings) -> list[Spec]:
    text = hosts_text(named)
    return [
        dataclasses.replace(
            settings.spec(lab, name, text),
            interface=INTERFACE,
            mac=addresses.packed_mac(),
            ip4=addresses.packed_ip(),
            ip6=addresses.packed_ip6(),
        )
        for name, addresses in named.items()
    ]
