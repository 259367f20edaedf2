"""Classic BPF: the machine that the kernel's socket filters run on (Documentation/networking/filter.rst).

The same program is run by the kernel, in a capture, and here, on frames that were captured already.
"""

from __future__ import annotations

import ctypes
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from socket import socket

__all__ = ["Instruction", "attach", "matches", "read_listing", "run"]

LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)
WORD, HALF, BYTE = 0x00, 0x08, 0x10
IMM, ABS, IND, MEM, LEN, MSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xA0
JA, JEQ, JGT, JGE, JSET = 0x00, 0x10, 0x20, 0x30, 0x40
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG, MOD, XOR = (value << 4 for value in range(11))
X = 0x08

SO_ATTACH_FILTER = 26
_MOST = 4096  # BPF_MAXINSNS
_MASK: Final = 0xFFFFFFFF
_SIZES: Final = {WORD: (4, struct.Struct("!I")), HALF: (2, struct.Struct("!H")), BYTE: (1, struct.Struct("!B"))}
_CODE: Final = struct.Struct("=HBBI")
_SHIFT_MOST = 31


class Instruction(NamedTuple):
    """One instruction: ``struct sock_filter``."""

    code: int
    jt: int = 0
    jf: int = 0
    k: int = 0


def attach(sock: socket, program: Sequence[Instruction]) -> None:
    """Let a socket receive only what the program says yes to (socket(7), SO_ATTACH_FILTER). Raises OSError."""
    code = ctypes.create_string_buffer(b"".join(_CODE.pack(*each) for each in program))
    sock.setsockopt(1, SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code)))


def read_listing(text: str) -> list[Instruction]:
    """Return the program that ``tcpdump -ddd`` has printed. Raises ValueError."""
    count, *lines = text.split("\n")
    program = [Instruction(*(int(word) for word in line.split())) for line in lines if line.strip()]
    if len(program) != int(count):
        raise ValueError(f"expected {count} instructions, got {len(program)}")
    return program


def matches(program: Sequence[Instruction], data: bytes, length: int) -> bool:
    """Return whether the program says yes to an Ethernet frame; its VLAN tags are looked through, as in the kernel."""
    while data[12:14] in (b"\x81\x00", b"\x88\xa8"):
        data, length = data[:12] + data[16:], length - 4
    return run(program, data, length) > 0


def run(program: Sequence[Instruction], data: bytes, length: int) -> int:
    """Return what the program does: how many bytes of the frame are wanted, 0: none. A load beyond ``data`` ends it.

    Raises ValueError for an instruction that no filter of ours or of tcpdump's has.
    """
    accumulator = index = at = 0
    memory = [0] * 16
    for _ in range(_MOST):
        code, jt, jf, k = program[at]
        at += 1
        kind = code & 7
        if kind == RET:
            return accumulator if code & 0x18 == 0x10 else k  # noqa: PLR2004 - BPF_A
        if kind == JMP:
            at += k if code & 0xF0 == JA else jt if _test(code & 0xF0, accumulator, index if code & X else k) else jf
        elif kind == ALU:
            operand = index if code & X else k
            if code & 0xF0 in (DIV, MOD) and operand == 0:
                return 0
            accumulator = _calculated(code & 0xF0, accumulator, operand)
        elif kind == MISC:
            accumulator, index = (index, index) if code & 0x80 else (accumulator, accumulator)
        elif kind in (ST, STX):
            memory[k & 15] = accumulator if kind == ST else index
        else:
            loaded = _loaded(code, k, index, data, length, memory)
            if loaded is None:
                return 0
            accumulator, index = (loaded, index) if kind == LD else (accumulator, loaded)
    raise ValueError("the program does not end")


def _loaded(code: int, k: int, index: int, data: bytes, length: int, memory: list[int]) -> int | None:
    mode = code & 0xE0
    if mode == IMM:
        return k
    if mode == LEN:
        return length
    if mode == MEM:
        return memory[k & 15]
    if mode == MSH:
        return (data[k] & 15) * 4 if k < len(data) else None
    if mode not in (ABS, IND):
        raise ValueError(f"no such way of addressing: {mode:#x}")
    place = k + index if mode == IND else k
    size, form = _SIZES[code & 0x18]
    if place + size > len(data):
        return None
    value: int = form.unpack_from(data, place)[0]
    return value


def _test(operation: int, left: int, right: int) -> bool:
    if operation == JEQ:
        return left == right
    if operation == JGT:
        return left > right
    return left >= right if operation == JGE else bool(left & right)


def _calculated(operation: int, left: int, right: int) -> int:
    if operation in (LSH, RSH):
        shift = right & _SHIFT_MOST
        return (left << shift if operation == LSH else left >> shift) & _MASK
    results = {
        ADD: left + right,
        SUB: left - right,
        MUL: left * right,
        OR: left | right,
        AND: left & right,
        XOR: left ^ right,
        NEG: -left,
    }
    if operation in results:
        return results[operation] & _MASK
    return left // right if operation == DIV else left % right
