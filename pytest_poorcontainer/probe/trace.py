"""The way of a flow, found in two waves: a probe with a full TTL and the first hops, then exactly the rest.

The answer to the full probe tells the verdict, and by what is left of its TTL how far the target is. Where nothing
comes, the window of TTLs grows to the last one. Waits follow the round trips that were measured; only what is missing
is sent again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pytest_poorcontainer.probe.engine import QUIET, is_loaded
from pytest_poorcontainer.probe.facts import distance_of
from pytest_poorcontainer.probe.flow import Echo, Tcp, Udp
from pytest_poorcontainer.probe.packet import RST, SYN
from pytest_poorcontainer.probe.wire import text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_poorcontainer.probe.engine import Engine, Track

__all__ = ["Limits", "Tracer"]

_FIRST_LOOK = 0.0006  # seconds before the first wave, so that a near target needs no probe more than there are hops
_FIRST_WINDOW, _SECOND_WINDOW = 8, 16
_EARLY = 0.004  # seconds until the window grows without an answer
_ROUNDS = 2
_UDP_PORT = 33434
_UNSURE = 0.1  # seconds for a probe to the guessed distance, where what was to check that was not answered
_TRIES = 3  # where another flow shows that the way goes on
_STEPS = 8  # TTLs tried beyond the guessed distance


class Limits(NamedTuple):
    """``first`` and ``last`` TTL; ``queries`` per hop; ``wait``: the least seconds until silence counts (0: ours)."""

    first: int = 1
    last: int = 30
    queries: int = 1
    wait: float = 0.0


class Tracer:
    """Traces one flow of an engine."""

    def __init__(self, engine: Engine, track: Track, limits: Limits) -> None:
        """Look at nothing yet."""
        self._engine = engine
        self._track = track
        self._facts = track.facts
        self._limits = limits
        # Where neighbours of a silent hop answered, nothing holds answers up: another try is worth more than a wait.
        self._floor = QUIET
        self._rounds = _ROUNDS + is_loaded()
        self._sent: set[int] = set()
        self._checks: list[Track] = []  # other flows with the TTL that is guessed to reach the end
        self._least = 0  # the end is known to be at least so far
        self._asked_end = False  # whether the target was asked with just the TTL that reaches it

    @property
    def ended(self) -> bool:
        """Whether an answer came that ends the path."""
        return bool(self._facts.ends)

    def knock(self, patience: float) -> bool:
        """Send the full probe and the first wave; return whether an answer came that ends the path.

        Without one, it gives up when for ``patience`` seconds nothing came.
        """
        self._engine.send(self._track)
        if self._engine.settle(self._ended, _FIRST_LOOK):
            return True
        self._send_to(_FIRST_WINDOW)
        if self._engine.settle(self._ended, _EARLY):
            return True
        self._send_to(_SECOND_WINDOW)
        return self._engine.settle(self._ended, self._patience(patience))

    def rest(self) -> None:
        """Find the hops that are still missing, in front of an end that is known."""
        if self._facts.guess() is None:
            self._climb()
        guess = self._distance()
        for query in range(self._limits.queries):
            self._send([ttl for ttl in self._wanted(guess) if query or ttl not in self._sent])
            if query:
                self._engine.send(self._track)
        if self._widen() and guess not in self._sent and guess <= self._limits.last:
            self._asked_end = True
            self._send([guess])  # the target answers this one; a box on the way that forges resets forwards or drops it
        self._check(guess)
        self._engine.settle(self._complete, self._patience(self._floor))
        self._check_again(guess)
        self._extend()
        for _ in range(self._rounds):
            missing = self._missing(self._distance())
            if not missing:
                break
            self._again(missing)

    def _check(self, guess: int) -> None:
        """Have the guessed distance of an open port checked by an echo request, which disturbs no connection there."""
        end = self._facts.end
        syn_ack = end is not None and end.kind == "tcp" and end.flags & (SYN | RST) == SYN
        unknown = self._facts.guess() is not None and self._facts.ended_at() is None
        if syn_ack and unknown and guess not in self._sent:
            flow = self._track.flow
            self._checks.append(self._engine.track(Echo(flow.source, flow.target)))
            self._engine.send(self._checks[0], guess)

    def _check_again(self, guess: int) -> None:
        """Check by a datagram as well, where the echo request was not answered."""
        if self._checks and not self._checked() and len(self._checks) == 1:
            flow = self._track.flow
            self._checks.append(self._engine.track(Udp(flow.source, flow.target, (flow.ports[0], _UDP_PORT))))
            for track in self._checks:
                self._engine.send(track, guess)
            self._engine.settle(self._checked, self._patience(self._floor))

    def _checked(self) -> bool:
        return any(track.facts.ends or track.facts.hops for track in self._checks)

    def _climb(self) -> None:
        """Send with growing TTLs until one reaches the end: nothing tells how far that is."""
        for last in (_FIRST_WINDOW, _SECOND_WINDOW, self._limits.last):
            self._send_to(last)
            self._engine.settle(
                lambda last=last: self._climbed(last),  # type: ignore[misc]
                self._patience(4 * self._floor),
            )
            if self._facts.ended_at() is not None:
                return

    def _climbed(self, last: int) -> bool:
        """Whether the end was reached with all hops before it known, or all TTLs so far ended before it."""
        if self._facts.ended_at() is not None:
            return self._complete()
        return all(ttl in self._facts.hops for ttl in range(self._limits.first, last + 1))

    def search(self) -> None:
        """Look for hops up to the last TTL, where no end is known."""
        self._send_to(self._limits.last)
        for _ in range(1, self._limits.queries):
            self._send(range(self._limits.first, self._facts.furthest + 1))

    def again(self, *, full: bool = True) -> None:
        """Repeat the full probe and what is missing up to a little beyond the furthest hop; do not wait."""
        if full:
            self._engine.send(self._track)
        upto = min(self._facts.furthest + 3, self._limits.last)
        self._send(self._missing(upto + 1))

    def wait(self, seconds: float) -> bool:
        """Wait until an end is known; return whether it is."""
        return self._engine.settle(self._ended, self._patience(seconds))

    def _ended(self) -> bool:
        return bool(self._facts.ends)

    def _patience(self, least: float) -> float:
        return max(least, self._limits.wait, min(3 * self._engine.largest, 3.0))

    def _distance(self) -> int:
        """Return the distance of the end, as well as it is known."""
        facts = self._facts
        exact = facts.ended_at()
        guess = facts.guess() or 1
        end = facts.end
        if end is not None and end.kind == "unreachable" and end.address != text(self._track.flow.target):
            guess += 1  # a router said so: as a rule it lets probes that end with it expire, and so shows itself
        if exact is not None and exact <= max(guess, facts.furthest + 1):
            guess = exact
        return max(guess, facts.furthest + 1, self._least)

    def _complete(self) -> bool:
        """Whether every probe of the path is answered, also the one to the guessed distance, if there was one."""
        distance = self._distance()
        if self._missing(distance):
            return False
        heard = sum(len(self._facts.hops.get(ttl, ())) for ttl in self._wanted(distance)) + len(self._facts.ends)
        if self._limits.queries > 1 and heard < self._limits.queries * (len(self._wanted(distance)) + 1):
            return False
        if self._checks and not self._checked():
            return False
        return not self._asked_end or self._facts.ended_at() is not None

    def _wanted(self, distance: int) -> list[int]:
        return list(range(self._limits.first, min(distance, self._limits.last + 1)))

    def _missing(self, distance: int) -> list[int]:
        silent = [ttl for ttl in self._wanted(distance) if ttl not in self._facts.hops]
        ended = {seen.ttl for seen in self._facts.ends}
        return [ttl for ttl in silent if ttl not in ended]

    def _send(self, ttls: Iterable[int]) -> None:
        for ttl in ttls:
            self._sent.add(ttl)
            self._engine.send(self._track, ttl)

    def _send_to(self, last: int) -> None:
        last = min(last, self._limits.last)
        self._send([ttl for ttl in range(self._limits.first, last + 1) if ttl not in self._sent])

    def _widen(self) -> bool:
        """Give each probe a sequence number of its own if that is harmless: return whether the port is closed."""
        end = self._facts.end
        flow = self._track.flow
        if end is not None and end.kind == "tcp" and end.flags & RST and isinstance(flow, Tcp) and flow.flags & SYN:
            flow.spread = True
            return True
        return False

    def _extend(self) -> None:
        """Go beyond the guessed distance, TTL by TTL, where the way back is not as long as the way there."""
        facts = self._facts
        for _ in range(_STEPS):
            distance = self._distance()
            last = facts.hops.get(distance - 1)
            if facts.ended_at() is not None or distance > self._limits.last or not (last or distance == self._least):
                return
            further = any(distance in track.facts.hops for track in self._checks)
            unsure = bool(self._checks) and not self._checked()
            even = last and distance_of(last[0].reply_ttl or 1) == distance - 1 and facts.guess() == distance
            if even and not further and not unsure:
                return  # the last hop is as far there as back, and the end is one further
            if not self._reach(distance, _TRIES if further else 1, _UNSURE if further or unsure else self._floor):
                if not further:
                    return
                self._least = distance + 1  # this flow's errors from there are lost or limited: it goes on all the same

    def _reach(self, distance: int, tries: int, patience: float) -> bool:
        """Send to a distance until a hop or the end answers; return whether one did."""
        ends = len(self._facts.ends)

        def answered() -> bool:
            return distance in self._facts.hops or len(self._facts.ends) > ends

        for _ in range(tries):
            self._send([distance])
            if self._engine.settle(answered, self._patience(patience)):
                return True
        return False

    def _again(self, missing: list[int]) -> None:
        """Repeat what is missing; one at a time where answers came whose marks were lost."""
        facts = self._facts
        if not facts.strays:
            self._send(missing)
            self._engine.settle(lambda: not self._missing(self._distance()), self._patience(self._floor))
            return
        for ttl in missing:
            heard = len(facts.strays)
            self._send([ttl])
            done: Callable[[], bool] = lambda ttl=ttl, heard=heard: ttl in facts.hops or len(facts.strays) > heard  # type: ignore[misc]  # noqa: E731
            self._engine.settle(done, self._patience(self._floor))
            if len(facts.strays) > heard and ttl not in facts.hops:
                facts.add(facts.strays.pop()._replace(ttl=ttl))
