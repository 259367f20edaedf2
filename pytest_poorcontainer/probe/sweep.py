"""Many ports in one wave: states without paths, for tables of who may talk to whom, and for waiting."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pytest_poorcontainer.probe.engine import Engine
from pytest_poorcontainer.probe.flow import Tcp
from pytest_poorcontainer.probe.local import NO_ROUTE, Ports, source_of
from pytest_poorcontainer.probe.packet import SYN
from pytest_poorcontainer.probe.unprivileged import UserEngine
from pytest_poorcontainer.probe.verdict import judge
from pytest_poorcontainer.probe.wire import Wire, packed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_poorcontainer.probe.ask import Ground
    from pytest_poorcontainer.probe.engine import Track

__all__ = ["sweep", "until_open"]

_SILENCE = 0.06  # seconds
_ROUNDS = 3
_POLL = 0.005  # seconds between two attempts at a port that refuses


class _Sweep:
    """The flows from one address to targets of one family."""

    def __init__(self, ground: Ground, source: str) -> None:
        self._ports = Ports(ground.open, source)
        self.source = source
        version = 6 if ":" in source else 4
        try:
            try:
                self.engine = Engine(Wire(ground.open, version, self._ports.span))
            except PermissionError:
                self.engine = UserEngine(ground.open, source)
        except BaseException:
            self._ports.close()
            raise

    def flow(self, target: str, port: int) -> Track:
        return self.engine.track(Tcp(packed(self.source), packed(target), (self._ports.first, port), flags=SYN))

    def close(self) -> None:
        self.engine.close()
        self._ports.close()


def sweep(ground: Ground, targets: Sequence[tuple[str, int]]) -> list[str]:
    """Return the state of each ``(address, port)``, all probed at once; a forged reset counts as closed."""
    states = ["unreachable"] * len(targets)
    sources: dict[str, list[int]] = {}
    for place, (target, port) in enumerate(targets):
        source = _source(ground, target, port)
        if source is not None:
            sources.setdefault(source, []).append(place)
    for source, places in sources.items():
        one = _Sweep(ground, source)
        try:
            tracks = [one.flow(*targets[place]) for place in places]
            _ask_all(one.engine, tracks)
            for place, track in zip(places, tracks, strict=True):
                version = 6 if ":" in source else 4
                states[place] = judge(track.facts, version, SYN, targets[place][0]).state
        finally:
            one.close()
    return states


def _ask_all(engine: Engine, tracks: Sequence[Track]) -> None:
    def done() -> bool:
        return all(track.facts.ends for track in tracks)

    for _ in range(_ROUNDS):
        for track in tracks:
            if not track.facts.ends:
                engine.send(track)
        if engine.settle(done, max(_SILENCE, min(3 * engine.largest, 3.0))):
            return


def until_open(ground: Ground, target: str, port: int, timeout: float) -> bool:
    """Probe until the port is open; return whether it became so within ``timeout`` seconds."""
    until = time.monotonic() + timeout
    while (source := _source(ground, target, port)) is None:
        if time.monotonic() >= until:
            return False
        time.sleep(_POLL)
    return _until_open(_Sweep(ground, source), target, port, until)


def _source(ground: Ground, target: str, port: int) -> str | None:
    """Return the address from which the target is reached, None as long as there is no route."""
    try:
        return source_of(ground.open, target, port, 0)
    except OSError as error:
        if error.errno not in NO_ROUTE:
            raise
        return None


def _until_open(one: _Sweep, target: str, port: int, until: float) -> bool:
    version = 6 if ":" in target else 4
    try:
        while True:
            track = one.flow(target, port)
            one.engine.tracks[:] = [track]
            one.engine.send(track)
            left = until - time.monotonic()
            one.engine.settle(lambda track=track: bool(track.facts.ends), max(min(_SILENCE, left), _POLL))  # type: ignore[misc]
            if track.facts.ends and judge(track.facts, version, SYN, target).state == "open":
                return True
            if time.monotonic() >= until:
                return False
            if track.facts.ends:
                time.sleep(_POLL)
    finally:
        one.close()
