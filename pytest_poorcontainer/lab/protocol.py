"""The words between pytest and the lab: preload/lab/protocol.h in Python.

A message is one ``SOCK_SEQPACKET`` datagram: a header, then fields of a type, a length and a value. Descriptors travel
beside it (unix(7), ``SCM_RIGHTS``). ``preload/lab/README.md`` tells the conversation; a test compares the numbers here
with the header file.

The sockets are ``_socket.socket`` objects on purpose: ``socket.socket`` is what tests replace (pytest-socket forbids
it, ``host.sockets()`` sends it into a host), and that must not reach the line on which we talk to the lab.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from _socket import (
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_CTRUNC,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    MSG_PEEK,
    MSG_TRUNC,
    SCM_CREDENTIALS,
    SCM_RIGHTS,
    SO_RCVTIMEO,
    SO_SNDTIMEO,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    socket,
    socketpair,
)
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from pytest_poorcontainer.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "GONE",
    "Field",
    "File",
    "Keep",
    "Message",
    "Mount",
    "MountFlag",
    "Network",
    "Op",
    "OutOfDescriptors",
    "Socket",
    "close_all",
    "connected",
    "limit_waits",
    "numbers",
    "pack",
    "peek",
    "receive",
    "send",
    "socket_of",
    "unpack",
]

VERSION: Final = 1
INLINE_MAX: Final = 32768
BODY_MAX: Final = 8 << 20
FDS_MAX: Final = 64
FLAG_BODY_IN_FD: Final = 1


class Op(IntEnum):
    """What a message says; ``enum pc_op``."""

    OK = 0
    ERROR = 1
    STARTED = 2
    EXITED = 3
    TREE_DEAD = 4
    CREATE = 16
    END = 17
    MOUNT = 19
    HELPER = 20
    KEEP = 22
    KEPT_LIST = 23
    KEPT_ENTER = 24
    KEPT_END = 25
    ROOTFS = 26
    ROOTFS_END = 27
    LIMIT = 28
    FABRIC = 29
    NETLINK = 30
    EXEC = 32
    SOCKET = 33
    NETNS = 34
    RENAME = 35
    EXPOSE = 36
    OPEN = 37
    PTY = 38
    SIGNAL = 48
    KILL_TREE = 49
    COW = 56
    COW_END = 57
    WIRE_HOSTS = 64
    WIRE_START = 65
    WIRE_SET = 66
    WIRE_COUNT = 67
    WIRE_PROVE = 68
    WIRE_END = 69


class Field(IntEnum):
    """What a field of a message is; ``enum pc_field_type``."""

    STEP = 1
    OBJECT = 2
    ERRNO = 3
    REMEDY = 4
    PID = 5
    LEVEL = 6
    REASON = 7
    IDS = 8
    STATUS = 9
    ID = 10
    NAME = 11
    HOSTS = 12
    NETWORK = 13
    INTERFACE = 14
    MAC = 15
    IP4 = 16
    IP6 = 17
    LINK = 18
    ACTION = 19
    ENDS = 20
    ARG = 21
    ENV = 22
    CWD = 23
    USER = 24
    FD_NUMBER = 25
    FAMILY = 26
    TYPE = 27
    PROTOCOL = 28
    SIGNAL = 29
    TERMINAL = 30
    PORT = 31
    ADDRESS = 32
    ROOTFS = 33
    SOURCE = 34
    TARGET = 35
    KIND = 36
    OPTIONS = 37
    FLAGS = 38
    PATH = 39
    MODE = 40
    CAPABILITIES = 41
    RLIMIT = 42
    VALUE = 43
    SETTING = 44


class Network(IntEnum):
    """Which network namespace a container gets; ``enum pc_network``."""

    OWN = 0
    HOST = 1


class Keep(IntEnum):
    """What is done with the containers of a KEEP; ``enum pc_keep``."""

    PUBLISH = 0
    DETACH = 1


class File(IntEnum):
    """What an OPEN is for; ``enum pc_file``."""

    OPEN = 0
    DIRECTORY = 1
    LINK = 2


class Mount(IntEnum):
    """What a MOUNT does; ``enum pc_mount``."""

    BIND = 0
    TMPFS = 1
    OVERLAY = 2
    DEVPTS = 3
    LOOK = 4
    CHANGE = 5
    RESIZE = 6
    FILL = 7
    UNMOUNT = 8


class MountFlag(IntEnum):
    """How a MOUNT does it; ``enum pc_mount_flag``."""

    READONLY = 1
    NOEXEC = 2
    CLEAR = 4
    RECURSIVE = 8
    INODES = 16
    ITSELF = 32


GONE: Final = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN})  # what a socket says when nobody is there

_HEADER: Final = struct.Struct("=HHHHII")
_FIELD: Final = struct.Struct("=II")
_NUMBER: Final = struct.Struct("=III")
_CREDENTIALS: Final = struct.Struct("=iII")  # struct ucred: pid, uid, gid
_TIMEVAL: Final = struct.Struct("@ll")
_BUFFER: Final = _HEADER.size + INLINE_MAX
_ANCILLARY: Final = CMSG_SPACE(FDS_MAX * 4) + CMSG_SPACE(_CREDENTIALS.size)
_LIMIT_REMEDY: Final = (
    "this process has no file descriptor left: raise the limit (ulimit -n) or close what is no longer needed"
)


class Socket(socket):
    """A socket that is closed quietly when nobody refers to it any more.

    The one that it is made of warns then (ResourceWarning), which is to help authors. Ours are dropped without being
    closed only when an exception of a signal handler's strikes, and that is nobody's mistake.
    """

    __slots__ = ()

    def __del__(self) -> None:
        """Close it; nothing happens when it is closed."""
        self.close()


class OutOfDescriptors(LabError):
    """A message came, but not the descriptors that belong to it: RLIMIT_NOFILE is reached."""

    def __init__(self) -> None:
        """Name the cause and the remedy; the kernel says no more than MSG_CTRUNC."""
        super().__init__("receive descriptors from the lab", "", errno.EMFILE, _LIMIT_REMEDY)


class Message:
    """A message as it came.

    ``fds`` are to be taken out of the list; those that are not are closed with the message. ``pid`` is the process of
    the SCM_CREDENTIALS as this process sees it, 0 when the socket does not ask for them.
    """

    __slots__ = ("fds", "fields", "op", "pid", "request")

    def __init__(self, op: int, request: int, fields: list[tuple[int, bytes]], fds: list[int], pid: int = 0) -> None:
        """Hold the parts."""
        self.op = op
        self.request = request
        self.fields = fields
        self.fds = fds
        self.pid = pid

    def __del__(self) -> None:
        """Close the descriptors that nobody took."""
        close_all(self.fds)

    def number(self, kind: Field, default: int = 0) -> int:
        """Return the first field of this kind as an unsigned integer of whatever width it has."""
        for type_, value in self.fields:
            if type_ == kind:
                return int.from_bytes(value, sys.byteorder)
        return default

    def numbers(self, kind: Field) -> list[int]:
        """Return every field of this kind as unsigned integers."""
        return numbers(self.fields, kind)

    def text(self, kind: Field) -> str:
        """Return the first field of this kind as text, "" when there is none."""
        for type_, value in self.fields:
            if type_ == kind:
                return os.fsdecode(value)
        return ""

    def error(self) -> LabError:
        """Return the exception that an ERROR message tells of."""
        return LabError(
            self.text(Field.STEP) or "do what was asked",
            self.text(Field.OBJECT),
            self.number(Field.ERRNO),
            self.text(Field.REMEDY),
        )


def numbers(fields: Iterable[tuple[int, bytes]], kind: Field) -> list[int]:
    """Return the fields of a kind as unsigned integers."""
    return [int.from_bytes(value, sys.byteorder) for type_, value in fields if type_ == kind]


def pack(fields: Iterable[tuple[int, int | str | bytes]]) -> bytes:
    """Return fields as they go over the line: integers as 32 bits, text in the file system's encoding."""
    parts: list[bytes] = []
    for kind, value in fields:
        if isinstance(value, int):
            parts.append(_NUMBER.pack(kind, 4, value))
        else:
            data = os.fsencode(value)
            parts.append(_FIELD.pack(kind, len(data)))
            parts.append(data)
    return b"".join(parts)


def unpack(body: bytes) -> list[tuple[int, bytes]]:
    """Return the fields of a message's body. Raises :class:`LabError` (EPROTO) when they do not fill it exactly."""
    fields: list[tuple[int, bytes]] = []
    offset, end = 0, len(body)
    while offset < end:
        if end - offset < _FIELD.size:
            raise _misunderstood("a field is cut short")
        kind, length = _FIELD.unpack_from(body, offset)
        offset += _FIELD.size
        if length > end - offset:
            raise _misunderstood(f"a field of type {kind} is longer than its message")
        fields.append((kind, body[offset : offset + length]))
        offset += length
    return fields


def _misunderstood(why: str) -> LabError:
    remedy = f"{why}; is pclab of the same version as this package? Build it again (make build)"
    return LabError("understand", "a message of the lab", errno.EPROTO, remedy)


def connected() -> tuple[Socket, Socket]:
    """Return two joined sockets, ours and the other side's, both close-on-exec and blocking."""
    ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
    return socket_of(ours.detach()), socket_of(theirs.detach())


def socket_of(fd: int) -> Socket:
    """Return a blocking socket object that owns the descriptor."""
    sock = Socket(AF_UNIX, SOCK_SEQPACKET, 0, fd)
    # Not the default timeout that a test may have set with socket.setdefaulttimeout().
    if sock.gettimeout() is not None:
        sock.settimeout(None)
    return sock


def limit_waits(sock: Socket, seconds: int) -> None:
    """Make each send and receive on this socket give up (EAGAIN) after a time: no select(2) for every message."""
    value = _TIMEVAL.pack(seconds, 0)
    sock.setsockopt(SOL_SOCKET, SO_RCVTIMEO, value)
    sock.setsockopt(SOL_SOCKET, SO_SNDTIMEO, value)


def close_all(fds: list[int]) -> None:
    """Close descriptors and empty the list, one by one: none is closed twice, whatever comes in between."""
    while fds:
        os.close(fds.pop())


def send(sock: Socket, op: int, body: bytes = b"", fds: Sequence[int] = (), request: int = 0) -> None:
    """Send one message. The descriptors stay open here.

    Raises OSError as sendmsg(2) does: EPIPE or ECONNRESET when nobody is there any more, EAGAIN after the socket's
    time limit, and E2BIG when the body is longer than BODY_MAX.
    """
    length = len(body)
    if length > BODY_MAX:
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
    if length <= INLINE_MAX:
        _send(sock, _HEADER.pack(VERSION, op, 0, len(fds), request, length), body, fds)
        return
    memory = os.memfd_create("poor-container-message", os.MFD_CLOEXEC)
    try:
        written = 0
        while written < length:
            written += os.pwrite(memory, memoryview(body)[written:], written)
        _send(sock, _HEADER.pack(VERSION, op, FLAG_BODY_IN_FD, len(fds) + 1, request, length), b"", [memory, *fds])
    finally:
        os.close(memory)


def _send(sock: Socket, header: bytes, body: bytes, fds: Sequence[int]) -> None:
    # MSG_NOSIGNAL: a test may have given SIGPIPE back its deadly default.
    if fds:
        rights = (SOL_SOCKET, SCM_RIGHTS, struct.pack(f"={len(fds)}i", *fds))
        sock.sendmsg((header, body), (rights,), MSG_NOSIGNAL)
    else:
        sock.sendmsg((header, body), (), MSG_NOSIGNAL)


def peek(sock: Socket) -> list[tuple[int, bytes]] | None:
    """Wait for a message and return its fields, as far as they are in the datagram; None at the end of file.

    The message stays where it is, for :func:`receive`. Raises as that does.
    """
    try:
        data = sock.recv(_BUFFER, MSG_PEEK)
    except ConnectionResetError:
        data = sock.recv(_BUFFER, MSG_PEEK)  # as in receive()
    if not data:
        return None
    return unpack(data[_HEADER.size :])


def receive(sock: Socket, *, wait: bool = True) -> Message | None:
    """Receive one message; None at the end of file: nobody is there any more.

    Raises BlockingIOError when there is nothing (``wait`` false, or the time limit of :func:`limit_waits` is reached),
    :class:`OutOfDescriptors` when this process may open no more files, :class:`LabError` when it makes no sense.
    """
    flags = MSG_CMSG_CLOEXEC if wait else MSG_CMSG_CLOEXEC | MSG_DONTWAIT
    try:
        data, ancillary, got, _ = sock.recvmsg(_BUFFER, _ANCILLARY, flags)
    except ConnectionResetError:
        # The other side ended with something of ours unread. The kernel says so once, before it hands out what the
        # other side had sent (__skb_try_recv_datagram looks at sk_err first): that may be the news we wait for.
        data, ancillary, got, _ = sock.recvmsg(_BUFFER, _ANCILLARY, flags)
    fds, pid = _take(ancillary)
    if not data:
        return None
    try:
        return _understand(data, fds, pid, got)
    except BaseException:
        close_all(fds)
        raise


def _take(ancillary: list[tuple[int, int, bytes]]) -> tuple[list[int], int]:
    fds: list[int] = []
    pid = 0
    for level, kind, value in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            count = len(value) // 4
            fds.extend(struct.unpack_from(f"={count}i", value))
        elif level == SOL_SOCKET and kind == SCM_CREDENTIALS:
            pid = _CREDENTIALS.unpack_from(value)[0]
    return fds, pid


def _understand(data: bytes, fds: list[int], pid: int, got: int) -> Message:
    if len(data) < _HEADER.size or got & MSG_TRUNC:
        raise _misunderstood("it has the wrong size")
    version, op, flags, count, request, length = _HEADER.unpack_from(data)
    if version != VERSION:
        raise _misunderstood(f"it has version {version}, expected {VERSION}")
    truncated = bool(got & MSG_CTRUNC) or count != len(fds)
    body = data[_HEADER.size :]
    if flags & FLAG_BODY_IN_FD:
        if not fds:
            raise OutOfDescriptors
        body = _read_body(fds[0], length)
        os.close(fds.pop(0))
    if len(body) != length:
        raise _misunderstood(f"its body has {len(body)} bytes, its header says {length}")
    if truncated:
        raise OutOfDescriptors
    return Message(op, request, unpack(body), fds, pid)


def _read_body(fd: int, length: int) -> bytes:
    if length > BODY_MAX:
        raise _misunderstood(f"its body of {length} bytes is longer than {BODY_MAX}")
    parts: list[bytes] = []
    offset = 0
    while offset < length:
        part = os.pread(fd, length - offset, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
    return b"".join(parts)
