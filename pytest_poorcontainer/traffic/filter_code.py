"""Conditions on a frame, and the program that tests them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from pytest_poorcontainer.traffic import bpf
from pytest_poorcontainer.traffic.bpf import Instruction

__all__ = [
    "And",
    "Condition",
    "Not",
    "Or",
    "Test",
    "any_of",
    "assembled",
    "ether_type",
    "every",
    "field",
    "port_test",
    "transport",
]

ETHER_TYPE, NETWORK = 12, 14
IP4, IP6, ARP = 0x0800, 0x86DD, 0x0806
_WANTED = 0x40000  # bytes: all of a frame
_SIZES = {1: bpf.BYTE, 2: bpf.HALF, 4: bpf.WORD}
_FRAGMENT_OFFSET, _FRAGMENTS = 0x1FFF, NETWORK + 6
_IP4_PROTOCOL, _IP6_NEXT, _IP6_SIZE = NETWORK + 9, NETWORK + 6, 40


@dataclass(frozen=True)
class Test:
    """What is loaded, and how it is compared with ``k``."""

    loads: tuple[Instruction, ...]
    jump: int
    k: int


@dataclass(frozen=True)
class And:
    """Both."""

    left: Condition
    right: Condition


@dataclass(frozen=True)
class Or:
    """One of them, or both."""

    left: Condition
    right: Condition


@dataclass(frozen=True)
class Not:
    """Not that."""

    inner: Condition


Condition: TypeAlias = "Test | And | Or | Not"


def every(first: Condition, *more: Condition) -> Condition:
    """Return the condition that all hold, tested from left to right."""
    for each in more:
        first = And(first, each)
    return first


def any_of(first: Condition, *more: Condition) -> Condition:
    """Return the condition that one of them holds."""
    for each in more:
        first = Or(first, each)
    return first


def field(at: int, size: int, value: int, mask: int | None = None) -> Condition:
    """Return the condition that the bytes of the frame at a place are a number, once masked."""
    loads = [Instruction(bpf.LD | _SIZES[size] | bpf.ABS, k=at)]
    if mask is not None:
        loads.append(Instruction(bpf.ALU | bpf.AND, k=mask))
    return Test(tuple(loads), bpf.JEQ, value)


def ether_type(value: int) -> Condition:
    """Return the condition that the frame carries this protocol."""
    return field(ETHER_TYPE, 2, value)


def transport(*numbers: int, families: tuple[int, ...] = (IP4, IP6)) -> Condition:
    """Return the condition that the frame's packet carries one of these protocols (IANA's numbers)."""
    tests: list[Condition] = []
    for family in families:
        at = _IP4_PROTOCOL if family == IP4 else _IP6_NEXT
        tests.append(And(ether_type(family), any_of(*(field(at, 1, number) for number in numbers))))
    return any_of(*tests)


def at_transport(family: int, offset: int, size: int) -> tuple[Instruction, ...]:
    """Return what loads a field behind the header of an IPv4 or IPv6 packet."""
    if family == IP6:
        return (Instruction(bpf.LD | _SIZES[size] | bpf.ABS, k=NETWORK + _IP6_SIZE + offset),)
    return (
        Instruction(bpf.LDX | bpf.BYTE | bpf.MSH, k=NETWORK),
        Instruction(bpf.LD | _SIZES[size] | bpf.IND, k=NETWORK + offset),
    )


def unfragmented(family: int) -> list[Condition]:
    """Return the condition that the packet has the transport's header: it is no later fragment."""
    return (
        [Not(Test((Instruction(bpf.LD | bpf.HALF | bpf.ABS, k=_FRAGMENTS),), bpf.JSET, _FRAGMENT_OFFSET))]
        if (family == IP4)
        else []
    )


def port_test(numbers: tuple[int, ...], sides: tuple[int, ...], first: int, last: int) -> Condition:
    """Return the condition that a port is in a range; ``sides``: 0 for the source's, 2 for the target's."""
    tests: list[Condition] = []
    for family in (IP4, IP6):
        ports: list[Condition] = []
        for side in sides:
            loads = at_transport(family, side, 2)
            lowest = Test(loads, bpf.JGE, first)
            ports.append(Test(loads, bpf.JEQ, first) if first == last else And(lowest, Not(Test(loads, bpf.JGT, last))))
        tests.append(every(transport(*numbers, families=(family,)), *unfragmented(family), any_of(*ports)))
    return any_of(*tests)


def assembled(condition: Condition | None) -> tuple[Instruction, ...]:
    """Return the program that says yes to frames of which the condition holds; None holds of all."""
    code = _Code()
    yes, no = code.label(), code.label()
    if condition is not None:
        code.add(condition, yes, no)
    code.place(yes)
    code.instructions.append((Instruction(bpf.RET, k=_WANTED), -1))
    code.place(no)
    code.instructions.append((Instruction(bpf.RET, k=0), -1))
    return code.resolved()


class _Code:
    """Instructions with jumps to labels. All go forward, as the kernel demands; each is a long one (BPF_JA)."""

    def __init__(self) -> None:
        self.instructions: list[tuple[Instruction, int]] = []
        self._places: list[int] = []

    def label(self) -> int:
        self._places.append(-1)
        return len(self._places) - 1

    def place(self, label: int) -> None:
        self._places[label] = len(self.instructions)

    def add(self, condition: Condition, yes: int, no: int) -> None:
        if isinstance(condition, Not):
            self.add(condition.inner, no, yes)
        elif isinstance(condition, Test):
            self.instructions += [(load, -1) for load in condition.loads]
            self.instructions.append((Instruction(bpf.JMP | condition.jump, 0, 1, condition.k), -1))
            self.instructions += [(Instruction(bpf.JMP | bpf.JA), yes), (Instruction(bpf.JMP | bpf.JA), no)]
        else:
            between = self.label()
            if isinstance(condition, And):
                self.add(condition.left, between, no)
            else:
                self.add(condition.left, yes, between)
            self.place(between)
            self.add(condition.right, yes, no)

    def resolved(self) -> tuple[Instruction, ...]:
        return tuple(
            instruction if label < 0 else instruction._replace(k=self._places[label] - at - 1)
            for at, (instruction, label) in enumerate(self.instructions)
        )
