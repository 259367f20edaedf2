"""What other probes show when nothing answers the one that was asked for: another port, ACK, UDP and echo requests.

They go out in the same wave, to the hops behind the last one that answered. Whoever of them gets further tells that the
path goes on, and so where the first one was dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_poorcontainer.probe.flow import Echo, Tcp, Udp
from pytest_poorcontainer.probe.packet import ACK, SYN, flags_text
from pytest_poorcontainer.probe.wire import text

if TYPE_CHECKING:
    from pytest_poorcontainer.probe.engine import Engine, Track
    from pytest_poorcontainer.probe.flow import Flow
    from pytest_poorcontainer.probe.local import Ports

__all__ = ["Diagnosis"]

_BEYOND = 3  # TTLs behind the last hop that answered
_OTHER_PORTS = (443, 80)
_UDP_PORT = 33434  # traceroute(8)'s first


class Diagnosis:
    """The other flows of a trace, and what they add up to. ``asked`` is the flow without an answer."""

    def __init__(self, engine: Engine, asked: Track, ports: Ports) -> None:
        """Choose the flows; nothing is sent."""
        self._engine = engine
        self._asked = asked
        flow = asked.flow
        self._tracks: list[tuple[str, Track]] = []
        first = ports.first
        about = (flow.source, flow.target)
        if isinstance(flow, Tcp):
            other = next(port for port in _OTHER_PORTS if port != flow.ports[1])
            self._take(f"{flags_text(flow.flags)} to port {other}", Tcp(*about, (first, other), flags=flow.flags))
            second = ports.second()
            if second is not None and flow.flags & SYN:
                self._take(f"ACK to port {flow.ports[1]}", Tcp(*about, (second, flow.ports[1]), flags=ACK))
        else:
            self._take("SYN to port 443", Tcp(*about, (first, 443)))
        if not isinstance(flow, Echo):
            self._take("an echo request", Echo(*about))
        if not isinstance(flow, Udp):
            self._take(f"UDP to port {_UDP_PORT}", Udp(*about, (first, _UDP_PORT)))

    def _take(self, name: str, flow: Flow) -> None:
        self._tracks.append((name, self._engine.track(flow)))

    def send(self) -> None:
        """Send each flow's full probe, and some to the hops around the place where the asked one ends."""
        last = self._asked.facts.furthest
        for _, track in self._tracks:
            if not track.facts.ends:
                self._engine.send(track)
            for ttl in range(max(last, 1), last + _BEYOND + 1):
                if ttl not in track.facts.hops:
                    self._engine.send(track, ttl)

    @property
    def heard_target(self) -> bool:
        """Whether the target itself answered any of them."""
        return any(self._reached(track) for _, track in self._tracks)

    @property
    def complained(self) -> bool:
        """Whether somebody said of any of them that the host or the network is not there."""
        return any(seen.kind == "unreachable" for _, track in self._tracks for seen in track.facts.ends)

    def settled(self) -> bool:
        """Whether each of them has its last answer."""
        return all(track.facts.ends or not track.facts.sent for _, track in self._tracks)

    def _reached(self, track: Track) -> bool:
        target = text(track.flow.target)
        return any(seen.address == target and seen.kind != "exceeded" for seen in track.facts.ends)

    @property
    def next_hop(self) -> tuple[int, str] | None:
        """The TTL and address of who comes behind the last hop that answered the asked flow, if others show it.

        The target itself has TTL 0.
        """
        last = self._asked.facts.furthest
        for _, track in self._tracks:
            behind = track.facts.hops.get(last + 1)
            if behind:
                return last + 1, behind[0].address
        for _, track in self._tracks:
            if self._reached(track) and (track.facts.ended_at() or track.facts.guess() or 99) == last + 1:
                return 0, next(seen.address for seen in track.facts.ends)
        return None

    def lines(self) -> list[str]:
        """Return what each of the other flows shows, a sentence each."""
        last = self._asked.facts.furthest
        told = []
        for name, track in self._tracks:
            facts = track.facts
            if not facts.sent:
                continue  # of a kind that cannot be sent here
            if self._reached(track):
                told.append(f"{name} reaches the target: {self._answer(track)}")
            elif facts.ends:
                told.append(f"{name} ends with ICMP from {facts.ends[0].address}")
            elif facts.furthest > last:
                told.append(f"{name} gets to hop {facts.furthest} ({facts.hops[facts.furthest][0].address})")
            else:
                told.append(f"{name} gets no further")
        return told

    def _answer(self, track: Track) -> str:
        end = track.facts.end
        if end is None:
            return "?"
        if end.kind == "tcp":
            return flags_text(end.flags)
        return {"echo": "an echo reply", "udp": "a datagram"}.get(end.kind, "ICMP port unreachable")
