"""The directory of the sockets on which labs are found by who did not start them: one of this user's alone.

Whoever can connect to such a socket can enter what the lab keeps, so nobody else may reach it, or have put it there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import PoorContainerError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ENVIRONMENT", "existing", "opened", "place"]

ENVIRONMENT = "POOR_CONTAINER_RUNTIME_DIR"
_NAME = "poor-container"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def place() -> Path:
    """Return where this process's sockets go, whether it exists or not.

    That is ``$XDG_RUNTIME_DIR/poor-container`` where the variable names a directory of ours that we may write into
    (XDG Base Directory Specification), else ``/tmp/poor-container-UID``. ``POOR_CONTAINER_RUNTIME_DIR`` is the place
    itself, and the only one: so tests of this are alone. Raises :class:`PoorContainerError` when that is relative.
    """
    own = os.environ.get(ENVIRONMENT)
    if own and not own.startswith("/"):
        raise PoorContainerError(f"cannot use {own!r} for sockets: {ENVIRONMENT} must be an absolute path")
    if own:
        return Path(own)
    base = _runtime_base()
    return _fallback() if base is None else base / _NAME


def opened() -> int:
    """Return a descriptor of the directory, which is made when it does not exist; it is the caller's to close.

    Raises :class:`PoorContainerError` when it is somebody else's, or open to others; FileNotFoundError when it was
    removed between our two steps, by whoever removed the last socket: then try again.
    """
    path = place()
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(0o700)
        return _checked(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        remedy = f"set {_variable()} to a directory of yours"
        raise PoorContainerError(f"cannot make {path} for sockets: {error.strerror}; {remedy}") from error


def existing() -> Iterator[tuple[Path, int]]:
    """Yield (path, descriptor) of each directory in which sockets of ours may be; the descriptors are closed again.

    All places are looked at: pytest may have been started with XDG_RUNTIME_DIR, and this process without, or under
    sudo. One that belongs to somebody else holds nothing of ours and is passed over. Raises
    :class:`PoorContainerError` for one of ours that is open to others.
    """
    places = (place(), Path(f"/run/user/{os.geteuid()}") / _NAME, _fallback())
    for path in dict.fromkeys(places[:1] if os.environ.get(ENVIRONMENT) else places):
        try:
            if path.lstat().st_uid != os.geteuid():
                continue
            fd = _checked(path)
        except OSError:
            continue  # none there, or gone again, or behind a directory that is not ours
        try:
            yield path, fd
        finally:
            os.close(fd)


def _variable() -> str:
    """Return the variable that decides where the sockets are."""
    return ENVIRONMENT if os.environ.get(ENVIRONMENT) else "XDG_RUNTIME_DIR"


def _fallback() -> Path:
    # Not TMPDIR: that of a test run is often another one than that of a person's shell.
    return Path(f"/tmp/poor-container-{os.geteuid()}")  # noqa: S108 - its owner and mode are checked


def _runtime_base() -> Path | None:
    name = os.environ.get("XDG_RUNTIME_DIR", "")
    if not name.startswith("/"):
        return None  # also a relative one: "All paths must be absolute", else ignored
    try:
        if Path(name).stat().st_uid != os.geteuid() or not Path(name).is_dir():
            return None  # after su or sudo -E it is another user's
    except OSError:
        return None
    return Path(name) if os.access(name, os.W_OK | os.X_OK) else None


def _checked(path: Path) -> int:
    """Return a descriptor of the directory, when it is ours alone. The descriptor: what was checked is what is used."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.EACCES):
            raise
        if error.errno == errno.EACCES:
            raise _refused(path, "it belongs to somebody else") from None
        what = "a symbolic link" if path.is_symlink() else "no directory"
        raise _refused(path, f"it is {what}, which somebody put there") from None
    found = os.fstat(fd)
    if found.st_uid == os.geteuid() and not found.st_mode & _OTHERS:
        return fd
    os.close(fd)
    if found.st_uid != os.geteuid():
        raise _refused(path, f"it belongs to user {found.st_uid}")
    raise _refused(path, f"its mode {stat.S_IMODE(found.st_mode):04o} lets others in", f"chmod 0700 {path}")


def _refused(path: Path, why: str, remedy: str = "") -> PoorContainerError:
    remedy = remedy or f"remove {path}, or set {_variable()} to a directory of yours"
    return PoorContainerError(f"cannot use {path} for sockets: {why}; {remedy}")
