"""A cable between hosts and switches, which can be cut and unplugged, and on which other faults have their rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import PoorContainerError, UsageError
from pytest_poorcontainer.lab.events import note
from pytest_poorcontainer.network import messages
from pytest_poorcontainer.network.fabric import fabric_of
from pytest_poorcontainer.network.greeting import await_ports, greet
from pytest_poorcontainer.network.program import EVERYTHING, Match, compiled
from pytest_poorcontainer.network.topology import Cable, Switch
from pytest_poorcontainer.network.ways import Place, Way

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import TypeAlias

    from typing_extensions import Self

    from pytest_poorcontainer.lab import Lab
    from pytest_poorcontainer.network.host import Host
    from pytest_poorcontainer.network.impair import Impaired, Impairments
    from pytest_poorcontainer.network.medium import Impairment
    from pytest_poorcontainer.network.netlink import Request
    from pytest_poorcontainer.network.splice import LinkSplice

    Direction: TypeAlias = "str | Host | Switch | None"

__all__ = ["BOTH", "Link", "Rule", "Until", "directions", "from_whom", "place_rules"]

BOTH = (0, 1)
"""The two ends."""


class Until:
    """A cut, or an unplugged cable, that ends with the block if it is used as a context manager.

    Where there are several, nothing passes until the last has ended; ``heal()`` and ``plug()`` end all of them.
    """

    def __init__(self, link: Link, undo: Callable[[Until], None], match: Match | None = None) -> None:
        """Remember what of the frames it concerns, and how it is undone."""
        self._link = link
        self._undo = undo
        self.match = match

    def __enter__(self) -> Link:
        return self._link

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._link.closed:
            self._undo(self)


class Rule:
    """What a fault drops at one link: frames towards end 0 or 1 that fit ``match`` (None: all of them)."""

    __slots__ = ("link", "match", "towards")

    def __init__(self, link: Link, towards: int, match: Match | None) -> None:
        """Say what; it is not in force yet."""
        self.link = link
        self.towards = towards
        self.match = match


class Link(Way):
    """A cable. ``state`` is "up", "cut" (silence, though the carrier stays) or "unplugged" (no carrier).

    Whatever is done to it, the hosts keep their interfaces, indexes, addresses, routes and connections, and nothing
    that a host does with its own tc, nft or ip commands undoes it. Safe to use from several threads at once.
    """

    def __init__(self, lab: Lab, names: tuple[str, str], cable: Callable[[], Cable] | Cable) -> None:
        """Speak of a cable of this lab, which is wired already; if it is to be called, by the first fault."""
        self.lab = lab
        self.names = names
        self.closed = False
        self._cable = cable
        self._splice: LinkSplice | None = None
        self._impairments: Impairments | None = None
        self._silent: list[Rule | None] = [None, None]
        self._rules: tuple[list[Rule], list[Rule]] = ([], [])
        self._cuts: tuple[list[Until], list[Until]] = ([], [])
        self._unplugs: list[Until] = []

    @property
    def cable(self) -> Cable:
        """What the topology knows of it: its ends and ports."""
        if not isinstance(self._cable, Cable):
            self._cable = self._cable()
        return self._cable

    @property
    def vlans(self) -> tuple[int, ...]:
        """The VLANs that it carries; 0 is what is of none."""
        return (self.cable.vlan,)

    @property
    def state(self) -> str:
        """What it looks like: "up", "cut" (one way too), "unplugged" (cut or not), "dead": its wire has died."""
        if self._impairments is not None and self._impairments.dead:
            return "dead"
        return "unplugged" if self._unplugs else "cut" if any(self._silent) else "up"

    @property
    def medium(self) -> str:
        """What carries its frames now: "veth", the kernel alone; "wire", our relay between the plugs."""
        return "veth" if self._impairments is None or self._impairments.carrier is None else "wire"

    @property
    def spliced(self) -> bool:
        """Whether a carrier is in it, or was when its hosts were closed: then its second plug is there still."""
        return self._splice is not None and self._splice.spliced

    def bridges(self) -> list[int]:
        """Return the indexes of the bridges that it is plugged into, in the lab's fabric."""
        cable = self.cable
        return [end.bridges[cable.vlan] for end in cable.ends if isinstance(end, Switch) and cable.vlan in end.bridges]

    @property
    def impairment(self) -> dict[str, Impairment]:
        """What happens to packets now, by the name of who sends them; nothing, when it is not impaired."""
        if self._impairments is None:
            return {}
        return {self.names[1 - towards]: one for towards, one in self._impairments.effective().items()}

    def impairments(self) -> Impairments:
        """Return the layers of its impairments; there are few links that have any."""
        from pytest_poorcontainer.network.impair import Impairments  # noqa: PLC0415 - few need it
        from pytest_poorcontainer.network.splice import LinkSplice  # noqa: PLC0415 - as above

        if self._impairments is None:
            self._splice = LinkSplice(self)
            self._impairments = Impairments(self._splice, fabric_of(self.lab).lock)
        return self._impairments

    def introduce(self) -> None:
        """Let what carries it know hosts that have come since it was impaired, so that fates do not depend on them."""
        if self._impairments is not None:
            self._impairments.introduce()

    def cut(self, *, direction: Direction = None) -> Until:
        """Let nothing pass any more, either way: connections hang until their timeouts, as on a dead switch.

        With ``direction``, the host (or its name) at one end, the IP packets that it sends are lost, and the other way
        is open: so ARP and neighbour discovery pass. The carrier stays. Undone by :meth:`heal`, or by the end of the
        block as a context manager, but for what another cut, around it or in another thread, still wants.
        """
        ways = directions(self, direction)
        with fabric_of(self.lab).lock:
            self._usable("cut")
            cut = Until(self, self._uncut, EVERYTHING if direction is None else Match())
            self._silence({towards: [*self._cuts[towards], cut] for towards in ways})
        self._say(f"cut{from_whom(direction)}")
        return cut

    def _silence(self, wanted: dict[int, list[Until]]) -> list[int]:
        """Let these cuts be in force, towards these ends; return towards which ends frames pass again."""
        add, lift, opened = [], [], []
        now = {}
        for towards, cuts in wanted.items():
            old = self._silent[towards]
            whole = any(cut.match is EVERYTHING for cut in cuts)
            if cuts and old is not None and (old.match is EVERYTHING) == whole:
                continue
            now[towards] = Rule(self, towards, EVERYTHING if whole else Match()) if cuts else None
            add += [rule for rule in (now[towards],) if rule is not None]
            lift += [old] if old is not None else []
            opened += [towards] if old is not None and not cuts else []
        place_rules(add=add, lift=lift)
        for towards, rule in now.items():
            self._silent[towards] = rule
        for towards, cuts in wanted.items():
            self._cuts[towards][:] = cuts
        return opened

    def heal(self, *, direction: Direction = None) -> None:
        """Let everything pass again. Idempotent. What was lost meanwhile comes again when its sender repeats it."""
        with fabric_of(self.lab).lock:
            self._usable("heal")
            opened = self._silence({towards: [] for towards in directions(self, direction)})
        self._healed(opened)

    def _uncut(self, cut: Until) -> None:
        with fabric_of(self.lab).lock:
            self._usable("heal")
            concerned = [towards for towards in BOTH if cut in self._cuts[towards]]
            opened = self._silence({way: [one for one in self._cuts[way] if one is not cut] for way in concerned})
        self._healed(opened)

    def _healed(self, opened: Sequence[int]) -> None:
        if opened:
            greet(self.cable)
            self._say(f"heal{from_whom(self.names[1 - opened[0]] if len(opened) == 1 else None)}")

    def unplug(self) -> Until:
        """Take the carrier away at both ends: the interfaces stay up (IFF_UP) and lose IFF_RUNNING and LOWER_UP.

        It is what routing and VRRP daemons see when somebody pulls the cable. Undone by :meth:`plug`, or by the end of
        the block as a context manager, unless it is unplugged by another one too.
        """
        with fabric_of(self.lab).lock:
            self._usable("unplug")
            if self._splice is not None and self._impairments is not None and self._impairments.carrier is not None:
                self._splice.pause(self._impairments.carrier)
            self._set_carrier(up=False)
            unplugged = Until(self, self._replug)
            self._unplugs.append(unplugged)
            await_ports(self.cable, up=False)
            self._say("unplug")
        return unplugged

    def _replug(self, unplugged: Until) -> None:
        with fabric_of(self.lab).lock:
            if self._unplugs != [unplugged]:
                self._unplugs = [one for one in self._unplugs if one is not unplugged]
                return
        self.plug()

    def plug(self) -> None:
        """Plug it in again, and return when both ends can be used. Idempotent."""
        with fabric_of(self.lab).lock:
            self._usable("plug")
            self._set_carrier(up=True)
            self._unplugs = []
            await_ports(self.cable, up=True)
            if self._splice is not None and self._impairments is not None and self._impairments.carrier is not None:
                self._splice.resume(self._impairments.carrier)
            self._say("plug")
        greet(self.cable)

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
    ) -> Impaired:
        """Let packets come late, twice, spoilt, in another order, or not at all; each way: 20 ms are 40 there and back.

        Times are seconds or like "20ms", shares of packets 0 to 1 or like "1%", ``rate`` bit/s or like "10mbit".
        ``jitter`` is how far a delay is off at most, and reorders nothing. A packet's fate follows from ``seed`` and
        its place in its conversation: the same conversation meets the same fate. ``direction`` is the host whose
        packets alone are concerned. ``precise`` keeps a processor busy to be exact. ARP, ND and MLD are left alone.

        In force until the block ends, or until :meth:`Impaired.end`; inside it another one says things anew for its
        time. Raises :class:`UsageError` for what is none of that, :class:`LabError` with the step that failed.
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
        ends = directions(self, direction)
        with fabric_of(self.lab).lock:
            self._usable("impair")
            layer = self.impairments().add(said, seed, dict.fromkeys(ends))
            layer.of = str(self)
            layer.note()
            return layer

    def reset(self) -> int:
        """End the TCP connections of the hosts at its ends; return how many.

        Raises :class:`UsageError` where there is none but routers and switches: they know of no connection.
        """
        self._usable("reset the connections of")
        if all(port is None or port.node.forwards for port in self.cable.ports):
            raise UsageError(
                f"cannot tell which connections go by {self}: there are only routers and switches at its ends, and no "
                "host; name two hosts that are connected, network.between(a, b).reset()"
            )
        return super().reset()

    def _set_carrier(self, *, up: bool) -> None:
        fabric = fabric_of(self.lab)
        plugs = self._plugs()
        name = str(self)
        fabric.send([messages.set_up(plug, name, up=up) for plug in plugs])
        if up:
            fabric.await_up(plugs, name)

    def _plugs(self) -> list[int]:
        """Return the interfaces in the fabric that are its ends: a cable to a switch has one, the host's."""
        cable = self.cable
        hosts = [end for end in BOTH if not isinstance(cable.ends[end], Switch)]
        return [cable.plug(end) for end in hosts or BOTH]

    def hook(self, towards: int) -> tuple[int, str]:
        """Return at which plug, and on which side of it, frames towards an end can be dropped."""
        cable = self.cable
        switch = [isinstance(end, Switch) for end in cable.ends]
        if all(switch):
            return cable.plug(1 - towards), "egress"
        if switch[towards]:
            carried = self._splice is not None and self._splice.spliced
            return (self._splice.far, "egress") if self._splice and carried else (cable.plug(1 - towards), "ingress")
        return cable.plug(towards), "egress"

    def request(self, towards: int, rules: Sequence[Rule]) -> Request:
        """Return what makes the kernel drop what these rules say, and nothing else, in one direction."""
        plug, hook = self.hook(towards)
        program = compiled(rule.match for rule in rules)
        if program is None:
            return messages.undrop(plug, hook, str(self))
        return messages.drop_filter(plug, hook, program, str(self))

    def places(self, direction: Direction = None) -> list[Place]:
        """Return the two ways through it, or the one that a direction names."""
        return [Place(self, towards, Match()) for towards in reversed(directions(self, direction))]

    def rules(self, towards: int) -> list[Rule]:
        """Return the rules that are in force in one direction."""
        return self._rules[towards]

    def end(self) -> Exception | None:
        """Note that its hosts are about to be closed; return what its carrier has to tell, if it is bad."""
        if self.closed:
            return None
        self.closed = True
        if self._impairments is None:
            return None
        return self._impairments.abandon()

    def _say(self, what: str) -> None:
        """Take note of what was done to it, for reports."""
        note(f"{self}: {what}")

    def _usable(self, what: str) -> None:
        if self.closed:
            raise PoorContainerError(f"cannot {what} {self}: its hosts are closed")

    def check(self, what: str) -> Self:
        """Return itself. Raises :class:`PoorContainerError` when it is closed."""
        self._usable(what)
        return self

    def __str__(self) -> str:
        """Name the two ends."""
        return f"{self.names[0]} -- {self.names[1]}"

    def __repr__(self) -> str:
        """Name the two ends and the state."""
        return f"<Link {self} ({'closed' if self.closed else self.state})>"


def directions(link: Link, direction: Direction) -> list[int]:
    """Return towards which ends frames go that the one named in ``direction`` sends; None: both.

    Raises :class:`UsageError` when it is not at an end of the link.
    """
    if direction is None:
        return list(BOTH)
    name = direction if isinstance(direction, str) else getattr(direction, "name", None)
    if name not in link.names:
        shown = name if isinstance(name, str) else direction
        raise UsageError(
            f"direction= names who sends what is concerned, {link.names[0]!r} or {link.names[1]!r}, not {shown!r}"
        )
    return [1 - link.names.index(name)]


def from_whom(direction: Direction) -> str:
    """Return who sends what is concerned, for notes."""
    return "" if direction is None else f", what {getattr(direction, 'name', direction)} sends"


def place_rules(*, add: Sequence[Rule] = (), lift: Sequence[Rule] = ()) -> None:
    """Put rules in force and others out of it, at all their links at once.

    With the fabric's lock held. Raises :class:`LabError` when the kernel refuses one; then all is as it was.
    """
    # Keyed, not searched: a partition of fifty hosts has a hundred places.
    now: dict[tuple[Link, int], list[Rule]] = {}
    for rule in (*add, *lift):
        now.setdefault((rule.link, rule.towards), [])
    lifted = set(lift)
    for (link, towards), rules in now.items():
        rules += [rule for rule in link.rules(towards) if rule not in lifted]
    for rule in add:
        now[rule.link, rule.towards].append(rule)
    if not now:
        return
    fabric = fabric_of(next(iter(now))[0].lab)
    try:
        fabric.send([link.request(towards, rules) for (link, towards), rules in now.items()])
    except BaseException:
        fabric.send([link.request(towards, link.rules(towards)) for link, towards in now])
        raise
    for (link, towards), rules in now.items():
        link.rules(towards)[:] = rules
