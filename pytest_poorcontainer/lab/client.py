"""The lab's client: one helper process per pytest process, which owns every container and dies with pytest."""

from __future__ import annotations

import atexit
import collections
import contextlib
import errno
import itertools
import os
import select
import threading
import weakref
from typing import TYPE_CHECKING, ClassVar

from pytest_poorcontainer import native
from pytest_poorcontainer.errors import LabDied, LabError, PoorContainerError, UsageError
from pytest_poorcontainer.lab import failures, forks, protocol
from pytest_poorcontainer.lab.handle import Handle
from pytest_poorcontainer.lab.launch import launch
from pytest_poorcontainer.lab.order import Order
from pytest_poorcontainer.lab.protocol import Field, Keep, Message, MountFlag, Op
from pytest_poorcontainer.lab.spec import Spec, creation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path
    from typing import TypeAlias

    from pytest_poorcontainer.lab.protocol import Socket

    Text: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"

__all__ = ["Lab", "Spec"]

_PATIENCE_AT_END = 5.0  # seconds; the kernel needs about one millisecond to end a lab with everything in it
_PATIENCE_WITH_CANCELLED = 2.0  # seconds, for the answer to a request whose asker was interrupted
_REQUESTS = 1 << 32
_ENDED_AT_ONCE = 32
_ORDERS_MAX = 6  # CREATE_MAX of preload/lab/create.h, less those that are waited for
_KEPT_AT_ONCE = 60  # two descriptors beside theirs, see FDS_MAX


class Lab:
    """A lab and the line to it. Safe to use from several threads at once.

    ``pid`` is the lab's process, ``level`` the rung of the ladder on which its containers stand ("namespaces", ...),
    ``level_reason`` why not on the one above ("" on the highest), ``ids`` how many user ids are mapped inside.
    """

    _current: ClassVar[Lab | None] = None
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, basetemp: Path | None = None, rootdir: Path | None = None) -> None:
        """Start a lab whose containers see ``basetemp`` (read-write) and ``rootdir`` (read-only) at the same paths.

        Raises :class:`LabError` with the step that failed.
        """
        started = launch(basetemp, rootdir)
        self._socket, self._lifeline, self._pidfd = started.control, started.lifeline, started.pidfd
        self.pid, self.level, self.level_reason, self.ids = started.pid, started.level, started.reason, started.ids
        self.basetemp, self.rootdir = basetemp, rootdir
        self.closed = False
        self.dead = False
        self._owner = os.getpid()
        self._generation = forks.generation()
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._links = itertools.count(1)
        self._orders: dict[int, Order] = {}
        self._live: set[int] = set()
        self._unclaimed: set[int] = set()  # those of them that were ordered, and that nobody has taken
        self.holders: weakref.WeakSet[object] = weakref.WeakSet()  # no containers, and would end with the lab as well
        self._coming: list[int] = []  # containers that an answer tells of, until they have owners
        self._dropped: collections.deque[int] = collections.deque()

    @classmethod
    def current(cls, basetemp: Path | None = None, rootdir: Path | None = None) -> Lab:
        """Return this process's lab; start it when there is none, or when the last one was killed.

        A directory that the running lab does not show starts a new one if no container is alive, else raises
        :class:`UsageError`: containers must not silently lack what their maker believes to be there.
        """
        with cls._guard:
            lab = cls._current
            if lab is not None and not lab.alive():
                lab.close()
                lab = None
            if lab is not None and not lab.shows(basetemp, rootdir):
                if lab.busy():
                    raise UsageError(
                        f"the lab shows basetemp {lab.basetemp} and rootdir {lab.rootdir} in its containers, "
                        f"not {basetemp} and {rootdir}: close the containers of the first before you ask for others"
                    )
                lab.close()
                lab = None
            if lab is None:
                lab = cls._current = cls(basetemp, rootdir)
            return lab

    @classmethod
    def serves(cls, basetemp: Path | None, rootdir: Path | None) -> bool:
        """Return whether there is a lab that shows these directories, so that :meth:`current` starts and ends none."""
        with cls._guard:
            lab = cls._current
            return lab is not None and lab.alive() and lab.shows(basetemp, rootdir)

    @classmethod
    def close_current(cls) -> None:
        """End this process's lab, with all that is in it. No lab, nothing to do."""
        with cls._guard:
            lab, cls._current = cls._current, None
            if lab is not None:
                lab.close()

    def create(self, specs: Sequence[Spec], link: int | None = None) -> list[Handle]:
        """Make up to AT_ONCE containers; ``link`` (from :meth:`new_link`) joins two of them.

        Who drops a handle ends its container. Raises :class:`LabError` with the step that failed; then none is left.
        """
        names = [spec.name for spec in specs]
        handles: list[Handle] = []
        self._request(
            Op.CREATE,
            creation(specs, link),
            f"create {' and '.join(names)}",
            lambda answer: self._claim(answer, names, handles),
        )
        return handles

    def order(self, specs: Sequence[Spec], link: int | None = None) -> Order | None:
        """Ask for what :meth:`create` makes, and do not wait: the lab builds it beside whatever comes next.

        None when so many orders are under way already. Raises :class:`LabError` when it cannot even be asked for.
        """
        order = Order([spec.name for spec in specs])
        self._usable("order containers")
        with self._lock:
            if len(self._orders) >= _ORDERS_MAX:
                return None
            number = next(self._numbers) % _REQUESTS
            self._orders[number] = order
            try:
                protocol.send(self._socket, Op.CREATE, creation(specs, link), (), number)
            except OSError as error:
                del self._orders[number]
                raise failures.explained(error, "order containers", self.pid, self._died) or error from None
        return order

    def await_order(self, order: Order) -> None:
        """Wait until an order is no longer pending. Raises :class:`LabDied` when the lab is no more."""
        if not order.pending:
            return
        self._usable("wait for containers")
        try:
            with self._lock:
                self._converse("wait for containers", lambda: self._until_answered(order))
        finally:
            self._sweep()

    def claim(self, order: Order) -> None:
        """Note that what was ordered is in use from now on."""
        self._unclaimed.difference_update(handle.id for handle in order.handles)

    def _until_answered(self, order: Order) -> None:
        while order.pending:
            self._take_other(self._next())

    def _claim(self, answer: Message, names: list[str], handles: list[Handle]) -> None:
        """Give what was created its owners, one by one, so that an interruption loses nothing."""
        ids = answer.numbers(Field.ID)
        if len(ids) != len(names) or len(answer.fds) != 2 * len(names):
            why = f"expected {len(names)} ids with two descriptors each, got {len(ids)} and {len(answer.fds)}"
            raise LabError("understand what was created:", ", ".join(names), errno.EPROTO, why)
        self._live.update(ids)
        for id_, name in zip(ids, names, strict=True):
            pidfd, agent = answer.fds.pop(1), answer.fds.pop(0)
            handles.append(Handle(self, name, id_, agent, pidfd))

    def end(self, ids: Iterable[int]) -> None:
        """End containers; return when every process in them is dead. With a dead lab there is nothing to do."""
        ending = [id_ for id_ in ids if id_ in self._live]
        if self.closed or self.dead or self.foreign():
            return
        for start in range(0, len(ending), _ENDED_AT_ONCE):
            some = ending[start : start + _ENDED_AT_ONCE]
            try:
                self._request(Op.END, protocol.pack((Field.ID, id_) for id_ in some), "end containers")
            except LabDied:
                return  # and with the lab everything in it, which is what was asked for
            self._live.difference_update(some)

    def drop(self, id_: int) -> None:
        """End a container that nobody refers to any more.

        For finalizers: the garbage collector may call it in any thread at any line, also in one that holds our lock.
        Then whoever holds it does the work when it is done with its own.
        """
        self._dropped.append(id_)
        self._sweep()

    def new_link(self) -> int:
        """Return a link number that was never used before in this lab."""
        return next(self._links)

    def fabric_socket(self, family: int, kind: int, proto: int = 0) -> int:
        """Return the descriptor of a socket in the network namespace of plugs and switches. Raises :class:`LabError`.

        While it is open that namespace lives, with or without the lab.
        """
        fields = ((Field.FAMILY, family), (Field.TYPE, kind), (Field.PROTOCOL, proto))
        answer = self.ask(Op.FABRIC, fields, "make a socket in the fabric")
        return answer.fds.pop()

    def ask(
        self, op: Op, fields: Iterable[tuple[int, int | str | bytes]], operation: str, fds: Sequence[int] = ()
    ) -> Message:
        """Make a request and return its answer, whose ``fds`` are then the caller's to close.

        Raises :class:`LabError` with the step that failed, :class:`LabDied`.
        """
        answers: list[Message] = []
        self._request(op, protocol.pack(fields), operation, answers.append, fds)
        return answers[0]

    def helper(self, program: str, arguments: Sequence[str], control: Socket, container: int | None = None) -> int:
        """Run a compiled program of ours in the fabric, or in the network of a container (its id); return a pidfd.

        It is a child of the lab and dies with it. ``control`` is its end of a socket, descriptor 3 to it; ours stays
        open here. Raises :class:`LabError` with the step that failed.
        """
        fd = os.open(native.program(program), os.O_RDONLY | os.O_CLOEXEC)
        try:
            fields: list[tuple[int, int | str | bytes]] = [(Field.ARG, text) for text in (program, *arguments)]
            if container is not None:
                fields.append((Field.ID, container))
            answer = self.ask(Op.HELPER, fields, f"start {program}", (fd, control.fileno()))
            return answer.fds.pop()
        finally:
            os.close(fd)

    def add_rootfs(
        self, path: Text | None, binds: Iterable[tuple[Text, Text]] = (), *, readonly: bool = False, tree: int = -2
    ) -> tuple[int, int]:
        """Let containers have another root than the machine's; return its number, and a descriptor or -1.

        ``path`` is a directory of the machine that each of them gets a copy-on-write view of; without one it is one
        that dies with the lab, and the descriptor is of it: fill it first. ``binds`` are what is shown of the machine,
        read-only, and where. With ``readonly`` nothing can be changed but /tmp, /run and /dev/shm. ``tree`` says that
        ``path`` is a tree, and unless ``readonly`` the root itself: its stage, or -1. Raises :class:`LabError`.
        """
        fields: list[tuple[int, int | str | bytes]] = [(Field.FLAGS, int(readonly) or MountFlag.ITSELF * (tree >= -1))]
        if path is not None:
            fields.append((Field.PATH, os.fsencode(path)))
        for source, target in binds:
            fields += [(Field.SOURCE, os.fsencode(source)), (Field.TARGET, os.fsencode(target))]
        what = f"make a root file system{f' of {os.fsdecode(path)}' if path else ''}"
        answer = self.ask(Op.ROOTFS, fields, what, [tree] if tree >= 0 else ())
        return answer.number(Field.ROOTFS), answer.fds.pop() if answer.fds else -1

    def drop_rootfs(self, number: int) -> None:
        """Give up a root file system; containers that have it keep it. Raises :class:`LabError`."""
        self.ask(Op.ROOTFS_END, ((Field.ROOTFS, number),), "give up a root file system")

    def keep(self, listener: int, description: int, handles: Sequence[Handle], *, detach: bool) -> None:
        """Let others ask the lab for these containers, over connections to the listening socket ``listener``.

        ``description`` is a memfd with what they are told; both descriptors stay open here. A later call replaces them,
        and adds its containers; one without containers ends it all. With ``detach`` the other containers end and these
        live on without us; then this lab is closed. Raises :class:`LabError`.
        """
        if not handles:
            self._request(Op.KEEP, protocol.pack(((Field.ACTION, Keep.PUBLISH),)), "stop publishing")
            return
        for start in range(0, len(handles), _KEPT_AT_ONCE):
            some = handles[start : start + _KEPT_AT_ONCE]
            last = detach and start + _KEPT_AT_ONCE >= len(handles)
            action = Keep.DETACH if last else Keep.PUBLISH
            fields = ((Field.ACTION, action), *((Field.ID, handle.id) for handle in some))
            fds = (listener, description, *(handle.agent.fileno() for handle in some))
            self._request(Op.KEEP, protocol.pack(fields), "keep containers", fds=fds)
        if detach:
            self._leave()

    def _leave(self) -> None:
        """Close what we hold of a lab that lives on."""
        with self._lock:
            self.closed = True
            self._live.clear()
            for fd in (self._lifeline, self._pidfd, self._socket.fileno()):
                forks.expose(fd)
            os.close(self._lifeline)
            os.close(self._pidfd)
            self._socket.close()

    def shows(self, basetemp: Path | None, rootdir: Path | None) -> bool:
        """Return whether containers of this lab see these directories; None asks for nothing."""
        return basetemp in (None, self.basetemp) and rootdir in (None, self.rootdir)

    def busy(self) -> bool:
        """Return whether a container of this lab is in use, or something else that would end with it."""
        return bool(self._live - self._unclaimed) or bool(self.holders)

    def foreign(self) -> bool:
        """Return whether this process is a forked child of the one that the lab belongs to."""
        return self._generation != forks.generation()

    def alive(self) -> bool:
        """Return whether the lab's process is."""
        return not (self.closed or self.dead or self.foreign()) and not self._has_ended(0)

    def check_fork(self, what: str) -> None:
        """Raise :class:`PoorContainerError` in a forked child of the process that the lab belongs to."""
        if self._generation != forks.generation():
            raise PoorContainerError(
                f"{what} belongs to process {self._owner} and cannot be used in its forked child {os.getpid()}: "
                "make a new one in the child, or start the child without fork (multiprocessing's spawn method)"
            )

    def close(self) -> None:
        """End the lab; return when every process in it is dead. Idempotent.

        Raises :class:`LabError` when it does not end in time.
        """
        if self.closed:
            return
        self.closed = True
        if self.foreign():
            self._socket.close()  # our copies are /dev/null
            os.close(self._lifeline)
            os.close(self._pidfd)
            return
        # Somebody who waits for an answer in another thread gets an end of file, and gives the lock back.
        with contextlib.suppress(OSError):
            self._socket.shutdown(2)
        forks.expose(self._lifeline)
        os.close(self._lifeline)
        with self._lock:
            forks.expose(self._socket.fileno())
            self._socket.close()
            self._live.clear()
            ended = self._has_ended(_PATIENCE_AT_END)
            forks.expose(self._pidfd)
            os.close(self._pidfd)
        if not ended:
            raise LabError("end the lab", f"(process {self.pid})", errno.ETIMEDOUT, "is it stopped, or in a debugger?")
        # Where pytest is the first process of an engine's container, orphans are its children.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)

    def __del__(self) -> None:
        """End a lab that nobody refers to any more."""
        if not getattr(self, "closed", True):
            self.close()

    def _has_ended(self, timeout: float) -> bool:
        waiting = select.poll()
        waiting.register(self._pidfd, select.POLLIN)
        return bool(waiting.poll(timeout * 1000))

    def _usable(self, operation: str) -> None:
        self.check_fork("the lab")
        if self.closed:
            raise PoorContainerError(f"cannot {operation}: the lab was closed")

    def _request(
        self,
        op: Op,
        body: bytes,
        operation: str,
        finish: Callable[[Message], None] | None = None,
        fds: Sequence[int] = (),
    ) -> None:
        self._usable(operation)
        try:
            with self._lock:
                self._ask(op, body, operation, finish, fds)
        finally:
            self._sweep()

    def _ask(
        self,
        op: Op,
        body: bytes,
        operation: str,
        finish: Callable[[Message], None] | None = None,
        fds: Sequence[int] = (),
    ) -> None:
        """Send a request and finish with its answer; with the lock held."""
        number = next(self._numbers) % _REQUESTS

        def converse() -> None:
            protocol.send(self._socket, op, body, fds, number)
            answer = self._answer(number)
            if answer.op == Op.ERROR:
                raise answer.error()
            if finish is not None:
                finish(answer)
            self._coming.clear()

        self._converse(operation, converse, number)

    def _converse(self, operation: str, part: Callable[[], None], number: int | None = None) -> None:
        """Do a part of the conversation; make of what goes wrong the right error, and lose no container by it."""
        try:
            part()
        except BaseException as error:
            explained = failures.explained(error, operation, self.pid, self._died)
            self._undo(number, wait=explained is None)
            if explained is None:
                raise
            raise explained from None

    def _next(self) -> Message:
        """Return the next answer.

        Before it is taken from the socket we look what it tells of: so whatever an interruption makes us lose on the
        way to its owner, nothing that the lab has made is forgotten.
        """
        fields = protocol.peek(self._socket)
        if fields is None:
            raise EOFError
        self._coming.extend(protocol.numbers(fields, Field.ID))
        answer = protocol.receive(self._socket)
        if answer is None:
            raise EOFError
        return answer

    def _answer(self, number: int) -> Message:
        """Return the answer to a request."""
        while True:
            answer = self._next()
            if answer.request == number:
                return answer
            self._take_other(answer)

    def _take_other(self, answer: Message) -> None:
        """Take an answer that the one who reads does not wait for."""
        order = self._orders.pop(answer.request, None)
        if order is None:
            # To somebody who was interrupted while waiting for it: what it tells of belongs to nobody.
            self._forget()
            return
        try:
            if answer.op == Op.ERROR:
                order.error = answer.error()
            else:
                self._unclaimed.update(answer.numbers(Field.ID))
                self._claim(answer, order.names, order.handles)
            self._coming.clear()
        finally:
            order.pending = False

    def _undo(self, number: int | None, *, wait: bool) -> None:
        """Give up what an answer tells of that nobody owns; wait for the answer if it has not come."""
        if number is not None and not self._coming and wait:
            waiting = select.poll()
            waiting.register(self._socket.fileno(), select.POLLIN)
            # What goes wrong here is nothing beside the interruption; the next request meets a late answer.
            with contextlib.suppress(OSError, EOFError, LabError):
                if waiting.poll(_PATIENCE_WITH_CANCELLED * 1000):
                    self._answer(number)
        self._forget()

    def _forget(self) -> None:
        self._dropped.extend(self._coming)
        self._coming.clear()

    def _sweep(self) -> None:
        while self._dropped and not (self.closed or self.dead or self.foreign()) and self._lock.acquire(blocking=False):
            try:
                self._sweep_locked()
            finally:
                self._lock.release()

    def _sweep_locked(self) -> None:
        while self._dropped:
            ids = [self._dropped.popleft() for _ in range(min(len(self._dropped), _ENDED_AT_ONCE))]
            self._live.difference_update(ids)
            with contextlib.suppress(LabDied):
                self._ask(Op.END, protocol.pack((Field.ID, id_) for id_ in ids), "end containers")

    def _died(self, operation: str) -> Exception:
        if self.closed:
            return PoorContainerError(f"cannot {operation}: the lab was closed meanwhile")
        self.dead = True
        return LabDied(operation, "", 0, f"the lab (process {self.pid}) has ended although nobody asked it to")


def _forget_in_child() -> None:
    Lab._current = None  # noqa: SLF001 - the child may have a lab of its own
    Lab._guard = threading.Lock()  # noqa: SLF001 - another thread of the parent's may have held it


os.register_at_fork(after_in_child=_forget_in_child)
atexit.register(Lab.close_current)
