"""A program that is run for a source: its lines as they come, in a process group that ends when we do."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from pytest_poorcontainer.mirror.errors import MirrorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["Program"]

_CHUNK = 1 << 16
_ERRORS = 1 << 16
_STEP = 0.2


class Program:
    """Runs a command. ``status`` is its exit status (negative: a signal) once :meth:`lines` has ended."""

    def __init__(
        self,
        argv: list[str],
        environment: Mapping[str, str],
        tick: Callable[[], None],
        data: bytes | None = None,
        *,
        cwd: str | None = None,
    ) -> None:
        """``tick`` is called several times a second, and may raise to end it; ``data`` is its standard input."""
        self.status = 0
        self._said = bytearray()
        self._tick = tick
        self._data = data or b""
        try:
            self._process = subprocess.Popen(
                argv,
                env=dict(environment),
                cwd=cwd,
                stdin=subprocess.PIPE if data is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise MirrorError(f"cannot start {argv[0]}: {error.strerror}; is it installed?") from error

    @property
    def errors(self) -> str:
        """What it said on its standard error."""
        return self._said.decode("utf-8", "backslashreplace")

    def lines(self) -> Iterator[bytes]:
        """Yield the lines of its standard output, without their ends; wait for its end."""
        process = self._process
        left = b""
        with process, selectors.DefaultSelector() as selector:
            try:
                self._watch(selector)
                while selector.get_map():
                    for key, _ in selector.select(_STEP):
                        chunk = self._turn(selector, key)
                        if chunk:
                            whole, newline, rest = (left + chunk).rpartition(b"\n")
                            left = rest
                            if newline:
                                yield from whole.split(b"\n")
                    self._tick()
                while True:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self.status = process.wait(_STEP)
                        break
                    self._tick()
            except BaseException:
                self.kill()
                raise
        if left:
            yield left

    def _watch(self, selector: selectors.BaseSelector) -> None:
        for file in (self._process.stdout, self._process.stderr):
            if file is not None:
                selector.register(file, selectors.EVENT_READ)
        if self._process.stdin is not None:
            os.set_blocking(self._process.stdin.fileno(), False)
            selector.register(self._process.stdin, selectors.EVENT_WRITE)

    def _turn(self, selector: selectors.BaseSelector, key: selectors.SelectorKey) -> bytes:
        """Serve one of its streams; return what came on its standard output."""
        if key.fileobj is self._process.stdin:
            try:
                self._data = self._data[os.write(key.fd, self._data[:_CHUNK]) :]
            except BrokenPipeError:
                self._data = b""
            if not self._data:
                selector.unregister(key.fileobj)
                self._process.stdin.close()
            return b""
        chunk = os.read(key.fd, _CHUNK)
        if not chunk:
            selector.unregister(key.fileobj)
        elif key.fileobj is self._process.stderr:
            self._said += chunk[: max(0, _ERRORS - len(self._said))]
            return b""
        return chunk

    def kill(self) -> None:
        """End it, and all that it has started in its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
            os.killpg(self._process.pid, signal.SIGKILL)

    def pause(self, seconds: float) -> None:
        """Wait before another attempt."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _STEP))
            self._tick()
