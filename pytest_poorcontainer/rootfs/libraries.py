"""Which files the dynamic loader takes for the libraries that a program needs: the rules of ld.so(8), and of musl's.

LD_LIBRARY_PATH and LD_PRELOAD have no part in it: containers do not get the environment of pytest.
"""

from __future__ import annotations

import posixpath
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from pytest_poorcontainer.rootfs import elf, ldcache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_poorcontainer.rootfs.elf import Elf

__all__ = ["Libraries", "Object", "Scope", "lacking"]

_PATH_FILE_MAX = 65536  # bytes
_SONAMES_OF_MUSL = ("libc", "libpthread", "librt", "libm", "libdl", "libutil", "libxnet")
_TRIPLES = {62: "x86_64-linux-gnu", 183: "aarch64-linux-gnu", 22: "s390x-linux-gnu", 21: "powerpc64le-linux-gnu"}
_TRIPLES.update({3: "i386-linux-gnu", 40: "arm-linux-gnueabihf", 243: "riscv64-linux-gnu"})
_PLATFORMS = {62: "x86_64", 183: "aarch64", 22: "s390x", 3: "i686"}
# Subdirectories of every directory that is searched, for processors that can do more (glibc 2.33, ld.so(8)).
_LEVELS = {62: ("x86-64-v4", "x86-64-v3", "x86-64-v2"), 22: ("z16", "z15", "z14", "z13"), 21: ("power10", "power9")}


@dataclass
class Object:
    """A file that is loaded, and by whom it was asked for (None: it is the program)."""

    path: str
    elf: Elf
    loader: Object | None = None

    def chain(self) -> Iterator[Object]:
        """Yield it, who asked for it, who asked for that, and so on up to the program."""
        found: Object | None = self
        while found is not None:
            yield found
            found = found.loader


@dataclass
class Scope:
    """What is loaded in one process. ``missing`` has (who needs it, the name) of what was not found."""

    program: Object
    musl: bool = False
    names: set[str] = field(default_factory=set)  # names that mean something loaded
    objects: list[Object] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)
    variants: list[str] = field(default_factory=list)  # for other processors than this one, or for this


class Libraries:
    """The libraries of one file system, seen through a function that opens its files.

    ``open_file`` opens an absolute path for reading, and raises OSError as :func:`open` does. ``real`` returns the path
    without symbolic links, for ``$ORIGIN`` of programs.
    """

    def __init__(self, open_file: Callable[[str], BinaryIO], real: Callable[[str], str] | None = None) -> None:
        """Look at nothing yet."""
        self._open = open_file
        self._real = real or (lambda path: path)
        self._seen: dict[str, Elf | None] = {}
        self._cache: dict[str, tuple[str, ...]] | None = None
        self._musl_path: list[str] | None = None

    def look(self, path: str) -> Elf | None:
        """Return what the ELF file at a path says; None when there is no (sound) ELF file."""
        if path not in self._seen:
            try:
                with self._open(path) as file:
                    self._seen[path] = elf.read(file)
            except (OSError, elf.ElfError):
                self._seen[path] = None
        return self._seen[path]

    def scope(self, path: str, found: Elf) -> Scope:
        """Return the scope of a program, with its interpreter and all libraries that come with it."""
        program = Object(self._real(path), found)
        interpreter = posixpath.basename(found.interpreter)
        scope = Scope(program, musl=interpreter.startswith("ld-musl"))
        loader = self.look(found.interpreter) if interpreter else None
        if loader is not None:
            scope.names |= {interpreter, found.interpreter, loader.soname}
        self._load(scope, [program])
        return scope

    def extend(self, scope: Scope, path: str, found: Elf) -> tuple[list[Object], list[tuple[str, str]]]:
        """Load a library into a scope, as dlopen(3) does; return what came with it, and what is missing for it.

        What another one has loaded before counts as loaded, and what is missing is not noted in the scope.
        """
        before, missing = len(scope.objects), len(scope.missing)
        self._load(scope, [Object(path, found, scope.program)])
        lacking = scope.missing[missing:]
        del scope.missing[missing:]
        return scope.objects[before:], lacking

    def _load(self, scope: Scope, queue: list[Object]) -> None:
        # Breadth first, as the loader goes: who comes first decides which file a name means.
        for asking in queue:
            for name in asking.elf.needed:
                if not name or name in scope.names or (scope.musl and _is_musl(name)):
                    continue
                path, found = self.find(name, asking, musl=scope.musl, variants=scope.variants)
                if found is None:
                    scope.missing.append((asking.path, name))
                    continue
                scope.names |= {name, found.soname} - {""}
                one = Object(path, found, asking)
                scope.objects.append(one)
                queue.append(one)

    def find(
        self, name: str, asking: Object, *, musl: bool = False, variants: list[str] | None = None
    ) -> tuple[str, Elf | None]:
        """Return the path and the headers of the library that a name means to who is asking; ("", None) for none.

        To ``variants`` are added the files below glibc-hwcaps that some processors would take instead.
        """
        if "/" in name:
            candidates: Iterable[str] = [one for one in self._expand(name, asking) if one.startswith("/")]
        elif musl:
            candidates = self._musl_candidates(name, asking)
        else:
            candidates = self._candidates(name, asking)
        special: tuple[str, Elf | None] = "", None
        for path in candidates:
            found = self.look(path)
            if found is None or found.kind != asking.elf.kind:
                continue
            if "/glibc-hwcaps/" not in path or "/" in name:
                return path, found
            if variants is not None and path not in variants:
                variants.append(path)
            special = path, found
        return special

    def _candidates(self, name: str, asking: Object) -> Iterator[str]:
        machine = asking.elf.machine
        if not asking.elf.runpath:
            for one in asking.chain():
                yield from self._in(one.elf.rpath, one, name)
        yield from self._in(asking.elf.runpath, asking, name)
        defaults = _defaults(machine, asking.elf.bits)
        for path in self._cached(name):
            if not asking.elf.no_default or posixpath.dirname(path) not in defaults:
                yield path
        if not asking.elf.no_default:
            for directory in defaults:
                yield from _leveled(directory, name, machine)

    def _in(self, directories: Iterable[str], owner: Object, name: str) -> Iterator[str]:
        for directory in directories:
            for expanded in self._expand(directory, owner):
                if expanded.startswith("/"):  # a relative one depends on where the program is started
                    yield from _leveled(expanded, name, owner.elf.machine)

    def _expand(self, text: str, owner: Object) -> list[str]:
        if "$" not in text:
            return [text]
        triple, platform = _TRIPLES.get(owner.elf.machine, ""), _PLATFORMS.get(owner.elf.machine, "")
        origin = posixpath.dirname(owner.path)
        text = _replace(_replace(text, "ORIGIN", origin), "PLATFORM", platform)
        # $LIB is what the distribution has made it: all are tried, and there is one of them at most.
        found = [_replace(text, "LIB", lib) for lib in (f"lib/{triple}", "lib64", "lib")]
        return list(dict.fromkeys(found))

    def _cached(self, name: str) -> tuple[str, ...]:
        if self._cache is None:
            try:
                with self._open(ldcache.PATH) as file:
                    self._cache = ldcache.parse(file.read())
            except (OSError, struct.error):
                self._cache = {}
        paths = self._cache.get(name, ())
        return tuple(sorted(paths, key=lambda path: "/glibc-hwcaps/" not in path))

    def _musl_candidates(self, name: str, asking: Object) -> Iterator[str]:
        # musl takes either kind of path, and those of all who asked (ldso/dynlink.c, load_library).
        for one in asking.chain():
            for directory in one.elf.runpath or one.elf.rpath:
                for expanded in self._expand(directory, one):
                    yield posixpath.join(expanded, name)
        if self._musl_path is None:
            self._musl_path = self._musl_directories(next(reversed(list(asking.chain()))).elf.interpreter)
        for directory in self._musl_path:
            yield posixpath.join(directory, name)

    def _musl_directories(self, interpreter: str) -> list[str]:
        prefix = posixpath.dirname(posixpath.dirname(interpreter))
        name = posixpath.basename(interpreter).removesuffix(".so.1")
        try:
            with self._open(posixpath.join(prefix, "etc", f"{name}.path")) as file:
                text = file.read(_PATH_FILE_MAX).decode("utf-8", "surrogateescape")
        except OSError:
            return ["/lib", "/usr/local/lib", "/usr/lib"]
        return [line for line in text.replace(":", "\n").split("\n") if line.startswith("/")]


def lacking(missing: list[tuple[str, str]]) -> str:
    """Return "/usr/bin/x needs liba.so.1, libb.so.2, which are not there"; of one file, since that is mended first."""
    who = missing[0][0]
    names = list(dict.fromkeys(name for one, name in missing if one == who))
    return f"{who} needs {', '.join(names)}, which {'is' if len(names) == 1 else 'are'} not there"


def _is_musl(name: str) -> bool:
    return name.partition(".")[0] in _SONAMES_OF_MUSL and "." in name


def _defaults(machine: int, bits: int) -> list[str]:
    triple = _TRIPLES.get(machine)
    directories = [f"/lib/{triple}", f"/usr/lib/{triple}"] if triple else []
    if bits == 64:  # noqa: PLR2004 - of the machine word
        directories += ["/lib64", "/usr/lib64"]
    return [*directories, "/lib", "/usr/lib"]


def _leveled(directory: str, name: str, machine: int) -> Iterator[str]:
    for level in _LEVELS.get(machine, ()):
        yield posixpath.join(directory, "glibc-hwcaps", level, name)
    yield posixpath.join(directory, name)


def _replace(text: str, token: str, value: str) -> str:
    return text.replace(f"${{{token}}}", value).replace(f"${token}", value)
