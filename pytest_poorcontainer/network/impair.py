"""What happens to the packets of a link, in layers: each ``impair()`` is one, and the last that says a thing counts."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from pytest_poorcontainer.errors import PoorContainerError, UsageError
from pytest_poorcontainer.lab.events import note
from pytest_poorcontainer.network.medium import Impairment, Treatment
from pytest_poorcontainer.network.units import parse_rate, parse_share, parse_time
from pytest_poorcontainer.network.wire import wire

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from pytest_poorcontainer.network.medium import Carrier, Counts, Flow, Span

__all__ = ["Impaired", "Impairments", "Splice", "parse_impairment"]

BOTH = (0, 1)
SEED = 0


def parse_impairment(
    *,
    delay: float | str | None = None,
    jitter: float | str | None = None,
    loss: float | str | None = None,
    duplicate: float | str | None = None,
    reorder: float | str | None = None,
    corrupt: float | str | None = None,
    rate: float | str | None = None,
    precise: bool = False,
) -> dict[str, float | bool]:
    """Return what these arguments of ``impair()`` say, by name; what is None is not said. Raises UsageError."""
    said: dict[str, float | bool] = {}
    for name, value in (("delay", delay), ("jitter", jitter)):
        if value is not None:
            said[name] = parse_time(value, name)
    for name, value in (("loss", loss), ("duplicate", duplicate), ("reorder", reorder), ("corrupt", corrupt)):
        if value is not None:
            said[name] = parse_share(value, name)
    if rate is not None:
        said["rate"] = parse_rate(rate, "rate")
    if not isinstance(precise, bool):
        raise UsageError(f"precise is True or False, not {precise!r}")
    if precise:
        said["precise"] = True
    if not said:
        raise UsageError("impair() needs to know what: delay=, jitter=, loss=, duplicate=, reorder=, corrupt= or rate=")
    return said


def _check_seed(seed: int | None) -> int | None:
    if isinstance(seed, bool) or not isinstance(seed, int | None):
        raise UsageError(f"seed is an int, not {seed!r}")
    return seed


class Splice(Protocol):
    """What a carrier is put into: a link."""

    def span(self) -> Span:
        """Return what is to be carried."""

    def hosts(self) -> Mapping[bytes, str]:
        """Return whose packets may pass, by their addresses."""

    def detach(self) -> None:
        """Stop the fabric from passing frames by itself; returns when it is so."""

    def attach(self) -> None:
        """Let the fabric pass frames by itself again, unless another fault forbids it."""

    def prove(self, carrier: Carrier) -> None:
        """Prove by a canary that frames go through the carrier, if any can go at all."""


class Impaired:
    """One layer: in force until the end of its block, or until :meth:`end`. ``said`` is what it says.

    ``seed`` is None for one that leaves it to the layer below, or to :data:`SEED` where none has any.
    """

    def __init__(
        self,
        owner: Impairments,
        said: dict[str, float | bool],
        seed: int | None,
        ends: Mapping[int, Flow | None],
    ) -> None:
        """Say what is to happen to packets towards these ends, to those of a flow only or to all; not in force yet."""
        self._owner = owner
        self.said = said
        self.seed = seed
        self.ends = dict(ends)
        self.of = ""
        """What is impaired, for the notes of its change and its end; "" where its owner makes them."""

    def change(
        self,
        *,
        delay: float | str | None = None,
        jitter: float | str | None = None,
        loss: float | str | None = None,
        duplicate: float | str | None = None,
        reorder: float | str | None = None,
        corrupt: float | str | None = None,
        rate: float | str | None = None,
    ) -> None:
        """Say these things anew, while traffic goes on; what is left out stays. Raises as ``impair()`` does."""
        said = parse_impairment(
            delay=delay, jitter=jitter, loss=loss, duplicate=duplicate, reorder=reorder, corrupt=corrupt, rate=rate
        )
        self._owner.change(self, {**self.said, **said})
        self.note()

    def note(self, more: str = "") -> None:
        """Take note of what it says, for reports."""
        if self.of:
            note(f"{self.of}: {self!r}{more}")

    @property
    def counts(self) -> tuple[Counts, Counts]:
        """What has happened to packets towards the first end and towards the second, since the link was impaired."""
        return self._owner.counts()

    @property
    def active(self) -> bool:
        """Whether it is in force."""
        return self._owner.has(self)

    def end(self) -> None:
        """Take it out of force. Idempotent. Raises :class:`WireOverflow`, :class:`WireDied`: then it is out too."""
        if self.active:
            try:
                self._owner.remove(self)
            finally:
                self.note(": over")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def __repr__(self) -> str:
        """Say what it does."""
        said = ", ".join(f"{name}={value:g}" for name, value in self.said.items())
        seed = "" if self.seed is None else f", seed={self.seed}"
        return f"<Impaired {said}{seed}>"


class Impairments:
    """All layers of one link, and the carrier while there is one. Safe to use from several threads at once."""

    def __init__(self, splice: Splice, lock: contextlib.AbstractContextManager[object]) -> None:
        """Begin without any. ``lock`` is the fabric's: who ends a layer does not while another closes the network."""
        self._splice = splice
        self._lock = lock
        self._layers: list[Impaired] = []
        self.carrier: Carrier | None = None
        self._last: tuple[Counts, Counts] | None = None

    @property
    def dead(self) -> bool:
        """Whether the carrier has died: then nothing passes."""
        return self.carrier is not None and self.carrier.dead

    def effective(self) -> dict[int, Impairment]:
        """Return what is in force, by the end that packets travel to."""
        return {one.towards: one.impairment for one in _possible(self._treatments(self._layers)) if one.only is None}

    def add(self, said: dict[str, float | bool], seed: int | None, ends: Mapping[int, Flow | None]) -> Impaired:
        """Put a layer over the others, towards these ends, for flows or (None) for all packets.

        Raises :class:`UsageError`, :class:`LabError`; then all is as it was.
        """
        layer = Impaired(self, said, _check_seed(seed), ends)
        with self._lock:
            layers = [*self._layers, layer]
            _check_jitter(self._treatments(layers))
            self._put(layers)
        return layer

    def change(self, layer: Impaired, said: dict[str, float | bool]) -> None:
        """Let a layer say something else."""
        with self._lock:
            if layer not in self._layers:
                raise PoorContainerError(f"cannot change {layer}: it has ended")
            before, layer.said = layer.said, said
            try:
                _check_jitter(self._treatments(self._layers))
                self._put(self._layers)
            except BaseException:
                layer.said = before
                raise

    def has(self, layer: Impaired) -> bool:
        """Whether a layer is one of them."""
        return layer in self._layers

    def remove(self, layer: Impaired) -> None:
        """Take a layer away, whatever is raised; with the last one the carrier goes."""
        with self._lock:
            if layer in self._layers:
                self._layers = [one for one in self._layers if one is not layer]
                self._put(self._layers)

    def clear(self) -> None:
        """Take all of them away."""
        with self._lock:
            if self._layers:
                self._put([])

    def introduce(self) -> None:
        """Tell the carrier, where there is one, whose packets may pass now: there are more hosts."""
        with self._lock:
            if self.carrier is not None and not self.carrier.dead:  # who uses the link is told that it is dead
                self.carrier.introduce(self._splice.hosts())

    def counts(self) -> tuple[Counts, Counts]:
        """Return what has happened, also when it is over. Raises :class:`WireDied`."""
        if self.carrier is not None:
            return self.carrier.counts()
        if self._last is None:
            raise PoorContainerError("there are no counts: nothing was carried")
        return self._last

    def abandon(self) -> Exception | None:
        """End the carrier of a link whose hosts are about to be closed; return what is to be told."""
        with self._lock:
            carrier, self.carrier = self.carrier, None
            self._layers = []
        if carrier is None:
            return None
        try:
            carrier.close()
        except PoorContainerError as error:
            return error
        return None

    def _put(self, layers: list[Impaired]) -> None:
        if not layers:
            self._layers = []
            self._stop()
        elif self.carrier is None:
            self._start(_possible(self._treatments(layers)))
        else:
            self.carrier.change(_possible(self._treatments(layers)))
        self._layers = layers

    def _start(self, treatments: Sequence[Treatment]) -> None:
        carrier = wire().carry(self._splice.span(), treatments)
        try:
            self._splice.detach()
            carrier.start()
            self._splice.prove(carrier)
        except BaseException:
            with contextlib.suppress(PoorContainerError):
                carrier.close()
            self._splice.attach()
            raise
        self.carrier = carrier

    def _stop(self) -> None:
        carrier, self.carrier = self.carrier, None
        if carrier is None:
            return
        try:
            carrier.close()
        finally:
            with contextlib.suppress(PoorContainerError):  # of a wire that has died there are none
                self._last = carrier.counts()
            self._splice.attach()

    def _treatments(self, layers: Sequence[Impaired]) -> list[Treatment]:
        """Return them for the carrier, of which the first that fits counts: those for flows before those for all."""
        made = []
        for towards in BOTH:
            concerned = [layer for layer in layers if towards in layer.ends]
            flows = dict.fromkeys(flow for layer in reversed(concerned) if (flow := layer.ends[towards]) is not None)
            whole = [None] if any(layer.ends[towards] is None for layer in concerned) else []
            for flow in (*flows, *whole):
                some = [layer for layer in concerned if layer.ends[towards] in (None, flow)]
                seeds = [layer.seed for layer in some if layer.seed is not None]
                made.append(Treatment(towards, _added(some), seeds[-1] if seeds else SEED, flow))
        return made


def _added(layers: Sequence[Impaired]) -> Impairment:
    said = Impairment()
    for layer in layers:
        said = replace(said, **layer.said)  # type: ignore[arg-type]
    return said


def _possible(treatments: Sequence[Treatment]) -> list[Treatment]:
    """Return them with no more jitter than delay: where the layer that said the delay has ended first."""
    return [
        replace(one, impairment=replace(one.impairment, jitter=min(one.impairment.jitter, one.impairment.delay)))
        for one in treatments
    ]


def _check_jitter(treatments: Sequence[Treatment]) -> None:
    for said in (treatment.impairment for treatment in treatments):
        if said.jitter > said.delay:
            raise UsageError(
                f"jitter of {said.jitter:g} s is more than the delay of {said.delay:g} s: "
                "a packet cannot arrive before it was sent; ask for a delay that is at least as long"
            )
