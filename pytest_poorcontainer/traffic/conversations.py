"""Frames as conversations: who spoke with whom, step by step, and what is odd about it.

What is odd is said in a word: a repetition that was needed, a reset, a silence, an error by ICMP. A repetition that the
other side calls needless (D-SACK, RFC 2883) is none: a veth shows many.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from pytest_poorcontainer.traffic.headers import Packet, parsed
from pytest_poorcontainer.traffic.icmp import error_text, kind_text
from pytest_poorcontainer.traffic.tcp import Side

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_poorcontainer.traffic.frames import Frame

__all__ = ["Conversation", "Step", "conversations"]

_ECHO: Final = {("icmp", 8): 0, ("icmp6", 128): 129}
_CHATTER: Final = frozenset({130, 131, 132, 133, 134, 143})  # multicast listeners, routers asked for
_REDIRECT_NS, _REDIRECT_NA = 135, 136
_MOST_HOPS = 32
_CANARY = b"poor-container canary"  # what datagrams say by which faults are proved: nobody's business


@dataclass(slots=True)
class Step:
    """One packet of a conversation: its time (ns since 1970), which way, what it says, the word on what is odd.

    ``hops`` are the indexes of the interfaces at which it was seen again on its way.
    """

    time: int
    forward: bool
    what: str
    packet: Packet
    interface: int
    odd: str = ""
    plain: bool = False
    hops: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Conversation:
    """Packets between two ends, each an address and a port (0: none); the first has spoken first.

    ``odd`` is a sentence about it as a whole, "" for nothing. ``chatter``: what kernels say on their own.
    """

    protocol: str
    first: tuple[str, int]
    second: tuple[str, int]
    steps: list[Step] = field(default_factory=list)
    odd: str = ""
    chatter: bool = False

    @property
    def started(self) -> int:
        """When its first packet was seen."""
        return self.steps[0].time

    @property
    def ended(self) -> int:
        """When its last one was."""
        return self.steps[-1].time

    @property
    def oddities(self) -> list[str]:
        """All that is odd about it, once each."""
        return list(dict.fromkeys(filter(None, (*(step.odd for step in self.steps), self.odd))))


def conversations(frames: Iterable[Frame], known_since: Mapping[str, int] | None = None) -> list[Conversation]:
    """Return the conversations of frames that are sorted by time, in the order of their first packets.

    ``known_since`` says from when on (ns since 1970) all that came from an address is among the frames. Of what
    is older nobody knows whether it was answered.
    """
    sorter = _Sorter()
    for frame in frames:
        sorter.add(frame)
    since = known_since or {}
    for conversation in sorter.all:
        if conversation.started >= since.get(conversation.second[0], 0):
            _judge(conversation)
    return sorter.all


class _Sorter:
    def __init__(self) -> None:
        self.all: list[Conversation] = []
        self._by_ends: dict[tuple[object, ...], Conversation] = {}
        self._origins: dict[tuple[object, ...], int] = {}
        self._sides: dict[tuple[int, bool], Side] = {}

    def add(self, frame: Frame) -> None:
        packet = parsed(frame.data, frame.length)
        if not packet.network:
            return
        if packet.quoted is not None and self._blame(frame, packet):
            return
        conversation = self._of(packet)
        forward = (packet.source, packet.source_port) == conversation.first
        if self._is_copy(conversation, forward, frame, packet):
            return
        step = Step(frame.time, forward, _what(packet), packet, frame.interface)
        if packet.protocol == "tcp" and not packet.fragment:
            self._follow(conversation, step)
        elif packet.protocol == "udp" and _CANARY in frame.data:
            conversation.chatter = True
        conversation.steps.append(step)

    def _of(self, packet: Packet) -> Conversation:
        first, second = (packet.source, packet.source_port), (packet.target, packet.target_port)
        topic: object = packet.mark[0] if (packet.protocol, packet.kind) in _PINGS else packet.asked
        ends = (packet.protocol or packet.network, topic, *sorted((first, second)))
        if packet.asked:
            ends = (packet.protocol, topic)
        found = self._by_ends.get(ends)
        begins = packet.flags == "SYN" and found is not None and _is_over(found)
        if found is None or begins:
            found = self._by_ends[ends] = Conversation(packet.protocol or packet.network, first, second)
            found.chatter = packet.protocol == "icmp6" and packet.kind in _CHATTER
            self.all.append(found)
        return found

    def _is_copy(self, conversation: Conversation, forward: bool, frame: Frame, packet: Packet) -> bool:
        """Return whether a router has passed on what was seen before; then its step gets a hop more."""
        origin = self._origins.setdefault((id(conversation), packet.source), frame.interface)
        if origin == frame.interface:
            return False
        for step in reversed(conversation.steps[-_MOST_HOPS:]):
            if step.forward == forward and _same(step.packet, packet):
                step.hops.append(frame.interface)
                return True
        return False

    def _blame(self, frame: Frame, packet: Packet) -> bool:
        """Add an ICMP error to the conversation that it is about, if that was seen."""
        about = packet.quoted
        assert about is not None  # noqa: S101 - the caller has looked
        ends = sorted(((about.source, about.source_port), (about.target, about.target_port)))
        found = self._by_ends.get((about.protocol, about.asked, *ends))
        if found is None:
            return False
        forward = (about.source, about.source_port) != found.first
        last = found.steps[-1]
        if last.packet.quoted is not None and last.packet.source == packet.source and last.what == error_text(packet):
            last.hops.append(frame.interface)
            return True
        found.steps.append(
            Step(frame.time, forward, error_text(packet), packet, frame.interface, odd=f"ICMP from {packet.source}")
        )
        return True

    def _follow(self, conversation: Conversation, step: Step) -> None:
        key = id(conversation)
        own = self._sides.setdefault((key, step.forward), Side())
        other = self._sides.setdefault((key, not step.forward), Side())
        step.odd, step.plain = own.sends(step, other)


_PINGS: Final = frozenset((protocol, kind) for (protocol, asks), answer in _ECHO.items() for kind in (asks, answer))


def _is_over(conversation: Conversation) -> bool:
    return any("FIN" in step.packet.flags or "RST" in step.packet.flags for step in conversation.steps)


def _same(one: Packet, other: Packet) -> bool:
    return (one.number, one.sequence, one.acknowledgment, one.flags, one.payload, one.mark, one.kind) == (
        other.number,
        other.sequence,
        other.acknowledgment,
        other.flags,
        other.payload,
        other.mark,
        other.kind,
    )


def _what(packet: Packet) -> str:
    """Return what a packet says, in a few words."""
    if packet.protocol == "tcp":
        flags = packet.flags.replace("PSH,", "").replace(",PSH", "")
        words = flags if flags != "ACK" or not packet.payload else ""
        return " ".join(filter(None, (words, _bytes(packet.payload) if packet.payload else ""))) or "nothing"
    if packet.protocol in ("icmp", "icmp6", "arp"):
        return error_text(packet) if packet.quoted is not None else kind_text(packet)
    return _bytes(packet.payload) + (", a fragment" if packet.fragment else "")


def _bytes(count: int) -> str:
    return "1 byte" if count == 1 else f"{count} bytes"


def _judge(conversation: Conversation) -> None:
    """Say what is odd about a conversation as a whole."""
    steps = conversation.steps
    if conversation.protocol == "tcp":
        if any(not step.forward for step in steps):
            return
        if steps[0].packet.flags == "SYN":
            conversation.odd = f"no answer to {_count(len(steps), 'SYN')}"
        elif any(step.packet.payload for step in steps):
            conversation.odd = "no answer"
        return
    if conversation.protocol == "arp":
        asked = {
            step.packet.target for step in steps if step.packet.kind == 1 and step.packet.source != step.packet.target
        }
        silent = asked - {step.packet.source for step in steps if step.packet.kind == 2}  # noqa: PLR2004 - a reply
        conversation.odd = f"no answer: nobody says that it has {', '.join(sorted(silent))}" if silent else ""
        return
    if conversation.protocol in ("icmp", "icmp6"):
        _judge_icmp(conversation)
        return
    if (
        conversation.protocol == "udp"
        and not conversation.chatter
        and all(step.forward for step in steps)
        and not _to_many(conversation.second[0])
    ):
        conversation.odd = "no answer"


def _judge_icmp(conversation: Conversation) -> None:
    asked = {step.packet.mark: step for step in conversation.steps if step.packet.kind in (8, 128)}
    for step in conversation.steps:
        if step.packet.kind in (0, 129):
            asked.pop(step.packet.mark, None)
        if step.packet.quoted is not None:
            step.odd = step.odd or f"ICMP from {step.packet.source}"
    for step in asked.values():
        step.odd = step.odd or "no answer"
    kinds = {step.packet.kind for step in conversation.steps}
    if _REDIRECT_NS in kinds:
        tentative = all(step.packet.source == "::" for step in conversation.steps)
        conversation.chatter = tentative or _REDIRECT_NA in kinds
        if not conversation.chatter:
            conversation.odd = f"no answer: nobody says that it has {conversation.steps[0].packet.asked}"


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"


@lru_cache(maxsize=4096)
def _to_many(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return found.is_multicast or address.endswith(".255")
