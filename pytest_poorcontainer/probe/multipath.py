"""All the ways that routers balance load over: many flows, all TTLs of each in one go, links by flow.

Only what one flow has shown becomes a link, so none is invented. How many flows a hop needs until it is unlikely to
have one more way behind it than was found is the stop rule of the Multipath Detection Algorithm (Augustin, Friedman and
Teixeira, "Measuring load-balanced paths in the internet", IMC 2007, table 1).
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_poorcontainer.probe.engine import floor
from pytest_poorcontainer.probe.flow import Tcp
from pytest_poorcontainer.probe.packet import RST, SYN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_poorcontainer.probe.blackbox import BlackBox
    from pytest_poorcontainer.probe.engine import Track
    from pytest_poorcontainer.probe.facts import Facts

__all__ = ["CONFIDENCES", "Graph", "discover"]

# How many flows through a hop rule out, with this probability, that it has one more next hop than were found.
CONFIDENCES: dict[float, tuple[int, ...]] = {
    0.95: (6, 11, 16, 21, 27, 33, 38, 44, 51, 57, 63, 70, 76, 83, 90, 96),
    0.99: (8, 15, 21, 28, 36, 43, 51, 58, 66, 74, 82, 90, 98, 106, 115, 123),
}
_BATCH = 16
_MAX_FLOWS = 128
_ROUNDS = 3
_BEYOND = 2  # TTLs behind the distance of the first flow: other ways may be longer
_SILENCE = 0.02  # seconds


class Graph(NamedTuple):
    """The ways from ``source`` to ``target``: addresses as text, each of ``paths`` that of some flow, None for silence.

    ``links`` are pairs of addresses that follow each other on the way of one flow. ``sure`` is whether the stop rule of
    ``confidence`` was fulfilled everywhere; ``notes`` say where not, and who limits its answers.
    """

    source: str
    target: str
    links: tuple[tuple[str, str], ...]
    paths: tuple[tuple[str | None, ...], ...]
    flows: int
    confidence: float
    sure: bool
    notes: tuple[str, ...]
    names: dict[str, str]

    def name(self, address: str) -> str:
        """Return what an address is called."""
        return self.names.get(address) or address

    def named(self) -> list[tuple[str, str]]:
        """Return the links with names where there are some; two addresses of one router become one."""
        return list(dict.fromkeys((self.name(a), self.name(b)) for a, b in self.links))

    def json(self) -> dict[str, Any]:
        """Return it as plain dicts and lists."""
        return {
            "links": [list(link) for link in self.links],
            "paths": [list(path) for path in self.paths],
            "flows": self.flows,
            "confidence": self.confidence,
            "sure": self.sure,
            "notes": list(self.notes),
        }

    def dot(self) -> str:
        """Return it in Graphviz' language."""
        lines = [f'  "{a}" -> "{b}";' for a, b in self.named()]
        return "\n".join(["digraph ways {", "  rankdir=LR;", *lines, "}"]) + "\n"

    def __str__(self) -> str:
        """Return each way in a line, and what is not sure."""
        lines = [f"{len(self.paths)} ways, {len(self.links)} links, by {self.flows} flows"]
        lines += ["  " + " - ".join("*" if one is None else self.name(one) for one in path) for path in self.paths]
        certainty = f"no further link, with {self.confidence:.0%} confidence" if self.sure else "there may be more"
        return "\n".join([*lines, f"  {certainty}", *(f"  {note}" for note in self.notes)])


def discover(box: BlackBox, confidence: float, name: Callable[[str], str]) -> Graph:
    """Find all ways of a black box that has made its trace; ``name`` names addresses."""
    distance = max(box.track.facts.furthest, 1) + 1
    last = min(distance + _BEYOND, box.ask.limits.last)
    tracks: list[Track] = []
    while len(tracks) < _MAX_FLOWS:
        new = box.more_flows(_BATCH)
        _spread(box, new)
        _probe(box, new, last)
        tracks += new
        if not new or not _unsure(tracks, box, CONFIDENCES[confidence]):
            break
    return _graph(box, tracks, confidence, name)


def _spread(box: BlackBox, tracks: Iterable[Track]) -> None:
    """Let resets name their probe, where the port is closed and no connection is half open."""
    end = box.track.facts.end
    if end is not None and end.kind == "tcp" and end.flags & RST:
        for track in tracks:
            if isinstance(track.flow, Tcp) and track.flow.flags & SYN:
                track.flow.spread = True


def _probe(box: BlackBox, tracks: list[Track], last: int) -> None:
    """Send each flow with all TTLs, and what is missing once more."""
    engine = box.engine
    for _ in range(_ROUNDS):
        missing = [(track, ttl) for track in tracks for ttl in _missing(track.facts, last)]
        if not missing:
            return
        for number, (track, ttl) in enumerate(missing):
            engine.send(track, ttl)
            if number % _BATCH == 0:
                engine.pump(0)  # or the sockets' buffers overflow
        engine.settle(
            lambda: not any(_missing(track.facts, last) for track in tracks), max(_SILENCE, floor(), 3 * engine.largest)
        )


def _missing(facts: Facts, last: int) -> list[int]:
    end = facts.ended_at()
    return [ttl for ttl in range(1, last + 1) if ttl not in facts.hops and (end is None or ttl < end)]


def _way(track: Track, box: BlackBox) -> list[str | None]:
    """Return the addresses of a flow's hops, and the target's if it got there."""
    facts = track.facts
    end = facts.ended_at()
    upto = facts.furthest if end is None else end - 1
    way: list[str | None] = [facts.hops[ttl][0].address if ttl in facts.hops else None for ttl in range(1, upto + 1)]
    return way if end is None else [*way, box.target]


def _successors(tracks: Iterable[Track], box: BlackBox) -> dict[str, tuple[set[str], int]]:
    """Return for each address who follows it, and how many flows went through it and showed that."""
    found: dict[str, tuple[set[str], int]] = {}
    for track in tracks:
        way = ["source", *_way(track, box)]
        for a, b in itertools.pairwise(way):
            if a is not None and b is not None:
                after, count = found.get(a, (set(), 0))
                after.add(b)
                found[a] = (after, count + 1)
    return found


def _unsure(tracks: list[Track], box: BlackBox, needed: tuple[int, ...]) -> list[str]:
    """Return the addresses through which too few flows went for what was found behind them."""
    return [
        address
        for address, (after, count) in _successors(tracks, box).items()
        if count < needed[min(len(after), len(needed)) - 1]
    ]


def _graph(box: BlackBox, tracks: list[Track], confidence: float, name: Callable[[str], str]) -> Graph:
    ways = [tuple(_way(track, box)) for track in tracks]
    links = sorted(
        {(a, b) for address, (after, _) in _successors(tracks, box).items() for a, b in _pairs(address, after)}
    )
    unsure = [one for one in _unsure(tracks, box, CONFIDENCES[confidence]) if one != "source"]
    notes = [f"too few flows went through {name(one) or one}" for one in unsure]
    notes += _limited(tracks, name)
    paths = _whole(ways)
    addresses = {one for path in paths for one in path if one is not None}
    source = box.source
    return Graph(
        source,
        box.target,
        tuple(links),
        tuple(paths),
        len(tracks),
        confidence,
        not notes,
        tuple(notes),
        {one: name(one) for one in addresses},
    )


def _pairs(address: str, after: Iterable[str]) -> list[tuple[str, str]]:
    return [] if address == "source" else [(address, other) for other in after]


def _whole(ways: Iterable[tuple[str | None, ...]]) -> list[tuple[str | None, ...]]:
    """Return the different ways, without those that are another one with holes."""
    different = sorted(set(ways), key=lambda way: (way.count(None), len(way)))
    kept: list[tuple[str | None, ...]] = []
    for way in different:
        if not any(_covers(other, way) for other in kept):
            kept.append(way)
    return sorted(kept, key=lambda way: (len(way), [one or "" for one in way]))


def _covers(whole: tuple[str | None, ...], holed: tuple[str | None, ...]) -> bool:
    return len(whole) >= len(holed) and all(b in (None, a) for a, b in zip(whole, holed, strict=False))


def _limited(tracks: list[Track], name: Callable[[str], str]) -> list[str]:
    """Return a note for each TTL at which routers answered some flows only."""
    notes = []
    last = max((track.facts.furthest for track in tracks), default=0)
    for ttl in range(1, last + 1):
        through = [track for track in tracks if ttl < (track.facts.ended_at() or last + 1)]
        heard = [track for track in through if ttl in track.facts.hops]
        if heard and len(heard) < len(through):
            who = ", ".join(
                sorted({name(track.facts.hops[ttl][0].address) or track.facts.hops[ttl][0].address for track in heard})
            )
            notes.append(f"hop {ttl} ({who}) answered {len(heard)} of {len(through)} flows: it limits its answers")
    return notes
