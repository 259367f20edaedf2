"""Who is joined to whom: hosts with their interfaces, switches, subnets. Nothing here touches the kernel."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.lab.names import check_name
from pytest_poorcontainer.network.subnets import Place, Subnet, address_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_poorcontainer.network.host import Host

__all__ = ["FIRST_INDEX", "Cable", "Node", "Port", "Segment", "Switch", "Topology"]

FIRST_INDEX = 100  # LINK_HOST_INDEX of preload/lab/link.h: in a new namespace small numbers may be taken
_MTU_MIN, _MTU_MAX = 68, 65535  # veth(4); below 1280 a link has no IPv6 (RFC 8200, section 5)
_MTU_MIN6 = 1280
_VLAN_MAX = 4094


class Segment:
    """What reaches each other without a router: a cable, or a switch (of a VLAN). It is one subnet."""

    def __init__(self, subnet: Subnet, mtu: int, name: str) -> None:
        """Begin with nobody on it."""
        self.subnet = subnet
        self.name = name
        """What it is called when it is built again, with other addresses."""
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
        self.together: dict[int, set[Switch]] = {}

    def joined(self, vlan: int) -> set[Switch]:
        """Return the switches that one of a VLAN reaches from here, by cables between switches; itself too."""
        return self.together.get(vlan, {self})

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
    strands: tuple[Cable, ...] = ()
    """All that are one cable between two switches to people, one for each VLAN; of any other it is the only one."""

    def __post_init__(self) -> None:
        """Be the only one."""
        self.strands = self.strands or (self,)

    def segments(self) -> list[Segment]:
        """Return the segments whose frames pass it; it may be two hosts', one of a switch, or none as yet."""
        ends = [
            end.segments.get(self.vlan) if isinstance(end, Switch) else port.segment if port else None
            for end, port in zip(self.ends, self.ports, strict=True)
        ]
        return list(dict.fromkeys(segment for segment in ends if segment is not None))

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
        self._undo: list[Callable[[], object]] = []
        self._depth = 0

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """Take back what was added in the block if it raises: then all is as it was, but for numbers."""
        mark = len(self._undo)
        self._depth += 1
        try:
            yield
        except BaseException:
            while len(self._undo) > mark:
                self._undo.pop()()
            raise
        finally:
            self._depth -= 1
            if not self._depth:
                self._undo.clear()

    def _set(self, table: dict[Any, Any], key: object, value: object) -> None:
        """Set an entry of a table, so that it can be taken back."""
        if key in table:
            self._undo.append(functools.partial(table.__setitem__, key, table[key]))
        else:
            self._undo.append(functools.partial(table.__delitem__, key))
        table[key] = value

    def _append(self, some: list[Any], one: object) -> None:
        """Append to a list, so that it can be taken back."""
        some.append(one)
        self._undo.append(functools.partial(some.remove, one))

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
        self._set(self.nodes, node.name, node)
        return node

    def add_switch(self, name: object, mtu: int = 1500) -> Switch:
        """Add a switch."""
        switch = Switch(self.check_new(name), checked_mtu(mtu))
        self._set(self.switches, switch.name, switch)
        return switch

    def subnet_of(self, switch: Switch, vlan: int, given: str | None = None, given6: str | None = None) -> Segment:
        """Return the segment of a VLAN of a switch, and of all switches joined to it; it is made if there is none."""
        segment = switch.segments.get(vlan)
        if segment is None:
            segment = self._segment(f"{switch.name}.{vlan}", switch.mtu, given, given6)
            for one in switch.joined(vlan):
                self._set(one.segments, vlan, segment)
        elif given is not None or given6 is not None:
            raise UsageError(
                f"{switch.name} is {segment.subnet.text(4)} already: give subnet= when its first host comes"
            )
        return segment

    def _segment(self, name: str, mtu: int, given: str | None, given6: str | None) -> Segment:
        segment = Segment(Subnet(self._number(), given, given6), mtu, name)
        for other in self.segments:
            overlap = segment.subnet.overlaps(other.subnet)
            if overlap:
                raise UsageError(f"two subnets of one network overlap: {overlap}")
        self._append(self.segments, segment)
        return segment

    def join(
        self,
        a: Node | Switch,
        b: Node | Switch,
        *,
        vlan: int = 0,
        vlans: Sequence[int] | None = None,
        mtu: int | None = None,
        subnet: str | None = None,
        subnet6: str | None = None,
        addresses: Mapping[str, Sequence[str]] | None = None,
    ) -> Cable:
        """Add a cable, and return it or the first of its strands.

        Raises :class:`UsageError` for what cannot be joined, and for addresses that are not free.
        """
        if a is b:
            raise UsageError(f"{a.name} cannot be joined to itself")
        wanted = _wanted(a, b, addresses)
        _check_vlan(a, b, vlan, vlans)
        size = checked_mtu(mtu) if mtu is not None else _mtu_of(a, b)
        if isinstance(a, Switch) and isinstance(b, Switch):
            if subnet is not None or subnet6 is not None:
                raise UsageError(
                    f"a cable between switches has no subnet of its own: give subnet= to the first host on {a.name} or "
                    f"{b.name}"
                )
            with self.change():
                strands = tuple(self._strand(a, b, one, size) for one in ((0,) if vlans is None else vlans))
            for strand in strands:
                strand.strands = strands
            return strands[0]
        if subnet6 is not None and size < _MTU_MIN6:
            raise UsageError(
                f"subnet6={subnet6!r} is for a cable with an mtu of {_MTU_MIN6} or more (RFC 8200), not {size}"
            )
        with self.change():
            if isinstance(a, Node) and isinstance(b, Node):
                segment = self._segment(f"{a.name}/eth{len(a.ports)}", size, subnet, subnet6)
                segment.direct = True
            else:
                switch = a if isinstance(a, Switch) else b
                assert isinstance(switch, Switch)  # noqa: S101 - one of them is
                segment = self.subnet_of(switch, vlan, subnet, subnet6)
            cable = Cable(self._number(), (a, b), (None, None), vlan, size)
            ports: list[Port | None] = [None, None]
            for place, end in enumerate((a, b)):
                if not isinstance(end, Switch):
                    ports[place] = self._port(end, segment, cable, place, wanted.get(end.name, ()))
            cable.ports = (ports[0], ports[1])
            self._append(self.cables, cable)
        return cable

    def _port(self, node: Node, segment: Segment, cable: Cable, end: int, wanted: Sequence[str]) -> Port:
        place = segment.subnet.place(node.name, wanted, six=cable.mtu >= _MTU_MIN6)
        self._undo.append(functools.partial(segment.subnet.release, place))
        number = len(node.ports)
        port = Port(node, f"eth{number}", FIRST_INDEX + number, place, segment, cable.plug(end))
        self._append(node.ports, port)
        self._append(segment.ports, port)
        return port

    def _strand(self, a: Switch, b: Switch, vlan: int, mtu: int) -> Cable:
        """Add what carries a VLAN (0: what is of none) between two switches."""
        of = f" in VLAN {vlan}" if vlan else ""
        if b in a.joined(vlan):
            raise UsageError(
                f"a cable from {a.name} to {b.name} would be a loop{of}: there is a way between them already, and "
                "frames would go round for ever (no switch here speaks the spanning tree protocol)"
            )
        first, second = a.segments.get(vlan), b.segments.get(vlan)
        if first is not None and second is not None:
            raise UsageError(
                f"{a.name} is {first.subnet.text(4)} and {b.name} is {second.subnet.text(4)}{of}: join switches before "
                "both of them have hosts, so that they become one subnet"
            )
        together = a.joined(vlan) | b.joined(vlan)
        for switch in together:
            self._set(switch.together, vlan, together)
            segment = first or second
            if segment is not None:
                self._set(switch.segments, vlan, segment)
        cable = Cable(self._number(), (a, b), (None, None), vlan, mtu)
        self._append(self.cables, cable)
        return cable


def checked_mtu(mtu: object) -> int:
    """Return an MTU. Raises :class:`UsageError`."""
    if isinstance(mtu, bool) or not isinstance(mtu, int) or not _MTU_MIN <= mtu <= _MTU_MAX:
        raise UsageError(f"mtu is a number of bytes from {_MTU_MIN} to {_MTU_MAX}, not {mtu!r}")
    return mtu


def _mtu_of(a: Node | Switch, b: Node | Switch) -> int:
    return min((end.mtu for end in (a, b) if isinstance(end, Switch)), default=1500)


def _check_vlan(a: Node | Switch, b: Node | Switch, vlan: object, vlans: object) -> None:
    if isinstance(vlan, bool) or not isinstance(vlan, int) or not 0 <= vlan <= _VLAN_MAX:
        raise UsageError(f"vlan is a number from 1 to {_VLAN_MAX}, not {vlan!r}")
    switches = isinstance(a, Switch) + isinstance(b, Switch)
    if vlan and switches != 1:
        remedy = f"; between switches say which ones cross, vlans=[{vlan}]" * (switches == 2)  # noqa: PLR2004
        raise UsageError(f"vlan={vlan} is for a cable from a host to a switch, not from {a.name} to {b.name}{remedy}")
    if vlans is None:
        return
    if switches != 2:  # noqa: PLR2004
        raise UsageError(
            f"vlans={vlans!r} is for a cable between two switches, not from {a.name} to {b.name}: a host in several "
            "VLANs has a cable to each, link(host, switch, vlan=10)"
        )
    known = list(vlans) if isinstance(vlans, (list, tuple, range, set, frozenset)) else []
    fits = all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one <= _VLAN_MAX for one in known)
    if not known or not fits or len(set(known)) != len(known):
        raise UsageError(
            f"vlans= is a list of different numbers from 1 to {_VLAN_MAX}, or 0 for what is of no VLAN, not {vlans!r}"
        )


def _wanted(a: Node | Switch, b: Node | Switch, given: Mapping[str, Sequence[str]] | None) -> dict[str, Sequence[str]]:
    if not isinstance(given, (Mapping, type(None))):
        raise UsageError(f"addresses= is a mapping such as {{'web': '192.0.2.7'}}, not {given!r}")
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
