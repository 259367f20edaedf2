"""Captures: every frame of a host that a filter wants, whole, for a test to look at."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

from pytest_poorcontainer.errors import PoorContainerError
from pytest_poorcontainer.lab import forks
from pytest_poorcontainer.lab.clock import now, wall
from pytest_poorcontainer.traffic.conversations import conversations
from pytest_poorcontainer.traffic.filters import Filter, compiled
from pytest_poorcontainer.traffic.frames import Frame, unpacked_until
from pytest_poorcontainer.traffic.ladder import Names, ladder, latest
from pytest_poorcontainer.traffic.pcapng import Interface, blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

    from pytest_poorcontainer.traffic.recorder import Recorder, Tapped

__all__ = ["Capture", "Packets", "Source"]

_PAUSE = 0.005
_CHUNK = 1 << 22
_MOST_SHOWN = 6
_NS = 1_000_000_000


class Source:
    """A host as a capture sees it: its name, how names are resolved there, who has which address, its interfaces."""

    def __init__(
        self,
        name: str,
        resolve: Callable[[str], Sequence[str]],
        names: Callable[[], dict[str, str]],
        interfaces: Callable[[], dict[int, str]],
    ) -> None:
        """Hold them."""
        self.name = name
        self.resolve = resolve
        self.names = names
        self.interfaces = interfaces


class Packets(Sequence[Any]):
    """What a capture has, by time: a sequence of scapy packets, each dissected when it is asked for.

    ``frames`` are the same without scapy. It grows as long as the capture goes on.
    """

    def __init__(self, source: Source, wanted: Filter, file: int) -> None:
        """Own the memfd of records ``file``."""
        self._source = source
        self._wanted = wanted
        self._file = file
        forks.guard(file)
        self._read_to = 0
        self._frames: list[Frame] = []
        self._dissected: dict[int, Any] = {}
        self._sync: Callable[[], tuple[int, int]] | None = None
        self._lost = 0
        self._started = wall()

    @property
    def lost(self) -> int:
        """How many frames are missing: the machine was too slow for them, or the limit was reached."""
        self._refresh()
        return self._lost

    @property
    def frames(self) -> list[Frame]:
        """The frames that have come so far.

        Raises :class:`PoorContainerError` when some were lost: what was not captured proves nothing.
        """
        self._refresh()
        if self._lost:
            raise PoorContainerError(
                f"the capture on {self._source.name} is incomplete: {self._lost} frames were lost beside the "
                f"{len(self._frames)} that it has; use a narrower filter than {self._wanted.text!r}, or a larger limit="
            )
        return list(self._frames)

    def count(self, wanted: str | Callable[[Any], bool] | None = None) -> int:
        """Return how many there are, of those that a filter (as the capture's) or a function of a packet wants."""
        return sum(1 for _ in self._matching(wanted))

    def expect(
        self, wanted: str | Callable[[Any], bool] | None = None, *, at_least: int = 1, within: float = 5.0
    ) -> Any:
        """Wait until there are ``at_least`` packets that a filter or a function wants; return the last of these.

        When the capture is over, or within ``within`` seconds not enough have come, it raises AssertionError, with the
        conversations that were seen. Raises :class:`UsageError` for a filter that is none.
        """
        deadline = now() + within
        while True:
            going_on = self._sync is not None
            places = list(self._matching(wanted))
            if len(places) >= at_least:
                return self[places[at_least - 1]]
            if not going_on or now() >= deadline:
                break
            time.sleep(_PAUSE)
        what = repr(wanted) if isinstance(wanted, str) else "a packet" if wanted is None else "what the function wants"
        when = f"within {within:g} s" if going_on else "before the capture was over"
        raise AssertionError(
            f"{self._source.name}: expected {at_least} of {what} {when}, got {len(places)} among "
            f"{len(self._frames)} captured with {self._wanted.text!r}\n{self.ladder()}"
        )

    def ladder(self) -> str:
        """Return the latest conversations as a ladder diagram; times are seconds since the capture began."""
        names = Names(self._source.names(), self._source.interfaces())
        self._refresh()
        shown = latest(conversations(self._frames), _MOST_SHOWN)
        return "\n".join(line for each in shown for line in (*ladder(each, names, self._started), ""))

    def write(self, path: str | Path) -> None:
        """Write them to a pcapng file, which Wireshark reads. Raises OSError."""
        frames = self.frames
        own = self._source.interfaces()
        named = [Interface(index, name, f"{self._source.name} {name}") for index, name in own.items()]
        named += [
            Interface(index, f"if{index}", self._source.name)
            for index in dict.fromkeys(frame.interface for frame in frames)
            if index not in own
        ]
        with open(path, "wb") as file:  # noqa: PTH123 - takes what open takes
            file.writelines(blocks(named, frames, comment=f"capture on {self._source.name}: {self._wanted.text}"))

    def __len__(self) -> int:
        return len(self.frames)

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> list[Any]: ...
    def __getitem__(self, place: int | slice) -> Any:
        frames = self.frames
        if isinstance(place, slice):
            return [self._scapy(number) for number in range(*place.indices(len(frames)))]
        number = range(len(frames))[place]
        return self._scapy(number)

    def __iter__(self) -> Iterator[Any]:
        return (self._scapy(number) for number in range(len(self.frames)))

    def __repr__(self) -> str:
        """Say whose they are and how many."""
        state = "going on" if self._sync else "over"
        return f"<Packets of {self._source.name}, {self._wanted.text!r}: {len(self._frames)}, {state}>"

    def __del__(self) -> None:
        """Give the memory back."""
        file, self._file = getattr(self, "_file", -1), -1
        if file >= 0:
            forks.expose(file)
            os.close(file)

    def _matching(self, wanted: str | Callable[[Any], bool] | None) -> Iterable[int]:
        frames = self.frames
        if wanted is None:
            return range(len(frames))
        if isinstance(wanted, str):
            wanted_filter = compiled(wanted, self._source.resolve)
            return (number for number, frame in enumerate(frames) if wanted_filter.matches(frame))
        return (number for number in range(len(frames)) if wanted(self._scapy(number)))

    def _scapy(self, number: int) -> Any:
        if number not in self._dissected:
            from pytest_poorcontainer.traffic.to_scapy import dissected  # noqa: PLC0415 - 0.3 s, and GPL

            self._dissected[number] = dissected(self._frames[number])
        return self._dissected[number]

    def _refresh(self) -> None:
        if self._sync is None:
            return
        size, self._lost = self._sync()
        while self._read_to < size:
            data = os.pread(self._file, min(size - self._read_to, _CHUNK), self._read_to)
            used = 0
            for used, frame in unpacked_until(data):  # noqa: B007 - the last one counts
                self._frames.append(frame)
            if not used:
                raise PoorContainerError(f"the capture on {self._source.name} has a record that makes no sense")
            self._read_to += used


class Capture:
    """A capture under way, as long as its block: ``with Capture(...) as packets:``."""

    def __init__(
        self, source: Source, wanted: Filter, recorder: Recorder, start: Callable[[Recorder, Filter], Tapped]
    ) -> None:
        """Remember how it is started: ``start`` makes the host's packet socket, and hands it to the recorder."""
        self._source = source
        self._wanted = wanted
        self._recorder = recorder
        self._start = start
        self._tapped: Tapped | None = None
        self._packets: Packets | None = None

    def __enter__(self) -> Packets:
        if self._tapped is not None:
            raise PoorContainerError(f"the capture on {self._source.name} has begun already: make another one")
        tapped = self._tapped = self._start(self._recorder, self._wanted)
        packets = self._packets = Packets(self._source, self._wanted, tapped.file)
        packets._sync = lambda: self._recorder.sync(tapped.number)  # noqa: SLF001 - ours
        return packets

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        packets, tapped = self._packets, self._tapped
        if packets is None or tapped is None:
            return
        try:
            # An exception on its way says more than that the lab has died with the capture.
            with contextlib.suppress(*(PoorContainerError,) if value is not None else ()):
                packets._refresh()  # noqa: SLF001 - ours
        finally:
            packets._sync = None  # noqa: SLF001
            self._recorder.untap(tapped.number)
