"""A cable between two switches that carries several VLANs: a strand for each, and what is done is done to all."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import UsageError, do_all
from pytest_poorcontainer.network.between import Impairing
from pytest_poorcontainer.network.fabric import fabric_of
from pytest_poorcontainer.network.link import BOTH, Link, Until, directions, from_whom

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_poorcontainer.lab import Lab
    from pytest_poorcontainer.network.impair import Impairments
    from pytest_poorcontainer.network.link import Direction
    from pytest_poorcontainer.network.medium import Impairment
    from pytest_poorcontainer.network.topology import Cable
    from pytest_poorcontainer.network.ways import Place

__all__ = ["Trunk"]


class _Strand(Link):
    """What carries one of the VLANs."""

    def _say(self, what: str) -> None:
        """Say nothing: the trunk does, once."""


class Trunk(Link):
    """A cable between two switches for several VLANs: all that a :class:`Link` can do, to all of them at once."""

    def __init__(self, lab: Lab, names: tuple[str, str], cables: Sequence[Cable]) -> None:
        """Speak of cables of this lab that are one to people, and wired already."""
        super().__init__(lab, names, cables[0])
        self._strands = [_Strand(lab, names, cable) for cable in cables]

    @property
    def vlans(self) -> tuple[int, ...]:
        """The VLANs that it carries; 0 is what is of none."""
        return tuple(strand.cable.vlan for strand in self._strands)

    @property
    def state(self) -> str:
        """As that of a :class:`Link`; "dead" when the wire of one of its VLANs has died."""
        states = [strand.state for strand in self._strands]
        return "dead" if "dead" in states else states[0]

    @property
    def medium(self) -> str:
        """What carries its frames now."""
        return self._strands[0].medium

    @property
    def impairment(self) -> dict[str, Impairment]:
        """What happens to packets now, by the name of who sends them."""
        return self._strands[0].impairment

    def impairments(self) -> Impairments:
        """Raise :class:`UsageError`: each of its VLANs has layers of its own."""
        raise UsageError(f"{self} carries several VLANs, each with impairments of its own")

    def places(self, direction: Direction = None) -> list[Place]:
        """Return the ways through it."""
        return [place for strand in self._strands for place in strand.places(direction)]

    def cut(self, *, direction: Direction = None) -> Until:
        """Let nothing pass any more, as :meth:`Link.cut` does."""
        return self._put(f"cut{from_whom(direction)}", lambda strand: strand.cut(direction=direction))

    def heal(self, *, direction: Direction = None) -> None:
        """Let everything pass again. Idempotent."""
        with self._opening("heal"):
            do_all(functools.partial(strand.heal, direction=direction) for strand in self._strands)

    def unplug(self) -> Until:
        """Take the carrier away, as :meth:`Link.unplug` does."""
        return self._put("unplug", lambda strand: strand.unplug())

    def plug(self) -> None:
        """Plug it in again. Idempotent."""
        with self._opening("plug"):
            do_all(strand.plug for strand in self._strands)

    def _put(self, what: str, fault: Callable[[Link], Until]) -> Until:
        """Have a fault at all of them, or at none."""
        with fabric_of(self.lab).lock:
            self._usable(what.partition(",")[0])
            with contextlib.ExitStack() as stack:
                faults = []
                for strand in self._strands:
                    faults.append(fault(strand))
                    stack.push(faults[-1])
                stack.pop_all()
            self._say(what)

        def undo(_: Until) -> None:
            with self._opening("undo"):
                do_all(functools.partial(one.__exit__, None, None, None) for one in faults)

        return Until(self, undo)

    @contextlib.contextmanager
    def _opening(self, what: str) -> Iterator[None]:
        """Take note of what the block makes whole again; one strand is as the others."""
        self._usable(what)
        first = self._strands[0]
        silent, unplugged = list(first._silent), bool(first._unplugs)  # noqa: SLF001 - a link too
        yield
        opened = [towards for towards in BOTH if silent[towards] and not first._silent[towards]]  # noqa: SLF001
        if opened:
            self._say(f"heal{from_whom(self.names[1 - opened[0]] if len(opened) == 1 else None)}")
        if unplugged and not first._unplugs:  # noqa: SLF001
            self._say("plug")

    def introduce(self) -> None:
        """Tell the wires of all its VLANs whose packets may pass."""
        for strand in self._strands:
            strand.introduce()

    def impair(  # type: ignore[override] # one layer for each of its VLANs
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
        """Do what :meth:`Link.impair` does to packets of all its VLANs, each by a wire of its own.

        Raises :class:`UsageError` for ``rate`` too: they would have it each, and not together.
        """
        from pytest_poorcontainer.network.impair import parse_impairment  # noqa: PLC0415 - few need it

        if rate is not None:
            raise UsageError(
                f"rate={rate!r} cannot be that of {self}: it carries several VLANs, and each would have it; join the "
                "switches by a cable for each, vlans=[10], or give a host's cable the rate"
            )
        said = parse_impairment(
            delay=delay,
            jitter=jitter,
            loss=loss,
            duplicate=duplicate,
            reorder=reorder,
            corrupt=corrupt,
            precise=precise,
        )
        ends = directions(self, direction)
        made = Impairing(str(self))
        with fabric_of(self.lab).lock:
            self._usable("impair")
            try:
                for strand in self._strands:
                    made.layers.append(strand.impairments().add(said, seed, dict.fromkeys(ends)))
            except BaseException:
                made.end()
                raise
        made.note()
        return made

    def end(self) -> Exception | None:
        """Note that the network is about to be closed; return what one of its carriers has to tell, if it is bad."""
        self.closed = True
        told = [error for strand in self._strands if (error := strand.end()) is not None]
        return told[0] if told else None
