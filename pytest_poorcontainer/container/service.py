"""Services: long-running commands in a container, with readiness and a log."""

from __future__ import annotations

import contextlib
import re
import select
import signal
import subprocess
import threading
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.container import log_live
from pytest_poorcontainer.container.freezable import Freezable
from pytest_poorcontainer.container.freezing import Frozen, kill
from pytest_poorcontainer.container.log import KEPT, Log, LogText
from pytest_poorcontainer.container.log_file import watching
from pytest_poorcontainer.container.log_search import QUIET, Search, compiled
from pytest_poorcontainer.container.notify import Notifications
from pytest_poorcontainer.container.process import Process
from pytest_poorcontainer.container.ready import NotifyReady, Waiting
from pytest_poorcontainer.container.ready_sockets import PathReady, PortReady, SocketView
from pytest_poorcontainer.container.service_tree import Tree
from pytest_poorcontainer.errors import LabDied, NotReady, PoorContainerError, ServiceDied, ServiceError, UsageError
from pytest_poorcontainer.lab.clock import now
from pytest_poorcontainer.lab.events import note

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from pytest_poorcontainer.container.service_list import Plan, Services
    from pytest_poorcontainer.lab.handle import Handle

__all__ = ["Service"]

_GLANCE = 0.1  # seconds after which a log is looked at anyhow, should its file system not tell of writing
_AFTERMATH = 0.005  # seconds in which what a command leaves behind mostly ends by itself
_STEP = 0.05
_NEWS = 1.0  # seconds in which the end of a command that was killed is told
_SHOWN = 20  # lines of the log in an error


class Service(Freezable):
    """A long-running command of a container; ``Container.start`` makes it.

    ``name`` and ``host_name`` say what it is called and where it runs, ``argv`` what was asked for; ``process`` is the
    :class:`Process` of the current run, ``runs`` counts the runs, ``ready_after`` is how many seconds it took to be
    ready last (None until then). As a context manager it is stopped at the end.
    Safe to use from several threads at once.
    """

    def __init__(self, plan: Plan, handle: Handle, siblings: Services) -> None:
        """Prepare it; :meth:`launch` starts it. ``siblings`` are the container's services."""
        self.name, self.argv = plan.name, plan.argv
        self.host_name, self.user = handle.name, plan.user
        self.process: Process
        self.notifications: Notifications | None = None
        self.log_of_runs = Log(siblings.archive)
        self.runs = 0
        self._plan, self._handle = plan, handle
        self._siblings = siblings.weak
        self._tree: Tree | None = None
        self._follower: log_live.Follower | None = None
        self.ready_after: float | None = None
        self._phase = "starting"
        self._stopped = ""
        self._stopping = False
        self._over = True
        self._lost: tuple[Any, ...] | None = None
        self._returncode: int | None = None
        self._acting = threading.RLock()  # held by who begins a run, or ends one
        self._lock = threading.RLock()  # held for a moment, by who changes what is known of the run

    # -- starting

    def launch(self, *, again: bool = False) -> None:
        """Start a run and wait until it is ready; ``again`` stops the last one. When that fails, all of it is ended.

        Raises :class:`ServiceError` when somebody has its port, :class:`NotReady`, :class:`ServiceDied`, and what
        ``Container.popen`` raises.
        """
        began = now()
        with contextlib.ExitStack() as closing:
            try:
                with self._acting:
                    self._handle.check()
                    if again:
                        self.stop()
                        began = now()
                    view = self._view(closing)
                    self._refuse_taken(view)
                    self._begin()
                # Not with the lock: another thread may stop what never becomes ready.
                if view is not None:
                    view.tree = self._tree
                self._wait_ready(view, self._plan.timeout, began + self._plan.timeout)
            except BaseException as error:
                self._abort("it was not ready in time" if isinstance(error, NotReady) else "its start was given up")
                raise
            self._phase = "ready" if self._plan.conditions else "running"
            self.ready_after = now() - began

    def _view(self, closing: contextlib.ExitStack) -> SocketView | None:
        if not any(isinstance(condition, (PortReady, PathReady)) for condition in self._plan.conditions):
            return None
        siblings = self._siblings
        view = SocketView(self._handle, self.name, siblings.trees)
        return closing.enter_context(view)

    def _refuse_taken(self, view: SocketView | None) -> None:
        for condition in self._plan.conditions:
            if view is not None and isinstance(condition, (PortReady, PathReady)):
                taken = condition.taken(view)
                if taken:
                    remedy = "stop that first, or have this one listen elsewhere"
                    raise ServiceError(self.name, f"cannot be started in {self.host_name}: {taken}; {remedy}")

    def _begin(self) -> None:
        plan = self._plan
        mark = f"--- {self.name} in {self.host_name}: run {self.runs + 1} ---" if self.runs else ""
        log = self.log_of_runs.begin(mark)
        env = dict(plan.env)
        if any(isinstance(condition, NotifyReady) for condition in plan.conditions):
            self.notifications = Notifications(self._handle)
            env.setdefault(b"NOTIFY_SOCKET", self.notifications.address.encode())
        process = Process(
            self._handle,
            plan.argv,
            env=env,
            cwd=plan.cwd,
            user=plan.user,
            stdout=log,
            stderr=log,
            pass_fds=plan.pass_fds,
        )
        with self._lock:
            self.process, self._tree = process, Tree(process.pid)
            self._phase, self._stopped, self._returncode, self._over = "starting", "", None, False
            self.runs += 1
        if self.notifications is not None:
            self.notifications.member = self.process.pid
        note(f"{self.host_name}: {self.name} started")
        if log_live.wanted(self):
            self._follower = log_live.follow(self)

    def _abort(self, why: str) -> None:
        """Leave nothing of a start that failed."""
        with self._acting:
            try:
                if not self._over:
                    if not self._stopped and not self._returncode:
                        self._stopped = f"stopped ({why})"
                    self._returncode = self.process.end()
            finally:
                self._settle()

    def wait_ready(self, timeout: float | None = None) -> None:
        """Wait until all that ``ready=`` asks for is so, now: after a reload, say. The default is that of the start.

        Raises :class:`NotReady` (the service goes on), :class:`ServiceDied` at once when it dies.
        """
        limit = self._plan.timeout if timeout is None else timeout
        with contextlib.ExitStack() as closing:
            self._handle.check()
            self.expect_life("when it was to be ready")
            view = self._view(closing)
            if view is not None:
                view.tree = self._tree
            self._wait_ready(view, limit, now() + limit)

    def _wait_ready(self, view: SocketView | None, limit: float, deadline: float) -> None:
        if not self._plan.conditions:
            return
        waiting = Waiting(self, self._plan.conditions, view)
        try:
            if not waiting.until(deadline):
                raise self._not_ready(waiting, limit) from waiting.error
        except ServiceDied as error:
            reasons = [error.reason, *self._neighbours(view)]
            raise ServiceDied(self.name, "; ".join(reasons), error.log) from waiting.error
        finally:
            waiting.error = None  # its traceback leads back here: a cycle would keep the container alive
        if self.notifications is not None:
            self.notifications.deafen()

    def _neighbours(self, view: SocketView | None) -> list[str]:
        with contextlib.suppress(PoorContainerError, OSError):
            ports = [condition for condition in self._plan.conditions if isinstance(condition, PortReady)]
            return [text for port in ports for text in port.neighbours(view)] if view is not None else []
        return []

    def _not_ready(self, waiting: Waiting, limit: float) -> NotReady:
        reasons = [f"was not ready within {limit:g} s: still missing is {waiting.pending}"]
        if self.process.returncode == 0:
            left = ", ".join(map(str, self.pids)) or "nothing"
            reasons.append(f"the command itself has exited with 0, and left behind: pid {left}")
        if waiting.view is not None:
            with contextlib.suppress(PoorContainerError, OSError):
                reasons.append(waiting.view.seen())
        if waiting.error is not None:
            reasons.append(f"the function raised {type(waiting.error).__name__}: {waiting.error}")
        if self.notifications is not None and self.notifications.status:
            reasons.append(f"its status is {self.notifications.status!r}")
        if self.notifications is not None and self.notifications.strangers:
            reasons.append(f"{self.notifications.strangers} notifications came from processes outside of it")
        return NotReady(self.name, "; ".join(reasons), self.log_tail(_SHOWN))

    # -- looking

    def look(self, patience: float = 0.0) -> None:
        """Take note of what has become of it; wait up to ``patience`` seconds for the command's end."""
        if self._over:
            return
        try:
            self._look(patience)
        except LabDied as error:
            # Its parts, not itself: its traceback leads back here.
            self._lost, self._stopped, self._returncode = error.args, "killed with its container", -signal.SIGKILL
            self._settle()

    def _look(self, patience: float) -> None:
        process = self.process
        if patience and process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
        ended = process.tree_ended()
        code = process.poll()
        with self._lock:
            if process is not self.process or self._over:
                return  # another thread was faster
            if code is not None:
                self._returncode = code
                if self._tree is not None and not self._tree.watcher:
                    self._tree.watcher = process.watcher
            if ended and self._handle.ended_by_us() and not process.watcher:
                self._stopped = self._stopped or "stopped"
        if ended:
            self._settle()

    def _settle(self) -> None:
        """Give back what a run that is over has held; its log stays."""
        with self._lock:
            follower, self._follower = self._follower, None
            self.log_of_runs.finish(copy=not self._handle.ended_by_us())
            if self.notifications is not None:
                self.notifications.close()
            if not self._over:
                self._over = True
                self.process.close()
                note(f"{self.host_name}: {self.name} {self._stopped or 'has ended'}")
        if follower is not None:
            follower.read(final=True)  # without the lock: who observes lines may ask for our state

    def _death(self) -> str:
        """Return how it ended, "" while it lives: a command that exits with 0 and leaves something behind does."""
        self.look()
        code = self._returncode
        if self._stopped or (self._stopping and code is not None):
            return f"was {self._stopped or 'stopped'}"
        if code is None or (code == 0 and not self._over):
            return ""
        return _ended(code) if code else "exited 0, and nothing of it is left"

    def expect_life(self, when: str) -> None:
        """Raise :class:`ServiceDied` when it does not live any more, :class:`LabDied` when its container was killed."""
        death = self._death()
        if self._lost is not None:
            raise LabDied(*self._lost)
        if death:
            raise ServiceDied(self.name, f"{death} {when}", self.log_tail(_SHOWN))

    @property
    def alive(self) -> bool:
        """Whether anything of it lives."""
        self.look()
        return not self._over

    @property
    def returncode(self) -> int | None:
        """The return code of the command, negative for a signal; None while it runs."""
        self.look()
        return self._returncode

    @property
    def state(self) -> str:
        """What it is: "starting", "ready", "running" (no ``ready=``), "stopped", "exited 3", "killed by SIGSEGV".

        One that had to be killed when it was to stop is "stopped (SIGKILL: ...)".
        """
        self.look()
        if self._stopped or (self._stopping and self._returncode is not None):
            return self._stopped or "stopped"
        if self._returncode is None or (self._returncode == 0 and not self._over):
            return self._phase
        return _ended(self._returncode).removeprefix("was ")

    @property
    def pid(self) -> int:
        """The pid, as seen from here, of the command; once that has left a daemon behind, of its oldest process."""
        self.look()
        if self._returncode is not None and self._tree is not None and not self._over:
            return next(iter(self._tree.roots()), self.process.pid)
        return self.process.pid

    @property
    def pids(self) -> list[int]:
        """The pids, as seen from here, of all its living processes."""
        self.look()
        return [] if self._over or self._tree is None else self._tree.pids()

    @property
    def tree(self) -> Tree | None:
        """Its processes, None when none are left."""
        return None if self._over else self._tree

    @property
    def status(self) -> str:
        """What it has told last with ``STATUS=`` (sd_notify(3)) before it was ready, "" if nothing."""
        return "" if self.notifications is None else self.notifications.status

    # -- its log

    @property
    def log(self) -> str:
        """What it has printed so far in all its runs, stdout and stderr; at most the last 16 MiB, and it says so."""
        return self.log_of_runs.text()

    def log_mark(self) -> int:
        """Return the position of what will be printed next, for ``since=`` and :meth:`log_between`."""
        return self.log_of_runs.end()

    def log_between(self, start: int, end: int | None = None) -> str:
        """Return what was printed between two positions."""
        return self.log_of_runs.between(start, end)

    def log_tail(self, lines: int = 20, since: int = 0) -> str:
        """Return the last lines, safe for a terminal: control characters are escaped, long lines cut.

        ``since`` is a :meth:`log_mark`: only what was printed after it.
        """
        return self.log_of_runs.tail(lines, since)

    def copy_log(self, fd: int, most: int = KEPT) -> int:
        """Write the last ``most`` bytes of the log, as they are, to a descriptor; return how many there were."""
        return self.log_of_runs.copy(fd, most)

    def deliver_lines(self) -> None:
        """Pass on now, in this thread, what was printed and is passed on as it comes (see docs, "Live")."""
        follower = self._follower
        if follower is not None:
            follower.read()

    def wait_log(
        self, regex: str | re.Pattern[str], since: int | re.Match[str] | None = None, timeout: float = 10.0
    ) -> re.Match[str]:
        """Wait until the log matches; return the match.

        ``since`` is a :meth:`log_mark`, or a match that this method has returned; the default is the start of this run.
        Raises :class:`NotReady` after ``timeout`` seconds, :class:`ServiceDied` at once when the service has ended
        without a match.
        """
        pattern, start = compiled(regex), self._position(since)
        deadline = now() + timeout
        log = self.log_of_runs
        with Search(log, pattern, start) as search, watching(log.fd) as changes:
            poller = self._poller(changes.fd)
            while True:
                death = self._death()
                match = search.look(final=bool(death))
                if match is not None:
                    return match
                missing = f"{pattern.pattern!r} in its log since position {start}"
                if death:
                    raise ServiceDied(self.name, f"{death} while waiting for {missing}", self.log_tail(_SHOWN))
                remaining = deadline - now()
                if remaining <= 0:
                    raise NotReady(self.name, f"has not printed within {timeout:g} s: {missing}", self.log_tail(_SHOWN))
                poller.poll(min(remaining, QUIET if search.undecided else _GLANCE) * 1000)
                changes.take()

    def _poller(self, changes: int) -> select.poll:
        poller = select.poll()
        if changes >= 0:
            poller.register(changes, select.POLLIN)
        if not self._over and self.process.fileno() >= 0:
            poller.register(self.process.fileno(), select.POLLIN)
        return poller

    def _position(self, since: int | re.Match[str] | None) -> int:
        if since is None:
            return self.log_of_runs.run_start
        if isinstance(since, re.Match):
            if isinstance(since.string, LogText):
                return since.string.position(since.end())
        elif isinstance(since, int) and not isinstance(since, bool):
            return since
        raise UsageError(f"since={since!r}: expected what log_mark() or wait_log() of this service has returned")

    # -- stopping

    def stop(self) -> int:
        """Send the stop signal, wait, end what is left of the whole tree; return the return code. Idempotent.

        What the command leaves behind when it ends gets the signal too, and what is left of the time.
        """
        with self._acting:
            self.look()
            if not self._over:
                self._stopping = True
                try:
                    self._stopped = self._ask_to_stop()
                finally:
                    self._returncode = self.process.end()
                    self._stopped, self._stopping = self._stopped or "stopped", False
                self._settle()
            code = self._returncode
        return -signal.SIGKILL if code is None else code

    def _ask_to_stop(self) -> str:
        """Return what to call its state afterwards."""
        number, limit, process = self._plan.stop_signal, self._plan.stop_timeout, self.process
        deadline = now() + limit
        process.send_signal(number)
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            return f"stopped (SIGKILL: ignored {_name(number)} for {limit:g} s)"
        asked: set[int] = set()
        tree = self._tree
        while not process.tree_ended(min(_AFTERMATH if not asked else _STEP, max(0.0, deadline - now()))):
            if now() >= deadline:
                return f"stopped (SIGKILL: what it had left behind ignored {_name(number)} for {limit:g} s)"
            if tree is not None:
                tree.watcher = tree.watcher or process.watcher
                for pid in tree.roots():
                    if pid not in asked:
                        asked.add(pid)
                        tree.signal(pid, number)
        return "stopped"

    def freeze(self) -> Frozen:
        """Stop all its processes (SIGSTOP); :meth:`thaw`, or the end of the block, lets them go on."""
        return self._freeze(f"{self.host_name}: {self.name}", lambda: self.pids)

    def kill(self) -> int:
        """Kill all its processes (SIGKILL), as a crash does; return how many. :meth:`restart` starts it again."""
        killed = kill(f"{self.host_name}: {self.name}", lambda: self.pids)
        if killed:  # the command's watcher tells of its end a moment later
            with contextlib.suppress(subprocess.TimeoutExpired, LabDied):
                self.process.wait(_NEWS)
        return killed

    def restart(self) -> None:
        """Stop it if it runs, start it again with the same arguments, wait until it is ready. The log goes on.

        Raises as ``Container.start`` does.
        """
        self.launch(again=True)

    def describe(self) -> dict[str, Any]:
        """Return what there is to say, as JSON takes it; never raises for what has ended."""
        facts: dict[str, Any] = {"name": self.name, "host": self.host_name, "argv": self._plan.words}
        facts["ready"] = " and ".join(map(str, self._plan.conditions))
        facts["state"], facts["returncode"] = self.state, self.returncode
        facts["pid"], facts["pids"] = (self.pid, self.pids) if self.runs else (0, [])
        facts["status"], facts["runs"], facts["log_tail"] = self.status, self.runs, self.log_tail(_SHOWN)
        return facts

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        """Show the name, where it runs, and how it is."""
        return f"<Service {self.name} in {self.host_name}: {self.state}>"


def _ended(code: int) -> str:
    return f"was killed by {_name(-code)}" if code < 0 else f"exited {code}"


def _name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
