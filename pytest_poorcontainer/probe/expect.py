"""Expectations about a probe, each of which fails with the path, the verdict and the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_poorcontainer.probe.told import failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_poorcontainer.probe.result import ProbeResult

__all__ = ["Expectation"]

_FAMILIES = {"admin": {"admin", "net-admin", "host-admin", "policy"}}
"""Codes that one word stands for."""


class Expectation:
    """What is expected of a probe. Each method probes, returns the result, or raises AssertionError."""

    def __init__(self, probe: Callable[[], ProbeResult], keep: Callable[[ProbeResult], str] | None = None) -> None:
        """Remember how to probe; nothing is sent before a method is called.

        ``keep`` is called with a result that is not as expected; what it returns is the message's last line.
        """
        self._probe = probe
        self._keep = keep

    def _check(self, states: tuple[str, ...], at: object = None, code: str | None = None) -> ProbeResult:
        __tracebackhide__ = True
        result = self._probe()
        wanted = " or ".join(states) + (f" ({code})" if code else "")
        if at is not None:
            wanted += f" at {getattr(at, 'name', at)}"
        right = result.state in states and (code is None or result.code in _FAMILIES.get(code, {code}))
        if right and at is not None:
            places = [result.at] if result.sure or not result.candidates else result.candidates
            right = any(place == at for place in places if place is not None)
        if not right:
            kept = self._keep(result) if self._keep is not None else ""
            raise AssertionError(failure(result, wanted) + (f"\n{kept}" if kept else ""))
        return result

    def open(self) -> ProbeResult:
        """Expect that the port is open."""
        __tracebackhide__ = True
        return self._check(("open",))

    def closed(self) -> ProbeResult:
        """Expect that the target itself refuses with a reset."""
        __tracebackhide__ = True
        return self._check(("closed",))

    def filtered(self, at: object = None) -> ProbeResult:
        """Expect silence, ``at`` this host, name or address.

        In networks of ours the place is known for certain. Elsewhere two places can be meant, the last hop that answers
        and the one behind it; either will do.
        """
        __tracebackhide__ = True
        return self._check(("filtered",), at)

    def rejected(self, code: str | None = None, at: object = None) -> ProbeResult:
        """Expect that somebody says no: an ICMP error, or a reset that is not the target's (``code="reset"``).

        ``code`` is "admin", "port", "proto", "reset", ... (docs/tcp-probe.md); "host" and "net" can be said by a
        firewall as well, and are accepted here too when they are asked for.
        """
        __tracebackhide__ = True
        return self._check(("rejected",) if code is None else ("rejected", "unreachable"), at, code)

    def unreachable(self, code: str | None = None, at: object = None) -> ProbeResult:
        """Expect that somebody says that there is no way (``code="net"``) or no such host ("host")."""
        __tracebackhide__ = True
        return self._check(("unreachable",), at, code)

    def loop(self) -> ProbeResult:
        """Expect that packets go round in a circle."""
        __tracebackhide__ = True
        return self._check(("loop",))
