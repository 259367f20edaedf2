"""What was done to a container's mounts, and can be taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Undo"]


class Undo:
    """A mount, or a fault of a disk, until it is taken back: by :meth:`undo`, or at the end of its ``with`` block.

    Nobody need do that: all of it is gone with the container.
    """

    def __init__(self, what: str, back: Callable[[], None]) -> None:
        """Remember what it is, for people, and how it is taken back."""
        self._what = what
        self._back: Callable[[], None] | None = back

    @property
    def done(self) -> bool:
        """Whether it was taken back."""
        return self._back is None

    def undo(self) -> None:
        """Take it back. Idempotent; nothing to do in a container that is closed.

        Raises :class:`~pytest_poorcontainer.LabError` when the kernel refuses; then it is still there.
        """
        if self._back is not None:
            self._back()
            self._back = None

    remove = undo
    """The same, as it reads better of a mount."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()

    def __repr__(self) -> str:
        """Show what it is, and whether it still is."""
        return f"<{self._what}{' (undone)' if self.done else ''}>"
