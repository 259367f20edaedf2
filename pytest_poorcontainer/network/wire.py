"""The wire of our own: what delays, loses, spoils and repeats packets where the kernel has no netem.

One small program per span (``preload/wire/wire.h``) runs in the lab's fabric, takes what arrives at one plug and sends
it out of the other. Here is its client, a :class:`~pytest_poorcontainer.network.medium.Medium`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import select
import signal
import struct
import threading
import weakref
from dataclasses import fields as fields_of
from typing import TYPE_CHECKING, Final

from pytest_poorcontainer.errors import LabError, PoorContainerError
from pytest_poorcontainer.lab import forks, protocol
from pytest_poorcontainer.lab.protocol import Field, Op
from pytest_poorcontainer.network.medium import Counts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_poorcontainer.lab.protocol import Message
    from pytest_poorcontainer.network.medium import Flow, Span, Treatment

__all__ = ["Wire", "WireCarrier", "WireDied", "WireOverflow", "wire"]

_PATIENCE: Final = 20  # seconds; a canary takes two at most
_ALL: Final = (1 << 64) - 1
_NS: Final = 1_000_000_000
_FAULTS: Final = struct.Struct("=11Q")
_COUNTS: Final = struct.Struct("=13Q")
_PRECISE, _SENDERS, _RECEIVERS = 1, 2, 4  # enum rule_flag of preload/wire/lane.h
_AUTOGROUP_NICE: Final = "-10"  # as be_prompt() of preload/wire/main.c
_QUEUE_SECONDS: Final = 0.1
_QUEUE_LEAST: Final = 64 * 1514


class WireDied(LabError):
    """The process that carried a link's frames has ended although nobody asked it to: nothing passes any more."""


class WireOverflow(PoorContainerError):
    """Packets were lost on a wire though no fault asked for it: what a test saw is not what it asked for.

    ``counts`` is what happened towards the first end and towards the second.
    """

    def __init__(self, names: tuple[str, str], counts: tuple[Counts, Counts]) -> None:
        """Name the link, and say how many were lost towards whom."""
        self.names = names
        self.counts = counts
        super().__init__(names, counts)

    def __str__(self) -> str:
        """Return one sentence: how many, what of, the likely cause and the remedy."""
        lost = ", ".join(
            f"{one.overflow + one.refused} of {one.packets} packets to {name}"
            for name, one in zip(self.names, self.counts, strict=True)
            if one.overflow + one.refused
        )
        error = next((one.error for one in self.counts if one.refused), 0)
        cause = f"the kernel refused them ({os.strerror(error)})" if error else "it had no room for them"
        if error == errno.ENOBUFS:
            cause += ": their receiver was behind, or it has made the MTU of its interface less than the cable's"
        return (
            f"the wire between {' and '.join(self.names)} lost {lost} that no fault was to lose: {cause}; "
            "send less at a time, run fewer tests at once, or ask for less delay: what is under way needs room"
        )


class Wire:
    """The medium: every kernel that has packet sockets has it, and needs no privilege beyond the lab's own."""

    name = "wire"

    def carry(self, span: Span, treatments: Sequence[Treatment]) -> WireCarrier:
        """Return a wire that is ready to start. Raises :class:`LabError` with the step that failed."""
        carrier = WireCarrier(span)
        try:
            carrier.introduce(span.hosts)
            carrier.change(treatments)
        except BaseException:
            carrier.kill()
            raise
        return carrier


def wire() -> Wire:
    """Return the medium."""
    return Wire()


class WireCarrier:
    """A wire's process, and the line to it. Safe to use from several threads at once."""

    def __init__(self, span: Span) -> None:
        """Start the process; it has its memory, and takes no frames yet."""
        self._span = span
        self._lock = threading.Lock()
        self._seeds: dict[tuple[int, Flow | None], int] = {}
        self._treatments: Sequence[Treatment] = ()
        self._silent = 0
        self._numbers = itertools.count(1)
        self._closed = True  # until there is something to close
        self._last: tuple[Counts, Counts] | None = None
        self._socket, theirs = protocol.connected()
        try:
            arguments = (*span.plugs, _divisor(len(_alive)))
            self._pidfd = span.lab.helper("pcwire", [str(number) for number in arguments], theirs)
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()
        # A forked child's copy of the pidfd would keep the lab's namespaces, once all in them is dead.
        for fd in (self._pidfd, self._socket.fileno()):
            forks.guard(fd)
        self._closed = False
        _alive.add(self)
        protocol.limit_waits(self._socket, _PATIENCE)
        try:
            self.pid = self._receive("start", 0).number(Field.PID)
            _prefer(self._pidfd)
        except BaseException:
            self.kill()
            raise

    @property
    def dead(self) -> bool:
        """Whether the process has ended although nobody asked it to."""
        if self._closed:
            return False
        waiting = select.poll()
        waiting.register(self._pidfd, select.POLLIN)
        # Its line to us is closed at once, its pidfd tells when all its rings are gone, which takes 200 ms.
        waiting.register(self._socket, select.POLLHUP)
        return bool(waiting.poll(0))

    def introduce(self, hosts: Mapping[bytes, str]) -> None:
        """Tell it which addresses are whose, so that fates do not depend on them."""
        named: dict[str, list[bytes]] = {}
        for address, name in hosts.items():
            named.setdefault(name, []).append(address)
        fields: list[tuple[int, int | str | bytes]] = []
        for name, addresses in named.items():
            fields.append((Field.VALUE, hashlib.sha256(name.encode()).digest()[:8]))
            fields += [(Field.ADDRESS, address) for address in addresses]
        self._ask(Op.WIRE_HOSTS, fields, "tell hosts to")

    def start(self) -> None:
        """Begin to pass frames."""
        self._ask(Op.WIRE_START, (), "start")

    def change(self, treatments: Sequence[Treatment]) -> None:
        """Treat packets like this from now on. Another seed, or one for others, starts all fates from the beginning."""
        self._set(tuple(treatments), self._silent)

    def silence(self, ends: int) -> None:
        """Let nothing pass that travels to these ends (a bit mask), and lose what is under way; 0 ends that."""
        self._set(self._treatments, ends)

    def _set(self, treatments: Sequence[Treatment], silent: int) -> None:
        seeds = {(one.towards, one.only): one.seed for one in treatments}
        fields: list[tuple[int, int | str | bytes]] = [
            (Field.ENDS, silent),
            (Field.FLAGS, int(any(self._seeds.get(whom) != seed for whom, seed in seeds.items()))),
        ]
        for treatment in treatments:
            fields += _rule(treatment)
        self._ask(Op.WIRE_SET, fields, "change")
        self._seeds, self._treatments, self._silent = seeds, treatments, silent  # what is refused is not in force

    def counts(self) -> tuple[Counts, Counts]:
        """Return what happened so far, towards end 0 and towards end 1."""
        if self._closed and self._last is not None:
            return self._last
        return self._counts(self._ask(Op.WIRE_COUNT, (), "ask"))

    def prove(self, sockets: tuple[int, int]) -> None:
        """Send a canary each way, from host to host, and see it come through the wire, once.

        ``sockets`` are packet sockets of the two hosts, bound to their interfaces and to :data:`CANARY_TYPE`; they are
        closed. No fault strikes a canary, and none is counted. Raises :class:`LabError`.
        """
        self._ask(Op.WIRE_PROVE, (), "prove", list(sockets))

    def close(self) -> None:
        """Pass on what is still delayed, at once, and end the process. Idempotent.

        Raises :class:`WireOverflow` when packets were lost that nobody asked for, :class:`WireDied`.
        """
        if self._closed:
            return
        self._span.lab.check_fork(str(self))  # or the child's end would be ours
        try:
            self._last = self._counts(self._ask(Op.WIRE_END, (), "end"))
        finally:
            self.kill()
        self.check()

    def check(self) -> None:
        """Raise :class:`WireOverflow` when packets were lost that nobody asked for, :class:`WireDied`."""
        counts = self.counts()
        if any(one.overflow or one.refused for one in counts):
            raise WireOverflow(self._span.names, counts)

    def kill(self) -> None:
        """End the process, with all that is under way. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            _alive.discard(self)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._release()

    def __del__(self) -> None:
        """Let go of a wire that nobody refers to any more: it ends with its link, which may be kept."""
        if not getattr(self, "_closed", True):
            self._closed = True
            self._release()

    def _release(self) -> None:
        for fd in (self._pidfd, self._socket.fileno()):
            forks.expose(fd)
        os.close(self._pidfd)
        self._socket.close()

    def _counts(self, answer: Message) -> tuple[Counts, Counts]:
        first, second = (
            Counts(**dict(zip(_COUNTED, _COUNTS.unpack(value), strict=True)))
            for kind, value in answer.fields
            if kind == Field.VALUE
        )
        return first, second

    def _ask(
        self, op: Op, fields: Iterable[tuple[int, int | str | bytes]], operation: str, fds: list[int] | None = None
    ) -> Message:
        """Make a request; ``fds`` are closed."""
        fds = fds or []
        self._span.lab.check_fork(str(self))
        with self._lock:
            try:
                if self._closed:
                    raise PoorContainerError(f"cannot {operation} {self}: it was closed")
                number = next(self._numbers) & 0xFFFFFFFF
                protocol.send(self._socket, op, protocol.pack(fields), fds, number)
            except OSError as error:
                if error.errno not in protocol.GONE:
                    raise
                raise self._died(operation) from None
            finally:
                # Before the other side does: who closes a packet socket last waits for a grace period of RCU.
                protocol.close_all(fds)
            return self._receive(operation, number)

    def _receive(self, operation: str, number: int) -> Message:
        """Return the answer to a request; one to an asker who was interrupted is nobody's any more."""
        while True:
            try:
                answer = protocol.receive(self._socket)
            except BlockingIOError:
                raise LabError(operation, str(self), errno.ETIMEDOUT, "its process is silent; is it stopped?") from None
            except ConnectionResetError:
                answer = None
            if answer is None:
                raise self._died(operation)
            if answer.request != number:
                continue
            if answer.op == Op.ERROR:
                raise answer.error()
            return answer

    def _died(self, operation: str) -> WireDied:
        remedy = "its process has ended although nobody asked it to, so nothing passes on this link"
        return WireDied(operation, str(self), 0, remedy)

    def __str__(self) -> str:
        """Name the two hosts."""
        return f"the wire between {' and '.join(self._span.names)}"


_alive: Final[weakref.WeakSet[WireCarrier]] = weakref.WeakSet()


def _divisor(others: int) -> int:
    """Return how many times less than 66 MB a wire is to take, beside so many others: 1.5 GB for 64, 8 MB each then."""
    return next((divisor for most, divisor in ((8, 1), (24, 2), (64, 4)) if others < most), 8)


def _prefer(pidfd: int) -> None:
    """Give a wire its turn before others, where the machine shares its processors out by sessions.

    A helper is a session, and its nice value counts in that alone (sched(7), autogroup). Only speed depends on it, and
    not everybody may, so a refusal is fine.
    """
    with contextlib.suppress(OSError):
        with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as info:  # noqa: PTH123 - proc(5)
            pid = next((line.split()[1] for line in info if line.startswith("Pid:")), "0")
        with open(f"/proc/{pid}/autogroup", "w", encoding="ascii") as group:  # noqa: PTH123 - as above
            group.write(_AUTOGROUP_NICE)


CANARY_TYPE: Final = 0x88B5  # IEEE Std 802: local experimental
_COUNTED: Final = tuple(field.name for field in fields_of(Counts))


def _rule(treatment: Treatment) -> list[tuple[int, int | str | bytes]]:
    """Return the fields of a rule (struct faults of ``preload/wire/lane.h``), and of whom it is for."""
    what, only = treatment.impairment, treatment.only
    flags = _PRECISE * what.precise
    fields: list[tuple[int, int | str | bytes]] = []
    if only is not None:
        flags |= _SENDERS * (only.senders is not None) | _RECEIVERS * (only.receivers is not None)
        fields += [(Field.SOURCE, address) for address in sorted(only.senders or ())]
        fields += [(Field.TARGET, address) for address in sorted(only.receivers or ())]
    queue = max(_QUEUE_LEAST, int(what.rate / 8 * _QUEUE_SECONDS))
    shares = (_share(what.loss), _share(what.duplicate), _share(what.reorder), _share(what.corrupt))
    times = (int(what.delay * _NS), int(what.jitter * _NS))
    seed = treatment.seed & _ALL
    value = _FAULTS.pack(treatment.towards, *shares, *times, int(what.rate), queue, seed, flags)
    return [(Field.VALUE, value), *fields]


def _share(share: float) -> int:
    """Return a share from 0 to 1 of 2^64, where all ones stands for 1."""
    return min(_ALL, int(share * 2.0**64))
