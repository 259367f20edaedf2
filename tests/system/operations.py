"""Operations on a directory, and what is in one; loaded by programs that run in a tree as well."""

import os
import shutil
import stat
from pathlib import Path

__all__ = ["do", "seen"]


def do(root, what, name, *rest):
    """Do one operation below a directory; return its errno, or 0."""
    place = root / name
    try:
        if what in {"write", "append"}:
            with place.open("w" if what == "write" else "a") as file:
                file.write(rest[0])
        elif what == "truncate":
            os.truncate(place, rest[0])
        elif what == "create":
            os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))
        elif what in {"rename", "link"}:
            getattr(os, what)(place, root / rest[0])
        elif what == "symlink":
            place.symlink_to(rest[0])
        elif what == "chmod":
            place.chmod(rest[0])
        elif what == "rmtree":
            if place.is_symlink():
                return 0
            shutil.rmtree(place)
        else:
            getattr(os, what)(place)
    except OSError as error:
        return error.errno
    return 0


def seen(root):
    """Return all that is in a directory: kinds, modes, contents, how many names a file has."""
    found = {}
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            place = Path(directory, name)
            info = place.lstat()
            kind = stat.S_IFMT(info.st_mode)
            content = place.readlink() if kind == stat.S_IFLNK else place.read_bytes() if kind == stat.S_IFREG else b""
            found[str(place.relative_to(root))] = kind, stat.S_IMODE(info.st_mode), content
    return found
