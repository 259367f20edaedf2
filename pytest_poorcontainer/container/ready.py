"""What ``ready=`` of a service may be, and the wait until it is so."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import select
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_poorcontainer.container.log_file import watching
from pytest_poorcontainer.container.log_search import QUIET, Search, compiled
from pytest_poorcontainer.container.ready_sockets import PathReady, PortReady, SocketView, port_of
from pytest_poorcontainer.container.service_tree import is_doomed
from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.lab.clock import now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pytest_poorcontainer.container.log_file import Changes
    from pytest_poorcontainer.container.service import Service

__all__ = ["CallReady", "Condition", "LogReady", "NotifyReady", "Ready", "Waiting", "conditions"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.0005, 0.005  # seconds between looks at what cannot wake us
_PAUSE_SHARE = 0.02  # of the time waited so far: so the look comes at most that much late
_GLANCE = 0.1  # seconds after which we look anyhow, should a file system not tell that a log was written
_DOOM = 0.2  # seconds for the news of a death that is certain

Ready: TypeAlias = "int | str | os.PathLike[str] | re.Pattern[str] | Callable[..., Any] | Sequence[Any] | None"


class LogReady:
    """Ready when a regular expression is found in this run's log."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        """Take the compiled pattern."""
        self.pattern = pattern

    def __str__(self) -> str:
        """Return the pattern as text."""
        return f"{self.pattern.pattern!r} in the log"


class NotifyReady:
    """Ready when the service says READY=1 to NOTIFY_SOCKET (sd_notify(3))."""

    def __str__(self) -> str:
        """Return what is waited for."""
        return "READY=1 to NOTIFY_SOCKET"


class CallReady:
    """Ready when a function says so."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Find out whether it wants the service as its argument."""
        self.function = function
        self._wants = _wants_argument(function)

    def __str__(self) -> str:
        """Return the function's name."""
        return f"{getattr(self.function, '__qualname__', None) or repr(self.function)}() to be true"

    def ask(self, service: Service) -> bool:
        """Return whether what the function returns is true. Raises what it raises."""
        value = self.function(service) if self._wants else self.function()
        if inspect.isawaitable(value):
            if inspect.iscoroutine(value):
                value.close()
            raise UsageError(f"ready={self.function!r} is a coroutine function: expected an ordinary one")
        return bool(value)


Condition: TypeAlias = "PortReady | PathReady | LogReady | NotifyReady | CallReady"


def conditions(ready: Ready) -> tuple[Condition, ...]:
    """Return what ``ready=`` asks for, nothing for None.

    Raises :class:`UsageError` for what it cannot be.
    """
    if ready is None:
        return ()
    if isinstance(ready, (list, tuple)):
        if not ready:
            raise UsageError("ready is empty: expected at least one condition, or None")
        return tuple(condition for item in ready for condition in conditions(item))
    return (_condition(ready),)


def _condition(ready: Any) -> Condition:
    if isinstance(ready, re.Pattern):
        return LogReady(compiled(ready))
    if isinstance(ready, int) and not isinstance(ready, bool):
        port = port_of(str(ready)) if ready > 0 else None
        if port is None:
            raise UsageError(f"ready={ready!r}: a port is a number from 1 to 65535")
        return port
    if isinstance(ready, (str, os.PathLike)):
        text = os.fspath(ready)
        if isinstance(text, str):
            found = NotifyReady() if text == "notify" else _path_or_port(text)
            if found is not None:
                return found
    elif callable(ready):
        return CallReady(ready)
    raise UsageError(
        f"ready={ready!r} is none of: a port (80, 'udp:53', '127.0.0.1:80', '[::1]:80'), the absolute path of a unix "
        "socket, a compiled regular expression for the log, 'notify', a function, a list of these"
    )


def _path_or_port(text: str) -> Condition | None:
    return PathReady(text) if text.startswith("/") else port_of(text)


def _wants_argument(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False  # written in C, without a signature
    needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(needed) > 1 or any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
        raise UsageError(f"ready={function!r} needs several arguments: expected none, or one, the service")
    return bool(needed)


class Waiting:
    """One wait for the conditions of a service that has been started."""

    def __init__(self, service: Service, wanted: Iterable[Condition], view: SocketView | None) -> None:
        """``view``: where a condition is a socket."""
        self._service = service
        self._view = view
        self._pending = list(wanted)
        self._began = now()
        self._last_call = 0.0
        self.error: Exception | None = None
        log = service.log_of_runs
        self._searches = {c: Search(log, c.pattern, log.run_start) for c in self._logs()}

    def _logs(self) -> list[LogReady]:
        return [condition for condition in self._pending if isinstance(condition, LogReady)]

    @property
    def pending(self) -> str:
        """What is still missing, for a message."""
        return " and ".join(map(str, self._pending))

    @property
    def view(self) -> SocketView | None:
        """The sockets, when a condition is one."""
        return self._view

    def until(self, deadline: float | None) -> bool:
        """Wait; return False when the deadline comes first. Raises :class:`ServiceDied` at once when it dies."""
        service, poller = self._service, select.poll()
        poller.register(service.process.fileno(), select.POLLIN)
        with contextlib.ExitStack() as closing:
            for search in self._searches.values():
                closing.callback(search.close)
            changes = self._watch(poller, closing)
            while True:
                service.expect_life(f"while waiting for {self.pending}")
                if service.notifications is not None:
                    service.notifications.take()  # in any case: who tells more must neither wake us again nor block
                if self._look():
                    return True
                time = now()
                if deadline is not None and time >= deadline:
                    return False
                poller.poll(self._pause(time, deadline) * 1000)
                if changes is not None:
                    changes.take()

    def _watch(self, poller: select.poll, closing: contextlib.ExitStack) -> Changes | None:
        notifications = self._service.notifications
        if notifications is not None and any(isinstance(c, NotifyReady) for c in self._pending):
            poller.register(notifications.fd, select.POLLIN)
        if not self._searches:
            return None
        changes = closing.enter_context(watching(self._service.log_of_runs.fd))
        if changes.fd >= 0:
            poller.register(changes.fd, select.POLLIN)
        return changes

    def _pause(self, time: float, deadline: float | None) -> float:
        pause = _GLANCE
        if any(not isinstance(condition, (LogReady, NotifyReady)) for condition in self._pending):
            waited = (time - self._began) * _PAUSE_SHARE
            # A function that takes long is not called without a rest: it may well need what the service needs.
            pause = max(min(max(waited, _FIRST_PAUSE), _LONGEST_PAUSE), min(self._last_call, _GLANCE))
        if any(search.undecided for search in self._searches.values()):
            pause = min(pause, QUIET)
        return pause if deadline is None else max(0.0, min(pause, deadline - time))

    def _look(self) -> bool:
        """Drop what has come true; return whether all has, and the service lives."""
        called = any(isinstance(condition, CallReady) for condition in self._pending)
        self._pending = [condition for condition in self._pending if not self._holds(condition)]
        if self._pending:
            return False
        service = self._service
        if called and is_doomed(service.process.pid):
            # The function may have killed it: the news may still be on its way.
            service.look(patience=_DOOM)
        service.expect_life("when it had become ready")
        return True

    def _holds(self, condition: Condition) -> bool:
        if isinstance(condition, LogReady):
            return self._searches[condition].look() is not None
        if isinstance(condition, NotifyReady):
            notifications = self._service.notifications
            return notifications is not None and notifications.take()
        if isinstance(condition, CallReady):
            return self._ask(condition)
        assert self._view is not None  # noqa: S101 - made where there is such a condition
        return condition.holds(self._view)

    def _ask(self, condition: CallReady) -> bool:
        began = now()
        try:
            return condition.ask(self._service)
        except (NameError, ImportError, UsageError):
            raise  # a mistake in the test, that no waiting heals
        except Exception as error:  # noqa: BLE001 - every client library has exceptions of its own for "not yet"
            self.error = error
            return False
        finally:
            self._last_call = now() - began
