"""Which files of site-packages belong to a distribution and to those that it needs.

What is installed is read by :mod:`importlib.metadata`, in the directories of the Python that is asked for, which need
not be the one that runs this.
"""

# Paths are text in here: objects for thousands of them cost more than what is done with them.
# ruff: noqa: PTH110, PTH112, PTH123, PTH207, PTH208

from __future__ import annotations

import glob
import importlib.metadata
import json
import os
import posixpath
import re
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_poorcontainer.rootfs.interpreter import Interpreter

__all__ = ["Chosen", "Installed"]

_IMPORT = re.compile(
    r"(?m)^[ \t]*(?:from[ \t]+(\w[\w.]*)[ \t]+import\b|import[ \t]+(\w[\w.]*(?:[ \t]*,[ \t]*\w[\w.]*)*))"
)
_INFO = (".dist-info", ".egg-info")


class Chosen:
    """Entries of site directories, and directories elsewhere, which editable installations are."""

    def __init__(self) -> None:
        """Begin with none."""
        self.entries: dict[str, set[str]] = {}  # of each site directory
        self.directories: list[str] = []

    def add(self, site: str, entry: str) -> None:
        """Note an entry; a ``.pth`` file may name directories (site, "path configuration files")."""
        self.entries.setdefault(site, set()).add(entry)
        if entry.endswith(".pth"):
            with open(posixpath.join(site, entry), encoding="utf-8", errors="surrogateescape") as file:
                self.directories += [
                    path for path in map(str.strip, file) if path.startswith("/") and os.path.isdir(path)
                ]


class Installed:
    """What is installed for a Python."""

    def __init__(self, interpreter: Interpreter) -> None:
        """Read the names of all distributions; those nearer the beginning of sys.path come first."""
        self._interpreter = interpreter
        self._all: dict[str, tuple[str, str]] = {}  # by normal name: site directory, entry of its metadata
        self._modules: dict[str, list[str]] | None = None
        for site in interpreter.sites:
            for entry in sorted(os.listdir(site)):
                if entry.endswith(_INFO):
                    self._all.setdefault(_normal(entry.rpartition(".")[0].partition("-")[0]), (site, entry))

    def choose(self, names: Iterable[str]) -> Chosen:
        """Return what these distributions, and all that they need, consist of.

        A name is a distribution's ("PyYAML") or a module's ("yaml"). Needs that are not installed are left out: extras
        and other systems have them. Raises :class:`UsageError` for a name of neither kind.
        """
        chosen = Chosen()
        queue = [one for name in names for one in self._called(name, chosen)]
        seen = set(queue)
        for name in queue:
            site, entry = self._all[name]
            for top in [entry, *self._entries(name)]:
                chosen.add(site, top)
            distribution = self._distribution(name)
            chosen.directories += _editable(distribution)
            for need in _needs(distribution, self._interpreter.version):
                if need in self._all and need not in seen:
                    seen.add(need)
                    queue.append(need)
        return chosen

    def imported_by(self, source: str) -> list[str]:
        """Return the installed modules that a source text imports, as far as its lines begin with that."""
        words = [one for pair in _IMPORT.findall(source) for one in re.split(r"[, \t]+", pair[0] or pair[1])]
        return [name for name in dict.fromkeys(word.partition(".")[0] for word in words) if self._files_of(name)]

    def _called(self, name: str, chosen: Chosen) -> list[str]:
        if _normal(name) in self._all:
            return [_normal(name)]
        owners = self._owners().get(name, [])
        if owners:
            return owners
        files = self._files_of(name)
        if not files:
            where = ", ".join(self._interpreter.sites) or "no directory at all"
            raise UsageError(
                f"{self._interpreter.program} has no package {name!r}: neither a distribution nor a module in {where}"
            )
        for site, entry in files:  # a module that no distribution owns
            chosen.add(site, entry)
        return []

    def _files_of(self, module: str, sites: Iterable[str] | None = None) -> list[tuple[str, str]]:
        for site in self._interpreter.sites if sites is None else sites:
            path = posixpath.join(site, module)
            files = [one for one in (path, path + ".py") if os.path.exists(one)]
            files += glob.glob(glob.escape(path) + ".*.so")
            if files:
                return [(site, posixpath.basename(one)) for one in files]
        return []

    def _owners(self) -> dict[str, list[str]]:
        if self._modules is None:
            self._modules = {}
            for name in self._all:
                for entry in self._entries(name):
                    self._modules.setdefault(entry.partition(".")[0], []).append(name)
        return self._modules

    def _distribution(self, name: str) -> importlib.metadata.Distribution:
        return importlib.metadata.PathDistribution(Path(*self._all[name]))

    def _entries(self, name: str) -> list[str]:
        """Return the entries of the site directory that a distribution has, without its metadata."""
        site, distribution = self._all[name][0], self._distribution(name)
        tops = {file.parts[0] for file in distribution.files or ()} - {"..", "/", "__pycache__"}
        if not tops:
            for module in (distribution.read_text("top_level.txt") or "").split():
                tops |= {entry for _, entry in self._files_of(module, [site])}
        return sorted(top for top in tops if os.path.lexists(posixpath.join(site, top)))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _editable(distribution: importlib.metadata.Distribution) -> list[str]:
    """Return the directory of a distribution that is installed as it lies there (PEP 610)."""
    try:
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
        path = urllib.parse.unquote(urllib.parse.urlsplit(origin["url"]).path)
        return [path] if origin["dir_info"]["editable"] and os.path.isdir(path) else []
    except (ValueError, KeyError, TypeError):
        return []


def _needs(distribution: importlib.metadata.Distribution, version: str) -> list[str]:
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415 - slow, and only for packages

    version = version.rstrip("t")
    environment = {"python_version": version, "python_full_version": version + ".0", "extra": ""}
    found = []
    for text in distribution.requires or ():
        try:
            need = Requirement(text)
        except InvalidRequirement:  # of the years before it was specified; pip ignores such a distribution's needs too
            continue
        if need.marker is None or need.marker.evaluate(environment):
            found.append(_normal(need.name))
    return found
