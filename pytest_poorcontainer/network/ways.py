"""What can be done to the traffic of a cable or between two hosts: faults that drop, answer, shrink or end it.

Each is in force at once and until its ``end()`` or the end of its block; they compose, in any order of ending.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.lab.events import note
from pytest_poorcontainer.network.fabric import fabric_of
from pytest_poorcontainer.network.program import TCP, UDP, Match

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from pytest_poorcontainer.network.link import Direction, Link

__all__ = ["Fault", "Place", "Way", "checked_port", "drop", "protocol_number", "put_rules"]

_LARGEST_PORT = 0xFFFF
_MTU_LEAST, _MTU_LARGEST = 68, 65535  # RFC 791
_PROTOCOLS = {"tcp": TCP, "udp": UDP}


@dataclasses.dataclass(frozen=True)
class Place:
    """Where packets of a way pass: at which link, towards which of its ends, and which of those there are the way's."""

    link: Link
    towards: int
    match: Match


class Fault:
    """A fault in force. ``what`` says which; it ends with its block, by :meth:`end`, or with its network."""

    def __init__(self, what: str, links: Iterable[Link], undo: Callable[[], None]) -> None:
        """Remember how it is undone, once."""
        self.what = what
        self._links = tuple(links)
        self._undo: Callable[[], None] | None = undo
        note(what)

    @property
    def active(self) -> bool:
        """Whether it is in force."""
        return self._undo is not None and not all(link.closed for link in self._links)

    def end(self) -> None:
        """Undo it. Idempotent; where the hosts are closed there is nothing to undo."""
        undo, self._undo = self._undo, None
        if undo is None or (self._links and all(link.closed for link in self._links)):
            return
        undo()
        note(f"{self.what}: over")

    heal = end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def __repr__(self) -> str:
        """Say what it is, and whether it is over."""
        return f"<Fault {self.what}{'' if self.active else ' (over)'}>"


def put_rules(what: str, places: Sequence[Place]) -> Fault:
    """Drop what passes at these places. Raises what :func:`drop` does."""
    undo = drop(what, places)
    return Fault(what, dict.fromkeys(place.link for place in places), undo)


def drop(what: str, places: Sequence[Place]) -> Callable[[], None]:
    """Drop what passes at these places; return what ends that.

    Raises :class:`PoorContainerError` when a link is closed, :class:`UsageError` without places, :class:`LabError`.
    """
    from pytest_poorcontainer.network.link import Rule, place_rules  # noqa: PLC0415 - a Link is a Way

    if not places:
        raise UsageError(f"there is no cable between them for this fault: {what}")
    rules = [Rule(place.link, place.towards, place.match) for place in places]
    links = list(dict.fromkeys(place.link for place in places))
    fabric = fabric_of(links[0].lab)
    with fabric.lock:
        for link in links:
            link.check(f"put in force ({what}) at")
        place_rules(add=rules)

    def undo() -> None:
        with fabric.lock:
            place_rules(lift=[rule for rule in rules if not rule.link.closed])

    return undo


class Way(abc.ABC):
    """A cable, or the traffic between two hosts wherever they stand.

    ``direction`` is the host, or its name, whose packets alone are concerned; None: both ways.
    """

    @abc.abstractmethod
    def places(self, direction: Direction = None) -> list[Place]:
        """Return where its packets pass. Raises :class:`UsageError` for a direction that is none."""

    def blackhole(self, port: int, *, protocol: str = "tcp", direction: Direction = None) -> Fault:
        """Let packets to this port vanish without an answer: clients hang, and so do connections that were there.

        Raises :class:`UsageError` for what is no port or protocol ("tcp", "udp").
        """
        number, port = protocol_number(protocol), checked_port(port)
        places = self.places(direction)
        what = f"{self}: {protocol} port {port} is a black hole"
        return put_rules(what, [_narrowed(one, protocol=number, to_port=port) for one in places])

    def reject(self, port: int, *, protocol: str = "tcp", direction: Direction = None) -> Fault:
        """Refuse packets to this port: TCP by a reset ("connection refused"), UDP by ICMP's port unreachable.

        The answer comes from the fabric, so nothing a host does undoes it. Connections that were there are reset when
        their client sends. Raises :class:`UsageError`, :class:`Unavailable` without nft's reject in the netdev family.
        """
        from pytest_poorcontainer.network.rejecting import reject  # noqa: PLC0415 - few tests need it

        return reject(self, checked_port(port), protocol_number(protocol), protocol, self.places(direction))

    def mtu_black_hole(self, mtu: int, *, direction: Direction = None) -> Fault:
        """Let IP packets of more than ``mtu`` bytes vanish, and nobody be told: pings pass, transfers hang.

        As where a tunnel is narrower than its ends know, and a firewall drops ICMP. The hosts' interfaces cut segments
        to size themselves meanwhile (TSO and UDP's GSO off), or packets would be seen in bundles of 64 KiB.
        """
        from pytest_poorcontainer.network.offloads import segmenting_off  # noqa: PLC0415 - few tests need it

        if isinstance(mtu, bool) or not isinstance(mtu, int) or not _MTU_LEAST <= mtu <= _MTU_LARGEST:
            raise UsageError(f"mtu is a number of bytes from {_MTU_LEAST} to {_MTU_LARGEST}, not {mtu!r}")
        places = self.places(direction)
        what = f"{self}: packets of more than {mtu} bytes vanish"
        for place in places:
            place.link.check(f"put in force ({what}) at")
        with contextlib.ExitStack() as stack:
            stack.enter_context(segmenting_off(dict.fromkeys(place.link for place in places)))
            stack.callback(drop(what, [_narrowed(one, longer=mtu) for one in places]))
            return Fault(what, dict.fromkeys(place.link for place in places), stack.pop_all().close)

    def reset(self) -> int:
        """End the TCP connections that go this way, as a firewall that lost its state would; return how many.

        The first host's programs get "connection reset by peer", the second's "software caused connection abort".
        """
        from pytest_poorcontainer.network.resetting import reset  # noqa: PLC0415 - few tests need it

        places = self.places()
        for link in dict.fromkeys(place.link for place in places):
            link.check("reset the connections of")
        ended = reset(places)
        note(f"{self}: {ended} connections reset")
        return ended


def _narrowed(place: Place, **more: Any) -> Place:
    return dataclasses.replace(place, match=dataclasses.replace(place.match, **more))


def checked_port(port: object) -> int:
    """Return a port. Raises :class:`UsageError`."""
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= _LARGEST_PORT:
        raise UsageError(f"a port is a number from 1 to {_LARGEST_PORT}, not {port!r}")
    return port


def protocol_number(protocol: object) -> int:
    """Return the number of "tcp" or "udp". Raises :class:`UsageError`."""
    number = _PROTOCOLS.get(protocol) if isinstance(protocol, str) else None
    if number is None:
        raise UsageError(f"protocol is 'tcp' or 'udp', not {protocol!r}")
    return number
