"""Names of containers, which become host names, and of places in them."""

from __future__ import annotations

import os
import re

from pytest_poorcontainer.errors import UsageError

__all__ = ["check_name", "located"]

_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?", re.ASCII)
_LONGEST = 64  # HOST_NAME_MAX of sethostname(2)


def check_name(name: object) -> str:
    """Return the name when it is a host name by RFC 1123, section 2.1.

    Raises :class:`UsageError` with what was expected. A last part of digits alone is no name: "10.0.0.1" and "7" are
    addresses to every resolver. "localhost" is one already.
    """
    if not isinstance(name, str):
        raise UsageError(f"a container's name is a str, not {type(name).__name__}: {name!r}")
    parts = name.split(".")
    fits = len(name) <= _LONGEST and all(_LABEL.fullmatch(part) for part in parts)
    if not fits or parts[-1].isdigit() or name.lower() == "localhost":
        raise UsageError(
            f"{name!r} is no host name: expected letters, digits and inner hyphens (RFC 1123), parts of at most 63 "
            f"separated by dots, {_LONGEST} in all, the last part not of digits alone, and not localhost"
        )
    return name


def located(path: object, what: str = "path") -> bytes:
    """Return a path in a container as the kernel takes it; ``what`` is the argument's name, for messages.

    Raises :class:`UsageError` for what is no absolute path, ValueError for a zero byte.
    """
    expected = f"{what} is the absolute path of a place in the container, such as '/srv/data'"
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise UsageError(f"{expected}, not {path!r}")
    place = os.fsencode(path)
    if b"\0" in place:
        raise ValueError("embedded null byte")
    if not place.startswith(b"/"):
        raise UsageError(f"{expected}, not {os.fsdecode(place)!r}: a container has no current directory")
    return place
