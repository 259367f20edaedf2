"""Lines of services as they come: to ``logging``, and to whoever else wants them.

A thread does it, and only while there is somebody to tell: when a service is started, its logger
``poor_container.HOST.SERVICE`` is asked whether it wants level INFO (pytest's ``--log-cli-level=INFO`` and
``--log-level=INFO`` see to that), and whether ``observers`` has an entry.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from typing import TYPE_CHECKING

from pytest_poorcontainer.container.log import decode
from pytest_poorcontainer.container.log_file import Changes

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_poorcontainer.container.service import Service

__all__ = ["Follower", "follow", "observers", "wanted"]

observers: list[Callable[[Service, str], None]] = []
"""Called for each line of each service started afterwards, without its newline, in the follower's thread."""

_CHUNK = 1 << 20
_LONGEST_LINE = 64 << 10
_PATIENCE = 1.0  # seconds
_GLANCE = 0.2  # seconds; where inotify does not work, that is how late lines come


def logger_of(service: Service) -> logging.Logger:
    """Return the logger that gets a service's lines."""
    return logging.getLogger(f"poor_container.{service.host_name}.{service.name}")


def wanted(service: Service) -> bool:
    """Return whether anybody wants the lines of this service."""
    return bool(observers) or logger_of(service).isEnabledFor(logging.INFO)


class Follower:
    """Passes on the lines of one run of one service."""

    def __init__(self, service: Service) -> None:
        """Begin where the run begins."""
        self._service = service
        self._log = service.log_of_runs
        self._logger = logger_of(service)
        self._at = self._log.run_start
        self._rest = b""
        self._lock = threading.Lock()
        self._final = False
        self.over = False

    def read(self, *, final: bool = False) -> None:
        """Pass on what has come; ``final``: an unfinished line too, and nothing from then on."""
        self._final = self._final or final
        # An observer may want something that our caller holds: then the thread goes on alone.
        if not self._lock.acquire(timeout=_PATIENCE):
            return
        try:
            while not self.over and self._read_chunk():
                pass
        finally:
            self._lock.release()

    def _read_chunk(self) -> bool:
        """Pass on the lines of a piece; return whether there may be more."""
        final, end = self._final, self._log.end()
        high = min(end, self._at + _CHUNK)
        *lines, self._rest = (self._rest + self._log.read(self._at, high)).split(b"\n")
        self._at = max(self._at, high)
        if self._rest and (len(self._rest) > _LONGEST_LINE or (final and self._at >= end)):
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._tell(decode(line).rstrip("\r"))
        self.over = final and self._at >= end
        return self._at < end

    def _tell(self, line: str) -> None:
        for observer in tuple(observers):
            _guarded(observer, self._service, line)
        _guarded(self._logger.info, "%s", line)


def _guarded(tell: Callable[..., None], *arguments: object) -> None:
    """Tell somebody. Whoever listens may be wrong: then that is shown, and the line goes on to the others."""
    try:
        tell(*arguments)
    except Exception as error:  # noqa: BLE001 - anything that a stranger's function may raise
        # As if a thread had ended by it: pytest makes a warning of that, Python a traceback on stderr.
        told = threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
        threading.excepthook(told)


class _Thread:
    """The one thread that follows all logs, while there are any."""

    def __init__(self) -> None:
        self._changes = Changes()
        self._followers: list[Follower] = []
        self._lock = threading.Lock()
        self._running = False

    def add(self, follower: Follower, fd: int) -> None:
        with self._lock:
            self._changes.add(fd)
            self._followers.append(follower)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="poor-container-logs", daemon=True).start()

    def _run(self) -> None:
        poller = select.poll()
        if self._changes.fd >= 0:
            poller.register(self._changes.fd, select.POLLIN)
        while True:
            poller.poll(_GLANCE * 1000)
            self._changes.take()
            with self._lock:
                self._followers = [follower for follower in self._followers if not follower.over]
                if not self._followers:
                    self._running = False
                    return
                followers = tuple(self._followers)
            for follower in followers:
                follower.read()


_thread: _Thread | None = None


def follow(service: Service) -> Follower:
    """Pass on the lines of a service's run that begins; ``read(final=True)`` ends it."""
    global _thread  # noqa: PLW0603 - one thread is enough for a process
    follower = Follower(service)
    _thread = _thread or _Thread()
    _thread.add(follower, service.log_of_runs.fd)
    return follower


def _forget_in_child() -> None:
    global _thread  # noqa: PLW0603
    _thread = None  # a forked child has no such thread


os.register_at_fork(after_in_child=_forget_in_child)
