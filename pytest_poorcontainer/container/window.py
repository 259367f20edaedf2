"""The size of a terminal's window."""

from __future__ import annotations

import fcntl
import struct
import termios
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import UsageError

if TYPE_CHECKING:
    from typing import TypeAlias

    Size: TypeAlias = "bool | tuple[int, int]"

__all__ = ["copy_window", "set_window", "window"]

_USUAL = (80, 24)
_LARGEST = 0xFFFF
_WINSIZE = struct.Struct("=4H")  # struct winsize: rows, columns, and twice pixels


def window(tty: Size) -> tuple[int, int] | None:
    """Return columns and lines, 80 and 24 for True, None for False. Raises :class:`UsageError` for anything else."""
    if isinstance(tty, bool):
        return _USUAL if tty else None
    if not isinstance(tty, tuple) or len(tty) != 2 or not all(_is_size(number) for number in tty):  # noqa: PLR2004
        raise UsageError(f"the size of a terminal is (columns, lines), each from 1 to {_LARGEST}, not {tty!r}")
    return tty


def _is_size(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= _LARGEST


def set_window(terminal: int, size: tuple[int, int]) -> None:
    """Give a terminal, open at this descriptor, its size in columns and lines (ioctl_tty(2), TIOCSWINSZ)."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, _WINSIZE.pack(size[1], size[0], 0, 0))


def copy_window(source: int, target: int) -> None:
    """Give a terminal the size of another."""
    fcntl.ioctl(target, termios.TIOCSWINSZ, fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(_WINSIZE.size)))
