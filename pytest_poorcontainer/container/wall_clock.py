"""A container's own time of day: a library in front of the C library of what is started in it (preload/wallclock)."""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import re
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_poorcontainer import native
from pytest_poorcontainer.container.run import run
from pytest_poorcontainer.errors import LabError, UsageError
from pytest_poorcontainer.lab.events import note
from pytest_poorcontainer.rootfs import elf

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from pytest_poorcontainer.lab.handle import Handle

__all__ = ["ClockOffset", "WallClock"]

# Not where it is installed: LD_PRELOAD knows no quoting, and a root of a few programs has no package of ours.
_PLACE = b"/run/poor-container"
_LIBRARY, _CLOCK = _PLACE + b"/libpcclock.so", _PLACE + b"/clock"
_SIZE = 8  # bytes, an int64_t in ns
_PATIENCE = 60.0  # seconds; a loader needs a millisecond
_CENTURY = 100 * 365 * 86400  # seconds
_NS = 1_000_000_000
_OFFSET = re.compile(r"\s*([+-]?)\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*", re.ASCII)
_UNITS = {"ms": _NS // 1000, "s": _NS, "min": 60 * _NS, "h": 3600 * _NS, "d": 86400 * _NS}


class ClockOffset:
    """A wall clock that is ahead or behind by ``seconds`` until :meth:`end`, or the end of the block."""

    def __init__(self, clock: WallClock, number: int, ns: int) -> None:
        """Belong to a clock, which knows it by its number and has set it in force."""
        self._clock = clock
        self._number = number
        self._ns = ns

    @property
    def seconds(self) -> float:
        """How far ahead of the machine's time of day; negative is behind."""
        return self._ns / _NS

    @property
    def active(self) -> bool:
        """Whether it has not ended; the clock shows it unless a later one has not ended either."""
        return self._number in self._clock._offsets  # noqa: SLF001 - its own

    def end(self) -> None:
        """Let the clock show what it would without this one. Idempotent, and in any order with others."""
        self._clock._end(self._number)  # noqa: SLF001 - as above

    heal = end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def __repr__(self) -> str:
        """Show it as the report does."""
        return f"<ClockOffset {_shown(self._ns)}{'' if self.active else ' (over)'}>"


class WallClock:
    """The time of day of what is started in a container after ``Container.wall_clock()``; right until :meth:`offset`.

    Safe to use from several threads at once.
    """

    def __init__(self, handle: Handle) -> None:
        """Put the library and its clock into the container, and see it loaded there."""
        handle.check()
        self._handle = handle
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        # By number: were the objects here, a container with one that was left on would not end when it is dropped.
        self._offsets: dict[int, int] = {}
        code = Path(native.program("libpcclock.so")).read_bytes()
        agent = handle.agent
        fd = agent.open(_LIBRARY, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode=0o755)
        with os.fdopen(fd, "wb") as inside:
            inside.write(code)
        _check(handle)
        fd = agent.open(_CLOCK, os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode=0o644)
        try:
            os.ftruncate(fd, _SIZE)
            self._page = mmap.mmap(fd, _SIZE)
        finally:
            os.close(fd)
        self._value = memoryview(self._page).cast("q")
        agent.preload = _LIBRARY

    @property
    def ahead(self) -> float:
        """How many seconds it is ahead of the machine's time of day now; negative is behind."""
        with self._lock:
            return self._newest() / _NS

    def offset(self, by: float | str) -> ClockOffset:
        """Put the clock forward, or back, now and for programs that run already; return what puts it right again.

        ``by`` is a number of seconds, or a text like "+1h", "-30s", "250ms", "15min", "1.5d". Offsets do not add up:
        the newest that has not ended counts. Raises :class:`UsageError` for what is no time and for more than a
        century, :class:`PoorContainerError` when the container is closed.
        """
        ns = _parse(by)
        self._handle.check()
        with self._lock:
            number = next(self._numbers)
            self._offsets[number] = ns
            self._show()
        return ClockOffset(self, number, ns)

    def _end(self, number: int) -> None:
        with self._lock:
            if self._offsets.pop(number, None) is not None:
                self._show()

    def _newest(self) -> int:
        return next(reversed(self._offsets.values()), 0)

    def _show(self) -> None:
        """Write what counts: one store of eight bytes, so that no program ever sees half of it."""
        if not self._page.closed:
            self._value[0] = self._newest()
            note(f"{self._handle.name}: wall clock {_shown(self._newest()) if self._offsets else 'right again'}")

    def close(self) -> None:
        """Let go of the memory, when the container has ended. Idempotent."""
        with self._lock:
            self._offsets.clear()
            self._value.release()
            self._page.close()

    def __repr__(self) -> str:
        """Show whose it is, and what it shows."""
        return f"<WallClock of {self._handle.name}: {_shown(round(self.ahead * _NS))}>"


def _check(handle: Handle) -> None:
    """Raise :class:`LabError` unless the container's dynamic loader takes the library, with all that it needs."""
    with Path(os.path.realpath(sys.executable)).open("rb") as own:
        loader = elf.read(own).interpreter
    if not loader:
        return  # this Python is static; who is dynamic in there is not known
    try:
        done = run(
            handle, [loader, "--list", _LIBRARY], check=False, capture_output=True, input=None, timeout=_PATIENCE
        )
    except FileNotFoundError:
        why = f"there is no {loader} in it, the dynamic loader that the library is for; static programs load none"
        raise LabError("give a wall clock to", handle.name, errno.ENOENT, why) from None
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    if done.returncode or "not found" in said:
        why = f"{loader} cannot load libpcclock.so there, perhaps as its C library is older than ours: {said.strip()}"
        raise LabError("give a wall clock to", handle.name, errno.ELIBBAD, why)


def _parse(by: float | str) -> int:
    """Return an offset in ns. Raises :class:`UsageError`."""
    expected = "an offset is a number of seconds, or a text like '+1h', '-30s', '250ms', '15min', '1.5d'"
    if isinstance(by, str):
        match = _OFFSET.fullmatch(by)
        if match is None:
            raise UsageError(f"{expected}, not {by!r}")
        sign, number, unit = match.groups()
        if not unit:
            raise UsageError(f"{expected}, not {by!r}: say of what, '{by.strip()}s' or '{by.strip()}h'")
        if unit not in _UNITS:
            raise UsageError(f"{expected}, not {by!r}: {unit!r} is no unit of it, they are {', '.join(_UNITS)}")
        ns = float(number) * _UNITS[unit] * (-1 if sign == "-" else 1)
    elif isinstance(by, bool) or not isinstance(by, (int, float)):
        raise UsageError(f"{expected}, not {by!r}")
    else:
        ns = by * _NS
    if not abs(ns) <= _CENTURY * _NS:
        raise UsageError(f"{expected}, not {by!r}: a century is the most")
    return round(ns)


def _shown(ns: int) -> str:
    """Return an offset for people: "+3600 s"."""
    return f"{ns / _NS:+.9g} s"
