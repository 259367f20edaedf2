"""Runs a command of a container in the foreground, as a shell runs one: signals in, an exit status out."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from pytest_poorcontainer.cli import _terminal
from pytest_poorcontainer.container import Container, Process, kept
from pytest_poorcontainer.container.terminal import Terminal
from pytest_poorcontainer.errors import LabError, PoorContainerError, Unavailable
from pytest_poorcontainer.machine import CONTAINER_NEEDS, require

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import FrameType

    from pytest_poorcontainer.lab.handle import Handle

__all__ = ["enter", "run", "run_beside", "run_in"]

GRACE = 2.0
"""Seconds that a command has to end after a signal that was passed on to it."""

_NOT_EXECUTABLE, _NOT_FOUND, _BY_SIGNAL = 126, 127, 128  # as in POSIX, Shell and Utilities 2.8.2
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_OF_TERMINALS = (signal.SIGWINCH, signal.SIGCONT)
_ENDED = signal.SIGURG  # our own word for "the command has ended"; from outside it means nothing, as by default


class _SignalledError(BaseException):
    """A signal came; like KeyboardInterrupt nothing that handles ordinary errors may take it."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


def run(command: Sequence[str], network: Literal["none", "host"]) -> int:
    """Run ``command`` in a container that lives as long as it does; return the exit status for a shell."""
    heeded = _heeded()
    try:
        with _raised(heeded), _made(network) as container, _held_back(heeded):
            # The container's end ends what does not end by itself.
            return _attend(_Place(container._handle, None, {}), (command,), heeded)  # noqa: SLF001 - popen() has its own
    except _SignalledError as caught:
        return _BY_SIGNAL + caught.number


def run_in(container: Container, command: Sequence[str], cwd: str) -> int:
    """Run ``command`` in a container that is there, in a directory of it; return the exit status for a shell."""
    heeded = _heeded()
    try:
        with _raised(heeded), _held_back(heeded):
            place = _Place(container._handle, None, {}, cwd)  # noqa: SLF001 - popen() has its own
            try:
                return _attend(place, (command,), heeded)
            finally:
                if place.process is not None and place.process.poll() is None:
                    place.process.end()
    except _SignalledError as caught:
        return _BY_SIGNAL + caught.number


def run_beside(start: Callable[[], Process | subprocess.Popen[Any]]) -> int:
    """Wait for a command that ``start`` starts on the machine, as our child; return the exit status for a shell.

    What is typed at the terminal goes to it as well as to us; other signals are passed on.
    """
    try:
        process = start()
    except FileNotFoundError as error:
        print(f"poor-container: cannot run {error.filename}: there is no such command", file=sys.stderr)
        return _NOT_FOUND
    except OSError as error:
        print(f"poor-container: cannot run {error.filename}: {error.strerror}", file=sys.stderr)
        return _NOT_EXECUTABLE

    def passed_on(number: int, _frame: FrameType | None) -> None:
        process.send_signal(number)

    heeded = _heeded()
    before = {
        number: signal.signal(number, signal.SIG_IGN if number == signal.SIGINT and os.isatty(0) else passed_on)
        for number in heeded
    }
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return _BY_SIGNAL - code if code < 0 else code


def enter(place: kept.Kept, commands: Sequence[Sequence[str]], user: str | None, env: Mapping[str, str]) -> int:
    """Run the first of ``commands`` that is there in a container that lives on; return the exit status for a shell."""
    heeded = _heeded()
    try:
        with _raised(heeded), _held_back(heeded):
            entered = _Place(kept.visit(place), user, env)
            try:
                return _attend(entered, commands, heeded)
            finally:
                # Only we know of it, and we go; what it has left in the background by its own will stays.
                if entered.process is not None and entered.process.poll() is None:
                    entered.process.end()
    except _SignalledError as caught:
        return _BY_SIGNAL + caught.number


def _heeded() -> set[signal.Signals]:
    """Return the signals that we pass on: not what the caller ignores, as nohup does, or a shell for its background."""
    return {number for number in _PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN}


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


class _Place:
    """Where, and as whom, a command is to run; and the one that does."""

    def __init__(self, handle: Handle, user: str | None, env: Mapping[str, str], cwd: str | None = None) -> None:
        self.handle = handle
        self.cwd = cwd
        self.user = user
        self.process: Process | None = None
        self._env = {**_terminal.environment(), **env}

    def start(
        self, commands: Sequence[Sequence[str]], streams: tuple[int, int, int], *, terminal: bool
    ) -> Process | int:
        """Start the first of the commands that is there; return the exit status when it cannot be done."""
        for command in commands:
            options: dict[str, Any] = dict(zip(("stdin", "stdout", "stderr"), streams, strict=True))
            try:
                self.process = Process(
                    self.handle, command, env=self._env, user=self.user, cwd=self.cwd, terminal=terminal, **options
                )
            except FileNotFoundError:
                status, why = _NOT_FOUND, "there is no such command"
            except OSError as error:
                status, why = _NOT_EXECUTABLE, str(error.strerror)
            else:
                return self.process
        print(f"poor-container: cannot run {command[0]}: {why}", file=sys.stderr)
        return status


def _attend(place: _Place, commands: Sequence[Sequence[str]], heeded: set[signal.Signals]) -> int:
    """Run a command to its end, on a terminal of its own where there is a person; signals are held back."""
    if not _terminal.is_interactive():
        process = place.start(commands, (0, 1, 2), terminal=False)
        return process if isinstance(process, int) else _wait(process, heeded)
    terminal = Terminal(place.handle.agent, place.user, _tell_main, stderr=None if os.isatty(2) else 2)
    try:
        process = place.start(commands, terminal.streams, terminal=True)
        if isinstance(process, int):
            return process
        with _blocked(_OF_TERMINALS), terminal.carried():
            terminal.resize()  # it may have changed before we heeded the signal
            return _wait(process, heeded, terminal)
    finally:
        terminal.close()


def _tell_main() -> None:
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, _ENDED)


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
        _tell_main()

    def status(self) -> int:
        """Return the exit status for a shell, once settled; raise what went wrong instead."""
        if self._error is not None:
            raise self._error
        code = self._process.wait()
        return _BY_SIGNAL - code if code < 0 else code


def _wait(process: Process, heeded: set[signal.Signals], terminal: Terminal | None = None) -> int:
    """Wait for the end, and pass signals on meanwhile. They are held back, so none can be lost between two steps."""
    watch = _Watch(process)
    watch.start()
    awaited = {*heeded, _ENDED, *(_OF_TERMINALS if terminal else ())}
    first, deadline = 0, 0.0
    while not watch.settled:
        patience = deadline - time.monotonic() if first else threading.TIMEOUT_MAX
        came = signal.sigtimedwait(awaited, min(max(patience, 0.0), 3600.0))
        if came is None and first:
            return _BY_SIGNAL + first  # it is ended by whoever called us
        number = came.si_signo if came else 0
        if terminal is not None and number in _OF_TERMINALS:
            if number == signal.SIGCONT:
                terminal.make_raw()
            terminal.resize()
        if terminal is not None and terminal.hung_up and not first:
            number = signal.SIGHUP  # which the kernel may not have sent: it need not be our controlling terminal
        if number not in _PASSED_ON:
            continue
        process.send_signal(number)
        if not first:
            first, deadline = number, time.monotonic() + GRACE
    return watch.status()


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
    with _blocked({*heeded, _ENDED}):
        yield


@contextlib.contextmanager
def _blocked(numbers: Iterable[signal.Signals]) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
