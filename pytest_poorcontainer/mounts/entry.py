"""What is mounted in a container, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pytest_poorcontainer.lab.mountinfo import Row

__all__ = ["MountEntry"]


class MountEntry(NamedTuple):
    """A mount of a container's (proc_pid_mountinfo(5)).

    ``target`` is where it is, ``kind`` the type of its file system ("tmpfs"), ``source`` what that calls its device,
    ``root`` which directory of it is seen, ``options`` those of the mount and then of the file system. ``ours`` says
    that a test asked for it; the others came with the container. ``number`` is the kernel's.
    """

    target: str
    kind: str
    source: str
    root: str
    options: tuple[str, ...]
    number: int
    ours: bool

    @classmethod
    def of(cls, row: Row, *, ours: bool) -> MountEntry:
        """Return what a row of the kernel's table says."""
        options = dict.fromkeys((*row.options.split(","), *row.file_system.split(",")))
        # A file system that can be written says "rw" also where the mount says "ro", and that one decides.
        if "ro" in row.options.split(","):
            options.pop("rw", None)
        return cls(row.target, row.kind, row.source, row.root, tuple(options), row.number, ours)

    @property
    def readonly(self) -> bool:
        """Whether nothing can be written through it."""
        return "ro" in self.options

    def __str__(self) -> str:
        """Return it as mount(8) shows it."""
        seen = f" ({self.root})" if self.root != "/" else ""
        return f"{self.target} {self.kind} {','.join(self.options)}{seen}"
