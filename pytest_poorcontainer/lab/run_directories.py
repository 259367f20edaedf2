"""The directories that daemons expect in /run.

On a machine that has booted systemd makes them: from tmpfiles.d(5), which Debian's packages bring along, and from
``RuntimeDirectory=`` of their units (systemd.exec(5)). A container's /run is as empty as after a start of the machine,
so it gets them too: then a daemon starts with its distribution's defaults.
"""

from __future__ import annotations

import configparser
import grp
import pwd
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["RunDirectory", "of_tmpfiles", "of_unit", "run_directories"]

_TMPFILES = ("/usr/lib/tmpfiles.d", "/run/tmpfiles.d", "/etc/tmpfiles.d")  # of one name the last counts
_UNITS = ("/usr/lib/systemd/system", "/lib/systemd/system", "/etc/systemd/system")
_NOT_OURS = ("systemd", "user", "log", "lock", "initctl", "credentials")  # below /run, of the machine itself
_MOST = 64  # RUN_DIRECTORIES_MAX of preload/lab/options.h
_FIELDS = 5  # type, path, mode, user, group


class RunDirectory(NamedTuple):
    """A directory: its path below /run, its mode, and its owner's ids on this machine."""

    path: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0

    def option(self) -> str:
        """Return it in the words of pclab's ``--run-directory``."""
        return f"{self.mode:o}:{self.uid}:{self.gid}:{self.path}"


def run_directories() -> list[RunDirectory]:
    """Return what the packages of this machine want to have in /run, parents first; what we cannot read is passed over.

    At most as many as pclab takes: so many daemons are in no image.
    """
    found: dict[str, RunDirectory] = {}
    for file in _newest(_UNITS, "*.service"):
        text = _text(file)
        if "RuntimeDirectory=" in text:
            found.update((directory.path, directory) for directory in of_unit(text))
    for file in _newest(_TMPFILES, "*.conf"):
        found.update((directory.path, directory) for directory in of_tmpfiles(_text(file)))
    return [found[path] for path in sorted(found)][:_MOST]


def of_tmpfiles(text: str) -> Iterator[RunDirectory]:
    """Yield the directories of a tmpfiles.d file that are below /run; lines with specifiers (%) are passed over."""
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0].rstrip("!-=~^+") not in ("d", "D"):  # noqa: PLR2004 - type and path
            continue
        path = _below_run(words[1])
        if path:
            mode, user, group = (word if word != "-" else "" for word in [*words, "-", "-", "-"][2:_FIELDS])
            yield _directory(path, mode.lstrip("~:"), user, group)


def of_unit(text: str) -> Iterator[RunDirectory]:
    """Yield the ``RuntimeDirectory=`` of a unit, which belong to its ``User=`` and ``Group=``."""
    parser = configparser.RawConfigParser(
        strict=False, allow_no_value=True, delimiters=("=",), comment_prefixes=("#", ";")
    )
    try:
        parser.read_string(text)
    except configparser.Error:
        return  # of a form that only systemd understands
    service = parser["Service"] if parser.has_section("Service") else {}
    user, group, mode = (service.get(key) or "" for key in ("User", "Group", "RuntimeDirectoryMode"))
    for word in (service.get("RuntimeDirectory") or "").split():
        path = _below_run(f"/run/{word.partition(':')[0]}")
        if path:
            yield _directory(path, mode, user, group)


def _below_run(path: str) -> str:
    """Return the path as seen from /run; "" when it is not below, or is none that a container needs."""
    for start in ("/run/", "/var/run/"):
        below = path[len(start) :].strip("/") if path.startswith(start) else ""
        parts = below.split("/")
        if below and "%" not in below and ".." not in parts and parts[0] not in _NOT_OURS:
            return below
    return ""


def _directory(path: str, mode: str, user: str, group: str) -> RunDirectory:
    """Return the directory; whatever cannot be understood is root's, as with a package that is half installed."""
    uid, primary = _user(user)
    return RunDirectory(path, int(mode, 8) & 0o7777 if mode.isdigit() else 0o755, uid, _group(group, primary))


def _user(name: str) -> tuple[int, int]:
    """Return the ids of a user and of its primary group."""
    if name.isdigit():
        return int(name), 0
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return 0, 0
    return entry.pw_uid, entry.pw_gid


def _group(name: str, primary: int) -> int:
    if name.isdigit():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid if name else primary
    except KeyError:
        return 0


def _newest(directories: Iterable[str], pattern: str) -> list[Path]:
    """Return the files of these directories, of each name the one in the last."""
    found: dict[str, Path] = {}
    for directory in directories:
        found.update((file.name, file) for file in Path(directory).glob(pattern))
    return [found[name] for name in sorted(found)]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # /dev/null for a masked one, a link that leads nowhere, or not for us to read
