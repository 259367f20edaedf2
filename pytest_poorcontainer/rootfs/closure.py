"""From the names of programs to all files that they need: interpreters, libraries, the standard library of Python."""

# Paths are text in here: objects for thousands of them cost more than what is done with them.
# ruff: noqa: PTH100, PTH110, PTH112, PTH113, PTH123, PTH208

from __future__ import annotations

import os
import posixpath
import sys
from typing import BinaryIO

from pytest_poorcontainer.errors import LabError, UsageError
from pytest_poorcontainer.rootfs import elf, interpreter, ldcache, shebang
from pytest_poorcontainer.rootfs.libraries import Libraries, Scope, lacking
from pytest_poorcontainer.rootfs.plan import Plan

__all__ = ["SEARCH_PATH", "Closure"]

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH of commands in containers."""

_SCRIPT_MAX = 1 << 20  # bytes of a Python script that are read for its imports
_SHIMS = "/shims"  # directories of version managers, whose scripts ask others what to run


class Closure:
    """What some programs need, as a plan."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.plan = Plan()
        self._libraries = Libraries(_open, os.path.realpath)
        self._scopes: dict[str, Scope] = {}
        self._pythons: dict[str, interpreter.Interpreter] = {}
        self._programs: set[str] = set()

    def add(self, word: str) -> None:
        """Add a program: a path, or a name that is searched; for a Python perhaps a colon and packages, "*" for all.

        Raises :class:`UsageError` for what is not there or needs what is not there, :class:`LabError` for what cannot
        be read.
        """
        name, packages = _parts(word)
        path = _located(name)
        if path is None:
            raise UsageError(f"rootfs: there is no program {name!r} in {SEARCH_PATH}, nor in pytest's PATH")
        self._add_program(path)
        if "/" not in name and posixpath.dirname(path) not in SEARCH_PATH.split(":"):
            self.plan.link(f"/usr/local/bin/{name}", path)
        if packages:
            python = self._pythons.get(path)
            if python is None:
                raise UsageError(
                    f"rootfs: {word!r} asks for packages of {path}, which is no Python whose library is found"
                )
            self._add_packages(python, packages)

    def add_file(self, path: str) -> None:
        """Add a file, or a directory with all that is in it. Raises :class:`UsageError` when it is not there."""
        if not os.path.exists(path):
            raise UsageError(f"rootfs: files: there is no {path!r}")
        if os.path.isdir(path):
            self.plan.add_tree(path)
        else:
            self.plan.place(path)

    def add_library(self, name: str) -> bool:
        """Add a library that is opened at run time by its name, dlopen(3); return whether there is one."""
        done = False
        for scope in list(self._scopes.values()):
            path, found = self._libraries.find(name, scope.program, musl=scope.musl)
            if found is not None:
                self._add_extension(scope, path, found)
                done = True
        return done

    def _add_program(self, path: str, depth: int = 0) -> None:
        if path in self._programs:
            return
        self._programs.add(path)
        if depth > shebang.DEPTH_MAX:
            raise UsageError(f"rootfs: {path} is a script for a script for a script: more than {depth - 1} of them")
        real = self.plan.place(path)
        try:
            with open(real, "rb") as file:
                head = file.read(shebang.HEAD)
        except OSError as error:
            raise LabError("read the program", path, error.errno or 0) from error
        if not os.access(real, os.X_OK):
            raise UsageError(f"rootfs: {path} is not executable; what is no program goes into files=")
        script = shebang.parse(head)
        if script is not None:
            self._add_script(path, script, depth)
        elif head.startswith(elf.MAGIC):
            self._add_elf(path, real)
        else:
            raise UsageError(
                f"rootfs: {path} is no program: neither ELF nor does it begin with #!; files go into files="
            )

    def _add_script(self, path: str, script: shebang.Shebang, depth: int) -> None:
        if not script.interpreter.startswith("/"):
            raise UsageError(f"rootfs: {path} is a script for {script.interpreter!r}, which is no absolute path")
        if not os.path.exists(script.interpreter):
            tail = ": its first line ends with a carriage return" if script.interpreter.endswith("\r") else ""
            raise UsageError(f"rootfs: {path} is a script for {script.interpreter!r}, which is not there{tail}")
        self._add_program(script.interpreter, depth + 1)
        name, runner = script.program(), script.interpreter
        if name:
            found = _located(name)
            if found is None:
                raise UsageError(f"rootfs: {path} is a script for {name!r}, which is nowhere in {SEARCH_PATH}")
            self._add_program(found, depth + 1)
            if "/" not in name and posixpath.dirname(found) not in SEARCH_PATH.split(":"):
                self.plan.link(f"/usr/local/bin/{name}", found)
            runner = found
        python = self._pythons.get(runner)
        if python is not None and python.sites:
            self._add_imports(python, path)

    def _add_elf(self, path: str, real: str) -> None:
        found = self._libraries.look(real)
        if found is None:
            raise UsageError(f"rootfs: {path} is a damaged ELF file")
        if found.interpreter and self._libraries.look(found.interpreter) is None:
            raise UsageError(f"rootfs: {path} needs the dynamic loader {found.interpreter}, which is not there")
        scope = self._libraries.scope(path, found)
        if scope.missing:
            raise UsageError(f"rootfs: {lacking(scope.missing)} on this machine")
        self._scopes[path] = scope
        python = interpreter.find(path)
        if python is not None:
            self._pythons[path] = python
            self._add_standard_library(python)
        if found.interpreter:
            self.plan.place(found.interpreter)
            self._add_settings(found.interpreter)
        for one in scope.objects:
            self.plan.place(one.path)
        for variant in scope.variants:
            self.plan.place(variant)
        if python is not None:
            for directory in python.extensions:
                self._add_extensions(scope, directory)

    def _add_settings(self, loader: str) -> None:
        # Where the loader finds what lies in other directories than its own; of what is not there it goes on.
        name = posixpath.basename(loader)
        path = f"/etc/{name.removesuffix('.so.1')}.path" if name.startswith("ld-musl") else ldcache.PATH
        if os.path.exists(path):
            self.plan.place(path)

    def _add_standard_library(self, python: interpreter.Interpreter) -> None:
        for directory in python.libraries:
            entries = sorted(os.listdir(directory))
            others = [name for name in entries if name not in {"site-packages", "dist-packages"}]
            if len(others) == len(entries):
                self.plan.bind(directory)
                continue
            self.plan.choose(directory, others)
        if python.configuration:
            self.plan.place(python.configuration)

    def _add_packages(self, python: interpreter.Interpreter, names: list[str]) -> None:
        from pytest_poorcontainer.rootfs.packages import Installed  # noqa: PLC0415 - only where it is asked for

        scope = self._scopes[python.program]
        if "*" in names:
            for site in python.sites:
                self.plan.bind(site)
                self._add_extensions(scope, site)
            return
        chosen = Installed(python).choose(names)
        for site, entries in chosen.entries.items():
            self.plan.choose(site, sorted(entries))
            for entry in entries:
                self._add_extensions(scope, posixpath.join(site, entry))
        for directory in chosen.directories:
            self.plan.bind(directory)
            self._add_extensions(scope, directory)

    def _add_imports(self, python: interpreter.Interpreter, path: str) -> None:
        from pytest_poorcontainer.rootfs.packages import Installed  # noqa: PLC0415 - only for scripts

        with open(path, encoding="utf-8", errors="replace") as file:
            names = Installed(python).imported_by(file.read(_SCRIPT_MAX))
        if names:
            self._add_packages(python, names)

    def _add_extensions(self, scope: Scope, path: str) -> None:
        """Add the libraries of the extension modules below a path; what lacks one here, lacks it there too."""
        for found in _shared_objects(path):
            headers = self._libraries.look(found)
            if headers is not None and headers.kind == scope.program.elf.kind:
                self._add_extension(scope, found, headers)

    def _add_extension(self, scope: Scope, path: str, headers: elf.Elf) -> None:
        self.plan.place(path)
        came, _ = self._libraries.extend(scope, path, headers)
        for one in came:
            self.plan.place(one.path)
        for variant in scope.variants:
            self.plan.place(variant)


def _open(path: str) -> BinaryIO:
    return open(path, "rb")


def _parts(word: str) -> tuple[str, list[str]]:
    name, colon, packages = word.rpartition(":")
    if not colon or os.path.exists(word):
        return word, []
    return name, [one.strip() for one in packages.split(",") if one.strip()]


def _located(name: str) -> str | None:
    """Return the absolute path of a program, None when there is none. It need not be executable yet, but for a name."""
    if "/" in name:
        path = os.path.abspath(name)
        return path if os.path.isfile(path) else None
    own = [posixpath.dirname(sys.executable), *os.environ.get("PATH", "").split(":")]
    for directory in [*SEARCH_PATH.split(":"), *own]:
        if not directory.startswith("/") or directory.rstrip("/").endswith(_SHIMS):
            continue
        path = posixpath.join(directory, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return os.path.normpath(path)
    return None


def _shared_objects(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path] if ".so" in posixpath.basename(path) else []
    return [
        posixpath.join(directory, name)
        for directory, _, names in os.walk(path)
        for name in names
        if name.endswith(".so") or ".so." in name
    ]
