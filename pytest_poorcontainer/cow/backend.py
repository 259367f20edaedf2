"""What all backends have in common: what they are asked for, and what they do."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pytest_poorcontainer.cow.changes import Changes, Comparison
from pytest_poorcontainer.cow.copying import remove_directory
from pytest_poorcontainer.cow.layer import Layer
from pytest_poorcontainer.cow.roots import Roots
from pytest_poorcontainer.cow.upper import INDEX, UPPER, WORK, Upper
from pytest_poorcontainer.errors import PoorContainerError, Unavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pytest_poorcontainer.cow.attached import Attached
    from pytest_poorcontainer.cow.view import View
    from pytest_poorcontainer.lab import Lab
    from pytest_poorcontainer.lab.handle import Handle

__all__ = ["Backend", "Layered", "Lower", "Request", "User"]


@dataclass(frozen=True)
class Lower:
    """A directory that lies below a tree: ``path`` is where it is, on the machine or on the ``stage`` of a lab."""

    path: str
    layer: Layer
    stage: object = None


@dataclass(frozen=True)
class Request:
    """What a tree is to be.

    ``lowers`` are its layers, the topmost first; ``place`` is where programs see it; ``store`` the directory in which
    changes lie and stay, None for one that is gone with the tree; ``size`` the most that changes may take, as tmpfs(5)
    has it, or None; ``temporary`` where a directory may be made; ``start`` is called before a lab is needed.
    """

    lowers: Sequence[Lower]
    place: str
    store: str | None = None
    size: str | None = None
    temporary: str | None = None
    start: Callable[[], None] | None = None

    @property
    def layers(self) -> list[Layer]:
        """The lowers, open."""
        return [lower.layer for lower in self.lowers]


class User(Protocol):
    """Who programs are run as."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def uid(self) -> int:
        """The number."""

    def options(self) -> dict[str, Any]:
        """Return the arguments for ``subprocess``."""


class Backend:
    """A way to have a tree. Whoever adds one makes a subclass and returns it from ``poor_container_cow_backends``.

    ``name`` is what ``backend=`` takes, and of those that work the one with the lowest ``rank`` is what "auto" means.
    ``view`` is what the tree shows, ``lower`` what its lower does. ``runs`` says how programs are run in it: "mounted"
    (in a container, at the tree's place), "prefixed" (on the machine, by :meth:`command`), or "there" (on the machine,
    in the directory that :meth:`path` names).
    """

    name: ClassVar[str]
    rank: ClassVar[int] = 100
    runs: ClassVar[str] = "there"
    trust: str = ""
    """What it protects from, in a sentence."""
    owners: bool = True
    """Whether files keep their owners, so that another one is a change."""
    copier: int | None = None
    """The user whose programs make copies that are this user's own, whatever is copied."""
    view: View
    lower: View

    def __init__(self, request: Request) -> None:
        """Make the tree. Raises :class:`Unavailable` when it cannot work here, with reason and remedy, and OSError."""
        raise NotImplementedError

    def path(self) -> str:
        """Return a path by which this process and its children reach the tree, and never its lower."""
        raise NotImplementedError

    def env(self) -> dict[str, str]:
        """Return what a program's environment needs beside the ordinary."""
        return {}

    def command(self, argv: Sequence[str | bytes]) -> list[str | bytes]:
        """Return the command that runs another one in the tree."""
        return list(argv)

    @property
    def passed(self) -> tuple[int, ...]:
        """Descriptors that :meth:`command` needs to inherit."""
        return ()

    def admit(self, user: User) -> None:
        """Let another user's programs change the tree as that user may; they are about to be started.

        Raises :class:`UsageError` where they could not.
        """

    def refused(self) -> list[str]:
        """Return what programs were refused, "CALL PATH: REASON" each."""
        return []

    def attach(self, handle: Handle, target: str | bytes) -> Attached:
        """Let a container see the tree. Raises :class:`LabError`."""
        raise NotImplementedError

    @functools.cached_property
    def roots(self) -> Roots:
        """What labs have of it as a root of containers."""
        return Roots()

    def root(self, lab: Lab, *, readonly: bool) -> int:  # noqa: ARG002 - for those that can
        """Return a lab's number of the tree as a root of containers: itself, or read-only below an overlay.

        Raises :class:`UsageError` where there can be none, :class:`LabError`.
        """
        raise UsageError(
            f"a tree of the backend {self.name} cannot be the root of a container: take backend='overlay' or 'copy'"
        )

    def changes(self) -> Changes:
        """Return what is different from the lower."""
        raise NotImplementedError

    def reset(self, changes: Changes | None) -> None:
        """Take changes back; None: all."""
        raise NotImplementedError

    def save(self, name: str) -> None:
        """Keep all changes under a name."""
        raise NotImplementedError

    def load(self, name: str) -> None:
        """Make the changes those of :meth:`save`; the name is known."""
        raise NotImplementedError

    def freeze(self) -> None:
        """Let nobody change the tree any more. Raises what stands in the way."""
        raise NotImplementedError

    def lowers(self) -> list[Lower]:
        """Return the layers of a frozen tree, for one that stands on it."""
        raise NotImplementedError

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Keep everybody away from the tree while its lower or its upper is changed."""
        yield

    def close(self) -> None:
        """Give all back. Idempotent."""


class Layered(Backend):
    """What the backends have in common that have an upper in a store."""

    index: ClassVar[str] = INDEX
    _upper: Upper
    _directory: str | None = None

    def _open_store(self, request: Request) -> Layer:
        """Return the store of a request, made if need be."""
        directory = request.store
        if directory is None:
            self._directory = directory = tempfile.mkdtemp(prefix="cow-", dir=request.temporary)
        lower = request.lowers[0].layer
        info = lower.lstat("")
        os.makedirs(os.path.join(directory, WORK), 0o700, exist_ok=True)
        upper = os.path.join(directory, UPPER)
        with contextlib.suppress(FileExistsError):
            os.mkdir(upper, 0o700)
            with contextlib.suppress(PermissionError):
                os.chown(upper, info.st_uid, info.st_gid)
            os.chmod(upper, info.st_mode & 0o7777)
        return Layer.at(directory)

    def _use(self, store: Layer, request: Request) -> None:
        """Work with what is in a store from now on."""
        self._upper = Upper(store, request.layers, request.place, self.index)
        self.view, self.lower = self._upper.view, self._upper.lower

    def changes(self) -> Changes:
        """Return what is different from the lower, read from the upper."""
        compared = Comparison(self.view, self.lower, owners=self.owners, copier=self.copier)
        return compared.of_upper(self._upper.layer, linked=self._upper.has_links())

    def reset(self, changes: Changes | None) -> None:
        """Take changes back; None: all."""
        with self.apart():
            if changes is None:
                self._upper.clear()
            else:
                self._upper.take_back(changes)

    def save(self, name: str) -> None:
        """Keep a copy of the upper under a name."""
        self._upper.save(name)

    def load(self, name: str) -> None:
        """Make the upper that of a snapshot."""
        with self.apart():
            self._upper.load(name)

    def _close_store(self) -> None:
        upper = getattr(self, "_upper", None)
        if upper is not None:
            upper.close()
            upper.store.close()
        directory, self._directory = self._directory, None
        if directory is not None:
            remove_directory(directory)


def missing(name: str, why: str, remedy: str = "") -> Unavailable:
    """Return the error of a backend that does not work here."""
    return Unavailable(f"cow backend {name}", why, remedy)


def check_usable(closed: bool, what: str) -> None:
    """Raise :class:`PoorContainerError` when a tree is closed."""
    if closed:
        raise PoorContainerError(f"{what} is closed: it cannot be used any more")


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with more in it."""
    return {**os.environ, **extra}
