"""What went wrong in a conversation with the lab, as the error that its caller is to see."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import LabError
from pytest_poorcontainer.lab import protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["explained"]


def explained(error: BaseException, operation: str, pid: int, died: Callable[[str], Exception]) -> Exception | None:
    """Return what to raise instead of an error of the conversation; None for one that is none of its.

    ``pid`` is the lab's, ``died`` returns the error for a lab that is no more, given the operation.
    """
    if isinstance(error, LabError):
        return error
    if isinstance(error, BlockingIOError):
        return LabError(operation, "", errno.ETIMEDOUT, f"the lab ({pid}) is silent; is it stopped?")
    # By the number: a signal handler of a test's may raise TimeoutError, which is an OSError too.
    if isinstance(error, EOFError) or (isinstance(error, OSError) and error.errno in protocol.GONE):
        return died(operation)
    if isinstance(error, OSError) and error.errno is not None:
        return LabError(operation, "", error.errno)
    return None
