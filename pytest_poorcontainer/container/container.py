"""Containers: a process tree in namespaces of its own, with a root that it may change without harm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pytest_poorcontainer.container import protocol
from pytest_poorcontainer.container.lab import Lab, Spec
from pytest_poorcontainer.container.names import check_name
from pytest_poorcontainer.container.process import Process
from pytest_poorcontainer.container.run import run
from pytest_poorcontainer.errors import UsageError

if TYPE_CHECKING:
    import subprocess
    from types import TracebackType

    from typing_extensions import Self

    from pytest_poorcontainer.container.handle import Handle
    from pytest_poorcontainer.container.request import Argv, Environment, Text
    from pytest_poorcontainer.container.streams import Target

__all__ = ["Container"]

_NETWORKS = {"none": protocol.Network.OWN, "host": protocol.Network.HOST}


class Container:
    """A container; close it, use it as a context manager, or drop it: it ends with all that runs in it.

    ``name`` is its host name. Commands see the machine's ``/`` read-only, with /etc, /var, /srv, /opt and the homes
    private and writable, an empty /tmp and /run, and pytest's basetemp and rootdir where they are outside.
    Safe to use from several threads at once, and inside a running event loop (its calls block).
    """

    _handle: Handle

    def __init__(
        self, name: str = "c", *, network: Literal["none", "host"] = "none", hosts_text: str | None = None
    ) -> None:
        """Make a container in this process's lab, which is started when there is none.

        ``network`` "none" gives it nothing but ``lo``, "host" the machine's own network. ``hosts_text`` becomes its
        /etc/hosts (default: localhost and its own name, with "host" after the machine's).
        Raises :class:`UsageError` for a name that is no host name, :class:`LabError` with the step that failed.
        """
        check_name(name)
        if network not in _NETWORKS:
            raise UsageError(f"network is one of {', '.join(map(repr, _NETWORKS))}, not {network!r}")
        hosts = default_hosts(name, network) if hosts_text is None else hosts_text
        self._attach(*Lab.current().create([Spec(name, hosts, _NETWORKS[network])]))

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
    ) -> subprocess.CompletedProcess[Any]:
        """Run a command in the container and wait for its end, as ``subprocess.run`` does.

        ``env`` is added to PATH, LANG, HOME and TMPDIR (None removes a name), ``cwd`` and ``user`` (a name or a number)
        are the container's, ``stdin`` is /dev/null unless given, ``timeout`` is in seconds and none by default. A
        command that a signal ended has a negative return code.

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
    ) -> Process:
        """Start a command in the container and return its :class:`Process`, which is like a ``subprocess.Popen``.

        The arguments are those of :meth:`run`; the errors too, as far as they concern the start.
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
        )

    def close(self) -> None:
        """End the container with all that runs in it; return when every process is dead. Idempotent."""
        self._handle.close()

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
