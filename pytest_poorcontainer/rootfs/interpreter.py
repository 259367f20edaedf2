"""Where a Python on this machine has its standard library and its packages, found as it finds them: Modules/getpath.py.

It is not started for that: a start costs more than all the rest of a root file system.
"""

# Paths are text in here: objects for thousands of them cost more than what is done with them.
# ruff: noqa: PTH112, PTH113, PTH123, PTH208

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import dataclass

__all__ = ["Interpreter", "find"]

_NAME = re.compile(r"python(?:[23](?:\.\d+)?t?)?(?:-dbg|d)?\Z")
_VERSION = re.compile(r"python(3\.\d+t?)")
_LANDMARK = "os.py"


@dataclass(frozen=True)
class Interpreter:
    """One Python. ``sites`` are the directories of installed packages, the one that comes first in sys.path first."""

    program: str
    version: str  # "3.11", with a "t" for the one without a lock
    libraries: tuple[str, ...]  # directories of the standard library: one, or two where lib64 is another
    sites: tuple[str, ...]
    configuration: str = ""  # pyvenv.cfg

    @property
    def extensions(self) -> tuple[str, ...]:
        """The directories of its extension modules."""
        return tuple(posixpath.join(one, "lib-dynload") for one in self.libraries)


def find(program: str) -> Interpreter | None:
    """Return the Python that a path is of; None when it is none, or when its standard library is not to be found."""
    real = os.path.realpath(program)
    if not _NAME.match(posixpath.basename(real)):
        return None
    base, libraries, version = _standard_library(real)
    if not libraries:
        return None
    configuration, system = _virtual_environment(program)
    sites: list[str] = []
    if configuration:
        sites += _sites(posixpath.dirname(configuration), version)
    if not configuration or system:
        sites += _sites(base, version)
    sites = [site for site in dict.fromkeys(sites) if os.path.isdir(site)]
    return Interpreter(program, version, tuple(libraries), tuple(sites), configuration)


def _standard_library(real: str) -> tuple[str, list[str], str]:
    named = _VERSION.match(posixpath.basename(real))
    base = posixpath.dirname(real)
    while base != "/":
        base = posixpath.dirname(base)
        names = [f"python{named[1]}"] if named else _versions(base)
        for name in names:
            found = [posixpath.join(base, lib, name) for lib in ("lib", "lib64")]
            found = [one for one in found if os.path.isfile(posixpath.join(one, _LANDMARK))]
            if found:
                unique = {os.path.realpath(one): one for one in reversed(found)}
                return base, sorted(unique.values()), name.removeprefix("python")
    return base, [], ""


def _versions(base: str) -> list[str]:
    try:
        names = os.listdir(posixpath.join(base, "lib"))
    except OSError:
        return []
    return [name for name in sorted(names, reverse=True) if _VERSION.fullmatch(name)]


def _virtual_environment(program: str) -> tuple[str, bool]:
    """Return the pyvenv.cfg of a program, "" when there is none, and whether the machine's packages count too."""
    directory = posixpath.dirname(program)
    for place in (directory, posixpath.dirname(directory)):
        path = posixpath.join(place, "pyvenv.cfg")
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            continue
        system = re.search(r"(?mi)^\s*include-system-site-packages\s*=\s*true\s*$", text)
        return path, system is not None
    return "", False


def _sites(prefix: str, version: str) -> list[str]:
    name = f"python{version}"
    found = [f"{prefix}/{lib}/{name}/site-packages" for lib in ("lib", "lib64")]
    if prefix in {"/usr", "/"}:  # Debian's own scheme, /usr/lib/python3/dist-packages is for all versions
        found += [
            f"/usr/local/lib/{name}/dist-packages",
            "/usr/lib/python3/dist-packages",
            f"/usr/lib/{name}/dist-packages",
        ]
        found += [f"/usr/local/{lib}/{name}/site-packages" for lib in ("lib", "lib64")]
    return found
