"""What a program or library says about what it needs: the ELF header, program headers and dynamic section (elf(5))."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["MAGIC", "Elf", "ElfError", "machine_name", "read"]

MAGIC = b"\x7fELF"

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 1, 5, 10, 14, 15, 29
_DT_FLAGS_1 = 0x6FFFFFFB
_DF_1_NODEFLIB = 0x800
_HEADERS_MAX = 1024  # the kernel takes up to 64 KiB of program headers, 1170 of them
_ENTRIES_MAX = 65536
_TEXT_MAX = 65536  # bytes, one string: a RUNPATH of many directories
_MACHINES = {3: "i386", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64"}
_MACHINES.update({243: "riscv", 258: "loongarch"})


class ElfError(ValueError):
    """The file is no ELF file, or a damaged one."""


@dataclass(frozen=True)
class Elf:
    """What the dynamic loader reads of a file.

    ``bits`` and ``machine`` (e_machine) say for what it is made: only files that agree in both load each other.
    ``interpreter`` is the dynamic loader of a program (PT_INTERP), "" when it needs none. ``needed``, ``rpath``,
    ``runpath`` and ``soname`` are those of the dynamic section, the paths as lists, with their ``$ORIGIN`` unexpanded.
    """

    bits: int
    machine: int
    interpreter: str = ""
    needed: tuple[str, ...] = ()
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()
    soname: str = ""
    no_default: bool = False

    @property
    def kind(self) -> tuple[int, int]:
        """For what it is made."""
        return self.bits, self.machine


def machine_name(elf: Elf) -> str:
    """Return for what a file is made, as ``uname -m`` says it; "machine 1234" for what is rare."""
    name = _MACHINES.get(elf.machine, f"machine {elf.machine}")
    return f"{name} ({elf.bits} bits)" if elf.bits == 32 and name in {"x86_64", "aarch64"} else name  # noqa: PLR2004


def read(file: BinaryIO) -> Elf:
    """Return what an ELF file says. Raises :class:`ElfError` for what is none, OSError for what cannot be read."""
    try:
        return _Reader(file).elf()
    except (struct.error, OverflowError) as error:
        raise ElfError(f"the file is cut off or damaged: {error}") from error


class _Reader:
    """The parts of one file. struct.error is what every cut ends in."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        head = self._at(0, 64)
        if head[:4] != MAGIC:
            raise ElfError("no ELF file: it does not begin with 7f 45 4c 46")
        if head[4:5] not in {b"\1", b"\2"} or head[5:6] not in {b"\1", b"\2"}:
            raise ElfError("its class or its byte order is unknown")
        self._wide = head[4] == 2  # noqa: PLR2004 - ELFCLASS64
        self._order = "<" if head[5] == 1 else ">"
        words = self._unpack("HHIQQQIHHH" if self._wide else "HHIIIIIHHH", head[16:])
        self._machine, self._header_offset, self._header_size, self._header_count = words[1], words[4], *words[8:10]

    def _unpack(self, form: str, data: bytes) -> tuple[int, ...]:
        return struct.unpack_from(self._order + form, data)

    def _at(self, offset: int, size: int) -> bytes:
        if offset > 1 << 62:
            raise ElfError(f"something is to be at {offset:#x}")
        self._file.seek(offset)
        return self._file.read(size)

    def elf(self) -> Elf:
        loads: list[tuple[int, int, int]] = []
        dynamic, interpreter = (0, 0), ""
        form = "IIQQQQ" if self._wide else "IIIIII"
        size = self._header_size
        if self._header_count > _HEADERS_MAX or (self._header_count and size < struct.calcsize("=" + form)):
            raise ElfError(f"{self._header_count} program headers of {size} bytes each")
        headers = self._at(self._header_offset, size * self._header_count)
        for number in range(self._header_count):
            words = self._unpack(form, headers[number * size : (number + 1) * size])
            kind, offset, address, length = (
                (words[0], words[2], words[3], words[5]) if self._wide else (words[0], words[1], words[2], words[4])
            )
            if kind == _PT_LOAD:
                loads.append((address, offset, length))
            elif kind == _PT_DYNAMIC:
                dynamic = offset, length
            elif kind == _PT_INTERP:
                interpreter = self._text(self._at(offset, min(length, 4096)))
        return self._with_dynamic(loads, dynamic, interpreter)

    def _with_dynamic(self, loads: list[tuple[int, int, int]], dynamic: tuple[int, int], interpreter: str) -> Elf:
        entries = self._entries(*dynamic)
        strings = self._file_offset(next((value for tag, value in entries if tag == _DT_STRTAB), 0), loads)
        limit = next((value for tag, value in entries if tag == _DT_STRSZ), 0)
        needed: list[str] = []
        single = {_DT_SONAME: "", _DT_RPATH: "", _DT_RUNPATH: ""}
        flags = 0
        for tag, value in entries:
            if tag == _DT_FLAGS_1:
                flags = value
            elif tag == _DT_NEEDED or tag in single:
                if value >= limit:
                    raise ElfError(f"a name is to be at {value} of {limit} bytes of names")
                text = self._text(self._at(strings + value, min(limit - value, _TEXT_MAX)))
                if tag == _DT_NEEDED:
                    needed.append(text)
                else:
                    single[tag] = text
        rpath, runpath = (tuple(single[tag].split(":")) if single[tag] else () for tag in (_DT_RPATH, _DT_RUNPATH))
        return Elf(
            64 if self._wide else 32,
            self._machine,
            interpreter,
            tuple(needed),
            () if runpath else rpath,  # "DT_RPATH is ignored if DT_RUNPATH exists", ld.so(8)
            runpath,
            single[_DT_SONAME],
            bool(flags & _DF_1_NODEFLIB),
        )

    def _entries(self, offset: int, length: int) -> list[tuple[int, int]]:
        size = 16 if self._wide else 8
        data = self._at(offset, min(length, size * _ENTRIES_MAX))
        found = []
        for at in range(0, len(data) - size + 1, size):
            tag, value = self._unpack("QQ" if self._wide else "II", data[at : at + size])
            if tag == 0:
                break
            found.append((tag, value))
        return found

    @staticmethod
    def _file_offset(address: int, loads: list[tuple[int, int, int]]) -> int:
        for begin, offset, length in loads:
            if begin <= address < begin + length:
                return address - begin + offset
        return address

    @staticmethod
    def _text(data: bytes) -> str:
        text, end, _ = data.partition(b"\0")
        if not end:
            raise ElfError("a name has no end")
        return text.decode("utf-8", "surrogateescape")
