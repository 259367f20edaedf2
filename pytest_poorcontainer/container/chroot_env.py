"""A container alone: a root file system to change and commands to run in it. The value of ``chroot_env``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_poorcontainer.container.container import Container

if TYPE_CHECKING:
    from typing_extensions import Self

    from pytest_poorcontainer.lab.handle import Handle

__all__ = ["ChrootEnv"]


class ChrootEnv(Container):
    """A root file system of one's own, and what runs in it; all that it can do is :class:`Container`'s.

    Not chroot(2), which anybody with a directory open leaves again: the root is that of a mount namespace of the
    container's own, and the machine's is not mounted in there.
    """

    @classmethod
    def of(cls, handle: Handle) -> Self:
        """Return the object of a container that the lab has made already."""
        made = cls.__new__(cls)
        made._attach(handle)  # noqa: SLF001 - ours
        return made
