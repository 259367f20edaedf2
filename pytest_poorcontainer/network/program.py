"""Which frames a fault concerns, as classic BPF programs that the kernel runs at a plug (linux/filter.h).

Classic, because loading eBPF needs a privilege that rootless labs have not. A program sees the frame from its Ethernet
header on; a VLAN tag is not in the way, as the kernel keeps it beside the frame.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["DROP", "EVERYTHING", "PASS_ON", "PROGRAM_MAX", "TCP", "UDP", "Match", "compiled"]

PROGRAM_MAX = 4096  # BPF_MAXINSNS
TCP, UDP = 6, 17
# TC_ACT_STOLEN and TC_ACT_UNSPEC of linux/pkt_cls.h. Not TC_ACT_SHOT: who sends would be told (ENOBUFS).
DROP, _PASS = 4, 0xFFFFFFFF
PASS_ON = 0  # TC_ACT_OK: no other filter sees it

_LD_W, _LD_H, _LD_B, _LD_LEN, _LDX_MSH = 0x20, 0x28, 0x30, 0x80, 0xB1
_LD_H_IND = 0x48
_JEQ, _JGT, _JSET, _JGE, _JA, _RET = 0x15, 0x25, 0x45, 0x35, 0x05, 0x06
_TYPE, _IP, _IP6 = 12, 0x0800, 0x86DD
_ICMP6 = 58
_NEAR = 255  # instructions over which a conditional jump reaches
_ND_FIRST, _ND_LAST = 133, 137  # RFC 4861: router and neighbour discovery

Instruction = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class Match:
    """IP packets to drop: all that is given has to fit. Addresses are packed, ports TCP's or UDP's (``protocol``).

    ``to_group`` is for packets to many (multicast, broadcast), ``longer`` for those of more bytes than that. ARP and
    neighbour discovery never fit: hosts keep knowing each other's hardware addresses, as behind a firewall.
    """

    senders: frozenset[bytes] | None = None
    receivers: frozenset[bytes] | None = None
    protocol: int | None = None
    to_group: bool = False
    to_port: int | None = None
    from_port: int | None = None
    longer: int | None = None


EVERYTHING = None
"""In place of a :class:`Match`: every frame, also ARP."""


class _Assembler:
    """Instructions with labels. Conditional jumps reach 255 instructions far; beyond, each has an unconditional one.

    The kernel compiles what it is given a dozen times over, so the short form is worth its own pass.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[int, int, str, bool]] = []
        """Operation, value, label to jump to ("": none; the operation does not jump), and if the test fits or not."""
        self._labels: dict[str, int] = {}
        self._fresh = 0

    def label(self) -> str:
        self._fresh += 1
        return f"{self._fresh}"

    def put(self, operation: int, value: int = 0) -> None:
        self._steps.append((operation, value, "", False))

    def here(self, label: str) -> None:
        self._labels[label] = len(self._steps)

    def go(self, label: str) -> None:
        self._steps.append((_JA, 0, label, False))

    def unless(self, operation: int, value: int, label: str) -> None:
        """Go on if the accumulator fits, else to the label."""
        self._steps.append((operation, value, label, False))

    def when(self, operation: int, value: int, label: str) -> None:
        """Go to the label if the accumulator fits, else on."""
        self._steps.append((operation, value, label, True))

    def finished(self) -> list[Instruction]:
        return self._written(far=False) or self._written(far=True)

    def _written(self, *, far: bool) -> list[Instruction]:
        """Return the instructions; none if a jump is too long for a conditional one."""
        sizes = [2 if far and label and operation != _JA else 1 for operation, _, label, _ in self._steps]
        starts = list(itertools.accumulate(sizes, initial=0))
        code: list[Instruction] = []
        for place, (operation, value, label, fits) in enumerate(self._steps):
            away = starts[self._labels[label]] - starts[place + 1] if label else 0
            if not label:
                code.append((operation, 0, 0, value))
            elif operation == _JA:
                code.append((_JA, 0, 0, away))
            elif far:
                code += [(operation, 0, 1, value) if fits else (operation, 1, 0, value), (_JA, 0, 0, away)]
            elif away > _NEAR:
                return []
            else:
                code.append((operation, away, 0, value) if fits else (operation, 0, away, value))
        return code


def compiled(matches: Iterable[Match | None], then: int = DROP) -> tuple[Instruction, ...] | None:
    """Return the program that drops what fits any of these, or does something else; None when it is to do nothing.

    Raises :class:`UsageError` for more than the kernel takes in one program.
    """
    wanted = tuple(dict.fromkeys(matches))
    return _compiled(wanted, then) if wanted else None


@functools.lru_cache(maxsize=64)  # in a partition many hosts have the same strangers
def _compiled(wanted: tuple[Match | None, ...], then: int) -> tuple[Instruction, ...]:
    if EVERYTHING in wanted:
        return ((_RET, 0, 0, then),)
    asm = _Assembler()
    for match in wanted:
        if match is not None:
            _put(asm, match, then)
    asm.put(_RET, _PASS)
    code = tuple(asm.finished())
    if len(code) > PROGRAM_MAX:
        raise UsageError(
            f"the faults at one cable need a program of {len(code)} instructions, the kernel takes {PROGRAM_MAX}: "
            "name fewer hosts in them, or cut whole cables"
        )
    return code


def _put(asm: _Assembler, match: Match, then: int) -> None:
    end, six = asm.label(), asm.label()
    asm.put(_LD_H, _TYPE)
    asm.unless(_JEQ, _IP, six)
    _put_family(asm, match, 4, end)
    asm.put(_RET, then)
    asm.here(six)
    asm.unless(_JEQ, _IP6, end)
    _put_family(asm, match, 6, end)
    asm.put(_RET, then)
    asm.here(end)


def _put_family(asm: _Assembler, match: Match, version: int, end: str) -> None:
    """Go on if the packet fits, else to ``end``."""
    if version == 6:  # noqa: PLR2004
        _put_not_discovery(asm, end)
    if match.longer is not None:
        # The length of what lies in memory; an Ethernet header is in front of it.
        asm.put(_LD_LEN)
        asm.unless(_JGT, match.longer + 14, end)
    if match.to_group:
        asm.put(_LD_B, 0)
        asm.unless(_JSET, 1, end)
    places = ((match.senders, 26, 22), (match.receivers, 30, 38))
    for addresses, four, sixth in places:
        if addresses is not None:
            size, place = (4, four) if version == 4 else (16, sixth)  # noqa: PLR2004
            _put_any(asm, sorted(one for one in addresses if len(one) == size), place, end)
    if match.protocol is not None:
        _put_protocol(asm, match, version, end)


def _put_not_discovery(asm: _Assembler, end: str) -> None:
    on = asm.label()
    asm.put(_LD_B, 20)
    asm.unless(_JEQ, _ICMP6, on)
    asm.put(_LD_B, 54)
    asm.unless(_JGE, _ND_FIRST, on)
    asm.unless(_JGT, _ND_LAST, end)
    asm.here(on)


def _put_any(asm: _Assembler, addresses: Sequence[bytes], place: int, end: str) -> None:
    """Go on if one of the addresses stands at ``place``.

    Neighbours are one comparison with each end of their run: halves of a switch are two, and what a fault at many
    cables costs is the kernel's compiling, by the instruction.
    """
    found = asm.label()
    groups: dict[bytes, list[int]] = {}
    for one in addresses:
        groups.setdefault(one[:-4], []).append(int.from_bytes(one[-4:], "big"))
    for prefix, lasts in groups.items():
        following = asm.label()
        for offset in range(0, len(prefix), 4):
            asm.put(_LD_W, place + offset)
            asm.unless(_JEQ, int.from_bytes(prefix[offset : offset + 4], "big"), following)
        asm.put(_LD_W, place + len(prefix))
        for first, last in _runs(lasts):
            if first == last:
                asm.when(_JEQ, first, found)
            else:
                asm.unless(_JGE, first, following)  # those to come are greater still
                asm.unless(_JGT, last, found)
        asm.here(following)
    asm.go(end)
    asm.here(found)


def _runs(ordered: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last of each run of numbers that follow each other."""
    for _, run in itertools.groupby(enumerate(ordered), lambda pair: pair[1] - pair[0]):
        numbers = [number for _, number in run]
        yield numbers[0], numbers[-1]


def _put_protocol(asm: _Assembler, match: Match, version: int, end: str) -> None:
    """Go on for a packet of the protocol, of these ports. Later fragments have no ports, and fit none."""
    asm.put(_LD_B, 23 if version == 4 else 20)  # noqa: PLR2004
    asm.unless(_JEQ, match.protocol or 0, end)
    if match.to_port is None and match.from_port is None:
        return
    if version == 4:  # noqa: PLR2004
        asm.put(_LD_H, 20)
        asm.when(_JSET, 0x1FFF, end)
        asm.put(_LDX_MSH, 14)
    for port, offset in ((match.from_port, 0), (match.to_port, 2)):
        if port is not None:
            if version == 4:  # noqa: PLR2004
                asm.put(_LD_H_IND, 14 + offset)
            else:
                asm.put(_LD_H, 54 + offset)
            asm.unless(_JEQ, port, end)
