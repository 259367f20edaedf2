"""What can go wrong with a call besides what the function itself raises."""

from __future__ import annotations

from pytest_poorcontainer.errors import PoorContainerError

__all__ = ["CallDied", "CallError", "RemoteTraceback"]


class CallError(PoorContainerError):
    """A function could not be called in a container, or what came of it could not be brought back."""


class CallDied(CallError):
    """The Python in the container ended in the middle of a call.

    ``returncode`` is its exit status, negative for a signal, as in subprocess.
    """

    def __init__(self, message: str, returncode: int) -> None:
        """Keep the status beside the text."""
        self.returncode = returncode
        super().__init__(message, returncode)

    def __str__(self) -> str:
        """Return the text alone."""
        return str(self.args[0])


class RemoteTraceback(Exception):
    """Stands as ``__cause__`` behind an exception that a function raised in a container; its text is the traceback."""

    def __str__(self) -> str:
        """Return the traceback as text, which begins on a line of its own."""
        return "\n" + str(self.args[0])
