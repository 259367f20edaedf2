"""Copy-on-write trees in which commands are run: the value of ``cow_dir``."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.container.as_user import identity
from pytest_poorcontainer.container.container import Container
from pytest_poorcontainer.cow import Tree
from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.lab.protocol import Field, Mount, Op

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_poorcontainer.container.process import Process
    from pytest_poorcontainer.container.request import Argv, Environment, Text
    from pytest_poorcontainer.container.streams import Target
    from pytest_poorcontainer.cow.tree import Stored

    Source = str | os.PathLike[str] | Tree | Stored

__all__ = ["CowTree"]


class CowTree(Tree):
    """A directory that commands may change while its original stays as it is.

    Where the backend runs commands "mounted", they are in a container that has the machine's network, and the tree at
    the original's path: an absolute path means the tree, and what they write elsewhere is gone with it. Else they run
    on the machine, as this process's children do.
    """

    _container: Container | None = None
    _shared: Sequence[Path] = ()

    def __init__(
        self,
        source: Source,
        *,
        backend: str = "auto",
        upper: str | os.PathLike[str] | None = None,
        size: int | str | None = None,
        place: str | os.PathLike[str] | None = None,
        tripwire: bool = True,
        temporary: str | os.PathLike[str] | None = None,
        start: Callable[[], None] | None = None,
        shared: Sequence[Path] = (),
    ) -> None:
        """Make a tree of a directory, or of another tree, which cannot be changed from then on.

        ``backend`` is "auto", "overlay", "preload", "reflink", "copy" or a plugin's (docs/copy-on-write.md). Changes
        are gone with the tree unless ``upper`` names a directory, new or of an earlier tree of the same original, in
        which they stay. ``size`` is the most that they may take (bytes, or like "64M"); a program that wants more gets
        ENOSPC. ``place`` is where commands of the tree see it, the original's path unless given. Without ``tripwire``
        nobody looks whether the original was changed. ``temporary`` is where directories may be made, ``start`` is
        called before a lab is started; ``shared`` are directories of the machine to which commands in a container may
        write.

        Raises :class:`UsageError` for what makes no sense, :class:`LabError` for a source that cannot be read,
        :class:`Unavailable` when the backend does not work here.
        """
        super().__init__(
            source,
            backend=backend,
            upper=upper,
            size=size,
            place=place,
            tripwire=tripwire,
            temporary=temporary,
            start=start,
        )
        self._shared = shared

    @property
    def container(self) -> Container | None:
        """The container in which the tree's commands run, made for the first of them; None where there is none."""
        self._check()
        if self._container is None and self._backend.runs == "mounted":
            container = Container("cow", network="host")
            try:
                for directory in self._shared:
                    if not directory.is_relative_to(self.place) and directory != directory.parent:
                        _share(container, str(directory))
                self.attach(container._handle, self.place)  # noqa: SLF001 - ours
            except BaseException:
                container.close()
                raise
            self._container = container
        return self._container

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
    ) -> subprocess.CompletedProcess[Any]:
        """Run a command in the tree and wait for its end, as ``subprocess.run`` does.

        ``cwd`` is the tree's root unless given, a relative one is below it; ``env`` is added to PATH, LANG, HOME and
        TMPDIR in a container, else to this process's environment; ``stdin`` is /dev/null unless given. ``user`` is a
        name or a number; on the machine it takes root, and on the backend preload the changes are that user's from
        then on, who must be able to reach them. Raises what :meth:`Container.run` or ``subprocess.run`` raises, and
        :class:`UsageError` for a user who cannot be.
        """
        given: dict[str, Any] = {"text": text, "env": env, "user": user}
        given.update(stdin=stdin, stdout=stdout, stderr=stderr)
        container = self.container
        if container is not None:
            place = self._directory(self.place, cwd)
            return container.run(
                argv, check=check, capture_output=capture_output, input=input, timeout=timeout, cwd=place, **given
            )
        if input is not None:
            given["stdin"] = subprocess.PIPE
        if capture_output:
            given["stdout"] = given["stderr"] = subprocess.PIPE
        words, options = self._on_the_machine(argv, cwd, given)
        with subprocess.Popen(words, start_new_session=True, **options) as process:
            try:
                out, err = process.communicate(input, timeout)
            except BaseException:
                # The time is up, or Ctrl-C: with all that it started, as long as that has not left its session.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        if check and process.returncode:
            raise subprocess.CalledProcessError(process.returncode, argv, out, err)
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

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
    ) -> Process | subprocess.Popen[Any]:
        """Start a command in the tree; the arguments are those of :meth:`run`."""
        given: dict[str, Any] = {"text": text, "env": env, "user": user}
        given.update(stdin=stdin, stdout=stdout, stderr=stderr)
        container = self.container
        if container is not None:
            return container.popen(argv, cwd=self._directory(self.place, cwd), **given)
        words, options = self._on_the_machine(argv, cwd, given)
        return subprocess.Popen(words, **options)

    def _on_the_machine(self, argv: Argv, cwd: Text | None, given: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return a command and options for ``subprocess``."""
        words: list[Any] = [argv] if isinstance(argv, (str, bytes, os.PathLike)) else list(argv)
        if not words:
            raise UsageError("the argument list is empty: expected a program and its arguments, such as ['ls', '-l']")
        options = {key: value for key, value in given.items() if value is not None}
        options.setdefault("stdin", subprocess.DEVNULL)
        environment: dict[Any, Any] = {**self.env, "PWD": self.place}
        for key, value in (given["env"] or {}).items():
            if value is None:
                environment.pop(os.fsdecode(key), None)
            else:
                environment[os.fsdecode(key)] = value
        options["env"] = environment
        if options.pop("user", None) is not None:
            who = identity(given["user"])
            if who.uid != os.geteuid():
                self._backend.admit(who)
                options.update(who.options())
        given_words = words
        words = self._backend.command(words)
        root = self.place if self._backend.runs == "prefixed" else self._backend.path()
        options["cwd"] = self._directory(root, cwd)
        options["pass_fds"] = self._backend.passed
        if self._backend.runs != "prefixed":
            del environment["PWD"]
        elif not Path(options["cwd"]).is_dir():
            # It is in the tree only, where the launcher gets to.
            words[-len(given_words) :] = ["env", "-C", options.pop("cwd"), *given_words]
        return words, options

    @staticmethod
    def _directory(root: str, cwd: Text | None) -> str:
        return str(Path(root, os.fsdecode(cwd or "")))

    def close(self) -> None:
        """End what runs in the tree, and give it up. Idempotent."""
        container, self._container = self._container, None
        try:
            if container is not None:
                container.close()
        finally:
            super().close()


def _share(container: Container, directory: str) -> None:
    """Let a container write to a directory of the machine, at the same path."""
    handle = container._handle  # noqa: SLF001 - ours
    fields: list[tuple[int, int | str | bytes]] = [
        (Field.ID, handle.id),
        (Field.KIND, Mount.BIND),
        (Field.SOURCE, directory),
        (Field.TARGET, directory),
    ]
    handle.lab.ask(Op.MOUNT, fields, "share a directory")
