"""Which firewall rule drops a packet in a host of ours: nf_tables' own trace of one more probe."""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import PoorContainerError
from pytest_poorcontainer.probe import nfnetlink

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from pytest_poorcontainer.network import Host
    from pytest_poorcontainer.probe.nfnetlink import Event

__all__ = ["Ruling"]

_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_TABLE = "poor-probe"
_PATIENCE = 0.05  # seconds; the kernel answers within the system call
_BUFFER = 65536


class Ruling:
    """Traces connections between two ports in one host, from :meth:`__enter__` to :meth:`__exit__`.

    ``ports`` are those that the packet has there. ``works`` is False where nf_tables is not in the kernel, or too old.
    """

    def __init__(self, host: Host, ports: tuple[int, int]) -> None:
        """Remember where and what."""
        self._host = host
        self._ports = ports
        self._sock: socket.socket | None = None
        self.works = False

    def __enter__(self) -> Self:
        try:
            self._sock = self._host.socket(socket.AF_NETLINK, socket.SOCK_RAW, nfnetlink.NETLINK_NETFILTER)
            self._sock.bind((0, 0))
            self._sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, nfnetlink.GROUP_TRACE)
            batch, wanted = nfnetlink.tracing_table(_TABLE, self._ports)
            self._sock.send(batch)
            self.works = self._acknowledged(wanted)
        except OSError:
            self.works = False  # no nf_tables, or no right to it: then there is no rule to be named either
        return self

    def __exit__(self, *_: object) -> None:
        sock, self._sock = self._sock, None
        if sock is None:
            return
        if self.works:
            # Removed at once. To close the socket of a table's owner takes a grace period of the kernel's.
            with contextlib.suppress(OSError):
                sock.send(nfnetlink.removal(_TABLE))
        threading.Thread(target=sock.close, daemon=True).start()

    def _received(self, seconds: float) -> bytes:
        assert self._sock is not None  # noqa: S101 - between enter and exit
        poll = select.poll()
        poll.register(self._sock.fileno(), select.POLLIN)
        return self._sock.recv(_BUFFER) if poll.poll(max(seconds, 0) * 1000) else b""

    def _acknowledged(self, wanted: int) -> bool:
        good = 0
        until = time.monotonic() + _PATIENCE
        while good < wanted and time.monotonic() < until:
            more, error = nfnetlink.refusal(self._received(until - time.monotonic()))
            if error:
                return False
            good += more
        return good == wanted

    def find(self, send: Callable[[], None], seconds: float) -> str:
        """Send a probe and return which rule dropped it, in words; "" when none did within ``seconds``."""
        if not self.works:
            return ""
        send()
        hook = ""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            data = self._received(until - time.monotonic())
            for event in nfnetlink.events(data):
                hook = self._hook(event) or hook
                if event.dropped and event.table != _TABLE:
                    return self._told(event, hook)
        return ""

    def _hook(self, event: Event) -> str:
        """Return the hook of the chain, by a socket of its own: answers must not mix with events."""
        with self._host.socket(socket.AF_NETLINK, socket.SOCK_RAW, nfnetlink.NETLINK_NETFILTER) as asking:
            asking.settimeout(_PATIENCE)
            try:
                asking.send(nfnetlink.chain_request(event.family, event.table, event.chain))
                return nfnetlink.hook_of(asking.recv(_BUFFER))
            except OSError:
                return ""

    def _told(self, event: Event, hook: str) -> str:
        where = f"in {self._host.name}" + (f", hook {hook}" if hook else "")
        place = f"table {event.family} {event.table}, chain {event.chain}"
        if event.policy:
            return f"dropped {where}: {place}, by the chain's policy"
        text = self._rule_text(event)
        verb = "rejected" if "reject" in text else "dropped"
        named = f'rule "{text}" (handle {event.handle})' if text else f"the rule of handle {event.handle}"
        return f"{verb} {where}: {place}, {named}"

    def _rule_text(self, event: Event) -> str:
        """Return a rule as nft(8) writes it, "" where that program is not installed."""
        argv = ["nft", "-a", "-s", "list", "chain", event.family, event.table, event.chain]
        try:
            done: subprocess.CompletedProcess[str] = self._host.run(argv, capture_output=True, text=True, timeout=5)
        except (OSError, PoorContainerError, subprocess.TimeoutExpired):
            return ""
        mark = f"# handle {event.handle}"
        for line in done.stdout.splitlines():
            if line.rstrip().endswith(mark):
                return line.strip().removesuffix(mark).strip()
        return ""
