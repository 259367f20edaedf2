"""Letting others enter our containers, while we run and after it.

The lab listens on a socket file in this user's runtime directory; what it tells visitors about the containers is a text
that we make (JSON in a memfd). ``kept`` is the visitors' side.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import itertools
import json
import os
import select
import threading
import time
from _socket import AF_UNIX, SOCK_SEQPACKET
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.container import runtime_dir
from pytest_poorcontainer.container.kept import connected_to, started_at, sweep
from pytest_poorcontainer.errors import LabDied
from pytest_poorcontainer.lab import forks, protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from pytest_poorcontainer.container.container import Container
    from pytest_poorcontainer.lab.client import Lab
    from pytest_poorcontainer.lab.handle import Handle

    Describe = Callable[[Container], Mapping[str, object]]

__all__ = ["publish"]

_VERSION = 1
_VISITORS = 64  # that may wait for the lab at one time
_TRIES = 10  # who removes the last file of the directory removes it too, perhaps right before we put ours into it
_NOTHING = -1  # for a descriptor that is not needed

_lock = threading.RLock()
_numbers = itertools.count()


class _Showing:
    """What a lab lets others see, and the names that its containers have had so far."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.socket: Path | None = None
        self.shown: set[int] = set()
        self._names: dict[int, str] = {}
        self._since: dict[int, float] = {}

    def name(self, handle: Handle) -> str:
        """Return the name by which people know a container: always the same, and no other's."""
        if handle.id not in self._names:
            name, taken = f"{handle.name}-{self.lab.pid}", set(self._names.values())
            numbered = (f"{name}-{number}" for number in itertools.count(2))
            self._names[handle.id] = name if name not in taken else next(one for one in numbered if one not in taken)
            self._since[handle.id] = time.time()
        return self._names[handle.id]

    def since(self, handle: Handle) -> float:
        """Return when we first heard of a container, in seconds since the epoch."""
        return self._since[handle.id]

    def show(self, containers: Sequence[Container], describe: Describe | None, *, detach: bool) -> dict[Container, str]:
        """Let the lab show these and no others."""
        handles = [container._handle for container in containers]  # noqa: SLF001 - ours
        names = {container: self.name(handle) for container, handle in zip(containers, handles, strict=True)}
        entries = {
            str(handle.id): self._entry(container, handle, dict(describe(container)) if describe else {})
            for container, handle in zip(containers, handles, strict=True)
        }
        ids = {handle.id for handle in handles}
        description = _memfd({"version": _VERSION, "lab": self.lab.pid, "detached": detach, "containers": entries})
        try:
            listener = self._listen()
            try:
                if self.shown - ids:
                    self.lab.keep(_NOTHING, _NOTHING, [], detach=False)
                self.lab.keep(listener.fileno(), description, handles, detach=detach)
            finally:
                # The lab has its own. With ours open, visitors of a dead lab would wait for an answer.
                _close(listener)
        except BaseException:
            if not detach:
                self.withdraw()
            raise
        finally:
            os.close(description)
        self.shown = ids
        return names

    def _entry(self, container: Container, handle: Handle, said: dict[str, object]) -> dict[str, object]:
        return {
            "created": self.since(handle),
            **said,
            "name": self.name(handle),
            "host": container.name,
            "addresses": list(getattr(container, "addresses", ())),
            "services": [_service(service) for service in getattr(container, "services", ())],
            "level": container.level,
        }

    def _listen(self) -> protocol.Socket:
        """Return a listening socket behind our file; a later one takes the place of an earlier in one step."""
        listener, fresh, directory = _bound()
        try:
            listener.listen(_VISITORS)
            place = runtime_dir.place()
            if self.socket is None or self.socket.parent != place:
                self.remove()
                self.socket = place / _free(place, self.lab.pid)
            os.rename(fresh, self.socket.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            _close(listener)
            with contextlib.suppress(OSError):
                os.unlink(fresh, dir_fd=directory)
            raise
        finally:
            os.close(directory)
        return listener

    def withdraw(self) -> None:
        """Show nothing any more."""
        try:
            if self.shown and self.lab.alive():
                with contextlib.suppress(LabDied):  # which is as good
                    self.lab.keep(_NOTHING, _NOTHING, [], detach=False)
        finally:
            self.shown = set()
            self.remove()

    def remove(self) -> None:
        """Remove our file, and the directory when it was the last one in it."""
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.unlink()
            with contextlib.suppress(OSError):
                self.socket.parent.rmdir()
            self.socket = None


_showings: dict[Lab, _Showing] = {}


def publish(
    containers: Iterable[Container], *, describe: Describe | None = None, detach: bool = False
) -> dict[Container, str]:
    """Let this user's other processes find and enter these containers and no others; return the names they go by.

    A name is the host name and the lab's pid, with a number when that is not enough, and stays the same from call to
    call. Containers that are closed or dead are passed over; an empty list ends it all. ``describe`` is asked for more
    about each, as JSON knows it: "test" (a node id), "created" (seconds since the epoch), "peer" (a host name),
    whatever else ``poor-container ps --json`` is to show.

    With ``detach`` these containers live on after this process: all others of the lab end, and to us the lab is closed.
    Without, all end with us as ever.

    Raises :class:`PoorContainerError` when there is no directory for the socket that is ours alone,
    :class:`LabError` when the lab cannot do it.
    """
    labs: dict[Lab, list[Container]] = {}
    for container in dict.fromkeys(containers):
        if _alive(container._handle):  # noqa: SLF001 - ours
            labs.setdefault(container._handle.lab, []).append(container)  # noqa: SLF001
    names: dict[Container, str] = {}
    with _lock:
        for lab, showing in list(_showings.items()):
            if lab not in labs:
                showing.withdraw()
                if not lab.alive():
                    del _showings[lab]
        for lab, some in labs.items():
            showing = _showings[lab] = _showings.get(lab) or _Showing(lab)
            if detach:
                # Before it is done: an interruption may come when it is, and at our end the file must be left.
                del _showings[lab]
            try:
                names |= showing.show(some, describe, detach=detach)
            except LabDied:
                showing.withdraw()  # it was killed meanwhile, and everything in it is dead
    return names


def _bound() -> tuple[protocol.Socket, str, int]:
    """Return a socket behind a new file, the file's name, and its directory's descriptor."""
    fresh = f".{os.getpid()}-{next(_numbers)}.new"
    for last in (False,) * (_TRIES - 1) + (True,):
        directory = runtime_dir.opened()
        listener = protocol.Socket(AF_UNIX, SOCK_SEQPACKET)
        forks.guard(listener.fileno())
        try:
            # By the descriptor: it is what was checked, and a path may be too long for a socket's address.
            listener.bind(f"/proc/self/fd/{directory}/{fresh}")
        except BaseException as error:
            _close(listener)
            os.close(directory)
            if last or not isinstance(error, FileNotFoundError):
                raise
        else:
            return listener, fresh, directory
    raise AssertionError  # never reached


def _close(listener: protocol.Socket) -> None:
    forks.expose(listener.fileno())
    listener.close()


def _alive(handle: Handle) -> bool:
    if handle.closed or not handle.lab.alive():
        return False
    waiting = select.poll()
    waiting.register(handle.pidfd, select.POLLIN)
    return not waiting.poll(0)


def _service(service: Any) -> dict[str, object]:
    """Return what others may know of a service; from its pid and the time of its start they tell whether it lives."""
    pid = int(service.pid or 0)
    return {"name": service.name, "state": service.state, "pid": pid, "started": started_at(pid) if pid else 0}


def _free(directory: Path, lab: int) -> str:
    """Return the name of a file that no other lab uses: in another pid namespace there may be one of the same pid."""
    for number in itertools.count(1):
        name = f"{lab}.sock" if number == 1 else f"{lab}-{number}.sock"
        sweep(directory / name)
        try:
            connected_to(directory / name).close()
        except FileNotFoundError:
            break
        except OSError:
            continue  # alive, but silent
    return name


def _memfd(document: dict[str, object]) -> int:
    """Return a file that nobody can change, with the document in it."""
    data = json.dumps(document, default=str).encode()
    fd = os.memfd_create("poor-container-kept", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        written = 0
        while written < len(data):
            written += os.pwrite(fd, data[written:], written)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _at_exit() -> None:
    """Remove the files of labs that end with us; a forked child's copies of them are not its own."""
    for lab, showing in list(_showings.items()):
        if not lab.foreign():
            showing.remove()


def _in_child() -> None:
    global _lock  # noqa: PLW0603 - another thread of the parent's may have held it
    _lock = threading.RLock()
    _showings.clear()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_in_child)
