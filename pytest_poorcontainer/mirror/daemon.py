"""``poor-mirror run``: all mirrors by their intervals, and the page. Each run is a process of its own."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.mirror.config import host_of, load
from pytest_poorcontainer.mirror.errors import MirrorError
from pytest_poorcontainer.mirror.history import History
from pytest_poorcontainer.mirror.overview import watch
from pytest_poorcontainer.mirror.shares import publish

if TYPE_CHECKING:
    from collections.abc import Collection

    from pytest_poorcontainer.mirror.config import Config, Mirror

__all__ = ["Daemon"]

_STEP = 0.5
_SHARE = 0.05  # of the interval, by which runs are spread
_GRACE = 10.0


class Daemon:
    """Starts what is due: at most ``jobs`` at once, and one at a time for each server.

    SIGTERM and SIGINT end it, SIGHUP has it read its configuration anew.
    """

    def __init__(self, config: Config, serve: str = "") -> None:
        """``serve`` is where the page is served, "" for nowhere. Raises :class:`~..errors.MirrorError`."""
        self._config = config
        self._history = History(config.state / "history.sqlite3")
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._hosts: dict[str, str] = {}  # of what is running
        self._due: dict[str, float] = {}
        self._ending = threading.Event()
        self._stale = False
        self._said = ""
        self._changed: set[str] = set()
        self._shown: tuple[int, set[str]] = (0, set())
        self._server = None
        if serve:
            from pytest_poorcontainer.mirror.page.served import PageServer, address_of  # noqa: PLC0415 - needs jinja2

            self._server = PageServer(config, address_of(serve))

    def run(self) -> int:
        """Go on until a signal comes; then end all runs, and return 0."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._ending.set())
        signal.signal(signal.SIGHUP, lambda *_: setattr(self, "_stale", True))
        thread = None
        if self._server is not None:
            thread = threading.Thread(target=self._server.serve_politely, daemon=True)
            thread.start()
            host, port = self._server.server_address[:2]
            print(f"the page is at http://{host!s}:{port}/", flush=True)  # noqa: T201 - what the admin asked for
        self._plan()
        self._write_page()
        try:
            while not self._ending.wait(_STEP):
                self._step()
        finally:
            self._end()
            if self._server is not None and thread is not None:
                self._server.ending.set()
                self._server.shutdown()
                thread.join(_GRACE)
                self._server.server_close()
        return 0

    def _step(self) -> None:
        """Do what there is to do; what cannot be done now, as with a history that is gone, may be so in a while."""
        try:
            if self._stale:
                self._stale = False
                self._reload()
            self._collect()
            self._start()
            self._show()
            self._said = ""
        except MirrorError as error:
            self._say(str(error))

    def _say(self, text: str) -> None:
        """Tell the admin, but the same thing once."""
        if text != self._said:
            self._said = text
            print(f"poor-mirror: {text}", file=sys.stderr, flush=True)  # noqa: T201 - the daemon goes on

    def _reload(self) -> None:
        """Read the configuration anew; raise :class:`MirrorError`, and keep the old one. What is under way goes on."""
        self._config = load(self._config.path)
        self._history = History(self._config.state / "history.sqlite3")
        self._plan()
        if self._server is not None:
            self._server.show(self._config)
        self._write_page()
        print(f"read {self._config.path}: {len(self._config.mirrors)} mirrors", flush=True)  # noqa: T201 - was asked for

    def _plan(self) -> None:
        """Reckon when each mirror is due."""
        self._due = {mirror.name: self._first(mirror) for mirror in self._config.mirrors.values()}

    def _last(self, name: str) -> dict[str, Any] | None:
        """Return the last run of a mirror; of one whose history cannot be read, that it has failed just now."""
        try:
            return self._history.last(name)
        except MirrorError as error:
            self._say(str(error))
            return {"ended": time.time(), "state": "failed"}

    def _first(self, mirror: Mirror) -> float:
        """Return when a mirror is due for the first time: an interval after its last run, or at once."""
        last = self._last(mirror.name)
        return self._next(mirror, last["ended"], last["state"]) if last else 0.0

    def _next(self, mirror: Mirror, ended: float, state: str) -> float:
        """Return when a mirror is due again."""
        return ended + mirror.pause(state) * random.uniform(1, 1 + _SHARE)  # noqa: S311 - so that not all begin at once

    def _collect(self) -> None:
        for name, process in list(self._running.items()):
            if process.poll() is None:
                continue
            del self._running[name], self._hosts[name]
            self._divide()
            mirror = self._config.mirrors.get(name)
            if mirror is not None:  # else a new configuration has it no more
                last = self._last(name)
                self._due[name] = self._next(mirror, time.time(), last["state"] if last else "failed")
                self._changed.add(name)

    def _start(self) -> None:
        now = time.time()
        busy = set(self._hosts.values())
        for name, due in sorted(self._due.items(), key=lambda pair: pair[1]):
            mirror = self._config.mirrors[name]
            host = host_of(mirror.source)
            # What is due later than its interval allows was reckoned by a clock that has been set since.
            later = now < due <= now + mirror.interval * (1 + _SHARE)
            if later or name in self._running or len(self._running) >= self._config.at_once():
                continue
            if host and host in busy:
                continue
            busy.add(host)
            self._hosts[name] = host
            self._launch(name)
            self._divide()

    def _divide(self) -> None:
        """Have the runs that there are now divide the bandwidth for all."""
        if self._config.bandwidth:
            publish(
                self._config, [self._config.mirrors[name] for name in self._running if name in self._config.mirrors]
            )

    def _launch(self, name: str) -> None:
        words = ["--config", str(self._config.path), "sync", "--quiet", f"--runs={self._config.at_once()}", name]
        self._running[name] = subprocess.Popen(
            [sys.executable, "-m", "pytest_poorcontainer.cli.poor_mirror", *words],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _show(self) -> None:
        """Write the page when a run has begun or ended, here or elsewhere."""
        if self._config.page is None:
            return
        mark, told = watch(self._config)
        running = set(told)
        if mark != self._shown[0] or self._changed:
            self._write_page(self._changed | (running ^ self._shown[1]))
            self._changed = set()
            self._shown = mark, running

    def _write_page(self, only: Collection[str] | None = None) -> None:
        if self._config.page is None:
            return
        from pytest_poorcontainer.mirror.page.render import write  # noqa: PLC0415 - needs jinja2

        try:
            write(self._config, only)
        except MirrorError as error:
            self._say(str(error))

    def _end(self) -> None:
        """End all runs: each drops what is on its way, and writes its result."""
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        deadline = time.monotonic() + _GRACE
        for process in self._running.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:  # noqa: PERF203 - a handful of processes
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._running.clear()
        self._write_page()
