"""Containers that were asked for ahead of the time at which they are wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_poorcontainer.errors import LabError
    from pytest_poorcontainer.lab.handle import Handle

__all__ = ["Order"]


class Order:
    """A creation under way, made by ``Lab.order``: the lab builds while we do something else.

    ``pending`` until its answer has come; then ``handles`` has what was made, or ``error`` why it was not.
    """

    __slots__ = ("error", "handles", "names", "pending")

    def __init__(self, names: Sequence[str]) -> None:
        """Await containers of these names."""
        self.names = list(names)
        self.pending = True
        self.handles: list[Handle] = []
        self.error: LabError | None = None

    @property
    def complete(self) -> bool:
        """Whether all that was asked for is there."""
        return not self.pending and len(self.handles) == len(self.names)
