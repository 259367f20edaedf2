"""What carries the frames of a cable: the fabric itself, or for delay, loss and the like a relay between its two plugs.

A network asks a :class:`Medium` to carry a :class:`Span`, two interfaces in the lab's fabric (decision 0002) between
which the fabric passes nothing while the medium does. What a host sends arrives at its plug; what is sent out of a plug
reaches its host. A cable to a switch is given a second plug for that time, whose other side is the switch's port.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_poorcontainer.lab import Lab

__all__ = ["Carrier", "Counts", "Flow", "Impairment", "Medium", "Span", "Treatment"]


@dataclass(frozen=True)
class Impairment:
    """What happens to packets that travel one way: times in seconds, shares from 0 to 1, ``rate`` in bit/s.

    0 is "not". ``jitter`` is the half width around ``delay``. ``precise`` may cost a processor.
    """

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    rate: float = 0.0
    precise: bool = False


@dataclass(frozen=True)
class Flow:
    """Which IP packets are concerned: from any of the senders to any of the receivers, addresses packed (4, 16 bytes).

    None is "any". ARP, ND and MLD are of no flow.
    """

    senders: frozenset[bytes] | None = None
    receivers: frozenset[bytes] | None = None


@dataclass(frozen=True)
class Treatment:
    """An impairment of what travels towards end 0 or 1 of a span; of several that fit the first one counts.

    ``only`` None: all frames that are not the kernels' own chatter. ``seed`` decides each packet's fate.
    """

    towards: int
    impairment: Impairment
    seed: int
    only: Flow | None = None


@dataclass(frozen=True)
class Span:
    """The two interfaces to carry between, by their index in the fabric, and what their ends are called.

    ``number`` is the cable's, unique in its lab. ``mtu`` is without the Ethernet header. ``hosts`` says whose the
    addresses are that may be seen here (:func:`~pytest_poorcontainer.network.identity.identities`): they change from
    run to run, and a packet's fate must not.
    """

    lab: Lab
    number: int
    plugs: tuple[int, int]
    names: tuple[str, str]
    mtu: int = 1500
    hosts: Mapping[bytes, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Counts:
    """What happened to the packets towards one end since the medium began.

    ``packets`` have arrived to be carried. ``overrun`` are those that were too many for a rate and its queue.
    ``overflow`` are those that were lost though nobody asked for it, ``refused`` those that the kernel did not take,
    with the errno ``error``: an error when they are not 0. ``down`` met an interface that was unplugged, ``cut`` a
    medium that is silent. Chatter between kernels (ARP, ND, MLD) and canaries are in none of the others.
    """

    packets: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    corrupted: int = 0
    overrun: int = 0
    overflow: int = 0
    refused: int = 0
    down: int = 0
    cut: int = 0
    chatter: int = 0
    canaries: int = 0
    error: int = 0


class Carrier(Protocol):
    """A medium at work on one span. Its end may be noticed at any time: then each call raises what went wrong."""

    @property
    def dead(self) -> bool:
        """Whether it has ended although nobody asked it to: nothing passes any more."""

    def start(self) -> None:
        """Begin to pass frames; called when the fabric has just stopped to. Returns when it is so."""

    def introduce(self, hosts: Mapping[bytes, str]) -> None:
        """Learn whose these addresses are, beside those that are known; for conversations that begin from now on."""

    def change(self, treatments: Sequence[Treatment]) -> None:
        """Treat packets like this from now on; returns when it is in force. Packets under way arrive as they would."""

    def counts(self) -> tuple[Counts, Counts]:
        """Return what happened so far, towards end 0 and towards end 1."""

    def silence(self, ends: int) -> None:
        """Let nothing pass that travels to these ends (a bit mask), and lose what is under way; 0 ends that."""

    def prove(self, sockets: tuple[int, int]) -> None:
        """Send a frame of our own each way, from host to host, and see it come through this carrier, once.

        ``sockets`` are packet sockets (packet(7)) of the two hosts, bound to their interfaces and the ethertype 0x88B5;
        they are closed. No fault strikes such a frame, and none is counted. Raises :class:`LabError`.
        """

    def close(self) -> None:
        """Pass on what is still delayed, at once, and nothing any more. Idempotent.

        Afterwards the fabric takes over. Raises :class:`LabError` when packets were lost that nobody asked for.
        """


class Medium(Protocol):
    """A kind of carrier. ``name`` is what reports show: "wire", ..."""

    name: str

    def carry(self, span: Span, treatments: Sequence[Treatment]) -> Carrier:
        """Return a carrier that is ready to start, and that reads nothing yet of what passes.

        Raises :class:`Unavailable` where this machine cannot do it, :class:`LabError` with the step that failed; then
        nothing of it is left.
        """
