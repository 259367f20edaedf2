"""A probe that knows nothing of the network but what comes back: two waves, and a diagnosis when all is silent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import Unavailable
from pytest_poorcontainer.probe.engine import Engine
from pytest_poorcontainer.probe.facts import distance_of
from pytest_poorcontainer.probe.flow import FULL_TTL, Echo, Flow, Tcp, Udp
from pytest_poorcontainer.probe.local import Ports
from pytest_poorcontainer.probe.packet import ACK, SYN
from pytest_poorcontainer.probe.trace import Tracer
from pytest_poorcontainer.probe.verdict import Verdict, is_forged, judge, loop_of
from pytest_poorcontainer.probe.wire import Wire, packed

if TYPE_CHECKING:
    from typing_extensions import Self

    from pytest_poorcontainer.probe.ask import Ask, Ground
    from pytest_poorcontainer.probe.diagnose import Diagnosis
    from pytest_poorcontainer.probe.engine import Track

__all__ = ["BlackBox"]

_SILENCE = 0.06  # seconds without anything after which more is tried
_ROUNDS = 2
_LIMIT = 1.05  # seconds; a router that limits its errors mostly sends one each second (icmp(7))
_LOOK_BEYOND = 3  # TTLs behind a reset that may be forged


class BlackBox:
    """The sockets and flows of one probe, from ``source`` to ``target`` (addresses as text)."""

    mode = "raw"

    def __init__(self, ground: Ground, ask: Ask, source: str, target: str, port: int, scope: int = 0) -> None:
        """Open what is needed.

        Without CAP_NET_RAW the mode "auto" becomes "unprivileged", and others raise PermissionError. Raises
        :class:`UsageError`, :class:`Unavailable` for flags that only raw sockets can send.
        """
        self.ground = ground
        self.ask = ask
        self.source = source
        self.target = target
        self.port = port
        self.version = 6 if ":" in target else 4
        self.diagnosis: Diagnosis | None = None
        self._ports = Ports(ground.open, source, ask.source_port, scope)
        try:
            self.engine = self._engine(ground, source, scope)
        except BaseException:
            self._ports.close()
            raise
        self.track: Track = self.engine.track(self._flow(source))
        self.track.length = ask.length
        self.tracer = Tracer(self.engine, self.track, ask.limits)

    def _engine(self, ground: Ground, source: str, scope: int) -> Engine:
        if self.ask.mode != "unprivileged":
            try:
                return Engine(Wire(ground.open, self.version, self._ports.span, self.ask.device), scope)
            except PermissionError:
                if self.ask.mode != "auto":
                    raise
        if self.ask.kind == "tcp" and self.ask.flags != SYN:
            raise Unavailable("probing with these TCP flags", "this process has no CAP_NET_RAW", "run it as root")
        from pytest_poorcontainer.probe.unprivileged import UserEngine  # noqa: PLC0415 - the lesser way

        self.mode = "unprivileged"
        return UserEngine(ground.open, source, scope)

    def _flow(self, source: str) -> Flow:
        ask, about = self.ask, (packed(source), packed(self.target))
        ports = (self._ports.first, self.port)
        if ask.kind == "tcp":
            return Tcp(*about, ports, tos=ask.tos, flags=ask.flags, ecn=ask.ecn)
        return Udp(*about, ports, tos=ask.tos) if ask.kind == "udp" else Echo(*about, tos=ask.tos)

    def fresh(self) -> Track:
        """Return a new flow that is like the asked one, from a port of its own: to the target it is another client."""
        flow = self.track.flow
        return self.engine.track(
            Tcp(flow.source, flow.target, (self._ports.another(), self.port), tos=flow.tos, flags=self.ask.flags)
        )

    def fresh_here(self) -> Track:
        """Return a fresh flow whose answers our sockets hear."""
        return self.more_flows(1)[0]

    def more_flows(self, count: int) -> list[Track]:
        """Return so many fresh flows whose answers are heard: as many as there are free ports beside ours."""
        flow = self.track.flow
        ports = self._ports.block(count)
        self.engine.hear((min((self._ports.first, *ports)), max((self._ports.first, *ports))))
        about = (flow.source, flow.target)
        if isinstance(flow, Echo):
            return [self.engine.track(Echo(*about, tos=flow.tos)) for _ in range(count)]
        if isinstance(flow, Udp):
            return [self.engine.track(Udp(*about, (port, self.port), tos=flow.tos)) for port in ports]
        flags = self.ask.flags
        return [self.engine.track(Tcp(*about, (port, self.port), tos=flow.tos, flags=flags)) for port in ports]

    @property
    def flags(self) -> int:
        """The TCP flags of the probes, 0 when they are not TCP."""
        return self.ask.flags if self.ask.kind == "tcp" else 0

    def knock(self, patience: float = _SILENCE) -> bool:
        """Find out whether the target answers, with the first hops; give up after ``patience`` seconds of silence."""
        return self.tracer.knock(patience)

    def run(self) -> Verdict:
        """Probe, and return the verdict."""
        if self.tracer.ended or self.knock():
            return self.answered()
        return self.search()

    def search(self) -> Verdict:
        """Go on after a :meth:`knock` that was not answered, and return the verdict."""
        if self.rounds() or self.late():
            return self.answered()
        return self.silent()

    def rounds(self) -> bool:
        """Try harder for a quarter of a second: all TTLs, other probes, repetitions. Return whether an end is known."""
        if self._kept_in:
            return False
        self.tracer.search()
        if self.ask.diagnose:
            from pytest_poorcontainer.probe.diagnose import Diagnosis  # noqa: PLC0415 - most ports answer

            self.diagnosis = Diagnosis(self.engine, self.track, self._ports)
            self.diagnosis.send()
        if self.tracer.wait(_SILENCE):
            return True
        return loop_of(self.track.facts, self.target) is None and self._insist()

    @property
    def _kept_in(self) -> bool:
        """Whether the kernel here did not let the probes out."""
        return self.engine.refused is not None and not self.track.facts.hops

    def _insist(self) -> bool:
        for _ in range(_ROUNDS):
            self.tracer.again()
            if self.diagnosis is not None and not self.diagnosis.settled():
                self.diagnosis.send()
            if self.tracer.wait(_SILENCE):
                return True
        return False

    def late(self) -> bool:
        """Wait until a router may have given up looking for the target, which takes the kernel three seconds.

        Only where nothing at all came from the target: it may not exist, and "no such host" is another verdict than
        "filtered". Return whether an end is known.
        """
        diagnosis = self.diagnosis
        if diagnosis is None or diagnosis.heard_target or diagnosis.next_hop or self._kept_in:
            return self.tracer.ended
        if loop_of(self.track.facts, self.target):
            return self.tracer.ended
        until = self.track.probes[0][1] + self.ask.patience
        again = time.time() + _LIMIT
        while time.time() < until and not self.tracer.ended and not diagnosis.complained:
            self.engine.pump(0.05)
            if time.time() > again:  # whoever limits its errors has one again
                again += _LIMIT
                self.engine.send(self.track)
        # A complaint about one flow comes with those about the others.
        return self.engine.settle(lambda: self.tracer.ended, 0.02)

    def answered(self) -> Verdict:
        """Complete the path to an end that is known, and return the verdict."""
        self.tracer.rest()
        facts = self.track.facts
        verdict = judge(facts, self.version, self.flags, self.target)
        if verdict.state == "closed" and (is_forged(facts) or facts.guess() is None):
            return self._suspect(verdict)
        return verdict

    def _suspect(self, closed: Verdict) -> Verdict:
        """Look behind a reset that comes from nearer than the target: others may get further."""
        facts = self.track.facts
        last = facts.furthest
        about = (self.track.flow.source, self.track.flow.target)
        others = [self.engine.track(Echo(*about)), self.engine.track(Udp(*about, (self._ports.first, 33434)))]
        for track in others:
            self.engine.send(track)
            for ttl in range(last + 1, last + 1 + _LOOK_BEYOND):
                self.engine.send(track, ttl)

        def done() -> bool:
            ends = (track.facts.furthest > last or track.facts.ended_at() == last + 1 for track in others)
            return any(ends)

        self.engine.settle(done, max(_SILENCE / 2, 3 * self.engine.largest))
        beyond = max((track.facts.furthest for track in others), default=0)
        guess = facts.guess() or last
        far = [end for track in others for end in [track.facts.end] if end is not None and end.address == self.target]
        further = facts.guess() is not None and any(end.reply_ttl and distance_of(end.reply_ttl) > guess for end in far)
        if beyond > last or further:
            router = facts.hops[guess][0].address if guess in facts.hops else ""
            why = f"the reset comes from {guess} hops away, where a router is" + (
                f", and the path goes on to hop {beyond}" if beyond > last else ", and the target is further away"
            )
            return Verdict("rejected", "reset", guess, router, why)
        return closed

    def silent(self) -> Verdict:
        """Return the verdict where no end is known."""
        if self._kept_in:
            why = "a firewall on this side does not let it out (sendto(2) says EPERM)"
            return Verdict("filtered", "", 0, self.source, why)
        facts = self.track.facts
        verdict = judge(facts, self.version, self.flags, self.target)
        diagnosis = self.diagnosis
        if verdict.state == "filtered" and diagnosis is not None:
            if diagnosis.complained and not diagnosis.heard_target:
                return self._complaint(verdict)
            behind = diagnosis.next_hop
            if behind is not None and behind[0] == 0:
                why = "the target answers others: it drops this itself, or the last router does"
                if self.flags and not self.flags & (SYN | ACK):
                    why += "; or the port is open, and does not answer such flags (RFC 9293 3.10.7.2)"
                return verdict._replace(at=0, address=self.target, why=why)
            if behind is not None:
                what = f"port {self.port}" if self.port and self.ask.kind != "icmp" else "this"
                here = f"hop {verdict.at} ({verdict.address})" if verdict.at else "the source"
                why = (
                    f"the probe of {what} passes {here} and dies; others go on to hop {behind[0]} ({behind[1]}): "
                    f"the first or the second drops it"
                )
                return verdict._replace(why=why)
        return verdict

    def _complaint(self, verdict: Verdict) -> Verdict:
        """Return what was said of other flows, where the asked one was beyond the limit on such errors."""
        for track in self.engine.tracks[1:]:
            for end in track.facts.ends:
                if end.kind == "unreachable":
                    told = judge(track.facts, self.version, 0, self.target)
                    if told.state == "unreachable":
                        last = self.track.facts.furthest
                        return told._replace(at=last if verdict.at else told.at)
        return verdict

    def count(self) -> int:
        """Return how many packets were sent."""
        return sum(sum(track.facts.sent.values()) for track in self.engine.tracks)

    @property
    def asked(self) -> int:
        """How many probes that should have reached the target were sent."""
        asked = [track for track in self.engine.tracks if track.flow.is_like(self.track.flow)]
        return sum(track.facts.sent.get(FULL_TTL, 0) for track in asked)

    def close(self) -> None:
        """Close the sockets. Idempotent."""
        self.engine.close()
        self._ports.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
