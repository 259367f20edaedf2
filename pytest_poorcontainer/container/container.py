"""Containers: a process tree in namespaces of its own, with a root that it may change without harm."""

from __future__ import annotations

import contextlib
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pytest_poorcontainer.container.files import Files
from pytest_poorcontainer.container.freezable import Freezable
from pytest_poorcontainer.container.process import Process
from pytest_poorcontainer.container.run import run
from pytest_poorcontainer.container.settings import Settings
from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.lab import Lab
from pytest_poorcontainer.lab.events import note
from pytest_poorcontainer.lab.names import check_name

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from pytest_poorcontainer.container.freezing import Frozen
    from pytest_poorcontainer.container.ready import Ready
    from pytest_poorcontainer.container.request import Argv, Environment, PassFds, Text
    from pytest_poorcontainer.container.service import Service
    from pytest_poorcontainer.container.service_list import Services
    from pytest_poorcontainer.container.settings import Rlimits
    from pytest_poorcontainer.container.sockets import SocketInfo
    from pytest_poorcontainer.container.streams import Target
    from pytest_poorcontainer.container.wall_clock import WallClock
    from pytest_poorcontainer.container.window import Size
    from pytest_poorcontainer.cow import Tree
    from pytest_poorcontainer.lab.handle import Handle
    from pytest_poorcontainer.mounts import Mounts, Undo
    from pytest_poorcontainer.rootfs import Source

__all__ = ["Container"]

Result = TypeVar("Result")

_CENTURY = 100 * 365 * 86400.0  # seconds
_first_service = threading.Lock()
_first_wall_clock = threading.Lock()


class Container(Files, Freezable):
    """A container; close it, use it as a context manager, or drop it: it ends with all that runs in it.

    ``name`` is its host name. Commands see the machine's ``/`` read-only, with /etc, /var, /srv, /opt and the homes
    private and writable, an empty /tmp and /run, and pytest's basetemp and rootdir where they are outside.
    Safe to use from several threads at once, and inside a running event loop (its calls block).
    """

    _handle: Handle
    _services: Services | None = None
    _mounts: Mounts | None = None
    _wall_clock: WallClock | None = None

    def __init__(
        self,
        name: str = "c",
        *,
        network: Literal["none", "host"] = "none",
        hosts_text: str | None = None,
        rootfs: Source | None = None,
        readonly: bool = False,
        memory: int | str | None = None,
        pids: int | None = None,
        cpu: float | None = None,
        capabilities: Sequence[str] | None = None,
        rlimits: Rlimits | None = None,
    ) -> None:
        """Make a container in this process's lab, which is started when there is none.

        ``network`` "none" gives it nothing but ``lo``, "host" the machine's own network. ``hosts_text`` becomes its
        /etc/hosts (default: localhost and its own name, with "host" after the machine's).

        ``rootfs`` is what it sees as ``/`` (docs/rootfs.md): "host" (default), a directory, a tarball, a list of
        programs. It may change all of it, for itself alone, or with ``readonly`` only /tmp, /run and /dev/shm. What it
        changes of a copy-on-write tree (``cow_dir``), that tree has.

        ``memory`` (bytes, or like "64M"), ``pids`` (how many processes) and ``cpu`` (how many processors, 0.5 is half
        of one) are limits of all that runs in it (docs/limits.md). ``capabilities`` are those that it keeps, of
        :data:`~pytest_poorcontainer.container.settings.CAPABILITIES` (default: all of them). ``rlimits`` are limits of
        each command, by the names of setrlimit(2): ``{"nofile": 64, "core": (0, None)}``.

        Raises :class:`UsageError` for a name that is no host name and for arguments that are none,
        :class:`Unavailable` for a limit that this machine cannot keep, :class:`LabError` with the step that failed.
        """
        check_name(name)
        settings = Settings.of(
            rootfs=rootfs,
            readonly=readonly,
            memory=memory,
            pids=pids,
            cpu=cpu,
            capabilities=capabilities,
            rlimits=rlimits,
            network=network,
        )
        hosts = default_hosts(name, network) if hosts_text is None else hosts_text
        lab = Lab.current()
        handles = lab.create([settings.spec(lab, name, hosts)])
        settings.created(handles)
        self._attach(*handles)

    def _attach(self, handle: Handle) -> None:
        """Become the owner of a container that the lab has made; a host's ``__init__`` calls this, not ours."""
        self._handle = handle

    @property
    def name(self) -> str:
        """The container's name, which is its host name."""
        return self._handle.name

    @property
    def level(self) -> str:
        """The rung of the ladder that it stands on: "namespaces" is the highest."""
        return self._handle.lab.level

    @property
    def level_reason(self) -> str:
        """Why it does not stand on the rung above; "" on the highest."""
        return self._handle.lab.level_reason

    @property
    def rootfs(self) -> str:
        """What it sees as ``/``: "host", "directory /srv/image", "tarball ...", "programs ..."."""
        return self._handle.rootfs

    @property
    def mounts(self) -> Mounts:
        """Mounts of its own, made and removed while it runs; they are seen by its processes, and by nobody else."""
        if self._mounts is None:
            from pytest_poorcontainer.mounts import Mounts  # noqa: PLC0415 - few tests need it

            self._mounts = Mounts(self._handle, self)
        return self._mounts

    def mount(self, kind: str | Tree, target: Text, **options: Any) -> Undo:
        """Mount something: ``mount("tmpfs", "/data", size="1M")`` is ``mounts.tmpfs("/data", size="1M")``.

        A copy-on-write tree (``cow_dir``, ``prepared``) is mounted as such: ``mount(tree, "/srv/app")``. The value
        takes it back, as a context manager at the block's end. Raises :class:`UsageError` for a kind that there is
        not, and what that method of :class:`Mounts` raises.
        """
        if isinstance(kind, str):
            return self.mounts.mount(kind, target, **options)
        return self.mounts.tree(kind, target, **options)

    @property
    def pid(self) -> int:
        """The pid of its first process as this process sees it. Raises :class:`LabDied` when that is dead."""
        return self._handle.pid()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._handle.closed

    def run(
        self,
        argv: Argv,
        *,
        check: bool = False,
        capture_output: bool = False,
        text: bool | None = None,
        input: Any = None,  # noqa: A002 - subprocess' name
        env: Environment | None = None,
        cwd: Text | None = None,
        timeout: float | None = None,
        user: str | int | None = None,
        stdin: Target = None,
        stdout: Target = None,
        stderr: Target = None,
        encoding: str | None = None,
        errors: str | None = None,
        universal_newlines: bool | None = None,
        pass_fds: PassFds = (),
    ) -> subprocess.CompletedProcess[Any]:
        """Run a command in the container and wait for its end, as ``subprocess.run`` does.

        ``env`` is added to PATH, LANG, HOME and TMPDIR (None removes a name), ``cwd`` and ``user`` (a name or a number)
        are the container's, ``stdin`` is /dev/null unless given, ``timeout`` is in seconds and none by default. A
        command that a signal ended has a negative return code.
        ``pass_fds`` are descriptors that it has too, under the same numbers, or a mapping of numbers in the command to
        descriptors or what has a ``fileno()``; it has no others.

        Raises CalledProcessError with ``check``; TimeoutExpired, after the command and all that it started have been
        ended, also what called setsid or daemonized; FileNotFoundError and its like for the program or ``cwd``;
        :class:`PoorContainerError` when the container is closed, :class:`LabDied` when something killed it.
        """
        return run(
            self._handle,
            argv,
            check=check,
            capture_output=capture_output,
            input=input,
            timeout=timeout,
            env=env,
            cwd=cwd,
            user=user,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=text,
            encoding=encoding,
            errors=errors,
            universal_newlines=universal_newlines,
            pass_fds=pass_fds,
        )

    def popen(
        self,
        argv: Argv,
        *,
        text: bool | None = None,
        env: Environment | None = None,
        cwd: Text | None = None,
        user: str | int | None = None,
        stdin: Target = None,
        stdout: Target = None,
        stderr: Target = None,
        encoding: str | None = None,
        errors: str | None = None,
        universal_newlines: bool | None = None,
        bufsize: int = -1,
        pass_fds: PassFds = (),
        tty: Size = False,
    ) -> Process:
        """Start a command in the container and return its :class:`Process`, which is like a ``subprocess.Popen``.

        The arguments are those of :meth:`run`; the errors too, as far as they concern the start. With ``tty`` the
        command has a terminal of the container's, of 80 columns and 24 lines, or of ``tty=(columns, lines)``: ``stdin``
        types on it, ``stdout`` is what is seen, and TERM is xterm unless ``env`` has another (docs/files.md).
        """
        return Process(
            self._handle,
            argv,
            text=text,
            env=env,
            cwd=cwd,
            user=user,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            encoding=encoding,
            errors=errors,
            universal_newlines=universal_newlines,
            bufsize=bufsize,
            pass_fds=pass_fds,
            tty=tty,
        )

    def shell(self, argv: Argv | None = None, *, user: str | int | None = None, env: Environment | None = None) -> int:
        """Run a shell, or a command, in the terminal of whoever runs the test, and return its exit status.

        For looking around by hand while a test stands still; ``argv`` is /bin/sh unless given. The status is as a shell
        tells it (128 + N for signal N). The command has a terminal of the container's own, with job control and the
        size of the window; the person's is given back as it was. Raises :class:`UsageError` when there is none (in a
        worker of pytest-xdist, in CI), and what :meth:`popen` raises.
        """
        from pytest_poorcontainer.container.terminal import shell  # noqa: PLC0415 - for people

        return shell(self._handle, argv, user, env)

    def start(
        self,
        argv: Argv,
        *,
        ready: Ready = None,
        name: str | None = None,
        timeout: float = 10.0,
        env: Environment | None = None,
        cwd: Text | None = None,
        user: str | int | None = None,
        stop_signal: int = signal.SIGTERM,
        stop_timeout: float = 5.0,
        pass_fds: PassFds = (),
    ) -> Service:
        """Start a service, a long-running command, and wait until it is ready; stdout and stderr go to its log.

        ``ready`` is what is waited for, ``timeout`` seconds at most: a port on which it listens in this container (80,
        "udp:53", "127.0.0.1:80", "[::1]:80"), the path of a unix socket, a compiled regular expression for its log, a
        function that returns something true (called with the service if it takes an argument; exceptions mean "not
        yet"), "notify" (sd_notify(3)), or a list of these, all of which must hold; None waits for nothing. ``name``
        is the program's unless given. ``env`` is that of :meth:`run`, and PYTHONUNBUFFERED=1.
        ``stop_signal`` and ``stop_timeout`` (seconds) are for :meth:`Service.stop`. ``pass_fds`` is that of
        :meth:`run`; for :meth:`Service.restart` they have to be open still.

        Raises :class:`NotReady` after the timeout; :class:`ServiceDied` at once when it dies; :class:`ServiceError`
        when another has its port; what :meth:`popen` raises. Nothing of it runs on then.
        """
        return self._all_services().start(
            argv,
            ready=ready,
            name=name,
            timeout=timeout,
            env=env,
            cwd=cwd,
            user=user,
            stop_signal=stop_signal,
            stop_timeout=stop_timeout,
            pass_fds=pass_fds,
        )

    @property
    def services(self) -> tuple[Service, ...]:
        """The services in order of start, also those that have ended; their logs outlive the container."""
        return () if self._services is None else self._services.all()

    def _all_services(self) -> Services:
        from pytest_poorcontainer.container.service_list import Services  # noqa: PLC0415 - many tests have none

        with _first_service:
            if self._services is None:
                self._services = Services(self._handle)
            return self._services

    def open_sockets(self) -> list[SocketInfo]:
        """Return the TCP and UDP sockets of the container's network, and the unix sockets in it that have a name.

        Raises :class:`PoorContainerError` when it is closed, :class:`LabDied` when it was killed.
        """
        from pytest_poorcontainer.container.sockets import open_sockets  # noqa: PLC0415 - for reports

        return open_sockets(self._handle)

    def call(self, function: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Result:
        """Call a function in a Python of the container; return what it returns, or raise what it raises.

        Closures and lambdas too; docs/calls.md tells what travels how. The Python is the test's own, kept warm. Raises
        TypeError that names what cannot be pickled, :class:`CallDied` when the Python inside ends in the middle,
        :class:`CallError` when there is none.
        """
        __tracebackhide__ = True  # pytest shows the test's own line
        from pytest_poorcontainer.container.call import call  # noqa: PLC0415 - few tests need it

        result: Result = call(self._handle, function, args, kwargs)
        return result

    def freeze(self) -> Frozen:
        """Stop everything that runs in it (SIGSTOP), as a machine that hangs; return what lets it go on.

        Its network stack still answers: connections are accepted by the kernel, and say nothing. Undone by
        :meth:`thaw`, or by the end of the block as a context manager; what was frozen twice goes on after the second.
        """
        from pytest_poorcontainer.container.freezing import everything_below  # noqa: PLC0415 - few tests need it

        init = self._living("freeze")
        return self._freeze(self.name, lambda: everything_below(init))

    def kill(self) -> int:
        """Kill everything that runs in it, services too (SIGKILL); return how many processes. It can be used again."""
        from pytest_poorcontainer.container.freezing import everything_below, kill  # noqa: PLC0415 - few tests need it

        init = self._living("kill everything in")
        return kill(self.name, lambda: everything_below(init))

    def _living(self, operation: str) -> int:
        """Return the pid of its init. Raises when it is dead: the number may be another process's by now."""
        self._handle.check()
        if self._handle.has_ended():
            raise self._handle.died(f"{operation} {self.name}")
        return self.pid

    @contextlib.contextmanager
    def clock_offset(self, seconds: float) -> Iterator[None]:
        """Let commands and services that are started in this block have clocks that are so far ahead, or behind.

        It is the monotonic clock and that since boot (time_namespaces(7)), by which programs measure timeouts; the time
        of day is :meth:`wall_clock`'s. What runs already, what is started afterwards and what is called (:meth:`call`)
        has the machine's clocks. Blocks nest and do not add up. Raises :class:`UsageError` for what is no number; what
        is started raises :class:`LabError` where the clock would be before the machine's start, or the kernel has no
        time namespaces.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not abs(seconds) < _CENTURY:
            raise UsageError(f"clock_offset() takes a number of seconds, less than a century of them, not {seconds!r}")
        self._handle.check()
        before, self._handle.clock = self._handle.clock, round(seconds * 1_000_000_000)
        note(f"{self.name}: monotonic clocks of what is started {seconds:+g} s")
        try:
            yield
        finally:
            self._handle.clock = before
            note(f"{self.name}: monotonic clocks of what is started {before / 1_000_000_000:+g} s")

    def wall_clock(self) -> WallClock:
        """Give what is started from now on a time of day of its own, and return what puts it forward and back.

        ``with host.wall_clock().offset("+1h"):``. It is the machine's until then, and changes while programs run: for
        services that are to see it jump, call this before they are started. It is a library (LD_PRELOAD) that shifts
        what the C library tells, and the deadlines it is given, so that waits last as long as they were meant to.
        It does not reach what ran before, static programs, Go's, those with privileges of their own (set-user-ID),
        system calls without the C library, what is started with an empty environment, and the stamps of files and
        frames. Monotonic clocks are :meth:`clock_offset`'s. The same object each time.

        Raises :class:`LabError` where the root file system has no C library that loads it,
        :class:`PoorContainerError` when the container is closed.
        """
        from pytest_poorcontainer.container.wall_clock import WallClock  # noqa: PLC0415 - few tests need it

        self._handle.check()
        with _first_wall_clock:
            if self._wall_clock is None:
                self._wall_clock = WallClock(self._handle)
            return self._wall_clock

    def close(self) -> None:
        """End the container with all that runs in it; return when every process is dead. Idempotent."""
        try:
            self._handle.close()
        finally:
            self._close_files()
            if self._wall_clock is not None:
                self._wall_clock.close()
            if self._services is not None:
                self._services.closed()

    def close_with(self, *others: Container) -> None:
        """Close several containers as one: all are killed before the first is waited for."""
        together = (self, *others)
        ids: dict[Lab, list[int]] = {}
        for container in together:
            if not container.closed:
                ids.setdefault(container._handle.lab, []).append(container._handle.id)  # noqa: SLF001 - ours
        try:
            for lab, some in ids.items():
                lab.end(some)
        finally:
            for container in together:
                container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        """Show the name and whether it is closed."""
        return f"<{type(self).__name__} {self.name}{' (closed)' if self.closed else ''}>"


def default_hosts(name: str, network: str = "none") -> str:
    """Return the text of /etc/hosts for a container without links: localhost, and its own name."""
    own = f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{name}\n"
    if network != "host":
        return own
    try:
        machine = Path("/etc/hosts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return own  # a machine without the file: what is left are the names that every container has
    return f"{machine.rstrip()}\n127.0.1.1\t{name}\n"
