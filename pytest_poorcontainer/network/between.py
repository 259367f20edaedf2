"""The traffic between two hosts, wherever they stand: on one cable, one switch, or with routers between them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import UsageError, do_all
from pytest_poorcontainer.lab.events import note
from pytest_poorcontainer.network.fabric import fabric_of
from pytest_poorcontainer.network.medium import Flow
from pytest_poorcontainer.network.program import Match
from pytest_poorcontainer.network.translating import hiding
from pytest_poorcontainer.network.ways import Fault, Place, Way, put_rules

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

    from pytest_poorcontainer.network.host import Host
    from pytest_poorcontainer.network.impair import Impaired
    from pytest_poorcontainer.network.link import Direction, Link, Until
    from pytest_poorcontainer.network.medium import Counts
    from pytest_poorcontainer.network.topology import Node, Port

__all__ = ["Between", "BetweenCut", "Impairing", "addresses_of", "end_of", "separating"]


def end_of(link: Link, host: Host) -> int:
    """Return at which end of one of its cables a host is."""
    ports = link.cable.ports
    return 0 if ports[0] is not None and ports[0].node.host is host else 1


def addresses_of(host: Host) -> frozenset[bytes]:
    """Return all addresses that a host has at its cables, packed."""
    return frozenset(address for port in _ports_of(host) for address in port.node.packed())


def _ports_of(host: Host) -> list[Port]:
    ports = [link.cable.ports[end_of(link, host)] for link in host.cables]
    return [port for port in ports if port is not None]


def _forwards(host: Host) -> bool:
    """Whether packets of others pass through it: then only its own are its."""
    return any(port.node.forwards for port in _ports_of(host))


def separating(sender: Host, senders: frozenset[bytes], receivers: frozenset[bytes]) -> Iterator[Place]:
    """Yield where to drop what ``sender`` (of addresses ``senders``) sends to others, at its own cables."""
    for link in sender.cables:
        away = 1 - end_of(link, sender)
        yield Place(link, away, Match(senders if _forwards(sender) else None, receivers))


def arriving(receiver: Host, senders: frozenset[bytes], receivers: frozenset[bytes]) -> Iterator[Place]:
    """Yield where to drop what comes to ``receiver`` (of addresses ``receivers``), at its own cables."""
    for link in receiver.cables:
        end = end_of(link, receiver)
        if _forwards(receiver):
            yield Place(link, end, Match(senders, receivers))
            yield Place(link, end, Match(senders, to_group=True))
        else:
            yield Place(link, end, Match(senders))


class Between(Way):
    """The handle on the traffic between two hosts; :meth:`Network.between` returns it.

    What they say to others, and others through them, is not concerned. Their own multicasts do not reach each other
    while it is cut; ARP and neighbour discovery do, as behind firewalls.
    """

    def __init__(self, a: Host, b: Host) -> None:
        """Speak of these two."""
        if a is b:
            raise UsageError(f"between() takes two hosts, not {a.name} twice")
        self.hosts = (a, b)
        self._cut: dict[int, Fault] = {}
        self._cuts: tuple[list[BetweenCut], list[BetweenCut]] = ([], [])

    def __str__(self) -> str:
        """Name the two hosts."""
        return f"between {self.hosts[0].name} and {self.hosts[1].name}"

    def __repr__(self) -> str:
        """Name the two hosts, and say whether they are cut off from each other."""
        return f"<Between {self.hosts[0].name}, {self.hosts[1].name}{' (cut)' if self._cut else ''}>"

    def _senders(self, direction: Direction) -> list[int]:
        """Return which of the two send what is concerned."""
        if direction is None:
            return [0, 1]
        for place, host in enumerate(self.hosts):
            if direction is host or direction == host.name:
                return [place]
        names = " or ".join(repr(host.name) for host in self.hosts)
        shown = getattr(direction, "name", direction)
        raise UsageError(f"direction= names who sends what is concerned, {names}, not {shown!r}")

    def places(self, direction: Direction = None) -> list[Place]:
        """Return where the packets of the two to each other pass: at the sender's cables and at the receiver's.

        One of them would do, but for routers between them that translate addresses.
        """
        known = [addresses_of(host) for host in self.hosts]
        for host, addresses in zip(self.hosts, known, strict=True):
            if not addresses:
                raise UsageError(f"{host.name} is joined to nothing: there is no traffic {self}")
        found: list[Place] = []
        for sender in self._senders(direction):
            a, b = self.hosts[sender], self.hosts[1 - sender]
            found += separating(a, known[sender], known[1 - sender])
            found += arriving(b, known[sender], known[1 - sender])
        return found

    def _hiding(self, hidden: int) -> Node | None:
        """Return the router whose address stands for one of the two, where the other sees its packets."""
        mine, others = (_ports_of(self.hosts[place]) for place in (hidden, 1 - hidden))
        return hiding(mine, others)

    def _seeing(self) -> int:
        """Return at whose cables their packets have the addresses of both."""
        routers = [self._hiding(1 - place) for place in (0, 1)]
        seeing = [place for place, router in enumerate(routers) if router is None]
        if not seeing:
            names = " and ".join(router.name for router in routers if router is not None)
            raise UsageError(
                f"cannot impair what is {self}: {names} masquerade, so that no cable has packets with the addresses of "
                f"both; impair a cable on the way, such as {self.hosts[0].name}.cable"
            )
        return min(seeing, key=lambda place: len(self.hosts[place].cables))

    def reject(self, port: int, *, protocol: str = "tcp", direction: Direction = None) -> Fault:
        """Refuse packets to this port as :meth:`Way.reject` does, which is at the cables of who sends them.

        Raises :class:`UsageError` too where a router that masquerades hides who is to receive them: they have that
        router's address.
        """
        for sender in self._senders(direction):
            router = self._hiding(1 - sender)
            if router is not None:
                a, b = self.hosts[sender].name, self.hosts[1 - sender].name
                raise UsageError(
                    f"cannot refuse what {a} sends to {b}: {router.name} masquerades, so it has that router's address; "
                    f"refuse the port to everybody, {b}.cable.reject({port!r}), or drop it, .blackhole({port!r}); the "
                    f"other way goes with direction={b!r}"
                )
        return super().reject(port, protocol=protocol, direction=direction)

    def cut(self, *, direction: Direction = None) -> BetweenCut:
        """Let nothing pass between the two any more; no carrier is lost.

        Undone by :meth:`heal`, or by the end of its block, unless another cut still wants it.
        """
        cut = BetweenCut(self)
        for sender in self._senders(direction):
            if sender not in self._cut or not self._cut[sender].active:
                name = self.hosts[sender].name
                self._cut[sender] = put_rules(f"{self}: what {name} sends is lost", self.places(name))
            self._cuts[sender].append(cut)
        return cut

    def heal(self, *, direction: Direction = None) -> None:
        """Let everything pass again. Idempotent."""
        for sender in self._senders(direction):
            self._cuts[sender].clear()
            fault = self._cut.pop(sender, None)
            if fault is not None:
                fault.end()

    def release(self, cut: BetweenCut) -> None:
        """End one cut; what no other wants passes again."""
        for sender, cuts in enumerate(self._cuts):
            if cut in cuts:
                cuts.remove(cut)
                if not cuts:
                    self.heal(direction=self.hosts[sender])

    @property
    def link(self) -> Link:
        """The one cable that joins the two. Raises :class:`UsageError` when there is none, or several."""
        a, b = self.hosts
        common = [link for link in a.cables if link in b.cables]
        if len(common) != 1:
            raise UsageError(
                f"{a.name} and {b.name} are not joined by one cable of their own: name the cable to unplug, "
                f"such as {a.name}.cable or one of network.links"
            )
        return common[0]

    def unplug(self) -> Until:
        """Unplug the cable that joins the two. Raises :class:`UsageError` when there is none of their own."""
        return self.link.unplug()

    def plug(self) -> None:
        """Plug it in again."""
        self.link.plug()

    def impair(
        self,
        *,
        delay: float | str | None = None,
        jitter: float | str | None = None,
        loss: float | str | None = None,
        duplicate: float | str | None = None,
        reorder: float | str | None = None,
        corrupt: float | str | None = None,
        rate: float | str | None = None,
        seed: int | None = None,
        direction: Direction = None,
        precise: bool = False,
    ) -> Impairing:
        """Do to the packets between the two what :meth:`Link.impair` does to all of a cable.

        It is done once, at the cables of the host that has fewer of them; where a router between the two masquerades,
        of the one that it hides. Raises :class:`UsageError` too where both are hidden from each other.
        """
        from pytest_poorcontainer.network.impair import parse_impairment  # noqa: PLC0415 - few need it

        said = parse_impairment(
            delay=delay,
            jitter=jitter,
            loss=loss,
            duplicate=duplicate,
            reorder=reorder,
            corrupt=corrupt,
            rate=rate,
            precise=precise,
        )
        known = [addresses_of(host) for host in self.hosts]
        mine = self._seeing()
        senders = self._senders(direction)
        made = Impairing(str(self))
        try:
            for link in self.hosts[mine].cables:
                end = end_of(link, self.hosts[mine])
                ends: dict[int, Flow | None] = {}
                if mine in senders:
                    ends[1 - end] = Flow(known[mine], known[1 - mine])
                if 1 - mine in senders:
                    ends[end] = Flow(known[1 - mine], known[mine])
                with fabric_of(link.lab).lock:
                    made.layers.append(link.check("impair").impairments().add(said, seed, ends))
        except BaseException:
            made.end()
            raise
        if not made.layers:
            raise UsageError(f"cannot impair what is {self}: there is no cable between them")
        made.note()
        return made


class BetweenCut:
    """A cut between two hosts, in force until its block ends or :meth:`heal`; :meth:`Between.heal` ends all of them."""

    def __init__(self, between: Between) -> None:
        """Be one of several, maybe."""
        self._between = between

    def heal(self) -> None:
        """End this one; where no other is in force, everything passes again. Idempotent."""
        self._between.release(self)

    def __enter__(self) -> Between:
        return self._between

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.heal()


class Impairing:
    """An impairment of what passes between two hosts, in force until its block ends, or until :meth:`end`."""

    def __init__(self, what: str) -> None:
        """Begin without layers."""
        self.what = what
        self.layers: list[Impaired] = []

    @property
    def counts(self) -> list[tuple[Counts, Counts]]:
        """What has happened at each cable, to the packets towards its first end and towards its second."""
        return [layer.counts for layer in self.layers]

    def change(self, **said: float | str) -> None:
        """Say these things anew, while traffic goes on. Raises as ``impair()`` does."""
        for layer in self.layers:
            layer.change(**said)
        self.note()

    def note(self, more: str = "") -> None:
        """Take note of what it says, for reports: every layer says the same."""
        note(f"{self.what}: {self.layers[0]!r}{more}")

    def end(self) -> None:
        """Take it out of force. Idempotent."""
        if any(layer.active for layer in self.layers):
            do_all([*(layer.end for layer in self.layers), functools.partial(self.note, ": over")])

    heal = end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
