"""What is asked of an agent for one command: arguments, environment, directory, user."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pytest_poorcontainer.container import protocol
from pytest_poorcontainer.container.protocol import Field
from pytest_poorcontainer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    Text: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"
    Argv: TypeAlias = "Text | Sequence[Text]"
    Environment: TypeAlias = "Mapping[str, Text | None] | Mapping[bytes, Text | None]"

__all__ = ["arguments", "pack_request"]

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


def pack_request(words: Sequence[bytes], env: Environment | None, cwd: Text | None, user: str | int | None) -> bytes:
    """Return the fields of an EXEC.

    ``env`` is added to PATH, LANG, HOME and TMPDIR; a value of None removes the name.
    """
    fields: list[tuple[int, int | str | bytes]] = [(Field.ARG, word) for word in words]
    if cwd is not None:
        fields.append((Field.CWD, _checked(os.fsencode(cwd))))
    if user is not None:
        fields.append((Field.USER, _user(user)))
    if not env:
        return protocol.pack(fields) + _BASE_FIELDS
    merged = dict(_BASE)
    for key, value in env.items():
        name = _checked(os.fsencode(key))
        if not name or b"=" in name:
            raise ValueError(f"illegal environment variable name: {key!r}")
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _checked(os.fsencode(value))
    fields += [(Field.ENV, name + b"=" + value) for name, value in merged.items()]
    return protocol.pack(fields)


def _checked(text: bytes) -> bytes:
    if b"\0" in text:
        raise ValueError("embedded null byte")
    return text


def _user(user: str | int) -> str:
    if isinstance(user, bool) or not isinstance(user, (str, int)):
        raise TypeError(f"user is a name or a number, not {type(user).__name__}: {user!r}")
    if user == "" or (isinstance(user, int) and user < 0):
        raise UsageError(f"user is a name or a number from 0 up, not {user!r}")
    text = str(user)
    _checked(text.encode("utf-8", "surrogateescape"))
    return text
