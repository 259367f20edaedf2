"""A packet of our own that must not arrive: a fault is proved before the test relies on it."""

from __future__ import annotations

import secrets
import select
import socket
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import LabError

if TYPE_CHECKING:
    from pytest_poorcontainer.network.host import Host
    from pytest_poorcontainer.network.ways import Fault

__all__ = ["prove_apart"]

_MARKER = b"poor-container canary"


def prove_apart(fault: Fault, sender: Host, receiver: Host) -> None:
    """End the fault and raise :class:`LabError` when a datagram of the one reaches the other.

    Loopback inside one kernel is synchronous: what is to arrive has arrived when it was sent, so nothing is waited
    for. An instrument that hears nothing proves nothing, so the receiver first hears itself.
    """
    if not sender.cables or not receiver.cables or sender.closed or receiver.closed:
        return
    word = _MARKER + secrets.token_bytes(8)
    with (
        receiver.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear,
        sender.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth,
    ):
        ear.bind((receiver.ip, 0))
        own = receiver.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with own:
            own.sendto(word, ear.getsockname())
        if not select.select([ear], [], [], 1)[0] or ear.recv(64) != word:
            fault.end()
            raise LabError("prove", fault.what, 0, f"{receiver.name} does not hear a datagram of its own")
        try:
            mouth.sendto(word, ear.getsockname())
        except OSError:
            return  # no way at all: it did not arrive
        if select.select([ear], [], [], 0)[0]:
            fault.end()
            raise LabError(
                "prove", fault.what, 0, f"a datagram of {sender.name} has reached {receiver.name} in spite of it"
            )
