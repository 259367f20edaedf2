"""The services of one container."""

from __future__ import annotations

import os
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_poorcontainer.container.control import is_signal
from pytest_poorcontainer.container.log import Archive
from pytest_poorcontainer.container.ready import conditions
from pytest_poorcontainer.container.request import arguments
from pytest_poorcontainer.container.service import Service
from pytest_poorcontainer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pytest_poorcontainer.container.ready import Condition, Ready
    from pytest_poorcontainer.container.request import Argv, Environment, PassFds, Text
    from pytest_poorcontainer.container.service_tree import Tree
    from pytest_poorcontainer.lab.handle import Handle

__all__ = ["Plan", "Services"]

# Or what a service in Python prints would show in its log when 8 KiB of it have come together.
_ENVIRONMENT = {b"PYTHONUNBUFFERED": b"1"}


@dataclass(frozen=True)
class Plan:
    """What a service is to be, in each of its runs."""

    name: str
    argv: Argv
    conditions: tuple[Condition, ...]
    timeout: float
    env: dict[bytes, Text | None]
    cwd: Text | None
    user: str | int | None
    stop_signal: int
    stop_timeout: float
    pass_fds: PassFds

    @property
    def words(self) -> list[str]:
        """The argument list as text."""
        return [os.fsdecode(word) for word in arguments(self.argv)]


class Services:
    """The services of one container in order of start, and the file of their ended logs."""

    def __init__(self, handle: Handle) -> None:
        """Begin with none; ``handle`` is the container's."""
        self._handle = handle
        self._all: list[Service] = []
        self._lock = threading.Lock()
        self.archive = Archive(_directories(handle.lab.basetemp))

    @property
    def weak(self) -> Siblings:
        """The services as one of them may know them: it must not keep the container alive by itself."""
        return Siblings(weakref.ref(self))

    def all(self) -> tuple[Service, ...]:
        """Return them, in order of start, also those that have ended."""
        return tuple(self._all)

    def start(
        self,
        argv: Argv,
        *,
        ready: Ready,
        name: str | None,
        timeout: float,
        env: Environment | None,
        cwd: Text | None,
        user: str | int | None,
        stop_signal: int,
        stop_timeout: float,
        pass_fds: PassFds,
    ) -> Service:
        """Start a service; see ``Container.start``."""
        self._handle.check()
        words = arguments(argv)
        if not is_signal(stop_signal) or stop_signal == 0:
            raise UsageError(f"stop_signal={stop_signal!r} is no signal")
        for what, seconds in (("timeout", timeout), ("stop_timeout", stop_timeout)):
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds >= 0:
                raise UsageError(f"{what}={seconds!r}: expected seconds, a number from 0 up")
        merged: dict[bytes, Text | None] = dict(_ENVIRONMENT)
        merged.update((os.fsencode(key), value) for key, value in (env or {}).items())
        wanted = conditions(ready)
        given = argv if isinstance(argv, (str, bytes, os.PathLike)) else tuple(argv)
        with self._lock:
            called = self._name(name, os.fsdecode(os.path.basename(words[0])))  # noqa: PTH119 - bytes
            plan = Plan(called, given, wanted, timeout, merged, cwd, user, int(stop_signal), stop_timeout, pass_fds)
            service = Service(plan, self._handle, self)
            self._all.append(service)
        try:
            service.launch()
        except BaseException:
            if not service.runs:
                self._all.remove(service)  # it was never there
            raise
        return service

    def _name(self, wanted: str | None, program: str) -> str:
        if wanted is not None:
            if not isinstance(wanted, str) or not wanted or not wanted.isprintable():
                raise UsageError(f"name={wanted!r}: expected a str of printable characters that is not empty")
            if any(service.name == wanted and service.alive for service in self._all):
                raise UsageError(f"a service {wanted!r} runs in {self._handle.name} already: choose another name")
            return wanted
        program = "".join(each if each.isprintable() else "?" for each in program)
        names = {service.name for service in self._all}
        number = 1
        while (name := program if number == 1 else f"{program}-{number}") in names:
            number += 1
        return name

    def closed(self) -> None:
        """Take note that the container was closed, and all that ran in it ended."""
        for service in self._all:
            service.look()

    def trees(self) -> Iterator[tuple[str, Tree]]:
        """Yield names and processes of those that live."""
        for service in tuple(self._all):
            tree = service.tree
            if tree is not None:
                yield service.name, tree


class Siblings:
    """The services of a container, as long as there is one."""

    def __init__(self, services: weakref.ref[Services]) -> None:
        """Hold nobody."""
        self._services = services

    def trees(self) -> Iterable[tuple[str, Tree]]:
        """Yield names and processes of those that live."""
        services = self._services()
        return () if services is None else services.trees()


def _directories(basetemp: Path | None) -> list[os.PathLike[str] | str]:
    found: list[os.PathLike[str] | str] = [] if basetemp is None else [basetemp]
    return [*found, os.environ.get("TMPDIR", "/tmp"), "/var/tmp"]  # noqa: S108 - for files without a name
