"""What stands at a path that may be a root file system."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_poorcontainer.errors import UsageError

__all__ = ["look"]


def look(source: object) -> os.stat_result | None:
    """Return what is at a path, links followed; None when it is no path or nothing is there.

    Raises :class:`UsageError` for a path that cannot be looked at.
    """
    path = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
    if not path or not isinstance(path, str):
        return None
    try:
        return Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"rootfs={path[:200]!r}: {why}") from None
