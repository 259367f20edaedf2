"""Containers that a lab lets others enter: finding them, running commands in them, ending them.

For whoever did not make them: another process of the same user's, while pytest holds them or long after it has ended.
``keep`` is the other side.
"""

from __future__ import annotations

import array
import contextlib
import errno
import json
import os
import select
import time
from _socket import AF_UNIX, SOCK_SEQPACKET
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pytest_poorcontainer.container import runtime_dir
from pytest_poorcontainer.container.process import Process
from pytest_poorcontainer.errors import LabDied, LabError, PoorContainerError
from pytest_poorcontainer.lab import protocol
from pytest_poorcontainer.lab.agent import Agent
from pytest_poorcontainer.lab.clock import now
from pytest_poorcontainer.lab.protocol import Field, Op

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_poorcontainer.lab.handle import Handle
    from pytest_poorcontainer.lab.protocol import Message

__all__ = ["Kept", "Silent", "choose", "connected_to", "end", "enter", "kept", "started_at", "survey", "sweep"]

PATIENCE = 3  # seconds; a lab answers in microseconds, but with one visitor after the other
_PATIENCE_AT_END = 15  # seconds; the lab itself gives up after ten, and says why
_TRIES = 5  # a lab whose list is replaced just now hangs up
_UNFINISHED = 60.0  # seconds after which a socket that nobody came to publish is no longer about to be
_LONGEST = 16 << 20  # bytes of a description; what is longer is none of ours
_MENTIONED = 12  # names in an error message


@dataclass(frozen=True)
class Kept:
    """A container that can be entered.

    ``name`` is unique among this user's, ``host`` its host name, ``lab`` the pid of its lab and ``id`` its number in
    there, ``test`` the node id of the test that made it, ``created`` in seconds since the epoch, ``services`` pairs of
    a name and a state. ``detached`` is false while the process that made it still looks after it. ``peer`` is the host
    at the other end of its link, "" for none. ``details`` is all that was published about it.
    """

    name: str
    host: str
    lab: int
    id: int
    test: str
    created: float
    addresses: tuple[str, ...]
    services: tuple[tuple[str, str], ...]
    level: str
    peer: str
    detached: bool
    socket: Path
    details: dict[str, Any] = field(default_factory=dict, repr=False, compare=False, hash=False)

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON knows it; what was published beyond the fields stands under "details"."""
        fields = {name: value for name, value in vars(self).items() if name != "details"}
        services = [{"name": name, "state": state} for name, state in self.services]
        details = {name: value for name, value in self.details.items() if name not in fields}
        return {**fields, "socket": str(self.socket), "services": services, "details": details}


class Silent(NamedTuple):
    """A lab that was found but cannot be asked, and why."""

    socket: Path
    why: str


class _Gone(Exception):
    """Nobody listens on the socket."""


def kept() -> list[Kept]:
    """Return the containers of this user's that can be entered; those of a lab that does not answer are missing.

    Raises :class:`PoorContainerError` when the directory of the sockets is open to other users.
    """
    return survey()[0]


def survey() -> tuple[list[Kept], list[Silent]]:
    """Return all that can be entered, lab by lab, and the labs that do not answer. Removes what dead labs have left.

    Raises as :func:`kept`.
    """
    found: list[Kept] = []
    silent: list[Silent] = []
    for directory, fd in runtime_dir.existing():
        for name in sorted(os.listdir(fd)):  # noqa: PTH208 - of what was checked
            if name.endswith(".sock"):
                path = directory / name
                try:
                    found += _list(path)
                except _Gone:
                    sweep(path)
                except (OSError, LabError) as error:
                    silent.append(Silent(path, _reason(error)))
            elif name.endswith(".new"):
                _sweep_unfinished(directory / name)
        with contextlib.suppress(OSError):
            directory.rmdir()  # when nothing is left in it
    return sorted(found, key=lambda one: (one.lab, one.id)), silent


def choose(name: str, among: Sequence[Kept]) -> Kept:
    """Return the container of that name; its host name, or the beginning of its name, will do when only one fits.

    Raises :class:`PoorContainerError` that names what there is, or what fits.
    """
    fits = [one for one in among if one.name == name]
    fits = fits or [one for one in among if one.host == name]
    fits = fits or [one for one in among if name and one.name.startswith(name)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise PoorContainerError(f"{name!r} is not one container but {len(fits)}: {_names(fits)}; say more of the name")
    there = f"there are: {_names(among)}" if among else "none is kept"
    raise PoorContainerError(f"there is no container {name!r}; {there}")


def enter(place: Kept, argv: Sequence[str], **options: Any) -> Process:
    """Start a command in a container and return it; ``options`` are those of ``Container.popen``.

    The command goes on when nobody holds the :class:`Process` any more; :meth:`Process.end` ends it. Raises as
    ``Container.popen`` does, and :class:`PoorContainerError` when the container has ended.
    """
    return Process(visit(place), argv, **options)


def visit(place: Kept) -> Handle:
    """Return what :class:`Process` and :class:`Terminal` need of a container.

    Raises :class:`PoorContainerError` when it has ended.
    """
    try:
        answer = _ask(place.socket, Op.KEPT_ENTER, protocol.pack(((Field.ID, place.id),)))
    except _Gone:
        sweep(place.socket)
        raise PoorContainerError(f"cannot enter {place.name}: it has ended, with its whole lab") from None
    except LabError as error:
        if error.errno == errno.ENOENT:
            raise PoorContainerError(f"cannot enter {place.name}: it has ended") from None
        raise
    except OSError as error:
        raise _silent(f"enter {place.name}", place, error) from None
    if len(answer.fds) != 1:
        raise LabError("enter", place.name, errno.EPROTO, f"expected 1 descriptor, got {len(answer.fds)}")
    return cast("Handle", _Visited(place.name, answer.fds.pop()))


def end(places: Iterable[Kept]) -> None:
    """End containers; return when every process in them is dead. One that has ended already is no error.

    A lab that is left with nothing to keep has ended too. Raises :class:`LabError` for a lab that does not do it, after
    all the others have.
    """
    labs: dict[Path, dict[int, Kept]] = {}
    for place in places:
        labs.setdefault(place.socket, {})[place.id] = place
    failed: list[Exception] = []
    for some in labs.values():
        try:
            _end_in_one(list(some.values()))
        except LabError as error:  # noqa: PERF203 - one lab's failure is not the others'
            failed.append(error)
    if failed:
        raise failed[0]


def _end_in_one(places: list[Kept]) -> None:
    """End containers of one lab."""
    place = places[0]
    lab = _pidfd(place.lab)
    try:
        try:
            body = protocol.pack((Field.ID, one.id) for one in places)
            _ask(place.socket, Op.KEPT_END, body, _PATIENCE_AT_END)
            gone = place.detached and not _ids(place.socket)[0]
        except _Gone:
            gone = True
        except OSError as error:
            raise _silent(f"end {_names(places)}", place, error) from None
        if gone and lab is not None:
            _await(lab, _PATIENCE_AT_END)
        if gone:
            sweep(place.socket)
    finally:
        if lab is not None:
            os.close(lab)


def _pidfd(pid: int) -> int | None:
    """Return a pidfd of a lab, None when it is gone, or in a pid namespace that is not ours."""
    try:
        fd = os.pidfd_open(pid)
        if Path(f"/proc/{pid}/comm").read_text(encoding="ascii", errors="replace").startswith("pclab"):
            return fd
        os.close(fd)
    except OSError:
        pass
    return None


def _await(pidfd: int, patience: float) -> None:
    waiting = select.poll()
    waiting.register(pidfd, select.POLLIN)
    waiting.poll(patience * 1000)


class _Visited:
    """What a :class:`Process` needs to know of a container that is not ours: a Handle that owns nothing."""

    closed = False
    rootfs = ""  # unknown

    clock = 0  # the machine's

    def __init__(self, name: str, agent: int) -> None:
        self.name = name
        self.agent = _SharedAgent(agent, name)
        self.lab = self

    def check(self) -> None:
        pass

    def check_fork(self, _what: str) -> None:
        pass

    def ended_by_us(self) -> bool:
        return False

    def died(self, operation: str) -> LabDied:
        return LabDied(operation, "", 0, f"{self.name} was ended meanwhile")


class _SharedAgent(Agent):
    """An agent whose line others hold too: what comes over it may be for them, so we never read."""

    def complaint(self, number: int) -> None:  # noqa: ARG002
        return None


def _list(socket: Path) -> list[Kept]:
    """Return what one lab keeps."""
    ids, described = _ids(socket)
    containers = described.get("containers")
    pid = described.get("lab")
    number = pid if isinstance(pid, int) else int("".join(filter(str.isdigit, socket.name.split("-")[0])) or 0)
    entries = containers if isinstance(containers, dict) else {}
    detached = described.get("detached") is True
    return [_understood(number, id_, entries.get(str(id_)), socket, detached=detached) for id_ in ids]


def _ids(socket: Path) -> tuple[list[int], dict[str, Any]]:
    """Return the numbers of all that one lab keeps, and what was published about them."""
    ids: list[int] = []
    described: dict[str, Any] = {}
    while True:
        body = protocol.pack(((Field.ID, ids[-1]),)) if ids else b""
        answer = _ask(socket, Op.KEPT_LIST, body)
        try:
            if not ids and answer.fds:
                described = _described(answer.fds[0])
        finally:
            protocol.close_all(answer.fds)
        more = array.array("I")
        for kind, value in answer.fields:
            if kind == Field.IDS:
                more.frombytes(value[: len(value) // more.itemsize * more.itemsize])
        if not more:
            return ids, described
        ids += more


def _described(fd: int) -> dict[str, Any]:
    """Read a description; {} for one that makes no sense: of another version of this package, perhaps."""
    data = os.pread(fd, min(os.fstat(fd).st_size, _LONGEST), 0)
    try:
        described = json.loads(data)
    except ValueError:
        return {}
    return described if isinstance(described, dict) else {}


def _understood(lab: int, id_: int, entry: object, socket: Path, *, detached: bool) -> Kept:
    details = entry if isinstance(entry, dict) else {}
    created = details.get("created")
    return Kept(
        name=str(details.get("name") or f"{id_}-{lab}"),
        host=str(details.get("host") or ""),
        lab=lab,
        id=id_,
        test=str(details.get("test") or ""),
        created=float(created) if isinstance(created, (int, float)) else 0.0,
        addresses=tuple(map(str, details.get("addresses") or ())),
        services=tuple(_services(details.get("services"))),
        level=str(details.get("level") or ""),
        peer=str(details.get("peer") or ""),
        detached=detached,
        socket=socket,
        details=details,
    )


def _services(entries: object) -> Iterator[tuple[str, str]]:
    """Yield names and states. What ran when it was published may have ended since."""
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict):
            continue
        state, pid = str(entry.get("state", "")), entry.get("pid")
        runs = state in ("starting", "ready", "running")
        if runs and isinstance(pid, int) and pid > 0 and not _is_process(pid, entry.get("started")):
            state = "ended"
        yield str(entry.get("name", "")), state


def _is_process(pid: int, started: object) -> bool:
    """Return whether the pid is still the process that it was; in doubt it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    seen = started_at(pid)
    return not (seen and started) or seen == started


def started_at(pid: int) -> int:
    """Return when a process started, in clock ticks since the machine did (proc_pid_stat(5)); 0 when it is hidden.

    With the pid that tells it from a later one of the same number. A dead process that waits for its parent is none.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    words = text.rpartition(")")[2].split()
    return -1 if words[0] == "Z" else int(words[19])


def connected_to(socket: Path, patience: int = PATIENCE) -> protocol.Socket:
    """Return a connection to the lab behind a socket file; no send or receive on it waits longer than ``patience``.

    Raises OSError as connect(2) does: ECONNREFUSED when the lab is dead, EAGAIN when it does not answer.
    """
    # By the directory's descriptor: a path may be longer than an address of a socket can be (unix(7): 108 bytes).
    directory = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = protocol.Socket(AF_UNIX, SOCK_SEQPACKET)
    try:
        connection.settimeout(None)  # a test may have set another default
        protocol.limit_waits(connection, patience)
        connection.connect(f"/proc/self/fd/{directory}/{socket.name}")
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(directory)
    return connection


def _ask(socket: Path, op: Op, body: bytes, patience: int = PATIENCE) -> Message:
    """Ask a lab; one question a connection. Raises :class:`_Gone`, :class:`LabError`, OSError when it is silent."""
    deadline = now() + patience
    for _ in range(_TRIES):
        try:
            connection = connected_to(socket, patience)
        except (ConnectionRefusedError, FileNotFoundError):
            raise _Gone from None
        try:
            protocol.send(connection, op, body)
            answer = protocol.receive(connection)
        except OSError as error:
            if error.errno not in protocol.GONE:
                raise
            answer = None
        finally:
            connection.close()
        if answer is not None:
            if answer.op == Op.ERROR:
                raise answer.error()
            return answer
        # Hung up: it has died, or its list is being replaced, or it took us for somebody who never speaks.
        if now() > deadline:
            break
        time.sleep(0.01)
    raise BlockingIOError(errno.EAGAIN, "the lab hangs up")


def sweep(socket: Path) -> None:
    """Remove the socket file of a dead lab, and the directory when it was the last one in it."""
    try:
        connected_to(socket).close()
    except ConnectionRefusedError:
        with contextlib.suppress(OSError):
            socket.unlink()
            socket.parent.rmdir()
    except OSError:
        pass  # none there; or alive, but silent


def _sweep_unfinished(path: Path) -> None:
    """Remove what a process left that was killed between making its socket and giving it to its lab."""
    with contextlib.suppress(OSError):
        if time.time() - path.lstat().st_mtime > _UNFINISHED:
            sweep(path)


def _names(places: Sequence[Kept]) -> str:
    more = f" and {len(places) - _MENTIONED} more" if len(places) > _MENTIONED else ""
    return ", ".join(one.name for one in places[:_MENTIONED]) + more


def _reason(error: Exception) -> str:
    if isinstance(error, BlockingIOError):
        return "it does not answer; is it stopped (SIGSTOP), or in a debugger?"
    return str(error)


def _silent(operation: str, place: Kept, error: OSError) -> LabError:
    remedy = f"the lab is process {place.lab}: {_reason(error)} `kill -KILL {place.lab}` ends it with all that is in it"
    return LabError(operation, "", error.errno or 0, remedy)
