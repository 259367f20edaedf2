"""Names of containers: they become host names, and stand in /etc/hosts."""

from __future__ import annotations

import re

from pytest_poorcontainer.errors import UsageError

__all__ = ["check_name"]

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
