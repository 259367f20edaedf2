"""What is asked of an agent for one command: arguments, environment, directory, user, descriptors."""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.lab import protocol
from pytest_poorcontainer.lab.protocol import Field

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol, TypeAlias

    class HasFileno(Protocol):
        """A file, a socket, a pipe's end of multiprocessing's, ..."""

        def fileno(self) -> int:
            """Return its descriptor."""
            ...

    Text: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"
    Argv: TypeAlias = "Text | Sequence[Text]"
    Environment: TypeAlias = "Mapping[str, Text | None] | Mapping[bytes, Text | None]"
    PassFds: TypeAlias = "Collection[int] | Mapping[int, int | HasFileno]"

__all__ = ["arguments", "pack_request", "passed", "search_path", "user_text"]

_CLOCK = struct.Struct("=q")
_PASSED_MAX = protocol.FDS_MAX - 5  # beside them travel the control socket, the streams, perhaps the body
_NUMBER_MAX = 0xFFFF

# Not pytest's own: what a command does must not depend on who started pytest. HOME is the user's, the agent adds it.
_BASE: dict[bytes, bytes] = {
    b"PATH": b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    b"LANG": b"C.UTF-8",
    b"TMPDIR": b"/tmp",  # the container's own
}
_BASE_FIELDS = protocol.pack((Field.ENV, key + b"=" + value) for key, value in _BASE.items())


def arguments(argv: Argv) -> list[bytes]:
    """Return the argument list as execve(2) takes it; a single string is a program's name, as with subprocess.

    Raises :class:`UsageError` when it is empty, ValueError for a zero byte, TypeError for what is no text.
    """
    words = [os.fsencode(argv)] if isinstance(argv, (str, bytes, os.PathLike)) else [os.fsencode(word) for word in argv]
    if not words:
        raise UsageError("the argument list is empty: expected a program and its arguments, such as ['ls', '-l']")
    return [_checked(word) for word in words]


def pack_request(
    words: Sequence[bytes],
    env: Environment | None,
    cwd: Text | None,
    user: str | int | None,
    *,
    terminal: bool = False,
    term: bytes = b"",
    numbers: Collection[int] = (),
    clock: int = 0,
    preload: bytes = b"",
) -> bytes:
    """Return the fields of an EXEC.

    ``env`` is added to PATH, LANG, HOME and TMPDIR; a value of None removes the name. With ``terminal`` the command's
    stdin becomes its controlling terminal; ``term`` is that one's kind (environ(7)). ``numbers`` are those of the
    descriptors behind the three streams. ``clock`` is how far the command's clocks are ahead, in ns. ``preload`` is a
    library that comes before those of its LD_PRELOAD.
    """
    fields: list[tuple[int, int | str | bytes]] = [(Field.ARG, word) for word in words]
    if cwd is not None:
        fields.append((Field.CWD, _checked(os.fsencode(cwd))))
    if user is not None:
        fields.append((Field.USER, user_text(user)))
    if terminal:
        fields.append((Field.TERMINAL, 1))
    if clock:
        fields.append((Field.VALUE, _CLOCK.pack(clock)))
    fields += [(Field.FD_NUMBER, number) for number in numbers]
    if not env and not term and not preload:
        return protocol.pack(fields) + _BASE_FIELDS
    return protocol.pack(fields) + _environment(env, term, preload)


def _environment(env: Environment | None, term: bytes, preload: bytes) -> bytes:
    """Return the fields of all variables."""
    merged = dict(_BASE)
    if term:
        merged[b"TERM"] = term
    for key, value in (env or {}).items():
        name = _checked(os.fsencode(key))
        if not name or b"=" in name:
            raise ValueError(f"illegal environment variable name: {key!r}")
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _checked(os.fsencode(value))
    if preload:
        others = merged.get(b"LD_PRELOAD")
        merged[b"LD_PRELOAD"] = preload + b":" + others if others else preload
    return protocol.pack((Field.ENV, name + b"=" + value) for name, value in merged.items())


def search_path(env: Environment | None) -> str:
    """Return the PATH that a command with this ``env`` is looked up in; without one, what launch.c takes."""
    found: Text | None = _BASE[b"PATH"]
    for key, value in (env or {}).items():
        if os.fsencode(key) == b"PATH":
            found = value
    return os.fsdecode(_BASE[b"PATH"] if found is None else found)


def passed(pass_fds: PassFds) -> dict[int, int]:
    """Return which number in the command is which descriptor of this process.

    Raises :class:`UsageError` for a number below 3 or one that is none, and for too many; OSError (EBADF) for a
    descriptor that is not open.
    """
    if not pass_fds:
        return {}
    if isinstance(pass_fds, (str, bytes)) or not isinstance(pass_fds, Collection):
        raise UsageError(f"pass_fds is a sequence of descriptors, or a mapping of numbers to them, not {pass_fds!r}")
    pairs = pass_fds.items() if isinstance(pass_fds, Mapping) else ((number, number) for number in pass_fds)
    found = {_number(number): _descriptor(one) for number, one in pairs}
    if len(found) > _PASSED_MAX:
        raise UsageError(f"pass_fds has {len(found)} descriptors; at most {_PASSED_MAX} can be passed to one command")
    return found


def _number(number: object) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not 2 < number <= _NUMBER_MAX:  # noqa: PLR2004
        raise UsageError(
            f"pass_fds: a command's descriptor is a number from 3 to {_NUMBER_MAX}, not {number!r}; "
            "0, 1 and 2 are stdin, stdout and stderr"
        )
    return number


def _descriptor(one: int | HasFileno) -> int:
    fd = one if isinstance(one, int) else one.fileno()
    try:
        os.fstat(fd)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: pass_fds has {one!r}, which is not open") from None
    return fd


def _checked(text: bytes) -> bytes:
    if b"\0" in text:
        raise ValueError("embedded null byte")
    return text


def user_text(user: str | int) -> str:
    """Return a user's name or number as the agent takes it. Raises TypeError, :class:`UsageError`, ValueError."""
    if isinstance(user, bool) or not isinstance(user, (str, int)):
        raise TypeError(f"user is a name or a number, not {type(user).__name__}: {user!r}")
    if user == "" or (isinstance(user, int) and user < 0):
        raise UsageError(f"user is a name or a number from 0 up, not {user!r}")
    text = str(user)
    _checked(text.encode("utf-8", "surrogateescape"))
    return text
