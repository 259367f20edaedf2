"""Conversations as a ladder diagram: two lines for the two ends, and an arrow for each packet."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pytest_poorcontainer.lab.events import Event
    from pytest_poorcontainer.traffic.conversations import Conversation, Step

__all__ = ["Names", "Rung", "ends", "headline", "ladder", "latest", "rungs"]

WIDTH = 40
_NS = 1e9
_FIRST, _LAST = 4, 10
_MOST_BYTES_SHOWN = 10_000


class Names(NamedTuple):
    """Whose addresses these are, and what the interfaces are called at which packets were seen.

    ``senders`` says whose interface it is, where packets are seen at who sends them.
    """

    addresses: Mapping[str, str]
    interfaces: Mapping[int, str]
    senders: Mapping[int, str] = MappingProxyType({})

    def end(self, end: tuple[str, int], interface: int | None = None) -> str:
        """Return an end of a conversation: the host's name, or the address, and the port if it has one.

        An address that is nobody's (a link-local one) is that of the host at whose ``interface`` its packets were seen.
        """
        name = self.addresses.get(end[0]) or self.senders.get(interface or 0, end[0])
        if not end[1]:
            return name
        return f"[{name}]:{end[1]}" if ":" in name else f"{name}:{end[1]}"

    def blamed(self, odd: str) -> str:
        """Return a word on what is odd, with the name of whom it is about."""
        head, _, address = odd.rpartition(" ")
        return f"{head} {self.addresses[address]}" if address in self.addresses else odd


class Rung(NamedTuple):
    """A line of a ladder. ``forward`` is None for what is no packet: an event, or packets that are left out.

    ``time`` is seconds since the zero that was asked for.
    """

    time: float
    forward: bool | None
    text: str
    odd: str = ""


def latest(found: Iterable[Conversation], most: int) -> list[Conversation]:
    """Return the conversations worth showing: those of the programs, the odd ones before the others, then the latest.

    What kernels say on their own counts only when it is odd. The result is in the order of their first packets.
    """
    shown = [each for each in found if not each.chatter and (each.protocol != "arp" or each.oddities)]
    shown.sort(key=lambda each: (bool(each.oddities), each.ended), reverse=True)
    return sorted(shown[:most], key=lambda each: each.started)


def ends(conversation: Conversation, names: Names) -> tuple[str, str]:
    """Return what the two ends of a conversation are called."""
    seen = [next((step.interface for step in conversation.steps if step.forward is way), None) for way in (True, False)]
    return names.end(conversation.first, seen[0]), names.end(conversation.second, seen[1])


def headline(conversation: Conversation, names: Names) -> str:
    """Return who speaks with whom, how much, and what is odd, in a line."""
    steps = conversation.steps
    count = "1 packet" if len(steps) == 1 else f"{len(steps)} packets"
    text = f"{conversation.protocol} {' -- '.join(ends(conversation, names))}, {count}"
    odd = names.blamed(conversation.odd) or ", ".join(map(names.blamed, conversation.oddities[:3]))
    return f"{text}: {odd}" if odd else text


def ladder(
    conversation: Conversation, names: Names, zero: int, events: Sequence[Event] = (), clean: Callable[[str], str] = str
) -> list[str]:
    """Return the diagram of a conversation as lines; times are seconds since ``zero`` (ns since 1970)."""
    left, right = map(clean, ends(conversation, names))
    lines = [clean(headline(conversation, names)), f"{'s':>12}  {left:<{WIDTH - len(right) + 2}}{right}"]
    for rung in rungs(conversation, names, zero, events):
        odd = f"  {rung.odd}" if rung.odd else ""
        lines.append(clean(f"{rung.time:12.6f}  {_arrow(rung.text, forward=rung.forward)}{odd}"))
    return lines


def _arrow(text: str, *, forward: bool | None) -> str:
    inner = WIDTH
    if forward is None:
        return f"|{f' {text} '.center(inner, '.')}|"
    body = f" {text} "
    dashes = "-" * max(inner - 3 - len(body), 0)
    return f"|--{body}{dashes}>|" if forward else f"|<{dashes}{body}--|"


def rungs(conversation: Conversation, names: Names, zero: int, events: Sequence[Event] = ()) -> list[Rung]:
    """Return the lines of a ladder: packets, events of the same time, and a line for each run that is left out."""
    found: list[tuple[int, Rung]] = []
    skipped: list[Step] = []
    count = len(conversation.steps)
    for number, step in enumerate(conversation.steps):
        if step.plain and not step.odd and _FIRST <= number < count - _LAST:
            skipped.append(step)
            continue
        found += _left_out(skipped, zero)
        skipped = []
        via = " via " + ", ".join(names.interfaces.get(hop, str(hop)) for hop in step.hops) if step.hops else ""
        odd = names.blamed(step.odd)
        found.append((step.time, Rung((step.time - zero) / _NS, step.forward, step.what + via, odd)))
    found += _left_out(skipped, zero)
    # What was done just before the first packet may be why there are no more.
    began, ended = conversation.started - int(_NS), conversation.ended
    found += [
        (event.time, Rung((event.time - zero) / _NS, None, event.what))
        for event in events
        if began <= event.time <= ended
    ]
    return [rung for _, rung in sorted(found, key=lambda pair: pair[0])]


def _left_out(steps: Sequence[Step], zero: int) -> list[tuple[int, Rung]]:
    if not steps:
        return []
    there = sum(step.packet.payload for step in steps if step.forward)
    back = sum(step.packet.payload for step in steps if not step.forward)
    text = f"{len(steps)} more: {_bytes(there)} there, {_bytes(back)} back"
    return [(steps[0].time, Rung((steps[0].time - zero) / _NS, None, text))]


def _bytes(count: int) -> str:
    if count == 1:
        return "1 byte"
    return f"{count} bytes" if count < _MOST_BYTES_SHOWN else f"{count // 1000} kB"
