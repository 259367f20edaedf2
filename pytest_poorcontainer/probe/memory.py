"""What earlier probes have learnt about routers: one that answered and is silent now limits its answers.

Linux answers six times in a row and then once a second for each who asks (icmp(7), icmp_ratelimit); others do alike. A
single probe cannot tell that from a router that never answers.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pytest_poorcontainer.probe.verdict import Finding

if TYPE_CHECKING:
    from pytest_poorcontainer.probe.hop import Hops

__all__ = ["Memory"]

_FORGET = 60.0  # seconds; a path may change
_PATHS = 1000


class Memory:
    """Remembers, for each pair of addresses, who answered at which TTL."""

    def __init__(self) -> None:
        """Remember nothing."""
        self._paths: dict[tuple[str, str], dict[int, tuple[str, float]]] = {}

    def learn(self, source: str, target: str, hops: Hops) -> list[Finding]:
        """Take a path in, mark in it the hops that are silent because of a limit, and return a finding about them."""
        now = time.monotonic()
        if len(self._paths) > _PATHS:
            self._paths.clear()
        known = self._paths.setdefault((source, target), {})
        limited = []
        for hop in hops:
            if hop.address is not None:
                known[hop.ttl] = (hop.address, now)
                continue
            address, when = known.get(hop.ttl, ("", 0.0))
            if address and now - when < _FORGET:
                hop.limited, hop.known = True, address
                limited.append(hop)
        if not limited:
            return []
        names = ", ".join(f"{hop.ttl} ({hop.known})" for hop in limited)
        one = len(limited) == 1
        text = (
            f"hop{'' if one else 's'} {names} answered before: {'it is' if one else 'they are'} rate limited, not lost"
        )
        return [Finding("rate limited", limited[0].ttl, text)]
