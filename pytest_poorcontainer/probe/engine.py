"""Sends probes of several flows over one wire, and sorts what comes back to the flow and probe that it belongs to."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from pytest_poorcontainer.probe.facts import Facts, Seen
from pytest_poorcontainer.probe.flow import FULL_TTL
from pytest_poorcontainer.probe.wire import text

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_poorcontainer.probe.flow import Flow, Match
    from pytest_poorcontainer.probe.parse import Reply
    from pytest_poorcontainer.probe.wire import Wire

__all__ = ["QUIET", "Engine", "Track", "floor", "is_loaded"]

QUIET = 0.007
"""Seconds to wait for an answer at least: those of neighbours take 0.1 ms."""
_LOADED = 0.04  # seconds; other programs' turns were seen to take so long
_STEP = 0.02  # seconds; how long one wait on the sockets is at most


def is_loaded() -> bool:
    """Whether clearly more processes want to run on this machine than can."""
    return os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1)


def floor() -> float:
    """Return after how many seconds mere silence may count, longer on a loaded machine."""
    return _LOADED if is_loaded() else QUIET


class Track:
    """A flow, its probes so far (TTL and time of each, by index), and what was seen of it."""

    def __init__(self, flow: Flow) -> None:
        """Begin with nothing sent."""
        self.flow = flow
        self.facts = Facts()
        self.probes: list[tuple[int, float]] = []
        self.last_sent = 0.0
        self.last_heard = 0.0
        self.length = 0  # of whole packets, at least


class Engine:
    """Owns the flows of a trace. ``scope`` is the interface index that a link-local target needs."""

    def __init__(self, wire: Wire | None, scope: int = 0) -> None:
        """Begin without a flow. An engine without a wire is a subclass that sends in a way of its own."""
        self._wire = wire
        self.tracks: list[Track] = []
        self._scope = scope
        self.largest = 0.0  # of all round trips so far, seconds
        self.refused: OSError | None = None

    def track(self, flow: Flow) -> Track:
        """Take a flow in."""
        track = Track(flow)
        self.tracks.append(track)
        return track

    def send(self, track: Track, ttl: int = FULL_TTL, payload: int = 0) -> None:
        """Send the flow's next probe. What a local firewall refuses (EPERM) is remembered in ``refused``."""
        index = len(track.probes)
        track.facts.sent[ttl] = track.facts.sent.get(ttl, 0) + 1
        track.last_sent = time.time()
        data = track.flow.packet(index, ttl, payload)
        if len(data) < track.length:
            data = track.flow.packet(index, ttl, track.length - len(data))
        track.probes.append((ttl, track.last_sent))
        assert self._wire is not None  # noqa: S101 - see above
        try:
            at = self._wire.send(data, track.flow.target, self._scope)
            track.probes[index] = (ttl, at)
        except PermissionError as error:
            self.refused = error

    def pump(self, seconds: float) -> bool:
        """Wait at most so long for answers and take them in; return whether one of ours came."""
        heard = False
        assert self._wire is not None  # noqa: S101 - see __init__
        for reply in self._wire.receive(seconds):
            for track in self.tracks:
                found = track.flow.match(reply, len(track.probes))
                if found is not None:
                    heard = True
                    track.last_heard = time.time()
                    track.facts.add(self._seen(track, reply, found))
                    break
        return heard

    def _seen(self, track: Track, reply: Reply, found: Match) -> Seen:
        ttl, rtt = None, None
        if found.probe is not None:
            ttl, at = track.probes[found.probe]
            rtt = max(reply.at - at, 0.0)
        elif len(track.probes) == 1:
            rtt = max(reply.at - track.probes[0][1], 0.0)
        if rtt is not None:
            self.largest = max(self.largest, rtt)
        segment = reply.segment
        return Seen(
            ttl,
            text(reply.source),
            reply.kind,
            rtt,
            reply.ttl,
            reply.code,
            segment.flags if segment else 0,
            reply.tos,
            reply.mtu,
            found.changes,
            reply.labels,
            (segment.mss or 0) if segment else 0,
        )

    @property
    def exchange(self) -> list[tuple[float, bytes]]:
        """The packets that were sent and received, with their times; empty where they cannot be seen."""
        return [] if self._wire is None else self._wire.log

    def hear(self, ports: tuple[int, int]) -> None:
        """Take in answers to these local ports as well."""
        if self._wire is not None:
            self._wire.hear(ports)

    def close(self) -> None:
        """Close the sockets. Idempotent."""
        if self._wire is not None:
            self._wire.close()

    def settle(self, done: Callable[[], bool], patience: float) -> bool:
        """Take answers in until ``done``, or until for ``patience`` seconds nothing came and nothing was sent.

        A wait that took much longer than asked for means that we did not get the processor: then the others did not
        either, and the wait starts anew (bounded).
        """
        late = 0
        began = time.monotonic()
        while not done():
            left = began + patience - time.monotonic()
            if left <= 0:
                # Once more without waiting: what came while we were not running is there now.
                self.pump(0)
                return done()
            asked = min(left, _STEP)
            before = time.monotonic()
            if self.pump(asked):
                began = time.monotonic()
            elif time.monotonic() - before > asked + 0.01 and late < 3:  # noqa: PLR2004 - bounded
                late += 1
                began = time.monotonic()
        return True
