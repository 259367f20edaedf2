"""The kinds of mounts, and what may be said of each: the same for calls, markers and tables in pyproject.toml."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.errors import UsageError, did_you_mean
from pytest_poorcontainer.lab.names import located
from pytest_poorcontainer.lab.sizes import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["KINDS", "check", "parse_inodes", "parse_mode"]

_MODES_MAX = 0o7777


def parse_mode(mode: object) -> int:
    """Return permissions, given as a number or as octal digits: 0o750 or "0750". Raises :class:`UsageError`."""
    number = mode
    if isinstance(mode, str):
        try:
            number = int(mode, 8)
        except ValueError:
            number = None
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= _MODES_MAX:
        expected = "mode is a number from 0 to 0o7777 or its octal digits, such as 0o750 or '0750'"
        raise UsageError(f"{expected}, not {mode!r}")
    return number


def parse_inodes(inodes: object) -> int:
    """Return how many files and directories a file system may have. Raises :class:`UsageError`."""
    if isinstance(inodes, bool) or not isinstance(inodes, int) or inodes < 1:
        raise UsageError(f"inodes is a number from 1 up, not {inodes!r}")
    return inodes


def _check_path(what: str) -> Callable[[object], object]:
    def check_path(value: object) -> None:
        if not isinstance(value, (str, bytes, os.PathLike)) or not os.fspath(value):
            raise UsageError(f"{what} is the path of a file or directory of the machine's, not {value!r}")

    return check_path


def _check_switch(what: str) -> Callable[[object], object]:
    def check_switch(value: object) -> None:
        if not isinstance(value, bool):
            raise UsageError(f"{what} is True or False, not {value!r}")

    return check_switch


def _check_owner(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise UsageError(f"owner is the name or number of a user of the container's, not {value!r}")


_SIZE: Callable[[Any], object] = parse_size
_SWITCHES = {"readonly": _check_switch("readonly"), "noexec": _check_switch("noexec")}
_FORM: Mapping[str, Callable[[object], object]] = {"size": _SIZE, "inodes": parse_inodes}

KINDS: Mapping[str, Mapping[str, Callable[[object], object]]] = {
    "bind": {"source": _check_path("source"), **_SWITCHES},
    "tmpfs": {**_FORM, "mode": parse_mode, "owner": _check_owner, **_SWITCHES},
    "overlay": {"lower": _check_path("lower"), **_FORM},
    "devpts": {},
}
"""Every kind, with its options and what raises :class:`UsageError` for a wrong value of each."""

_NEEDED = {"bind": ("source", "the path of the machine's that is to be seen there")}


def check(kind: object, options: Mapping[str, object]) -> None:
    """Do nothing if a mount could be asked for in this way: ``options`` are its target and the arguments of its kind.

    Whether the paths exist is seen when it is made. Raises :class:`UsageError` that says what is wrong.
    """
    if not isinstance(kind, str) or kind not in KINDS:
        raise UsageError(f"{kind!r} is no kind of mount{did_you_mean(kind, KINDS)}; the kinds are {', '.join(KINDS)}")
    known = KINDS[kind]
    given = dict(options)
    if "target" not in given:
        raise UsageError("target is missing: the absolute path of a place in the container")
    located(given.pop("target"), "target")
    for key, value in given.items():
        if key not in known:
            has = ", ".join(["target", *known])
            raise UsageError(f"{kind} has no {key!r}{did_you_mean(key, known)}; it has {has}")
        known[key](value)
    needed, meaning = _NEEDED.get(kind, ("", ""))
    if needed and needed not in given:
        raise UsageError(f"{needed} is missing: {meaning}")
