"""Why a program could not be found in a container."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pytest_poorcontainer.lab.handle import Handle

__all__ = ["lacking", "not_found"]


def not_found(handle: Handle, program: str, search_path: str) -> FileNotFoundError:
    """Return the error for a program that execve(2) did not find; it says what is missing, and where."""
    cause = os.strerror(errno.ENOENT)
    why = lacking(handle, program, search_path)
    if why:
        cause += f": {why}"
    elif handle.rootfs not in ("", "host"):
        cause += f" in the root file system of {handle.name} ({handle.rootfs})"
    return FileNotFoundError(errno.ENOENT, cause, program)


def lacking(handle: Handle, program: str, search_path: str) -> str:
    """Return what is missing for a program on another rootfs than the machine's; "" when it is all there."""
    if handle.rootfs in ("", "host"):
        return ""  # what is entered is unknown, and by way of a socket that others share: there no answer can be had
    if "/" in program and not program.startswith("/"):
        return ""  # it depends on the command's working directory
    from pytest_poorcontainer.rootfs.missing import explain  # noqa: PLC0415 - few tests need it

    def open_file(path: str) -> BinaryIO:
        return os.fdopen(handle.agent.open(os.fsencode(path)), "rb")

    why = explain(open_file, program, search_path)
    return f"{why}, in the root file system of {handle.name} ({handle.rootfs})" if why else ""
