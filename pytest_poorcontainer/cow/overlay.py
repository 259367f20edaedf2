"""The backend ``overlay``: the kernel's own. Every program on it is served right, static ones too."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import threading
import time
import weakref
from typing import TYPE_CHECKING, ClassVar

from pytest_poorcontainer.cow.attached import Attached
from pytest_poorcontainer.cow.backend import Layered, Lower, missing
from pytest_poorcontainer.cow.layer import Layer, join
from pytest_poorcontainer.cow.upper import UPPER
from pytest_poorcontainer.cow.view import View
from pytest_poorcontainer.errors import LabError, PoorContainerError
from pytest_poorcontainer.lab import Lab
from pytest_poorcontainer.lab.protocol import Field, MountFlag, Op

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_poorcontainer.cow.backend import Request
    from pytest_poorcontainer.lab.handle import Handle
    from pytest_poorcontainer.lab.protocol import Message

__all__ = ["Overlay", "Stage"]

_LOOKED_AT = 2000  # files of a lower whose owners are looked at
_NO_LIMIT = 4294967295
_PATIENCE = 2.0  # seconds
_IDENTITY = struct.Struct("=QQ")  # device and inode


class Stage:
    """The mount namespace in which the overlays of a lab are (preload/lab/cow.h)."""

    _all: ClassVar[weakref.WeakKeyDictionary[Lab, Stage]] = weakref.WeakKeyDictionary()
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        """Have none yet; the first tree makes it."""
        self.fd = -1
        self.entrance = threading.Lock()
        self._last = 0

    @classmethod
    def of(cls, lab: Lab) -> Stage:
        """Return the stage of a lab."""
        with cls._guard:
            return cls._all.setdefault(lab, cls())

    def number(self) -> int:
        """Return a number that no tree of this stage has had."""
        with self._guard:
            self._last += 1
            return self._last

    def take(self, fd: int) -> None:
        """Keep the descriptor of the stage that was used; the first one counts."""
        with self._guard:
            if self.fd >= 0:
                os.close(fd)
            else:
                self.fd = fd

    def __del__(self) -> None:
        """Give up the stage, with all that is on it and that nobody else has a descriptor of."""
        if self.fd >= 0:
            os.close(self.fd)


class Overlay(Layered):
    """A tree that is an overlay of the kernel's, with its upper on a tmpfs of its own unless a store is given."""

    name = "overlay"
    rank = 10
    runs = "mounted"
    trust = "the kernel keeps every program from the lower, whatever it calls"

    def __init__(self, request: Request) -> None:
        """Mount it. Raises :class:`Unavailable` where the kernel refuses, or would do wrong by the owners of files."""
        self._root: Layer | None = None
        self._attached: list[Attached] = []
        self._request = request
        self._frozen = False
        try:
            if request.start is not None:
                request.start()
            self._lab = Lab.current()
        except LabError as error:
            raise missing(self.name, str(error), "poor-container doctor says more") from error
        _check_owners(request, self._lab)
        self._stage = Stage.of(self._lab)
        self._number = self._stage.number()
        if request.store is not None:
            self._open_store(request).close()
        try:
            self._use(self._mount(first=True), request)
            self.view = View([self._shown()], request.place)
            self._lab.holders.add(self)
        except BaseException as error:
            self.close()
            if isinstance(error, LabError):
                raise missing(self.name, str(error), "backend='copy' works on every file system") from error
            raise

    def _mount(self, *, first: bool = False) -> Layer:
        """Mount the overlay, in place of what was mounted; return its store."""
        request = self._request
        fields: list[tuple[int, int | str | bytes]] = [(Field.ID, self._number)]
        if self._frozen:
            fields += [(Field.FLAGS, MountFlag.READONLY), (Field.TARGET, self._staged(UPPER))]
        elif first and request.store is not None:
            fields.append((Field.PATH, os.path.abspath(request.store)))
        elif first and request.size is not None:
            fields.append((Field.OPTIONS, f"size={request.size}"))
        for lower in request.lowers:
            if lower.stage not in (None, self._stage):
                raise PoorContainerError("the tree below belongs to a lab that has ended: make it anew")
            if lower.stage:
                fields.append((Field.TARGET, lower.path))
            else:
                info = lower.layer.lstat("")
                fields += [(Field.VALUE, _IDENTITY.pack(info.st_dev, info.st_ino)), (Field.SOURCE, lower.path)]
        with self._stage.entrance:  # one tree at a time makes the stage
            if self._stage.fd < 0:
                return self._take(self._ask_in_time(fields, ()))
        return self._take(self._ask_in_time(fields, (self._stage.fd,)))

    def _take(self, answer: Message) -> Layer:
        """Take over what the lab has made; return the store."""
        fds = answer.fds
        self._show(fds.pop(0))
        self._stage.take(fds.pop(0))
        return Layer(fds.pop(0))

    def _ask_in_time(self, fields: Sequence[tuple[int, int | str | bytes]], stage: Sequence[int]) -> Message:
        """Ask the lab; wait while another overlay has the upper, which may be that of a process that is just dying."""
        operation = f"make a copy-on-write tree of {self._request.lowers[0].path}"
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                return self._lab.ask(Op.COW, fields, operation, stage)
            except LabError as error:
                if error.errno != errno.EBUSY:
                    raise
                if time.monotonic() > end:
                    why = (
                        f"another tree has the same upper, {self._request.store}, or one that stands on it: close that"
                    )
                    raise LabError(error.operation, error.object, error.errno, why) from None
            time.sleep(0.005)

    def _staged(self, name: str) -> str:
        return f"/proc/{self._number}/store/{name}"

    def _show(self, fd: int) -> None:
        """Let our path lead to what this descriptor is of; the path stays the same."""
        if self._root is None:
            self._root = Layer(fd)
        else:
            os.dup2(fd, self._root.fd, inheritable=False)
            os.close(fd)

    def path(self) -> str:
        """Return the path of the overlay's root: that of a descriptor, which has no other name."""
        return f"/proc/{os.getpid()}/fd/{self._shown().fd}"

    def _shown(self) -> Layer:
        """Return the overlay's root."""
        if self._root is None:
            raise PoorContainerError("the tree is closed: it cannot be used any more")
        return self._root

    def root(self, lab: Lab, *, readonly: bool) -> int:
        """Return the lab's number of the tree. Raises :class:`LabError`."""
        self._check_alive()
        if lab is not self._lab:
            raise PoorContainerError("the tree belongs to another lab than the container: make both in one")
        return self.roots.number(lab, f"/proc/{self._number}/merged", self._stage.fd, readonly=readonly)

    def attach(self, handle: Handle, target: str | bytes) -> Attached:
        """Mount the tree in a container. Raises :class:`LabError`."""
        if handle.lab is not self._lab:
            raise PoorContainerError(f"container {handle.name} and the tree belong to two labs: make both in one")
        attached = Attached(handle, target, f"/proc/{self._number}/merged", (self._stage.fd,))
        self._attached = [*(each for each in self._attached if each.live), attached]
        return attached

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Unmount the tree everywhere and mount it again: the kernel must not see its layers change."""
        self._check_alive()
        self.roots.give_up()
        attached = [each for each in self._attached if each.live]
        for each in attached:
            each.unmount()
        self._show(os.open(os.devnull, os.O_PATH | os.O_CLOEXEC))
        try:
            yield
        finally:
            self._upper.renew()
            self._mount()
            for each in attached:
                each.mount()

    def _check_alive(self) -> None:
        if not self._lab.alive():
            raise PoorContainerError("the lab that the tree belongs to has ended: make the tree anew")

    def freeze(self) -> None:
        """Mount it read-only; what holds a file open for writing goes on in what nobody sees."""
        if not self._frozen:
            self._frozen = True
            with self.apart():
                pass

    def lowers(self) -> list[Lower]:
        """Return upper and lowers."""
        if self._request.store is not None:
            top = Lower(os.path.join(os.path.abspath(self._request.store), UPPER), self._upper.layer)
        else:
            top = Lower(self._staged(UPPER), self._upper.layer, self._stage)
        return [top, *self._request.lowers]

    def close(self) -> None:
        """Unmount it; what is on its tmpfs is gone when the last program has let go. Idempotent."""
        self.roots.give_up()
        root, self._root = self._root, None
        if root is not None:
            root.close()
            if self._lab.alive() and self._stage.fd >= 0:
                self._lab.ask(Op.COW_END, [(Field.ID, self._number)], "end a tree", [self._stage.fd])
        self._lab.holders.discard(self)
        self._close_store()


def _check_owners(request: Request, lab: Lab) -> None:
    """Raise :class:`Unavailable` when the lower has files of ids that the lab's user namespace does not have.

    The kernel shows those, but cannot copy them up (EOVERFLOW), so that a program meets errors that it would not meet
    on the original. As many files are looked at as cost about a millisecond.
    """
    users, groups = _mapped(lab, "uid_map"), _mapped(lab, "gid_map")
    if users is None or groups is None:
        return
    for lower in request.lowers:
        count = 0
        pending = [""]
        own = lower.layer.lstat("")
        while pending and count < _LOOKED_AT:
            directory = pending.pop()
            try:
                entries = lower.layer.entries(directory)
            except PermissionError:
                continue
            for name, info in [("", own), *entries] if not directory else entries:
                count += 1
                if not _within(info.st_uid, users) or not _within(info.st_gid, groups):
                    raise missing(
                        Overlay.name,
                        f"{join(lower.path, name)} belongs to {info.st_uid}:{info.st_gid}, which this user's "
                        "namespaces do not map, so the kernel would refuse to change it",
                        "give this user the ids (/etc/subuid, /etc/subgid), or take backend='copy': there all is yours",
                    )
                if name and stat.S_ISDIR(info.st_mode):
                    pending.append(join(directory, name))


def _mapped(lab: Lab, name: str) -> list[tuple[int, int]] | None:
    """Return start and count of the ids that a lab has; None for all of them."""
    with open(f"/proc/{lab.pid}/{name}", encoding="ascii") as file:
        rows = [tuple(map(int, line.split())) for line in file]
    if any(row[2] == _NO_LIMIT for row in rows):
        return None
    return [(row[1], row[2]) for row in rows]


def _within(number: int, ranges: list[tuple[int, int]]) -> bool:
    return any(start <= number < start + count for start, count in ranges)
