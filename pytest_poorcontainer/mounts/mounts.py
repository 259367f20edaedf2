"""A container's own mounts: made, changed and taken away while it runs, and seen by nobody else."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.errors import LabError, PoorContainerError, UsageError
from pytest_poorcontainer.lab import mountinfo
from pytest_poorcontainer.lab.names import located
from pytest_poorcontainer.lab.protocol import Mount
from pytest_poorcontainer.lab.sizes import parse_size
from pytest_poorcontainer.mounts import kinds
from pytest_poorcontainer.mounts.entry import MountEntry
from pytest_poorcontainer.mounts.faults import Faults
from pytest_poorcontainer.mounts.made import MadeList
from pytest_poorcontainer.mounts.requests import Requests, flags
from pytest_poorcontainer.mounts.undo import Undo

if TYPE_CHECKING:
    from types import TracebackType
    from typing import TypeAlias

    from typing_extensions import Self

    from pytest_poorcontainer.lab.handle import Handle
    from pytest_poorcontainer.mounts.made import Made

    Path: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"

__all__ = ["Mounts"]


class Mounts(Faults):
    """The mounts of one container, and faults of its disks. ``container`` is that container.

    Targets are absolute paths, looked up as the container does: no link of its own leads out of it. What is missing on
    the way to a target is made, for the container alone; a target that is a symbolic link is refused. All is nosuid and
    nodev. Every method returns an :class:`Undo`; nobody need use it, as all is gone with the container.

    Safe to use from several threads at once. Raises :class:`~pytest_poorcontainer.LabError` with the step that failed
    and what the kernel says of it, :class:`~pytest_poorcontainer.UsageError` for arguments that are none. Nothing is
    left of what failed.
    """

    def __init__(self, handle: Handle, container: Any) -> None:
        """Serve a container that the lab has made."""
        self._handle = handle
        self._container = container
        self._requests = Requests(handle)
        self._made = MadeList(self._requests)

    @property
    def container(self) -> Any:
        """The :class:`~pytest_poorcontainer.Container` whose mounts they are."""
        return self._container

    def bind(self, source: Path, target: Path, *, readonly: bool = False, noexec: bool = False) -> Undo:
        """Let a file or a directory of the machine's be seen, with what is mounted below it.

        ``readonly`` is for all of it, mounts below included (mount_setattr(2)); what else happens to it on the machine
        is seen. A relative ``source`` is below the current directory. A file cannot be replaced in there by renaming
        another one over it, and on the machine a file that *is* replaced so is no longer the one that is seen: bind
        its directory.
        """
        place = os.path.abspath(os.fsencode(source))  # noqa: PTH100 - bytes
        return self._attach("bind", target, source=place, flags=flags(readonly=readonly, noexec=noexec))

    def tmpfs(
        self,
        target: Path,
        *,
        size: int | str | None = None,
        inodes: int | None = None,
        mode: int | str = 0o755,
        owner: str | int | None = None,
        readonly: bool = False,
        noexec: bool = False,
    ) -> Undo:
        """Mount an empty file system in memory (tmpfs(5)).

        ``size`` is what it may hold, in bytes or like "64M", rounded up to pages; ``inodes`` how many files and
        directories, its root among them. Without them it may hold half of the machine's memory. ``mode`` and ``owner``
        (a user of the container's, by name or number) are those of its root.
        """
        options = [*_limits(size, inodes), f"mode={kinds.parse_mode(mode):o}"]
        self._check_owner(owner)
        wanted = flags(readonly=readonly, noexec=noexec)
        mount = self._attach("tmpfs", target, options=tuple(options), flags=wanted)
        if owner is not None:
            try:
                self._container.mkdir(target, mode=kinds.parse_mode(mode), owner=owner)
            except BaseException:
                mount.undo()
                raise
        return mount

    def overlay(
        self, target: Path, *, lower: Path | None = None, size: int | str | None = None, inodes: int | None = None
    ) -> Undo:
        """Make a directory that the container cannot change one that it can, for itself alone (overlayfs).

        What is seen there stays, also what is mounted below; changes go to a file system in memory of its own, of
        ``size`` and ``inodes`` as for :meth:`tmpfs`, and are gone with the mount. ``lower`` is a directory of the
        machine's to be seen there instead.
        """
        place = None if lower is None else os.path.abspath(os.fsencode(lower))  # noqa: PTH100 - bytes
        return self._attach("overlay", target, source=place, options=tuple(_limits(size, inodes)), over=lower is None)

    def devpts(self, target: Path) -> Undo:
        """Mount pseudo-terminals of their own, as a root directory inside the container wants them (pts(4))."""
        return self._attach("devpts", target)

    def tree(self, tree: Any, target: Path) -> Undo:
        """Let a copy-on-write tree be seen (``cow_dir``, ``prepared``); several containers may see one.

        ``container.mount(tree, target)`` is the same. When the tree is reset, or restored, it is mounted anew.
        """
        place = located(target, "target")
        made = self._made.adopt(place, lambda: tree.attach(self._handle, place))
        return Undo(f"tree on {self._shown(place)}", lambda: self._detach(made))

    def mount(self, kind: str, target: Path, **options: Any) -> Undo:
        """Mount by the name of the kind: ``mount("tmpfs", "/data", size="1M")`` is ``tmpfs("/data", size="1M")``."""
        kinds.check(kind, {"target": target, **options})
        made: Undo = getattr(self, kind)(target=target, **options)
        return made

    def unmount(self, target: Path) -> None:
        """Take away the mount of ours that is seen at ``target``, also while it is in use.

        Who has a file of it open keeps that file, until it is closed. Raises :class:`~pytest_poorcontainer.UsageError`
        when what is there is none of ours.
        """
        place = located(target, "target")
        with self._made.lock:
            seen = self._requests.place(place)
            made = self._made.of(seen.number) if seen.is_root else None
            if made is None:
                raise UsageError(f"{self._shown(place)} is no mount that was made here; {self._ours()}")
            self._made.detach(made)

    def table(self) -> list[MountEntry]:
        """Return what is mounted, in the kernel's order: a mount that hides another one comes after it."""
        text = self._container.read("/proc/1/mountinfo", errors="surrogateescape")
        with self._made.lock:
            ours = self._made.numbers()
            return [MountEntry.of(row, ours=row.number in ours) for row in mountinfo.parse(text)]

    def run(self, *args: Any, **options: Any) -> Any:
        """Run a command in the container, as :meth:`Container.run` does."""
        return self._container.run(*args, **options)

    def popen(self, *args: Any, **options: Any) -> Any:
        """Start a command in the container, as :meth:`Container.popen` does."""
        return self._container.popen(*args, **options)

    def start(self, *args: Any, **options: Any) -> Any:
        """Start a service in the container, as :meth:`Container.start` does."""
        return self._container.start(*args, **options)

    def close(self) -> None:
        """End the container, and with it all mounts. Idempotent."""
        self._container.close()

    def _attach(
        self,
        kind: str,
        target: Path,
        *,
        source: bytes | None = None,
        options: tuple[str, ...] = (),
        flags: int = 0,
        over: bool = False,
    ) -> Undo:
        place = located(target, "target")
        made = self._made.attach(Mount[kind.upper()], place, source=source, options=options, flags=flags, over=over)
        return Undo(f"{kind} on {self._shown(place)}", lambda: self._detach(made))

    def _detach(self, made: Made) -> None:
        """Unmount what may have gone with its container already."""
        try:
            self._made.detach(made)
        except PoorContainerError:
            if not self._handle.closed:
                raise

    def _check_owner(self, owner: str | int | None) -> None:
        """Raise :class:`LabError` for a user that the container does not know, before anything is made."""
        if not isinstance(owner, str) or owner.isdecimal():
            return
        users = self._container.read("/etc/passwd", errors="replace").splitlines()
        if not any(line.startswith(f"{owner}:") for line in users):
            raise LabError(
                "find the user", owner, errno.ENOENT, "it must be in the container's /etc/passwd, or a number"
            )

    def _ours(self) -> str:
        """Return the places of our mounts, for a message."""
        with contextlib.suppress(OSError):  # where /proc was mounted over
            ours = [entry.target for entry in self.table() if entry.ours]
            return f"those are {', '.join(ours)}" if ours else "there are none"
        return "they cannot be listed"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        """Show whose they are."""
        return f"<Mounts of {self._handle.name}{' (closed)' if self._handle.closed else ''}>"


def _limits(size: int | str | None, inodes: int | None) -> list[str]:
    """Return limits as a tmpfs takes them."""
    wanted = [] if size is None else [f"size={parse_size(size)}"]
    return wanted if inodes is None else [*wanted, f"nr_inodes={kinds.parse_inodes(inodes)}"]
