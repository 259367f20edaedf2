"""The base of all root file systems, and what each lab has of them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeAlias

from pytest_poorcontainer.rootfs import holdings

if TYPE_CHECKING:
    import os
    from collections.abc import Hashable, Sequence

    from typing_extensions import Self

    from pytest_poorcontainer.lab import Lab
    from pytest_poorcontainer.lab.handle import Handle

__all__ = ["Rootfs", "Source"]

Source: TypeAlias = "str | os.PathLike[str] | Sequence[str] | Rootfs"
"""What ``rootfs=`` takes; None stands for the machine's."""


class Rootfs:
    """What containers see as ``/``. They get a copy-on-write view of it each: none changes what another one sees.

    A source of one's own is a subclass with :attr:`description` and one of :meth:`directory` and :meth:`fill`. It is
    given to ``rootfs=`` as it is, or returned by a plugin's ``poor_container_rootfs``.

    ``identity`` is what its content depends on, as far as that is known early: two of the same class with equal
    identities are interchangeable. Without one it equals nothing but itself. ``readonly`` says that containers can
    change nothing but what is their own anyway (/tmp, /run, /dev/shm).
    """

    is_host: bool = False
    """Whether it is the machine's own ``/``, seen as every container sees it that has no ``rootfs=``."""

    def __init__(self, identity: Hashable = None, *, readonly: bool = False) -> None:
        """Note what it is; nothing is built before :meth:`number`."""
        self.identity: Hashable = object() if identity is None else identity
        self.readonly = readonly

    @property
    def description(self) -> str:
        """What it is, for people, in a few words: "directory /srv/image"."""
        return type(self).__name__

    def directory(self) -> str | bytes | os.PathLike[str] | None:
        """Return the directory of the machine that is the root; None when :meth:`fill` makes it.

        Called each time that containers are asked for. Raises :class:`LabError` when it is not there (any more).
        """
        return None

    def fill(self, dir_fd: int) -> None:
        """Fill the empty directory that the descriptor is of; called once per lab and :meth:`key`.

        The directory lies in the lab's memory, and vanishes with it. Files are made with this process's ids: without
        privileges all are the container's root's. What this raises, who asked for the container gets; then nothing is
        left of it. Links that are in the directory already must not be followed out of it: see
        :class:`~pytest_poorcontainer.rootfs.tree.Tree`.
        """

    def binds(self) -> Sequence[tuple[str, str]]:
        """Return directories of the machine, and the places in the root where they are seen, read-only.

        Called before :meth:`fill`. At most 64.
        """
        return ()

    def key(self) -> Hashable:
        """Return what the content depends on now: as long as it is the same, a lab builds it once.

        Called each time that containers are asked for.
        """
        return self.identity

    def number(self, lab: Lab) -> int:
        """Return the lab's number of it, for :class:`~pytest_poorcontainer.lab.Spec`; build it when it is not there.

        Valid as long as this object is referred to. Safe to use from several threads. Raises what :meth:`directory`,
        :meth:`fill` and :meth:`Lab.add_rootfs` raise.
        """
        return holdings.of(lab).number(self)

    def created(self, handles: Sequence[Handle]) -> None:
        """Learn which containers were made on it."""

    def as_readonly(self) -> Self:
        """Return the same with ``readonly``."""
        if self.readonly:
            return self
        other = copy.copy(self)
        other.readonly = True
        return other

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rootfs) or type(self) is not type(other):
            return NotImplemented
        return self.readonly == other.readonly and self.identity == other.identity

    def __hash__(self) -> int:
        return hash((type(self), self.identity, self.readonly))

    def __repr__(self) -> str:
        readonly = ", readonly" if self.readonly else ""
        return f"<{type(self).__name__} {self.description}{readonly}>"
