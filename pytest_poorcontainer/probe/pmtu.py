"""How large a packet may be on the whole way, and who silently drops what is larger.

Probes with "don't fragment" grow by their payload: a SYN may carry data (RFC 9293 3.10.7.2), and is answered whatever
it carries. Routers say how much they can forward (RFC 1191, RFC 8201); where one says nothing the size is searched for,
and the TTL tells behind which hop the large ones vanish.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.probe.engine import floor
from pytest_poorcontainer.probe.flow import Echo, Tcp
from pytest_poorcontainer.probe.way_out import first_mtu

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_poorcontainer.probe.blackbox import BlackBox
    from pytest_poorcontainer.probe.engine import Track

__all__ = ["PathMtu", "measure"]

_LARGEST, _DEFAULT = 65535, 1500
_LEAST = {4: 68, 6: 1280}  # RFC 791 3.2, RFC 8200 5
_LIKELY = (9000, 1500, 1492, 1480, 1460, 1450, 1420, 1400, 1380, 1300, 1280, 1006, 576)
_SILENCE = 0.012  # seconds, at least
_TRIES = 2
_STEPS = 40


class PathMtu(NamedTuple):
    """``bytes`` of the largest packet that arrives; ``interface`` those of the first cable.

    ``hop`` is the TTL behind which it gets narrow (0: nowhere), ``address`` that router's; ``black_hole`` says that
    nobody told, and larger packets vanish there.
    """

    bytes: int
    interface: int
    hop: int
    address: str
    name: str
    black_hole: bool

    def json(self) -> dict[str, Any]:
        """Return it as a plain dict."""
        return self._asdict()

    def __str__(self) -> str:
        """Return it in words."""
        if not self.hop and not self.address:
            return f"path MTU {self.bytes}, as the first cable's"
        where = f"hop {self.hop} ({self.name or self.address or '?'})" if self.hop else self.name or self.address
        if self.black_hole:
            return f"path MTU {self.bytes}, a black hole: larger packets vanish behind {where}, and nobody says so"
        return f"path MTU {self.bytes}, limited at {where}"


class _Measuring:
    """One search: packets of growing and shrinking sizes on a flow of their own."""

    def __init__(self, box: BlackBox) -> None:
        self._box = box
        self._engine = box.engine
        self._version = box.version
        self.track = self._answering()

    def _answering(self) -> Track:
        """Return a flow that the target answers."""
        box = self._box
        if box.track.facts.ends and isinstance(box.track.flow, Tcp):
            return box.fresh_here()
        return self._engine.track(Echo(box.track.flow.source, box.track.flow.target))

    def passes(self, size: int) -> bool | int:
        """Return whether a packet of this size arrives; a number if a router says how much it can forward."""
        facts = self.track.facts
        for _ in range(_TRIES):
            # Each probe is a client of its own: a server answers a repeated SYN but twice a second.
            self.track = self._answering()
            facts = self.track.facts
            self.track.length = size
            try:
                self._engine.send(self.track)
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
                return False
            wait = max(_SILENCE, floor(), 3 * self._engine.largest)
            self._engine.settle(lambda facts=facts: bool(facts.ends or facts.too_big), wait)  # type: ignore[misc]
            if facts.ends:
                return True
            if facts.too_big:
                return facts.too_big[-1].mtu or True
        return False

    def last_hop(self, size: int, distance: int) -> tuple[int, str]:
        """Return TTL and address of the last hop that a packet of this size reaches."""
        track = self._answering()
        track.length = size
        for ttl in range(1, distance):
            self._engine.send(track, ttl)
        wait = max(_SILENCE, floor(), 3 * self._engine.largest)
        self._engine.settle(lambda: len(track.facts.hops) >= distance - 1, wait)
        last = track.facts.furthest
        return last, track.facts.hops[last][0].address if last else ""


def measure(box: BlackBox, name: Callable[[str], str]) -> PathMtu:
    """Return the path MTU of a black box that has made its trace.

    Raises :class:`UsageError` where neither the port nor an echo request is answered.
    """
    first = min(first_mtu(box.ground.open, box.track.flow.target) or _DEFAULT, _LARGEST)
    one = _Measuring(box)
    least = _LEAST[box.version]
    small = max(least, 100)
    if one.passes(small) is not True:
        raise UsageError(f"cannot measure the path MTU to {box.target}: it answers neither this port nor echo requests")
    size, told = first, ""
    for _ in range(_STEPS):
        answer = one.passes(size)
        if answer is True:
            hop = _ttl_of(box, told)
            return PathMtu(size, first, hop, told, name(told) if told else "", black_hole=False)
        if answer is False or not least <= answer < size:
            break
        told = one.track.facts.too_big[-1].address
        size = answer
    return _search(box, one, small, size, first, name)


def _search(box: BlackBox, one: _Measuring, good: int, bad: int, first: int, name: Callable[[str], str]) -> PathMtu:
    """Find the largest size that arrives between one that does and one that vanishes."""
    tried = [size for size in _LIKELY if good < size < bad]
    for _ in range(_STEPS):
        if bad - good <= 1:
            break
        size = tried.pop(0) if tried else (good + bad) // 2
        if not good < size < bad:
            continue
        if one.passes(size) is True:
            good = size
            if bad - good > 1 and one.passes(good + 1) is not True:
                bad = good + 1
        else:
            bad = size
    distance = max(box.track.facts.furthest + 1, box.track.facts.ended_at() or 0)
    hop, address = one.last_hop(good + 1, distance)
    return PathMtu(good, first, hop, address, name(address) if address else "", black_hole=True)


def _ttl_of(box: BlackBox, address: str) -> int:
    return next((ttl for ttl, seen in sorted(box.track.facts.hops.items()) if seen[0].address == address), 0)
