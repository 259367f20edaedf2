"""What a probe found out: a value that can be compared, asserted on, printed, and written to a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.probe.hop import Hop, Hops, equals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_poorcontainer.probe.verdict import Finding

__all__ = ["Place", "ProbeResult"]


class Place(NamedTuple):
    """Where a packet's fate was decided: ``ttl`` hops away (0: the target), at ``address``, by ``host`` of ours."""

    ttl: int
    address: str
    name: str = ""
    host: object = None

    def __eq__(self, other: object) -> bool:
        """Compare with a place, a host, a name or an address."""
        if isinstance(other, Place):
            return self.address == other.address
        return equals(self.address or None, self.name, self.host, other)

    def __ne__(self, other: object) -> bool:
        """Say the opposite of equality; a tuple's own would compare the parts."""
        return not self == other

    def __hash__(self) -> int:
        """Hash the address."""
        return hash(self.address)

    def __str__(self) -> str:
        """Return "r2 (10.9.2.2)"."""
        return (
            f"{self.name} ({self.address})"
            if self.name and self.address not in ("", self.name)
            else self.address or self.name or "?"
        )


class ProbeResult:
    """The result of one probe.

    ``state`` is "open", "closed", "filtered", "rejected", "unreachable", "loop" or (UDP, ICMP, ACK) "reached", with a
    property of the same name each; ``code`` says how it was rejected ("admin", "port", "host", "reset"...). ``hops``
    are the routers on the way, without the target; ``at`` where it was decided, and ``candidates`` all places that are
    possible when that is not ``sure``. ``rtt`` of the target in seconds, ``distance`` in hops (None: not known).

    ``findings`` are what was odd on the way, ``evidence`` what other probes showed, ``rule`` the firewall rule that
    dropped or rejected (networks of ours). ``mode`` is "raw", "unprivileged" or "white-box"; ``sent`` and ``seconds``
    what the probe cost.
    """

    def __init__(self, **about: Any) -> None:  # the fields below; made by probe() alone
        """Take the parts."""
        self.protocol: str = about["protocol"]
        self.source: str = about["source"]
        self.target: str = about["target"]
        self.target_name: str = about.get("target_name", "")
        self.port: int | None = about.get("port")
        self.state: str = about["state"]
        self.code: str = about.get("code", "")
        self.why: str = about.get("why", "")
        self.at: Place | None = about.get("at")
        self.candidates: list[Place] = about.get("candidates", [])
        self.sure: bool = about.get("sure", True)
        self.hops: Hops = about.get("hops", Hops())
        self.distance: int | None = about.get("distance")
        self.rtts: list[float] = about.get("rtts", [])
        self.findings: list[Finding] = about.get("findings", [])
        self.evidence: list[str] = about.get("evidence", [])
        self.rule: str = about.get("rule", "")
        self.seen_in: list[str] = about.get("seen_in", [])
        self.mode: str = about.get("mode", "raw")
        self.sent: int = about.get("sent", 0)
        self.asked: int = about.get("asked", 0)
        self.seconds: float = about.get("seconds", 0.0)
        self.exchange: list[tuple[float, bytes]] = about.get("exchange", [])
        self.mtu: Any = about.get("mtu")
        self.graph: Any = about.get("graph")
        self.final_mark: str = about.get("final_mark", "")

    @property
    def open(self) -> bool:
        """Whether a SYN+ACK came (UDP: a datagram)."""
        return self.state == "open"

    @property
    def closed(self) -> bool:
        """Whether the target itself refused with a reset."""
        return self.state == "closed"

    @property
    def filtered(self) -> bool:
        """Whether nothing came back although routers on the way answer."""
        return self.state == "filtered"

    @property
    def rejected(self) -> bool:
        """Whether somebody said that it is not allowed: an ICMP error, or a reset that is not the target's."""
        return self.state == "rejected"

    @property
    def unreachable(self) -> bool:
        """Whether somebody said that there is no way, or no such host."""
        return self.state == "unreachable"

    @property
    def loop(self) -> bool:
        """Whether packets go round in a circle."""
        return self.state == "loop"

    @property
    def reached(self) -> bool:
        """Whether the target answered at all."""
        return self.state in ("open", "closed", "reached")

    @property
    def rtt(self) -> float | None:
        """The least round trip time to the end of the path, in seconds; None when nothing came."""
        return min(self.rtts, default=None)

    @property
    def rate_limited(self) -> list[Hop]:
        """The hops that were silent because their router limits its answers."""
        return [hop for hop in self.hops if hop.limited]

    @property
    def packets(self) -> Any:
        """The exchange as a scapy ``PacketList``; the first use imports scapy, which takes a while."""
        from pytest_poorcontainer.probe.dissect import packets  # noqa: PLC0415 - loads scapy

        return packets(self.exchange)

    def found(self, what: str) -> Finding | None:
        """Return the first finding of this kind ("id", "dnat", "sequence", "mss", ...), None without one."""
        return next((one for one in self.findings if one.what == what), None)

    def json(self) -> dict[str, Any]:
        """Return all of it as plain dicts, lists, text and numbers; times in milliseconds."""
        place = self.at
        return {
            "protocol": self.protocol,
            "source": self.source,
            "target": self.target,
            "target_name": self.target_name or None,
            "port": self.port,
            "state": self.state,
            "code": self.code or None,
            "why": self.why,
            "at": None if place is None else {"ttl": place.ttl, "address": place.address, "name": place.name or None},
            "candidates": [str(one) for one in self.candidates],
            "sure": self.sure,
            "rule": self.rule or None,
            "distance": self.distance,
            "rtt_ms": None if self.rtt is None else round(self.rtt * 1000, 3),
            "hops": [hop.json() for hop in self.hops],
            "findings": [{"what": one.what, "hop": one.ttl, "text": one.text} for one in self.findings],
            "evidence": self.evidence,
            "mode": self.mode,
            "sent": self.sent,
            "seconds": round(self.seconds, 6),
            "mtu": None if self.mtu is None else self.mtu.json(),
            "graph": None if self.graph is None else self.graph.json(),
        }

    def pcap(self, path: Any) -> None:
        """Write the packets that were sent and received to a file that Wireshark reads, with their times.

        Raises OSError, :class:`UsageError` after an unprivileged probe.
        """
        from pytest_poorcontainer.probe.pcap import write  # noqa: PLC0415 - few ask for it

        if self.mode == "unprivileged":
            raise UsageError("an unprivileged probe sees no packets: probe from a host of ours, or with CAP_NET_RAW")
        write(path, self.exchange)

    def assert_path(self, *path: object) -> None:
        """Assert that the path is this one: hosts, addresses, names; None for a silent hop, "*" for any.

        It may end with the target. Raises AssertionError with the path that was found.
        """
        from pytest_poorcontainer.probe.told import failure  # noqa: PLC0415 - it makes texts

        found: Sequence[object] = list(self.hops)
        target = Place(0, self.target, self.target_name)
        wanted = list(path)
        if wanted and len(wanted) == len(found) + 1 and target == wanted[-1]:
            wanted.pop()
        if Hops(self.hops) != wanted:
            shown = ", ".join(str(getattr(one, "name", one)) for one in wanted)
            raise AssertionError(failure(self, f"the path {shown}"))

    def assert_rtt(self, max_ms: float) -> None:
        """Assert that the end answered within so many milliseconds."""
        from pytest_poorcontainer.probe.told import failure  # noqa: PLC0415 - as above

        if self.rtt is None or self.rtt * 1000 > max_ms:
            raise AssertionError(failure(self, f"an answer within {max_ms} ms"))

    def assert_no_nat(self) -> None:
        """Assert that nothing on the way was seen to translate addresses or ports."""
        from pytest_poorcontainer.probe.told import failure  # noqa: PLC0415 - as above

        if any(self.found(what) for what in ("dnat", "source address", "target address", "source port", "target port")):
            raise AssertionError(failure(self, "no address translation"))

    def assert_single_path(self) -> None:
        """Assert that all flows take one way; the probe must have been made with ``mda=``."""
        if self.graph is None:
            raise UsageError("this probe did not look for several ways: probe with mda=True")
        if len(self.graph.paths) > 1:
            raise AssertionError(f"expected one way to {self.target}, there are {self.graph}")

    def __eq__(self, other: object) -> bool:
        """Compare with a result, or with a dict: each of its keys must be an attribute with an equal value."""
        if isinstance(other, ProbeResult):
            return self.json() == other.json()
        if isinstance(other, dict):
            return all(getattr(self, str(key), _NOTHING) == value for key, value in other.items())
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def matches(self, wanted: Mapping[str, object]) -> list[str]:
        """Return the keys of ``wanted`` whose value is another one here."""
        return [key for key, value in wanted.items() if getattr(self, key, _NOTHING) != value]

    @property
    def summary(self) -> str:
        """One line: "tcp 10.9.0.1 -> 10.9.10.2:83 is FILTERED at r6 (10.9.5.2)"."""
        from pytest_poorcontainer.probe.told import summary  # noqa: PLC0415 - as above

        return summary(self)

    @property
    def explanation(self) -> str:
        """The verdict and what it rests on, without the path."""
        from pytest_poorcontainer.probe.told import explanation  # noqa: PLC0415 - as above

        return explanation(self)

    def __repr__(self) -> str:
        """Tell verdict and path in one line, so that a bare ``assert p.open`` explains itself."""
        from pytest_poorcontainer.probe.told import path_line  # noqa: PLC0415 - as above

        return f"<{self.summary} | {path_line(self)}>"

    def __str__(self) -> str:
        """Tell all that was found out."""
        from pytest_poorcontainer.probe.told import explain  # noqa: PLC0415 - as above

        return explain(self)


_NOTHING = object()
