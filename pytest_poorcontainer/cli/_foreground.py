"""Runs a command of a container in the foreground, as a shell runs one: signals in, an exit status out."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Literal, NoReturn

from pytest_poorcontainer.container import Container
from pytest_poorcontainer.errors import LabError, Unavailable
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


class _SignalledError(BaseException):
    """A signal came; like KeyboardInterrupt nothing that handles ordinary errors may take it."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


def run(command: Sequence[str], network: Literal["none", "host"]) -> int:
    """Run ``command`` in a container that lives as long as it does; return the exit status for a shell."""
    try:
        with _signals_raise(), _made(network) as container:
            return _run_in(container, command)
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


def _run_in(container: Container, command: Sequence[str]) -> int:
    # Held back until the start is settled: the command may run, and be worth a signal, before popen returns.
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    try:
        process = container.popen(command, stdin=0, stdout=1, stderr=2, env=_terminal())
    except FileNotFoundError:
        print(f"poor-container: cannot run {command[0]}: there is no such command", file=sys.stderr)
        return _NOT_FOUND
    except OSError as error:
        print(f"poor-container: cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return _NOT_EXECUTABLE
    return _wait(process)


def _wait(process: Process) -> int:
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        return _status(process.wait())
    except _SignalledError as caught:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(caught.number)
        try:
            return _status(process.wait(GRACE))
        except subprocess.TimeoutExpired:
            return _BY_SIGNAL + caught.number  # the container's end kills it


def _status(code: int) -> int:
    return _BY_SIGNAL - code if code < 0 else code


def _terminal() -> dict[str, str]:
    """Name the kind of terminal, without which no program draws on it."""
    return {"TERM": os.environ["TERM"]} if "TERM" in os.environ else {}


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Make the signals that we pass on interrupt whatever we wait for."""

    def caught(number: int, _frame: FrameType | None) -> NoReturn:
        raise _SignalledError(number)

    before = {number: signal.signal(number, caught) for number in _PASSED_ON if _is_heeded(number)}
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_heeded(number: int) -> bool:
    """Leave a signal alone that the caller ignores: nohup, or a shell that runs us in the background."""
    return signal.getsignal(number) is not signal.SIG_IGN
