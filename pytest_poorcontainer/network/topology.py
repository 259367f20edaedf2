"""Who is joined to whom: hosts with their interfaces, switches, subnets. Nothing here touches the kernel."""

from __future__ import annotations

import dataclasses
import weakref
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.lab.names import check_name
from pytest_poorcontainer.network.subnets import Place, Subnet, address_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pytest_poorcontainer.network.host import Host

__all__ = ["FIRST_INDEX", "Cable", "Node", "Port", "Segment", "Switch", "Topology"]

FIRST_INDEX = 100  # LINK_HOST_INDEX of preload/lab/link.h: in a new namespace small numbers may be taken
_MTU_MIN, _MTU_MAX = 68, 65535  # veth(4); below 1280 a link has no IPv6 (RFC 8200, section 5)
_MTU_MIN6 = 1280
_VLAN_MAX = 4094


class Segment:
    """What reaches each other without a router: a cable, or a switch (of a VLAN). It is one subnet."""

    def __init__(self, subnet: Subnet, mtu: int) -> None:
        """Begin with nobody on it."""
        self.subnet = subnet
        self.mtu = mtu
        self.direct = False
        """Whether it is a cable between two hosts."""
        self.ports: list[Port] = []


@dataclasses.dataclass(eq=False)
class Port:
    """An interface of a host: ``eth0`` has index 100, ``eth1`` 101. ``plug`` is its other end's, in the fabric."""

    node: Node
    name: str
    index: int
    place: Place
    segment: Segment
    plug: int


class Node:
    """A host as the topology sees it. In /etc/hosts, and wherever addresses are resolved, it stands for the host."""

    def __init__(self, name: str, *, forwards: bool = False) -> None:
        """Be a host without interfaces; one that ``forwards`` is a router."""
        self.name = name
        self.forwards = forwards
        self.ports: list[Port] = []
        self.outside: set[Segment] = set()
        """Where a router that masquerades hides what is behind it."""
        self._host: weakref.ref[Host] | None = None

    @property
    def host(self) -> Host | None:
        """The host itself, when it is made and somebody still has it."""
        return None if self._host is None else self._host()

    def is_made(self, host: Host) -> None:
        """Remember the host, without holding it."""
        self._host = weakref.ref(host)

    @property
    def ip(self) -> str:
        """The IPv4 address of its first interface. Raises :class:`UsageError` when it has none."""
        return address_text(self._first().ip)

    @property
    def ip6(self) -> str:
        """The IPv6 address of its first interface, "" on a machine without."""
        first = self._first().ip6
        return address_text(first) if first else ""

    def _first(self) -> Place:
        if not self.ports:
            raise UsageError(f"{self.name} has no address: it is joined to nothing; link it to a host or a switch")
        return self.ports[0].place

    def all(self) -> list[str]:
        """Return all addresses, those of the first interface first."""
        return [text for port in self.ports for text in port.place.all()]

    def packed(self) -> list[bytes]:
        """Return all addresses as bytes."""
        return [one for port in self.ports for one in (port.place.ip, port.place.ip6) if one]


class Switch:
    """A switch: hosts on it reach each other without a router, those of one VLAN only those of the same.

    Made by :meth:`Network.switch`. ``name`` is for people; it has no address.
    """

    def __init__(self, name: str, mtu: int) -> None:
        """Begin without cables."""
        self.name = name
        self.mtu = mtu
        self.segments: dict[int, Segment] = {}
        self.bridges: dict[int, int] = {}
        """The index of its bridge in the fabric, for each VLAN; 0 is for cables of no VLAN."""
        self.joined: set[Switch] = {self}

    def __repr__(self) -> str:
        """Show the name."""
        return f"<Switch {self.name}>"


@dataclasses.dataclass(eq=False)
class Cable:
    """A cable as the topology sees it: its number in the lab, its two ends, and the ports of those that are hosts."""

    number: int
    ends: tuple[Node | Switch, Node | Switch]
    ports: tuple[Port | None, Port | None]
    vlan: int
    mtu: int

    def plug(self, end: int) -> int:
        """Return the index of a plug in the fabric, as link_plug_index() of preload/lab/link.c does."""
        return 1000 + 2 * self.number + end


class Topology:
    """The nodes, switches and cables of one network. ``number`` gives numbers that are unique in the lab."""

    def __init__(self, number: Callable[[], int]) -> None:
        """Begin empty."""
        self._number = number
        self.nodes: dict[str, Node] = {}
        self.switches: dict[str, Switch] = {}
        self.segments: list[Segment] = []
        self.cables: list[Cable] = []

    def check_new(self, name: object) -> str:
        """Return a name that nobody here has. Raises :class:`UsageError`."""
        new = check_name(name)
        for kind, names in (("host", self.nodes), ("switch", self.switches)):
            for known in names:
                if known.lower() == new.lower():
                    raise UsageError(f"there is a {kind} {known!r} in this network already: give {new!r} another name")
        return new

    def add_node(self, name: object, *, forwards: bool = False) -> Node:
        """Add a host. Raises :class:`UsageError` for a name that is none, or taken."""
        node = Node(self.check_new(name), forwards=forwards)
        self.nodes[node.name] = node
        return node

    def add_switch(self, name: object, mtu: int = 1500) -> Switch:
        """Add a switch."""
        switch = Switch(self.check_new(name), checked_mtu(mtu))
        self.switches[switch.name] = switch
        return switch

    def subnet_of(self, switch: Switch, vlan: int, given: str | None = None, given6: str | None = None) -> Segment:
        """Return the segment of a VLAN of a switch, and of all switches joined to it; it is made if there is none."""
        segment = switch.segments.get(vlan)
        if segment is None:
            segment = self._segment(switch.mtu, given, given6)
            for one in switch.joined if vlan == 0 else {switch}:
                one.segments[vlan] = segment
        elif given is not None or given6 is not None:
            raise UsageError(
                f"{switch.name} is {segment.subnet.text(4)} already: give subnet= when its first host comes"
            )
        return segment

    def _segment(self, mtu: int, given: str | None, given6: str | None) -> Segment:
        segment = Segment(Subnet(self._number(), given, given6), mtu)
        for other in self.segments:
            overlap = segment.subnet.overlaps(other.subnet)
            if overlap:
                raise UsageError(f"two subnets of one network overlap: {overlap}")
        self.segments.append(segment)
        return segment

    def join(
        self,
        a: Node | Switch,
        b: Node | Switch,
        *,
        vlan: int = 0,
        mtu: int | None = None,
        subnet: str | None = None,
        subnet6: str | None = None,
        addresses: Mapping[str, Sequence[str]] | None = None,
    ) -> Cable:
        """Add a cable. Raises :class:`UsageError` for what cannot be joined, and for addresses that are not free."""
        if a is b:
            raise UsageError(f"{a.name} cannot be joined to itself")
        wanted = _wanted(a, b, addresses)
        _check_vlan(a, b, vlan)
        size = checked_mtu(mtu) if mtu is not None else _mtu_of(a, b)
        if isinstance(a, Switch) and isinstance(b, Switch):
            return self._join_switches(a, b, size)
        switch = a if isinstance(a, Switch) else b if isinstance(b, Switch) else None
        before = list(self.segments)
        if switch is None:
            segment = self._segment(size, subnet, subnet6)
            segment.direct = True
        else:
            segment = self.subnet_of(switch, vlan, subnet, subnet6)
        cable = Cable(self._number(), (a, b), (None, None), vlan, size)
        ports: list[Port | None] = [None, None]
        self.cables.append(cable)
        try:
            for place, end in enumerate((a, b)):
                if not isinstance(end, Switch):
                    ports[place] = self._port(end, segment, cable, place, wanted.get(end.name, ()))
                    cable.ports = (ports[0], ports[1])
        except BaseException:
            self.forget([], [], [cable])
            if segment not in before:
                self._forget_segment(segment)
            raise
        return cable

    def _forget_segment(self, segment: Segment) -> None:
        self.segments = [one for one in self.segments if one is not segment]
        for switch in self.switches.values():
            switch.segments = {vlan: one for vlan, one in switch.segments.items() if one is not segment}

    @staticmethod
    def _port(node: Node, segment: Segment, cable: Cable, end: int, wanted: Sequence[str]) -> Port:
        place = segment.subnet.place(node.name, wanted, six=cable.mtu >= _MTU_MIN6)
        number = len(node.ports)
        port = Port(node, f"eth{number}", FIRST_INDEX + number, place, segment, cable.plug(end))
        node.ports.append(port)
        segment.ports.append(port)
        return port

    def _join_switches(self, a: Switch, b: Switch, mtu: int) -> Cable:
        if b in a.joined:
            raise UsageError(
                f"a cable from {a.name} to {b.name} would be a loop: there is a way between them already, and "
                "frames would go round for ever (no switch here speaks the spanning tree protocol)"
            )
        first, second = a.segments.get(0), b.segments.get(0)
        if first is not None and second is not None:
            raise UsageError(
                f"{a.name} is {first.subnet.text(4)} and {b.name} is {second.subnet.text(4)}: join switches before "
                "both of them have hosts, so that they become one subnet"
            )
        together = a.joined | b.joined
        for switch in together:
            switch.joined = together
            segment = first or second
            if segment is not None:
                switch.segments[0] = segment
        cable = Cable(self._number(), (a, b), (None, None), 0, mtu)
        self.cables.append(cable)
        return cable

    def forget(self, nodes: Iterable[Node], switches: Iterable[Switch], cables: Iterable[Cable]) -> None:
        """Take back what could not be built; what was there before is as it was, but for numbers."""
        for cable in cables:
            self.cables.remove(cable)
            for port in cable.ports:
                if port is not None:
                    port.node.ports.remove(port)
                    port.segment.ports.remove(port)
        for node in nodes:
            del self.nodes[node.name]
        gone = set(switches)
        for switch in gone:
            del self.switches[switch.name]
        kept = {segment for switch in self.switches.values() for segment in switch.segments.values()}
        self.segments = [segment for segment in self.segments if segment.ports or segment in kept]


def checked_mtu(mtu: object) -> int:
    """Return an MTU. Raises :class:`UsageError`."""
    if isinstance(mtu, bool) or not isinstance(mtu, int) or not _MTU_MIN <= mtu <= _MTU_MAX:
        raise UsageError(f"mtu is a number of bytes from {_MTU_MIN} to {_MTU_MAX}, not {mtu!r}")
    return mtu


def _mtu_of(a: Node | Switch, b: Node | Switch) -> int:
    return min((end.mtu for end in (a, b) if isinstance(end, Switch)), default=1500)


def _check_vlan(a: Node | Switch, b: Node | Switch, vlan: object) -> None:
    if isinstance(vlan, bool) or not isinstance(vlan, int) or not 0 <= vlan <= _VLAN_MAX:
        raise UsageError(f"vlan is a number from 1 to {_VLAN_MAX}, not {vlan!r}")
    switches = isinstance(a, Switch) + isinstance(b, Switch)
    if vlan and switches != 1:
        raise UsageError(f"vlan={vlan} is for a cable from a host to a switch, not from {a.name} to {b.name}")


def _wanted(a: Node | Switch, b: Node | Switch, given: Mapping[str, Sequence[str]] | None) -> dict[str, Sequence[str]]:
    wanted: dict[str, Sequence[str]] = {}
    for key, value in (given or {}).items():
        name: Any = getattr(key, "name", key)
        if name not in {end.name for end in (a, b) if isinstance(end, Node)}:
            raise UsageError(f"addresses= names {name!r}, which is no host at an end of this cable")
        several = (value,) if isinstance(value, str) else value
        if not isinstance(several, (tuple, list)):
            raise UsageError(f"addresses= has an address or a list of them for {name}, not {value!r}")
        wanted[name] = tuple(several)
    return wanted
