"""The machine's own ``/``, as containers see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.plugins import hookimpl
from pytest_poorcontainer.rootfs.source import Rootfs

if TYPE_CHECKING:
    from pytest_poorcontainer.lab import Lab

__all__ = ["Host", "poor_container_rootfs"]


class Host(Rootfs):
    """The machine's own: its directories read-only, with private ones where programs write."""

    is_host = True

    def __init__(self) -> None:
        """All are the same."""
        super().__init__("host")

    @property
    def description(self) -> str:
        """The word for it."""
        return "host"

    def number(self, lab: Lab) -> int:  # noqa: ARG002 - every lab has it
        """Return 0, its number in every lab."""
        return 0

    def as_readonly(self) -> Host:
        """Refuse: there is nothing to choose."""
        raise UsageError("readonly=True is for rootfs=: the machine's own / is read-only as it is")


@hookimpl(tryfirst=True)
def poor_container_rootfs(source: object, readonly: bool) -> Rootfs | None:
    """Know None and "host"."""
    if source is not None and source != "host":
        return None
    return Host().as_readonly() if readonly else Host()
