"""Networks as data: a TOML file says which hosts, routers, switches and links there are (docs/networks.md)."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.errors import PoorContainerError, UsageError
from pytest_poorcontainer.network.toml_lines import line_of, lines_of_keys

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_poorcontainer.network.toml_lines import Path as KeyPath

__all__ = ["Description", "TopologyError", "read"]

_CONTAINER = ("rootfs", "readonly", "memory", "pids", "cpu", "capabilities", "rlimits")
_KEYS: dict[str, dict[str, tuple[type, ...]]] = {
    "": {"hosts": (dict,), "routers": (dict,), "switches": (dict,), "links": (list,), "routes": (bool,)},
    "hosts": {"sysctls": (dict,), "start": (list,), "switch": (str,), **dict.fromkeys(_CONTAINER, (object,))},
    "routers": {
        "sysctls": (dict,),
        "start": (list,),
        "masquerade": (str, bool),
        "forward": (list,),
        **dict.fromkeys(_CONTAINER, (object,)),
    },
    "switches": {"hosts": (list, int), "subnet": (str,), "subnet6": (str,), "mtu": (int,)},
    "links": {
        "ends": (list,),
        "vlan": (int,),
        "vlans": (list,),
        "mtu": (int,),
        "subnet": (str,),
        "subnet6": (str,),
        "addresses": (dict,),
        "impair": (dict,),
    },
    "forward": {"port": (int,), "to": (str,), "to_port": (int,), "protocol": (str,)},
    "start": {"argv": (list, str), "ready": (int, str), "user": (str, int)},
    "impair": {
        **dict.fromkeys(("delay", "jitter", "loss", "duplicate", "reorder", "corrupt", "rate"), (int, float, str)),
        "seed": (int,),
        "direction": (str,),
        "precise": (bool,),
    },
}
_NAMES: dict[type, str] = {
    dict: "a table",
    list: "a list",
    str: "a text",
    int: "a whole number",
    bool: "true or false",
    float: "a number",
}


class TopologyError(UsageError):
    """A file of topology is not one; the message begins with file and line."""


@dataclasses.dataclass
class Description:
    """What a file says, checked as far as it can be without building it."""

    path: Path
    hosts: dict[str, dict[str, Any]]
    routers: dict[str, dict[str, Any]]
    switches: dict[str, dict[str, Any]]
    links: list[dict[str, Any]]
    routes: bool
    lines: dict[KeyPath, int]

    def where(self, path: KeyPath) -> str:
        """Return file, line and key of what stands there."""
        shown = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
        return f"{self.path}:{line_of(self.lines, path)}{': ' * bool(shown)}{shown}"

    def error(self, path: KeyPath, message: str) -> TopologyError:
        """Return the error for what stands at a key."""
        return TopologyError(f"{self.where(path)}: {message}")

    @contextlib.contextmanager
    def at(self, *path: str | int) -> Iterator[None]:
        """Say of what goes wrong in the block where it stands in the file."""
        try:
            yield
        except TopologyError:
            raise
        except UsageError as error:
            raise self.error(path, str(error)) from None
        except PoorContainerError as error:
            error.where = error.where or self.where(path)
            raise


def read(path: str | os.PathLike[str]) -> Description:
    """Read a file and check its keys, their types, and the names that refer to others.

    Raises :class:`TopologyError` with file and line; OSError when it cannot be read.
    """
    place = Path(path)
    data = place.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TopologyError(f"{place}:{line}: this is no TOML: it is not UTF-8 ({error.reason})") from None
    document = _parsed(place, text)
    found = Description(place, {}, {}, {}, [], routes=True, lines=lines_of_keys(text))
    _check_table(found, (), document, "")
    for kind, into in (("hosts", found.hosts), ("routers", found.routers), ("switches", found.switches)):
        for name, table in document.get(kind, {}).items():
            _check_table(found, (kind, name), table, kind)
            into[name] = table
    for number, table in enumerate(document.get("links", [])):
        _check_table(found, ("links", number), table, "links")
        found.links.append(table)
    found.routes = document.get("routes", True)
    if not (found.hosts or found.routers or found.switches):
        raise found.error((), "there is no host in it: expected [hosts.NAME], [routers.NAME] or [switches.NAME]")
    _check_names(found)
    return found


def _parsed(place: Path, text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib  # noqa: PLC0415 - few tests read files
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - as above
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        import re  # noqa: PLC0415 - only after a mistake

        where = re.search(r"at line (\d+)", str(error))
        line = where[1] if where else str(text.count("\n") + 1)
        raise TopologyError(f"{place}:{line}: this is no TOML: {error}") from None
    return document


def _check_table(found: Description, path: KeyPath, table: object, kind: str) -> None:
    if not isinstance(table, dict):
        raise found.error(path, f"expected a table, not {table!r}")
    known = _KEYS[kind]
    for key, value in table.items():
        if key not in known:
            raise found.error((*path, key), f"no such key{_nearest(key, known)}; the keys here are {', '.join(known)}")
        wanted = known[key]
        fits = object in wanted or (isinstance(value, wanted) and not (isinstance(value, bool) and bool not in wanted))
        if not fits:
            raise found.error((*path, key), f"expected {' or '.join(_NAMES[one] for one in wanted)}, not {value!r}")
    if kind == "start":
        _check_argv(found, path, table.get("argv"))
    if isinstance(table.get("impair"), dict):
        _check_table(found, (*path, "impair"), table["impair"], "impair")
    for key in ("forward", "start"):
        for number, one in enumerate(table.get(key, ()) if key in known else ()):
            _check_table(found, (*path, key, number), one, key)


def _check_argv(found: Description, path: KeyPath, argv: object) -> None:
    if argv is None:
        raise found.error(path, "expected argv, such as { argv = ['my-server'], ready = 80 }")
    for word in argv if isinstance(argv, list) else ():
        if not isinstance(word, str):
            raise found.error((*path, "argv"), f"expected texts, not {word!r}")


def _check_names(found: Description) -> None:
    """Check that names are there once, and that what refers to one finds it."""
    ends: dict[str, KeyPath] = {}
    for kind, tables in (("hosts", found.hosts), ("routers", found.routers), ("switches", found.switches)):
        for name in tables:
            _add(found, ends, name, (kind, name))
    for name, table in found.switches.items():
        _check_hosts_of_switch(found, ends, name, table.get("hosts"))
    for name, table in found.hosts.items():
        switch = table.get("switch")
        if switch is not None and switch not in found.switches:
            message = f"there is no switch {switch!r}{_nearest(switch, found.switches)}"
            raise found.error(("hosts", name, "switch"), message)
    for number, table in enumerate(found.links):
        _check_ends(found, ends, number, table.get("ends"))
        _check_addresses(found, number, table)
    for name, table in found.routers.items():
        outside = table.get("masquerade")
        if isinstance(outside, str) and outside not in ends:
            message = f"there is no host, router or switch {outside!r}{_nearest(outside, ends)}"
            raise found.error(("routers", name, "masquerade"), message)
        for number, one in enumerate(table.get("forward", ())):
            _check_forward(found, ends, ("routers", name, "forward", number), one)


def _check_hosts_of_switch(found: Description, ends: dict[str, KeyPath], name: str, hosts: object) -> None:
    for host in hosts if isinstance(hosts, list) else ():
        if not isinstance(host, str):
            raise found.error(("switches", name, "hosts"), f"expected names of hosts, not {host!r}")
        if host not in found.hosts:  # else it is one that has a table of its own
            _add(found, ends, host, ("switches", name, "hosts"))


def _check_ends(found: Description, ends: dict[str, KeyPath], number: int, two: object) -> None:
    path = ("links", number, "ends")
    if not isinstance(two, list) or len(two) != 2 or not all(isinstance(end, str) for end in two):  # noqa: PLR2004
        raise found.error(path, f"expected the names of two ends, not {two!r}")
    for end in two:
        if end not in ends:
            raise found.error(path, f"there is no host, router or switch {end!r}{_nearest(end, ends)}")


def _check_addresses(found: Description, number: int, table: dict[str, Any]) -> None:
    for name, given in table.get("addresses", {}).items():
        path = ("links", number, "addresses", name)
        if name not in table["ends"]:
            raise found.error(path, f"{name!r} is at no end of this link{_nearest(name, table['ends'])}")
        if not isinstance(given, str) and not (isinstance(given, list) and all(isinstance(one, str) for one in given)):
            raise found.error(path, f"expected an address or a list of them, such as '192.0.2.7', not {given!r}")


def _check_forward(found: Description, ends: dict[str, KeyPath], path: KeyPath, one: dict[str, Any]) -> None:
    if "port" not in one or "to" not in one:
        raise found.error(path, "expected port and to, such as { port = 21, to = 'ftp' }")
    if one["to"] not in ends:
        raise found.error((*path, "to"), f"there is no host {one['to']!r}{_nearest(one['to'], ends)}")


def _add(found: Description, ends: dict[str, KeyPath], name: str, path: KeyPath) -> None:
    for known, other in ends.items():
        if known.lower() == name.lower():
            raise found.error(path, f"the name {name!r} is there already, on line {line_of(found.lines, other)}")
    ends[name] = path


def _nearest(word: str, words: Iterable[str] | Mapping[str, object]) -> str:
    near = difflib.get_close_matches(word, list(words), n=1)
    return f", did you mean {near[0]!r}?" if near else ""
