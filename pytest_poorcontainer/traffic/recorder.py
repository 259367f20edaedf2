"""The flight recorder's client: one ``pcrecorder`` a lab, which keeps the newest frames of every host."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import threading
import weakref
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

from pytest_poorcontainer.errors import LabDied, LabError, PoorContainerError
from pytest_poorcontainer.lab import Lab, forks, protocol
from pytest_poorcontainer.lab.protocol import Field, Op
from pytest_poorcontainer.traffic.frames import Frame, unpacked

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_poorcontainer.lab.protocol import Message

__all__ = ["SIZE", "SNAPLEN", "TOTAL", "Recorder", "RecorderOp", "Recording", "Tapped"]

SIZE: Final = 1 << 20
"""Bytes of frames that are kept of each interface."""
SNAPLEN: Final = 256
"""Bytes that are kept of each frame."""
TOTAL: Final = 256 << 20
"""Bytes of frames that are kept in all."""

_PATIENCE = 5  # seconds; it answers in a millisecond, and waits for the kernel's blocks for 0.2 s at most
_RETIRED_MOST = 64
_WIDE: Final = struct.Struct("=Q")
_REQUESTS = 1 << 32
_PROGRAM = "pcrecorder"


class RecorderOp(IntEnum):
    """What a message says; ``enum recorder_op`` of preload/recorder/recorder.h."""

    READY = 64
    READ = 65
    FORGET = 66
    TAP = 67
    SYNC = 68
    UNTAP = 69
    EXPORT = 70


class Recording(NamedTuple):
    """Frames by time; ``seen`` and ``lost`` count all of the recorder's since it was started.

    ``gaps`` say up to which time nothing is known of an interface, for those of which not all is there.
    A frame is lost when the recorder does not get a processor for some 80 ms of a flood: it never slows a sender down.
    """

    frames: list[Frame]
    seen: int
    lost: int
    gaps: dict[int, int]


class Tapped(NamedTuple):
    """A capture under way: its number, and a memfd of records that grows. Who has it closes that."""

    number: int
    file: int


class Recorder:
    """The line to a lab's recorder. Safe to use from several threads at once."""

    _of: ClassVar[weakref.WeakKeyDictionary[Lab, dict[bool, Recorder]]] = weakref.WeakKeyDictionary()
    _refused: ClassVar[weakref.WeakKeyDictionary[Lab, PoorContainerError]] = weakref.WeakKeyDictionary()
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, lab: Lab, size: int = SIZE, snaplen: int = SNAPLEN, total: int = TOTAL) -> None:
        """Start one, and do not wait: it records from some 10 ms later on (:meth:`ready`). ``size`` 0: captures only.

        ``total`` bounds the bytes of all interfaces together: then what was silent for the longest time is forgotten.
        Raises :class:`LabError` when it cannot be started.
        """
        ours, theirs = protocol.connected()
        try:
            os.close(lab.helper(_PROGRAM, (str(size), str(snaplen), str(total)), theirs))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        protocol.limit_waits(ours, _PATIENCE)
        forks.guard(ours.fileno())
        self._socket = ours
        self._lab = weakref.ref(lab)
        self._lab_pid = lab.pid
        self._generation = forks.generation()
        self._lock = threading.Lock()
        self._next = 0
        self._is_ready = False
        self._retired: list[int] = []
        self.dead = self._closed = False

    @classmethod
    def of(cls, lab: Lab, size: int = SIZE) -> Recorder:
        """Return the lab's recorder, and start it when there is none. ``size`` 0: one that only captures will do.

        One that is there keeps its size. Raises :class:`PoorContainerError` when it cannot be started; what cannot
        record once is not asked again.
        """
        with cls._guard:
            there = cls._of.setdefault(lab, {})
            recording = size > 0
            for one in (True,) if recording else (True, False):
                if one in there and not there[one].dead:
                    return there[one]
            if recording and lab in cls._refused:
                raise cls._refused[lab]
            try:
                made = there[recording] = cls(lab, size)
            except PoorContainerError as error:
                if recording:
                    cls._refused[lab] = error
                raise
            return made

    @classmethod
    def current(cls) -> Recorder | None:
        """Return the recorder of this process's lab, None when there was none. One that has ended says so when asked.

        Raises :class:`PoorContainerError` when it could not be started.
        """
        lab = Lab._current  # noqa: SLF001 - ours; to ask for one would start one
        if lab is not None and lab in cls._refused:
            raise cls._refused[lab]
        return None if lab is None else cls._of.get(lab, {}).get(True)

    @classmethod
    def find(cls, lab: Lab) -> Recorder | None:
        """Return the recorder that records in this lab, None when there is none or it has ended."""
        found = cls._of.get(lab, {}).get(True)
        return None if found is None or found.dead else found

    def ready(self) -> None:
        """Wait until it records. Raises :class:`LabError` with the step that failed."""
        if not self._is_ready:
            with self._lock:
                self._await_ready()

    def read(self, interfaces: Iterable[int], since: int = 0, most: int = 0) -> Recording:
        """Return the frames of these interfaces of the fabric, from ``since`` on (ns since 1970), by time.

        Of each interface the newest ``most`` (0: all that are there). Raises :class:`LabError`, :class:`LabDied`.
        """
        answer = self._ask_for_frames(RecorderOp.READ, interfaces, since, most)
        seen, lost = _wide(answer)
        gaps: dict[int, int] = {}
        data = _content(answer)
        return Recording(sorted(unpacked(data, gaps), key=_time), seen, lost, gaps)

    def export(self, interfaces: Iterable[int], since: int = 0) -> bytes:
        """Return the same frames as blocks of a pcapng file: those behind :func:`pcapng.blocks`, of these interfaces.

        That is a hundred times as fast as to make them of :meth:`read`'s frames. Raises as that does.
        """
        return _content(self._ask_for_frames(RecorderOp.EXPORT, interfaces, since, 0))

    def _ask_for_frames(self, op: RecorderOp, interfaces: Iterable[int], since: int, most: int) -> Message:
        fields: list[tuple[int, int | str | bytes]] = [(Field.VALUE, _WIDE.pack(max(since, 0)))]
        fields.append((Field.VALUE, _WIDE.pack(most)))
        fields += [(Field.ID, index) for index in interfaces]
        return self._ask(op, fields, "read recorded frames")

    def retire(self, interfaces: Sequence[int]) -> None:
        """Note that these hosts are closed. Their frames stay until :meth:`sweep`: a report may want them."""
        self._retired += interfaces
        if len(self._retired) > _RETIRED_MOST:
            self._forget(_RETIRED_MOST // 2)

    def sweep(self) -> None:
        """Forget the frames of hosts that are closed."""
        if self._retired:
            self._forget(0)

    @classmethod
    def sweep_current(cls) -> None:
        """Do that for the recorder of this process's lab, if it has one."""
        lab = Lab._current  # noqa: SLF001 - as above
        recorder = None if lab is None else cls.find(lab)
        if recorder is not None:
            recorder.sweep()

    def tap(self, socket: int, interface: int, flags: int, most: int) -> Tapped:
        """Capture with a packet socket of a host's: at an interface of it (0: at all), ``most`` bytes of frames.

        Raises :class:`LabError`: a socket that is none, too many captures at a time.
        """
        fields = ((Field.VALUE, _WIDE.pack(most)), (Field.ID, interface), (Field.FLAGS, flags))
        answer = self._ask(RecorderOp.TAP, fields, "start a capture", (socket,))
        return Tapped(answer.number(Field.ID), answer.fds.pop())

    def sync(self, number: int) -> tuple[int, int]:
        """Return how many bytes of records a capture has, and how many frames it has lost, as of now."""
        return _wide(self._ask(RecorderOp.SYNC, ((Field.ID, number),), "read a capture"))

    def untap(self, number: int) -> None:
        """End a capture."""
        self._tell(RecorderOp.UNTAP, [(Field.ID, number)])

    def close(self) -> None:
        """End it. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self.dead = self._closed = True
            if self._generation == forks.generation():
                forks.expose(self._socket.fileno())
            self._socket.close()

    def __del__(self) -> None:
        """End it with its lab."""
        if hasattr(self, "_socket"):
            self.close()

    def _forget(self, but: int) -> None:
        going = self._retired[: len(self._retired) - but]
        del self._retired[: len(going)]
        self._tell(RecorderOp.FORGET, [(Field.ID, index) for index in going])

    def _tell(self, op: RecorderOp, fields: Iterable[tuple[int, int]]) -> None:
        """Say something that has no answer; nobody needs it if the recorder has ended."""
        with self._lock, contextlib.suppress(OSError):
            if not self.dead and self._generation == forks.generation():
                protocol.send(self._socket, op, protocol.pack(fields))

    def _ask(
        self,
        op: RecorderOp,
        fields: Iterable[tuple[int, int | str | bytes]],
        operation: str,
        fds: Sequence[int] = (),
    ) -> Message:
        with self._lock:
            self._await_ready()
            self._next = (self._next + 1) % _REQUESTS
            try:
                protocol.send(self._socket, op, protocol.pack(fields), fds, self._next)
                answer = self._receive(operation)
                while answer.request != self._next:  # that of somebody who was interrupted
                    answer = self._receive(operation)
            except OSError as error:
                raise self._explained(error, operation) from None
        if answer.op == Op.ERROR:
            raise answer.error()
        return answer

    def _await_ready(self) -> None:
        if self.dead or self._generation != forks.generation():
            raise LabDied("use the recorder", "", 0, "it has ended, or belongs to the process that forked this one")
        if self._is_ready:
            return
        try:
            answer = self._receive("start the recorder")
        except OSError as error:
            raise self._explained(error, "start the recorder") from None
        if answer.op == Op.ERROR:
            self.dead = True
            refused = answer.error()
            lab = self._lab()
            if lab is not None:
                self._refused[lab] = refused
            raise refused
        self._is_ready = True

    def _receive(self, operation: str) -> Message:
        answer = protocol.receive(self._socket)
        if answer is None:
            self.dead = True
            raise LabDied(
                operation, "", 0, f"the recorder of lab {self._lab_pid} has ended although nobody asked it to"
            )
        return answer

    def _explained(self, error: OSError, operation: str) -> LabError:
        if isinstance(error, BlockingIOError):
            return LabError(operation, "", errno.ETIMEDOUT, "the recorder is silent; is it stopped?")
        self.dead = True
        return LabDied(operation, "", error.errno or 0, "the recorder has ended although nobody asked it to")


def _wide(answer: Message) -> tuple[int, int]:
    first, second = answer.numbers(Field.VALUE)
    return first, second


def _content(answer: Message) -> bytes:
    """Return what is in the memfd of an answer."""
    file = answer.fds.pop()
    try:
        return os.pread(file, os.fstat(file).st_size, 0)
    finally:
        os.close(file)


def _time(frame: Frame) -> int:
    return frame.time
