"""Names of addresses by reverse DNS, all at once and within a bound of time."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["is_private", "names_of"]

# RFC 1918, RFC 4193 and link-local addresses: who answers for them is mostly nobody, after a long time.
_PRIVATE = ("10.", "192.168.", "127.", "169.254.", *(f"172.{number}." for number in range(16, 32)), "fc", "fd", "fe80:")


def is_private(address: str) -> bool:
    """Whether an address is of a range that public name servers do not know."""
    return address == "::1" or address.startswith(_PRIVATE)


def names_of(addresses: Iterable[str], seconds: float = 1.0) -> dict[str, str]:
    """Return the names that this machine's resolver has for addresses, as many as come within ``seconds``.

    One thread each: a server that does not answer holds up its own address alone, and the process not at all.
    """
    import threading  # noqa: PLC0415 - not for `-n`

    found: dict[str, str] = {}

    def ask(address: str) -> None:
        try:
            found[address] = socket.gethostbyaddr(address)[0]
        except (OSError, UnicodeError):
            return

    threads = [threading.Thread(target=ask, args=(one,), daemon=True) for one in dict.fromkeys(addresses)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0))
    return dict(found)
