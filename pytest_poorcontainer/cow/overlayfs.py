"""The one format of an upper: overlayfs' own, with ``userxattr`` (Documentation/filesystems/overlayfs.rst).

A name that is gone is a whiteout, a character device 0:0, which anybody may make since Linux 5.8. A directory that
hides what is below it is opaque: its extended attribute ``user.overlay.opaque`` is "y". There are no redirects and no
metacopies, which the kernel refuses with ``userxattr``. There is no second format for file systems that have no devices
or no such attributes: what has to be written there fails, and the backend ``copy`` needs neither.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_poorcontainer.cow.layer import Layer

__all__ = ["OPAQUE", "is_opaque", "is_own", "is_whiteout", "make_opaque", "make_whiteout"]

OPAQUE = "user.overlay.opaque"
_WHITEOUT = "user.overlay.whiteout"  # an empty file with this is one, too (Linux 6.7)
_OWN = ("user.overlay.", "trusted.overlay.")


def is_own(attribute: str) -> bool:
    """Return whether an extended attribute belongs to the format, and not to the file."""
    return attribute.startswith(_OWN)


def is_whiteout(layer: Layer, path: str, info: os.stat_result) -> bool:
    """Return whether this is no file, but says that there is none."""
    if stat.S_ISCHR(info.st_mode):
        return info.st_rdev == 0
    return stat.S_ISREG(info.st_mode) and info.st_size == 0 and layer.xattr(path, _WHITEOUT) is not None


def is_opaque(layer: Layer, path: str) -> bool:
    """Return whether a directory hides what lower layers have under its name."""
    return layer.xattr(path, OPAQUE) == b"y"


def make_whiteout(layer: Layer, path: str) -> None:
    """Let a name be gone; nothing is under it in this layer."""
    with layer.place(path) as place:
        os.mknod(place, stat.S_IFCHR, 0)


def make_opaque(layer: Layer, path: str) -> None:
    """Let a directory hide what is below it."""
    with layer.place(path) as place:
        os.setxattr(place, OPAQUE, b"y", follow_symlinks=False)
