"""The backend ``preload``: libpccow.so in front of the C library, a net of seccomp below it (preload/cow/README.md)."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import tempfile
from typing import TYPE_CHECKING, ClassVar

from pytest_poorcontainer import native
from pytest_poorcontainer.cow import shared
from pytest_poorcontainer.cow.backend import Layered, Lower, missing
from pytest_poorcontainer.cow.copying import remove_directory
from pytest_poorcontainer.cow.layer import Layer, Place
from pytest_poorcontainer.cow.upper import UPPER
from pytest_poorcontainer.cow.view import View
from pytest_poorcontainer.errors import PoorContainerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_poorcontainer.cow.attached import Attached
    from pytest_poorcontainer.cow.backend import Request, User
    from pytest_poorcontainer.lab.handle import Handle

__all__ = ["Preload"]

_WORK = "pccow"
_LAYERS_MAX = 8
_STATE = f"{_WORK}/state"
_UNSAFE = frozenset(" :\t\n")  # what LD_PRELOAD cannot hold (ld.so(8))
_NET = "calls of libc lead into the tree, a net below it answers all others, and what neither can serve is refused"
_NO_NET = (
    "only calls of libc lead into the tree, and static programs are refused; system calls that go past libc reach the "
    "original, which the tripwire tells. There is no net below it: {why}"
)
_NO_PATH = (
    "a tree of the backend preload has no path: its programs see it at {place}, and nobody else does. Read it by "
    "tree.open(), read_text(), iterdir() and the like, run programs by tree.run() or with env=tree.env, or take "
    "backend='copy'"
)
_ADMIT = {
    True: "give upper= a directory in one that this user may enter",
    False: "install this package where this user may read it",
}


class Preload(Layered):
    """A tree that programs see because their calls are redirected. It takes no privilege and nothing is mounted."""

    name = "preload"
    rank = 20
    runs = "prefixed"
    index = f"{_WORK}/index"
    _works: ClassVar[bool] = False

    def __init__(self, request: Request) -> None:
        """Write down what the tree is. Raises :class:`Unavailable` where the library or what it needs is missing."""
        self._place = request.place
        self._request = request
        self._link: str | None = None
        self._line: tuple[int, int, int] | None = None
        self._frozen = False
        if request.size is not None:
            raise UsageError(f"size= is for a backend that has its changes on a tmpfs, not for {self.name}")
        self._check(request)
        try:
            self._launcher, library = native.program("pccow"), native.program("libpccow.so")
        except PoorContainerError as error:
            raise missing(self.name, str(error)) from None
        try:
            store = self._open_store(request)
            self._base = self._directory or os.path.abspath(request.store or "")
            os.makedirs(os.path.join(self._base, _WORK), 0o700, exist_ok=True)
            _check_store(store)
            self._use(store, request)
            self.view = _Indexed([self._upper.layer, *request.layers], request.place, store)
            self._library = self._safe(library)
            self._write()
            owner = os.pidfd_open(os.getpid())  # a forked child of ours may keep the pipe open
            self._line = (*os.pipe(), owner)
            self._net, why = self._try_net()
        except BaseException:
            self.close()
            raise
        self.trust = _NET if self._net else _NO_NET.format(why=why)

    def _check(self, request: Request) -> None:
        """Raise :class:`Unavailable` for what the library does not do."""
        if len(request.lowers) >= _LAYERS_MAX:
            raise missing(self.name, f"a tree may have {_LAYERS_MAX} layers", "commit one of them, or take overlay")
        for lower in request.lowers:
            if lower.stage is not None:
                why = "the tree below is an overlay whose changes are in memory"
                raise missing(self.name, why, "make that one with backend='preload' too, or with upper=")
            if any(os.path.commonpath([self._store(request), lower.path]) == place for place in (lower.path,)):
                why = f"its changes would lie in the original, in {self._store(request)}"
                raise missing(self.name, why, "give upper= a directory elsewhere")

    @staticmethod
    def _store(request: Request) -> str:
        return os.path.realpath(request.store or request.temporary or tempfile.gettempdir())

    def _safe(self, library: str) -> str:
        """Return a path of the library that LD_PRELOAD can hold."""
        if not _UNSAFE & set(library):
            return library
        for directory in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - in a private directory of its own there
            if not _UNSAFE & set(directory):
                self._link = tempfile.mkdtemp(prefix="pc-", dir=directory)
                path = os.path.join(self._link, "libpccow.so")
                os.symlink(library, path)
                return path
        raise missing(self.name, f"LD_PRELOAD cannot hold {library}, nor is there another directory without spaces")

    def _write(self) -> None:
        """Write the configurations: for programs below the net, and for those that have the library alone."""
        for name, net in (("config", True), ("config-plain", False)):
            records = ["version=1", *(["net=1"] if net else []), f"log={self._base}/log", f"tree={self._place}"]
            if self._frozen:
                records.append(f"lower={self._base}/{UPPER}")
            else:
                records += [f"upper={self._base}/{UPPER}", f"work={self._base}/{_WORK}"]
            records += [f"lower={lower.path}" for lower in self._request.lowers]
            part = os.path.join(self._base, f"{name}.part")
            with open(part, "wb") as file:
                file.write(b"".join(os.fsencode(record) + b"\0" for record in records))
            os.replace(part, os.path.join(self._base, name))

    def _try_net(self) -> tuple[bool, str]:
        """Return whether there is a net, and if not why.

        That it works is true of the machine, and found out once; that it does not may be so for this tree alone. Below
        another pccow's net each tree has to be taken in by that; one that is not cannot be used at all: raises
        :class:`Unavailable`.
        """
        inner = shared.below_a_net()
        if Preload._works and not inner:
            return True, ""
        argv = [self._launcher, "--net", "required", "--config", f"{self._base}/config", "--", "true"]
        tried = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=30, check=False)
        works = tried.returncode == 0
        why = tried.stderr.decode("utf-8", "replace").strip() or f"its launcher ended with status {tried.returncode}"
        if inner and not works:
            remedy = "make it of a directory that has not the outer tree in it, or take backend='copy'"
            raise missing(self.name, f"the net of the tree that this runs in does not take it: {why}", remedy)
        Preload._works = works and not inner
        return works, why

    @property
    def passed(self) -> tuple[int, ...]:
        """What ends all programs of the tree with us: the end of a pipe, and a pidfd."""
        return () if self._line is None else (self._line[0], self._line[2])

    def command(self, argv: Sequence[str | bytes]) -> list[str | bytes]:
        """Return the launcher's command line."""
        words: list[str | bytes] = [self._launcher, "--library", self._library]
        words += ["--net", "required" if self._net else "off"]
        words += ["--config", f"{self._base}/{'config' if self._net else 'config-plain'}"]
        if self._line is not None:
            words += ["--lifeline", str(self._line[0]), "--owner", str(self._line[2])]
        return [*words, "--", *argv]

    def env(self) -> dict[str, str]:
        """Return what makes a program's calls lead into the tree; there is no net below it then."""
        before = os.environ.get("LD_PRELOAD")
        preload = self._library if not before else f"{self._library}:{before}"
        return {"LD_PRELOAD": preload, "POOR_CONTAINER_COW": f"{self._base}/config-plain"}

    def admit(self, user: User) -> None:
        """Give upper and work to a user; root can go on with them, and no third one."""
        if self.copier not in (None, user.uid):
            raise UsageError(
                f"user={user.name}: the tree's changes are those of user {self.copier} already: one user beside "
                "root can have a tree of the backend preload; take backend='overlay'"
            )
        parent = os.path.dirname(self._base)
        for place, may in ((parent, "-x"), (self._launcher, "-x"), (self._library, "-r")):
            argv = ["test", may, place]
            if subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, **user.options()).returncode:
                raise UsageError(
                    f"user={user.name}: this user may not reach {place}, which every program on a tree of the backend "
                    f"preload needs: {_ADMIT[place == parent]}, or take backend='overlay', whose commands run in a "
                    "container"
                )
        work = os.path.join(self._base, _WORK)
        inside = [os.path.join(work, name) for name in os.listdir(work)]
        files = [os.path.join(self._base, name) for name in ("config", "config-plain", "log")]
        for path in (self._base, os.path.join(self._base, UPPER), work, *inside, *files):
            with contextlib.suppress(FileNotFoundError):
                os.chown(path, user.uid, -1, follow_symlinks=False)
        self.copier = user.uid

    def refused(self) -> list[str]:
        """Return the lines of the log."""
        try:
            with open(os.path.join(self._base, "log"), encoding="utf-8", errors="backslashreplace") as file:
                return file.read().splitlines()
        except FileNotFoundError:
            return []

    def path(self) -> str:
        """Raise TypeError that names the other ways."""
        raise TypeError(_NO_PATH.format(place=self._place))

    def attach(self, handle: Handle, target: str | bytes) -> Attached:
        """Raise :class:`UsageError`: there is nothing to mount."""
        raise UsageError(
            f"container {handle.name} cannot mount a tree of the backend preload on {os.fsdecode(target)}: "
            "take backend='overlay' or 'copy'"
        )

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Tell the programs in the tree that what they know of it may be wrong."""
        try:
            yield
        finally:
            self._tell()

    def _tell(self) -> None:
        try:
            fd = self._upper.store.open(_STATE, os.O_RDWR)
        except FileNotFoundError:
            return  # nobody has used it yet
        try:
            shared.tell(fd, self._hidden)
        finally:
            os.close(fd)

    def _hidden(self) -> dict[tuple[int, int], int | None]:
        """Return of each file of the lower that has several names how many of them are gone from the view.

        None for one that is in the index: what is to be added to the copy's own count is known of the copy.
        """
        counts: dict[tuple[int, int], int | None] = {}
        for path in self.changes():
            stack = self.lower.find("" if path == "." else path)
            info = stack[0].lstat(path) if stack and path != "." else None
            if info is None or not stat.S_ISREG(info.st_mode) or info.st_nlink == 1:
                continue
            key = info.st_dev, info.st_ino
            copied = self._upper.store.find(f"{self.index}/{_in_index(info)}") is not None
            counts[key] = None if copied else (counts.get(key) or 0) + 1
        return counts

    def freeze(self) -> None:
        """Let programs that start from now on see it read-only."""
        if not self._frozen:
            self._frozen = True
            self._write()

    def lowers(self) -> list[Lower]:
        """Return upper and lowers."""
        return [Lower(os.path.join(self._base, UPPER), self._upper.layer), *self._request.lowers]

    def close(self) -> None:
        """End what still runs in the tree, and remove its directory unless it was given. Idempotent."""
        line, self._line = self._line, None
        for fd in line or ():
            os.close(fd)
        link, self._link = self._link, None
        if link is not None:
            remove_directory(link)
        self._close_store()


def _check_store(store: Layer) -> None:
    """Raise :class:`Unavailable` where whiteouts or attributes cannot be made."""
    from pytest_poorcontainer.cow import overlayfs  # noqa: PLC0415 - few trees are of this backend

    probe = f"{_WORK}/probe"
    try:
        overlayfs.make_whiteout(store, probe)
        overlayfs.make_opaque(store, _WORK)
    except OSError as error:
        why = f"its changes cannot be kept where they would be: {error.strerror} (a whiteout, a user xattr)"
        raise missing(
            "preload", why, "give upper= a directory on another file system, or take backend='copy'"
        ) from None
    finally:
        with contextlib.suppress(FileNotFoundError), store.place(probe) as place:
            os.unlink(place)


def _in_index(info: os.stat_result) -> str:
    return f"{info.st_dev:016x}-{info.st_ino:016x}"


class _Alias(Layer):
    """A file of the lower by one of its several names, of which another one was changed: it is the index's."""

    __slots__ = ("_name", "_store")

    def __init__(self, store: Layer, name: str) -> None:
        super().__init__(-1)
        self._store = store
        self._name = name

    def place(self, path: str) -> Place:  # noqa: ARG002 - whatever it is called
        return self._store.place(self._name)


class _Indexed(View):
    """A view in which the names of one file stay names of one file."""

    def __init__(self, layers: Sequence[Layer], place: str, store: Layer) -> None:
        super().__init__(layers, place)
        self._store = store

    def stack(self, path: str) -> list[Layer]:
        """Return what :class:`View` does, with the index's file for one that has several names."""
        layers = super().stack(path)
        return layers if layers[0] is self.layers[0] else self._instead(layers, layers[0].lstat(path))

    def listing(self, path: str, stack: Sequence[Layer] | None = None) -> dict[str, tuple[os.stat_result, list[Layer]]]:
        """Return what :class:`View` does, with the index's files."""
        found = super().listing(path, stack)
        for name, (info, layers) in found.items():
            if layers[0] is not self.layers[0]:
                instead = self._instead(layers, info)
                if instead is not layers:
                    found[name] = instead[0].lstat(""), instead
        return found

    def _instead(self, layers: list[Layer], info: os.stat_result) -> list[Layer]:
        if not stat.S_ISREG(info.st_mode) or info.st_nlink == 1:
            return layers
        name = f"{Preload.index}/{_in_index(info)}"
        return layers if self._store.find(name) is None else [_Alias(self._store, name)]
