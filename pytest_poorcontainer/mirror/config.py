"""The configuration: ``mirrors.toml``, read once, with every mistake named by file and line."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from pytest_poorcontainer.mirror import profiles, units
from pytest_poorcontainer.mirror.errors import BadConfig, MirrorError
from pytest_poorcontainer.mirror.home import check_place
from pytest_poorcontainer.mirror.plan import Limits
from pytest_poorcontainer.mirror.rules import OURS, Rules
from pytest_poorcontainer.mirror.sources.base import FAR, USUAL, Access

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Config", "Mirror", "host_of", "load", "lowest", "single"]

_HOOKS = ("pre", "post", "fail", "change")
_SOONER = 0.25  # of the interval, after which a run that failed is tried again


@dataclass
class Mirror(Access):
    """One mirror: what is copied, to where, how, and when. The fields are the keys of ``[mirror.NAME]``.

    ``where`` is the file and line that says so.
    """

    name: str
    source: str = ""
    dest: Path = Path()
    profile: str = "plain"
    interval: float = 6 * 3600.0
    late: float = 0.0
    max_age: float = 0.0
    include: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    filters: list[str] = field(default_factory=list)
    indexes: list[str] = field(default_factory=list)
    max_delete: Limits = field(default_factory=Limits)
    delete: bool = True
    links: str = "keep"
    reserve: int = 64 << 20
    manifest: bool = False
    use_manifest: bool = True
    snapshots: int = 0
    trace: str = ""
    timeout: float = 0.0
    command: list[str] = field(default_factory=list)
    hooks: dict[str, list[str]] = field(default_factory=dict)
    state: Path = Path()
    where: str = ""

    @property
    def work(self) -> Path:
        """Where a run works: the destination, or with snapshots a tree beside it."""
        return self.dest.parent / f".{self.dest.name}.snapshots" / "work" if self.snapshots else self.dest

    def rules(self) -> Rules:
        """Return what belongs to the mirror."""
        return Rules(self.include, self.exclude, self.filters)

    def pause(self, state: str) -> float:
        """Return the seconds from a run that ended so to the next one; a held one waits, as only a person helps it."""
        return self.interval if state in {"ok", "held"} else self.interval * _SOONER

    def layout(self) -> profiles.Profile:
        """Return the profile, with the indexes of the mirror's own."""
        found = profiles.find(self.profile)
        return dataclasses.replace(found, indexes=(*found.indexes, *self.indexes)) if self.indexes else found


@dataclass
class Config:
    """All of it. ``jobs`` is how many mirrors are synchronised at once, ``state`` where history and page are.

    ``bandwidth`` (bytes/s) and ``connections`` are for all runs together, 0 for no limit.
    """

    path: Path
    mirrors: dict[str, Mirror]
    state: Path
    jobs: int = 4
    bandwidth: int = 0
    connections: int = 0
    title: str = "Mirrors"
    page: Path | None = None

    def chosen(self, names: Sequence[str]) -> list[Mirror]:
        """Return the mirrors of these names, all for none; raises :class:`BadConfig`."""
        for name in names:
            if name not in self.mirrors:
                raise BadConfig(f'{self.path}: there is no mirror "{name}"{_nearest(name, self.mirrors)}')
        return [self.mirrors[name] for name in names or self.mirrors]

    def at_once(self) -> int:
        """Return how many runs the daemon has at once, at most."""
        return max(1, min(self.jobs, len(self.mirrors)))

    def limited(self, mirror: Mirror, runs: int) -> Mirror:
        """Return a mirror with its share of the limits for all, when so many runs have to share them."""
        bandwidth = lowest(mirror.bandwidth, self.bandwidth and max(1, self.bandwidth // runs))
        share = self.connections and max(1, self.connections // runs)
        own = mirror.connections or (USUAL if 0 < share < FAR else 0)
        return dataclasses.replace(mirror, bandwidth=bandwidth, connections=lowest(own, share) if own else 0)


def lowest(*limits: int) -> int:
    """Return the lowest of some limits, of which 0 is none."""
    return min((one for one in limits if one), default=0)


def host_of(source: str) -> str:
    """Return the server of a source; "" for a path."""
    if "://" in source:
        return urlsplit(source).hostname or ""
    user, at, rest = source.partition("@")
    host = rest if at and "/" not in user else source
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, _ = host.partition(":")
    return name if colon and "/" not in name else ""


def _nearest(word: str, known: Mapping[str, object] | Sequence[str]) -> str:
    import difflib  # noqa: PLC0415 - for a mistake

    close = difflib.get_close_matches(word, list(known), 1, 0.5)
    return f'; did you mean "{close[0]}"?' if close else f"; there are {', '.join(sorted(known)) or 'none'}"


def _words(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise BadConfig(f"{value!r} is no list of texts")
    return value


def _argv(value: object) -> list[str]:
    """Return a command: a list of words, or a text for the shell."""
    return ["/bin/sh", "-c", value] if isinstance(value, str) else _words(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise BadConfig(f"{value!r} is no text")
    return value


def _source(value: object) -> str:
    text = _text(value)
    if "://" in text:
        try:
            _ = urlsplit(text).port
        except ValueError as error:
            raise BadConfig(f"this is no URL ({error}): write it as http://HOST/PATH/") from None
    return text


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise BadConfig(f"{value!r} is neither true nor false")
    return value


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadConfig(f"{value!r} is no count")
    return value


def _limits(value: object) -> Limits:
    if value is False:
        return Limits(None, None, None, None)
    if not isinstance(value, dict):
        raise BadConfig("write it as { files = 500, ratio = 0.2 }, or false for no limit")
    known = [one.name for one in dataclasses.fields(Limits)]
    for key in value:
        if key not in known:
            raise BadConfig(f'it has no "{key}"{_nearest(key, known)}')
    given = dict(value)
    for key, one in given.items():
        share = key in {"ratio", "top"}
        if key == "bytes":
            given[key] = units.bytes_of(one)
        elif isinstance(one, bool) or not isinstance(one, (int, float)) or one < 0 or (share and one > 1):
            raise BadConfig(f'"{key}" is {one!r}: write {"a share from 0 to 1" if share else "a count"}')
    return Limits(**given)


def _hook_table(value: object) -> dict[str, list[str]]:
    if not isinstance(value, dict):
        raise BadConfig(f"write a table of {', '.join(_HOOKS)}")
    for key in value:
        if key not in _HOOKS:
            raise BadConfig(f'there is no hook "{key}"{_nearest(key, _HOOKS)}')
    return {key: _argv(one) for key, one in value.items()}


def _one_of(*values: object) -> Callable[[object], Any]:
    def check(value: object) -> object:
        if value not in values or isinstance(value, bool):
            raise BadConfig(f"{value!r} is none of {', '.join(map(str, values))}")
        return value

    return check


_READERS: dict[str, Callable[[Any], Any]] = {
    "source": _source,
    "max_delete": _limits,
    "hooks": _hook_table,
    "command": _argv,
    "links": _one_of("keep", "skip", "error"),
    "ip": _one_of(0, 4, 6),
    "reserve": units.bytes_of,
    "bandwidth": units.bytes_of,
    "min_rate": units.bytes_of,
    "dest": lambda value: Path(_text(value)),
    "state": lambda value: Path(_text(value)),
}
_BY_TYPE: dict[str, Callable[[Any], Any]] = {
    "str": _text,
    "bool": _switch,
    "int": _count,
    "float": units.seconds_of,
    "list[str]": _words,
}
_FIELDS = {one.name: str(one.type) for one in dataclasses.fields(Mirror) if one.name not in {"name", "state", "where"}}
_SITE: dict[str, Callable[[Any], Any]] = {
    "state": lambda value: Path(_text(value)),
    "jobs": _count,
    "bandwidth": units.bytes_of,
    "connections": _count,
    "title": _text,
    "page": lambda value: Path(_text(value)),
}
_SERVER = ("connections", "bandwidth", "user", "password", "netrc", "proxy", "ca", "insecure", "tls", "ip")
_PAGES = ("index", "fragment")
_SERVER_LIMITS = ("connections", "bandwidth")  # which a mirror may lower, and not raise


class _Reader:
    """Reads one file, and knows the line of each key for messages."""

    def __init__(self, path: Path) -> None:
        if sys.version_info >= (3, 11):
            import tomllib  # noqa: PLC0415 - `copy` reads no file
        else:
            import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - as above
        self.path = path
        try:
            self._text = path.read_text(encoding="utf-8")
            self.data = tomllib.loads(self._text)
        except OSError as error:
            raise BadConfig(f"cannot read the configuration {path}: {error.strerror}; name it with --config") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadConfig(f"{path}: {error}; it has to be TOML") from error

    def place(self, table: str, key: str) -> str:
        """Return file and line of a key."""
        return f"{self.path}:{self._line(table, key)}"

    def fail(self, table: str, key: str, why: str) -> NoReturn:
        """Raise :class:`BadConfig` for a key of a table."""
        where = f"[{table}] {key}" if key else f"[{table}]"
        raise BadConfig(f"{self.place(table, key)}: {where}: {why}")

    def _line(self, table: str, key: str) -> int:
        """Return the line of a key; of its table, or 1, where it cannot be told."""
        current, found = "", 1
        for number, line in enumerate(self._text.splitlines(), 1):
            header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line)
            if header:
                current = re.sub(r"[\"'\s]", "", header[1])
                found = number if current == table else found
            elif key and current == table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[.=]", line):
                return number
        return found

    def take(self, table: str, given: object, readers: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
        """Return what a table says, read by these readers."""
        if not isinstance(given, dict):
            self.fail(table, "", "this has to be a table")
        found = {}
        for key, value in given.items():
            if key not in readers:
                self.fail(table, key, f"there is no such key{_nearest(key, readers)}")
            try:
                found[key] = readers[key](value)
            except BadConfig as error:
                self.fail(table, key, str(error))
        return found


def load(path: Path) -> Config:
    """Read a configuration; raises :class:`BadConfig` for the first mistake, with file, line and remedy."""
    reader = _Reader(path)
    tables = {"defaults", "site", "server", "mirror"}
    for key, value in reader.data.items():
        if key not in tables:
            place = reader.place(key, "") if isinstance(value, (dict, list)) else reader.place("", key)
            raise BadConfig(f'{place}: there is no table "{key}"{_nearest(key, sorted(tables))}')
        if not isinstance(value, dict):
            reader.fail(key, "", f"this has to be a table: [{key}{'.NAME' * (key in {'server', 'mirror'})}]")
    fields = {name: _READERS.get(name) or _BY_TYPE[kind] for name, kind in _FIELDS.items()}
    root_reader = {"root": lambda value: Path(_text(value))}
    defaults = reader.take("defaults", reader.data.get("defaults", {}), {**fields, **root_reader})
    root = defaults.pop("root", None)
    site = reader.take("site", reader.data.get("site", {}), _SITE)
    servers = {
        name: reader.take(f"server.{name}", given, {key: fields[key] for key in _SERVER})
        for name, given in reader.data.get("server", {}).items()
    }
    state = site.pop("state", None) or (root / OURS if root else path.absolute().parent / OURS)
    mirrors = {}
    for name, given in reader.data.get("mirror", {}).items():
        own = reader.take(f"mirror.{name}", given, fields)
        server = servers.get(host_of(own.get("source", "")), {})
        limits = {
            key: lowest(own.get(key, defaults.get(key, 0)), server[key]) for key in _SERVER_LIMITS if key in server
        }
        mirrors[name] = _mirror(reader, name, {**defaults, **server, **own, **limits}, root)
        mirrors[name].state, mirrors[name].where = state, reader.place(f"mirror.{name}", "source")
    if not mirrors:
        raise BadConfig(f"{path}:1: it has no mirror: write a table [mirror.NAME] with a source")
    _different_places(reader, mirrors)
    return Config(path, mirrors, state, **site)


def _mirror(reader: _Reader, name: str, given: dict[str, Any], root: Path | None) -> Mirror:
    table = f"mirror.{name}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        reader.fail(table, "", f'"{name}" is no name for a mirror: use letters, digits, dot, dash, underscore')
    if name in _PAGES:
        reader.fail(table, "", f'"{name}" is no name for a mirror: {name}.html is the page of all of them')
    if given.get("command") and given.get("snapshots"):
        reader.fail(table, "snapshots", "a command writes into the destination itself, and snapshots make that a link")
    if not given.get("source"):
        reader.fail(table, "", "it has no source")
    if "dest" not in given and root is None:
        reader.fail(table, "", "it has no dest, and [defaults] has no root")
    dest = given.pop("dest", None) or Path(name)
    given["dest"] = (root or reader.path.absolute().parent) / dest
    mirror = Mirror(name=name, **given)
    for key, check in (
        ("profile", lambda: mirror.layout().check()),
        ("exclude", mirror.rules),
        ("dest", lambda: check_place(mirror.dest)),
    ):
        try:
            check()
        except MirrorError as error:  # noqa: PERF203 - three checks
            reader.fail(table, key, str(error))
    return mirror


def _different_places(reader: _Reader, mirrors: Mapping[str, Mirror]) -> None:
    """Refuse two mirrors of which one would delete the other."""
    places = {name: Path(os.path.realpath(mirror.dest)) for name, mirror in mirrors.items()}
    order = list(places)
    for name, place in places.items():
        for other, theirs in places.items():
            same = place == theirs and order.index(other) < order.index(name)
            if other != name and (same or theirs in place.parents):
                reader.fail(f"mirror.{name}", "dest", f'its destination {place} is, or is in, that of "{other}"')


_OF_MIRRORS = {"source", "dest", "interval", "late", "max_age", "snapshots"}
"""What a copy, which is made once, has no use for."""


def single(source: str, dest: Path, given: dict[str, Any]) -> Mirror:
    """Return the mirror of ``poor-mirror copy``; ``given`` are keys of ``[mirror.NAME]``.

    Raises :class:`BadConfig`, and :class:`~pytest_poorcontainer.mirror.errors.BadDestination`.
    """
    known = {}
    keys = _FIELDS.keys() - _OF_MIRRORS
    for key, value in given.items():
        if key in _OF_MIRRORS:
            raise BadConfig(f'"{key}" is for a mirror that a configuration names, in [mirror.NAME], and not for a copy')
        if key not in keys:
            raise BadConfig(f'"{key}" is no key for a copy{_nearest(key, sorted(keys))}')
        reader = _READERS.get(key) or _BY_TYPE[_FIELDS[key]]
        try:
            known[key] = reader(value)
        except BadConfig as error:
            raise BadConfig(f"{key}: {error}") from None
    mirror = Mirror(name=dest.name or "copy", source=_source(source), dest=dest, state=dest / OURS, **known)
    mirror.layout().check()
    mirror.rules()
    check_place(dest)
    return mirror
