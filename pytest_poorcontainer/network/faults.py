"""Faults over time: a timeline that a test writes, and a nemesis that draws one from a seed."""

from __future__ import annotations

import functools
import itertools
import random
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_poorcontainer.errors import PoorContainerError, UsageError, do_all
from pytest_poorcontainer.lab.events import note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from pytest_poorcontainer.network.host import Host
    from pytest_poorcontainer.network.network import Network

__all__ = ["NEMESES", "Faults", "Nemesis", "Step", "Timeline"]

_PATIENCE = 30.0  # seconds, for the step that is under way when a timeline is to end


class Step(NamedTuple):
    """What is done at which time, in seconds from the start."""

    at: float
    act: Callable[[], Any]


class Timeline:
    """Does things at their times, in a thread of its own, from the moment it is made.

    ``done`` are the steps that were, with the times at which they were. When its block ends no other step is begun,
    what its steps have put in force is undone, and an error of a step is raised.
    """

    def __init__(self, steps: Iterable[Step], name: str = "timeline") -> None:
        """Begin."""
        self.name = name
        self.done: list[tuple[float, str]] = []
        self._steps = iter(steps)
        self._faults: list[Any] = []
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"poor-container {name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for at, act in self._steps:
                if self._stop.wait(max(0.0, self._began + at - time.monotonic())):
                    return
                result = act()
                self.done.append((time.monotonic() - self._began, _called(act)))
                if hasattr(result, "__exit__"):
                    self._faults.append(result)
        except BaseException as error:  # noqa: BLE001 - it is raised where the timeline ends
            self._error = error

    @property
    def running(self) -> bool:
        """Whether there are steps to come."""
        return self._thread.is_alive()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until all steps are done. Raises TimeoutError, and the error of a step."""
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"the {self.name} has steps to come after {timeout} s")
        self._raise()

    def end(self) -> None:
        """Begin no other step, and undo what is in force of those that were. Idempotent. Raises a step's error."""
        self._stop.set()
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            raise PoorContainerError(f"a step of the {self.name} does not end")
        faults, self._faults = self._faults, []
        do_all([*(functools.partial(fault.__exit__, None, None, None) for fault in reversed(faults)), self._raise])

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


def _is_time(value: object) -> bool:
    """Return whether it is a number of seconds for which one can wait; neither NaN nor infinity is."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= threading.TIMEOUT_MAX


def _ended(timeline: Timeline) -> Exception | None:
    """End it; return what went wrong, as the network has others to close."""
    try:
        timeline.end()
    except Exception as error:  # noqa: BLE001 - it is returned
        return error
    return None


def _called(act: Callable[[], Any]) -> str:
    owner = getattr(act, "__self__", None)
    name = getattr(act, "__name__", repr(act))
    return name if owner is None else f"{owner}: {name}"


class Faults:
    """``network.faults``: faults over time, and what ends when the network does."""

    def __init__(self, network: Network) -> None:
        """Begin with none."""
        self._network = network
        self._running: list[Timeline] = []

    def timeline(self, steps: Iterable[tuple[float, Callable[[], Any]]]) -> Timeline:
        """Do these things at these times (seconds from now) beside the test: ``[(0.5, link.cut), (2, link.heal)]``.

        Raises :class:`UsageError` for what is no list of times and functions, each time at or after the last.
        """
        self._network._check_open("begin a timeline in")  # noqa: SLF001 - ours
        if not isinstance(steps, Iterable):
            raise UsageError(f"a timeline is a list of steps, [(seconds, function), ...], not {steps!r}")
        checked = [self._step(step) for step in steps]
        for before, after in itertools.pairwise(checked):
            if after.at < before.at:
                raise UsageError(f"a timeline goes forward: {after.at:g} s comes after {before.at:g} s")
        return self._started(Timeline(checked))

    @staticmethod
    def _step(step: object) -> Step:
        if not isinstance(step, (tuple, list)) or len(step) != 2:  # noqa: PLR2004
            raise UsageError(f"a step of a timeline is (seconds, function), not {step!r}")
        at, act = step
        if not _is_time(at) or not callable(act):
            raise UsageError(f"a step of a timeline is (seconds from the start, function), not {step!r}")
        return Step(float(at), act)

    def nemesis(
        self,
        *,
        seed: int | None = None,
        hosts: Sequence[Host | str] | None = None,
        kinds: Sequence[str] = ("halves", "isolate", "freeze", "slow", "flaky"),
        every: tuple[float, float] = (0.2, 1.0),
        last: tuple[float, float] = (0.5, 2.0),
    ) -> Nemesis:
        """Make trouble among hosts (default: all but routers), one fault after the other, as a seed draws it.

        ``kinds`` are of :data:`NEMESES`, ``every`` and ``last`` the shortest and longest time between two faults and
        of one, in seconds. Without a seed one is drawn; it is printed, and the same seed makes the same trouble.
        """
        self._network._check_open("begin a nemesis in")  # noqa: SLF001 - ours
        everybody = self._network.partition.everybody() if hosts is None else self._hosts(hosts)
        if isinstance(seed, bool) or not isinstance(seed, int | None):
            raise UsageError(f"seed is an int, not {seed!r}")
        unknown = [kind for kind in kinds if kind not in NEMESES]
        if unknown or not kinds:
            raise UsageError(f"kinds= names what a nemesis does, of {', '.join(NEMESES)}, not {unknown or kinds!r}")
        if len(everybody) < 2:  # noqa: PLR2004 - nobody to be parted from
            raise UsageError(f"a nemesis needs at least two hosts, and there are {len(everybody)}")
        for kind in kinds:
            if len(everybody) < _LEAST.get(kind, 0):
                raise UsageError(f"{kind!r} needs at least {_LEAST[kind]} hosts, and there are {len(everybody)}")
        for name, pair in (("every", every), ("last", last)):
            two = isinstance(pair, (tuple, list)) and len(pair) == 2 and all(map(_is_time, pair))  # noqa: PLR2004
            if not two or pair[0] > pair[1]:
                raise UsageError(f"{name}= is the shortest and the longest time in seconds, not {pair!r}")
        return Nemesis(self, self._network, everybody, list(kinds), seed, every, last)

    def _hosts(self, hosts: Sequence[Host | str]) -> list[Host]:
        if isinstance(hosts, str) or not isinstance(hosts, Iterable):
            raise UsageError(f"hosts= is a list of hosts or their names, not {hosts!r}")
        found: list[Host] = []
        for host in map(self._network.find, hosts):
            if not host.cables:
                raise UsageError(f"{host.name} is joined to nothing: a nemesis can do nothing to it")
            if host in found:
                raise UsageError(f"{host.name} is there twice: expected each host of a nemesis once")
            found.append(host)
        return found

    def _started(self, timeline: Timeline) -> Timeline:
        self._running.append(timeline)
        return timeline

    def close(self) -> list[Exception]:
        """End what runs; return what went wrong in it."""
        ending, self._running = self._running, []
        return [error for timeline in ending if (error := _ended(timeline)) is not None]


class Nemesis:
    """Trouble from a seed. ``plan(n)`` tells its first faults, ``log`` those that were. It ends with its block."""

    def __init__(
        self,
        faults: Faults,
        network: Network,
        hosts: list[Host],
        kinds: list[str],
        seed: int | None,
        every: tuple[float, float],
        last: tuple[float, float],
    ) -> None:
        """Begin."""
        self.seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
        self._network = network
        self._hosts = hosts
        self._kinds = kinds
        self._every, self._last = every, last
        self.log: list[str] = []
        said = f"nemesis: seed={self.seed} among {', '.join(host.name for host in hosts)}"
        print(said)  # noqa: T201 - replays it
        note(said)  # the hosts too, or it is in no report
        self._timeline = faults._started(Timeline(self._steps(), "nemesis"))  # noqa: SLF001 - ours

    def _drawn(self) -> Iterator[tuple[float, float, str, list[Host]]]:
        """Yield when each fault begins and ends, its kind, and the hosts in an order of its own."""
        rng = random.Random(self.seed)  # noqa: S311 - to be repeated, not to be secret
        at = 0.0
        while True:
            kind = rng.choice(self._kinds)
            order = rng.sample(self._hosts, len(self._hosts))
            begin = at + rng.uniform(*self._every)
            at = begin + rng.uniform(*self._last)
            yield begin, at, kind, order

    def plan(self, count: int) -> list[str]:
        """Return the first faults as text; the same for the same seed, hosts and kinds."""
        drawn = self._drawn()
        return [self._text(*next(drawn)) for _ in range(count)]

    @staticmethod
    def _text(begin: float, end: float, kind: str, order: list[Host]) -> str:
        return f"{begin:.3f}-{end:.3f} s: {kind} {' '.join(host.name for host in order)}"

    def _steps(self) -> Iterator[Step]:
        for begin, end, kind, order in self._drawn():
            fault: list[Any] = []

            def start(kind: str = kind, order: list[Host] = order, fault: list[Any] = fault) -> Any:
                fault.append(NEMESES[kind](self._network, order, self.seed))
                return fault[0]

            def stop(fault: list[Any] = fault) -> None:
                fault[0].__exit__(None, None, None)

            self.log.append(self._text(begin, end, kind, order))
            yield Step(begin, start)
            yield Step(end, stop)

    def end(self) -> None:
        """Make no more trouble, and undo what is in force. Idempotent. Raises the error of a fault."""
        self._timeline.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def __repr__(self) -> str:
        """Show the seed."""
        return f"<Nemesis seed={self.seed}>"


NEMESES: dict[str, Callable[[Network, list[Host], int], Any]] = {
    "halves": lambda network, hosts, seed: network.partition.halves(hosts),  # noqa: ARG005 - as the others
    "isolate": lambda network, hosts, seed: network.partition(hosts[:1], hosts[1:]),  # noqa: ARG005 - as the others
    "bridge": lambda network, hosts, seed: network.partition.bridge(hosts[0], hosts),  # noqa: ARG005 - as the others
    "ring": lambda network, hosts, seed: network.partition.ring(hosts),  # noqa: ARG005 - as the others
    "freeze": lambda network, hosts, seed: hosts[0].freeze(),  # noqa: ARG005 - as the others
    "slow": lambda network, hosts, seed: network.between(*hosts[:2]).impair(delay="100ms", seed=seed),
    "flaky": lambda network, hosts, seed: network.between(*hosts[:2]).impair(loss="20%", seed=seed),
}
"""What a nemesis can do, by name; of the hosts it takes the first, or the first two, or all."""

_LEAST = {"bridge": 3, "ring": 4}  # hosts; any other takes two
