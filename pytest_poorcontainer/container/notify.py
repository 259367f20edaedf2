"""The other side of sd_notify(3): a service tells that it is ready.

The socket is made inside the container and bound to an abstract name, which belongs to the container's network: no
file, no mount, and nobody outside can reach it.
"""

from __future__ import annotations

import os
import secrets
import struct
from _socket import (
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_DONTWAIT,
    SCM_CREDENTIALS,
    SCM_RIGHTS,
    SO_PASSCRED,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOL_SOCKET,
)
from typing import TYPE_CHECKING

from pytest_poorcontainer.lab.protocol import Socket

if TYPE_CHECKING:
    from pytest_poorcontainer.lab.handle import Handle

__all__ = ["Notifications"]

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_RETURN = 0x06  # BPF_RET | BPF_K, linux/bpf_common.h
_SIZE = 8192
_FDS = 64
_CREDENTIALS = struct.Struct("=iII")
_ANCILLARY = CMSG_SPACE(_FDS * 4) + CMSG_SPACE(_CREDENTIALS.size)


class Notifications:
    """Receives what the processes of one container tell about one service.

    ``address`` is for NOTIFY_SOCKET. ``ready``: READY=1 was said; ``status`` is the last STATUS=, ``strangers`` counts
    messages of processes that are not in the container, which are not listened to. ``member`` is to become the pid of a
    process that is, as we see it.
    """

    def __init__(self, handle: Handle) -> None:
        """Open the socket."""
        self.address = f"@poor-container/notify/{secrets.token_hex(8)}"
        self.ready = False
        self.status = ""
        self.strangers = 0
        self.member = 0
        self._space = ""
        self._socket = Socket(AF_UNIX, SOCK_DGRAM, 0, handle.agent.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC))
        self._socket.settimeout(None)
        self._socket.setsockopt(SOL_SOCKET, SO_PASSCRED, 1)
        self._socket.bind("\0" + self.address[1:])

    @property
    def fd(self) -> int:
        """The descriptor to poll on."""
        return self._socket.fileno()

    def take(self) -> bool:
        """Read what has come, without waiting; return whether the service is ready."""
        while self._socket.fileno() >= 0:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(_SIZE, _ANCILLARY, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                break
            self._understand(data, ancillary)
        return self.ready

    def _understand(self, data: bytes, ancillary: list[tuple[int, int, bytes]]) -> None:
        pid = 0
        for level, kind, value in ancillary:
            if level == SOL_SOCKET and kind == SCM_RIGHTS:
                # Closing them is the answer that sd_notify_barrier(3) waits for.
                for (fd,) in struct.iter_unpack("=i", value[: len(value) // 4 * 4]):
                    os.close(fd)
            elif level == SOL_SOCKET and kind == SCM_CREDENTIALS:
                pid = _CREDENTIALS.unpack_from(value)[0]
        if not self._is_ours(pid):
            self.strangers += 1
            return
        for line in data.split(b"\n"):
            name, _, value = line.partition(b"=")
            if name == b"READY" and value == b"1":
                self.ready = True
            elif name == b"STATUS":
                self.status = value.decode("utf-8", "replace")

    def _is_ours(self, pid: int) -> bool:
        """Whether the sender is in the container.

        One that has ended already (systemd-notify) is believed: it had our secret name, and our network.
        """
        space = _pid_namespace(pid)
        self._space = self._space or _pid_namespace(self.member)
        if not self._space:
            return pid > 0 and space != _pid_namespace(os.getpid())
        return pid > 0 and space in (self._space, "")

    def deafen(self) -> None:
        """Have the kernel drop what else comes: or a service that goes on to tell its status would block one day."""
        # The one instruction says "keep 0 bytes". af_unix tells the sender that all went well (unix_dgram_sendmsg).
        program = bytearray(struct.pack("=HBBI", _RETURN, 0, 0, 0))
        import ctypes  # noqa: PLC0415 - the address of the instruction is asked for nowhere else

        address = ctypes.addressof((ctypes.c_char * len(program)).from_buffer(program))
        self._socket.setsockopt(SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", 1, address))
        self.take()

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self._socket.close()


def _pid_namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115 - proc(5)
    except OSError:
        return ""
