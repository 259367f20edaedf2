"""Runs a command of a container in the foreground, as a shell runs one: signals in, an exit status out."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Literal, NoReturn

from pytest_poorcontainer.container import Container
from pytest_poorcontainer.errors import LabError, PoorContainerError, Unavailable
from pytest_poorcontainer.machine import CONTAINER_NEEDS, require

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from pytest_poorcontainer.container import Process

__all__ = ["run"]

GRACE = 2.0
"""Seconds that a command has to end after a signal that was passed on to it."""

_NOT_EXECUTABLE, _NOT_FOUND, _BY_SIGNAL = 126, 127, 128  # as in POSIX, Shell and Utilities 2.8.2
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ENDED = signal.SIGURG  # our own word for "the command has ended"; from outside it means nothing, as by default


class _SignalledError(BaseException):
    """A signal came; like KeyboardInterrupt nothing that handles ordinary errors may take it."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


def run(command: Sequence[str], network: Literal["none", "host"]) -> int:
    """Run ``command`` in a container that lives as long as it does; return the exit status for a shell."""
    # A signal that the caller ignores is left alone: nohup, or a shell that runs us in the background.
    heeded = {number for number in _PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN}
    try:
        with _raised(heeded), _made(network) as container, _held_back(heeded):
            return _run_in(container, command, heeded)
    except _SignalledError as caught:
        return _BY_SIGNAL + caught.number


def _made(network: Literal["none", "host"]) -> Container:
    try:
        return Container(network=network)
    except LabError as error:
        # It names the step that failed; the machine may know the cause, and what to do about it.
        try:
            require(*CONTAINER_NEEDS)
        except Unavailable as unavailable:
            raise unavailable from error
        raise


def _run_in(container: Container, command: Sequence[str], heeded: set[signal.Signals]) -> int:
    try:
        process = container.popen(command, stdin=0, stdout=1, stderr=2, env=_terminal())
    except FileNotFoundError:
        print(f"poor-container: cannot run {command[0]}: there is no such command", file=sys.stderr)
        return _NOT_FOUND
    except OSError as error:
        print(f"poor-container: cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return _NOT_EXECUTABLE
    return _wait(process, heeded)


class _Watch(threading.Thread):
    """Waits for a command's end and tells the main thread, which waits for signals."""

    def __init__(self, process: Process) -> None:
        super().__init__(name="poor-container-run", daemon=True)
        self.settled = False
        self._error: PoorContainerError | None = None
        self._process = process

    def run(self) -> None:
        try:
            self._process.wait()
        except PoorContainerError as error:
            self._error = error
        self.settled = True
        main = threading.main_thread().ident
        if main is not None:
            signal.pthread_kill(main, _ENDED)

    def status(self) -> int:
        """Return the exit status for a shell, once settled; raise what went wrong instead."""
        if self._error is not None:
            raise self._error
        code = self._process.wait()
        return _BY_SIGNAL - code if code < 0 else code


def _wait(process: Process, heeded: set[signal.Signals]) -> int:
    """Wait for the end, and pass signals on meanwhile. They are held back, so none can be lost between two steps."""
    watch = _Watch(process)
    watch.start()
    first, deadline = 0, 0.0
    while not watch.settled:
        patience = deadline - time.monotonic() if first else threading.TIMEOUT_MAX
        came = signal.sigtimedwait({*heeded, _ENDED}, min(max(patience, 0.0), 3600.0))
        if came is None and first:
            return _BY_SIGNAL + first  # the container's end kills it
        if came is None or came.si_signo == _ENDED:
            continue
        process.send_signal(came.si_signo)
        if not first:
            first, deadline = came.si_signo, time.monotonic() + GRACE
    return watch.status()


def _terminal() -> dict[str, str]:
    """Name the kind of terminal, without which no program draws on it."""
    return {"TERM": os.environ["TERM"]} if "TERM" in os.environ else {}


@contextlib.contextmanager
def _raised(heeded: set[signal.Signals]) -> Iterator[None]:
    """Make these signals interrupt whatever is being done."""

    def caught(number: int, _frame: FrameType | None) -> NoReturn:
        raise _SignalledError(number)

    before = {number: signal.signal(number, caught) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _held_back(heeded: set[signal.Signals]) -> Iterator[None]:
    """Hold these signals back for whoever waits for them by name; what is left of them comes afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*heeded, _ENDED})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
