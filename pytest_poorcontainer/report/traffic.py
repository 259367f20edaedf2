"""What the flight recorder has of the hosts of a failed test: frames, as conversations, beside what was done when."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import PoorContainerError
from pytest_poorcontainer.lab.events import Event, since
from pytest_poorcontainer.traffic.conversations import Conversation, conversations
from pytest_poorcontainer.traffic.ladder import Names
from pytest_poorcontainer.traffic.pcapng import Interface
from pytest_poorcontainer.traffic.recorder import SNAPLEN, Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_poorcontainer.report.evidence import NetworkFacts
    from pytest_poorcontainer.traffic.frames import Frame

__all__ = ["Traffic", "listen"]

_NS = 1e9
_LOOKED_AT = 2000  # frames in which conversations are looked for: some 50 ms
_LEAST = 50  # of each interface at least


@dataclass(frozen=True)
class Traffic:
    """What went by between two times.

    ``zero`` is when the attempt began, in ns since 1970; ``frames`` are the newest ones of each of the ``interfaces``,
    which are named as a pcapng file names them; ``trouble`` says why there are none, ``lost`` how many the recorder
    could not take (of all hosts). ``known_since`` says from when on all that came from an address is among the frames,
    for addresses of which it is not all. ``export`` returns all frames that are stored, as blocks of a pcapng file.
    """

    zero: int
    frames: tuple[Frame, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    names: Names = field(default_factory=lambda: Names({}, {}))
    events: tuple[Event, ...] = ()
    lost: int = 0
    trouble: str = ""
    known_since: dict[str, int] = field(default_factory=dict)
    export: Callable[[], bytes] = bytes

    def seconds(self, time: int) -> float:
        """Return a time as seconds since the attempt began."""
        return (time - self.zero) / _NS

    @functools.cached_property
    def conversations(self) -> list[Conversation]:
        """What the frames say to each other."""
        return conversations(self.frames, self.known_since)


def listen(networks: Sequence[NetworkFacts], began: int) -> Traffic | None:
    """Return the traffic of these hosts since an attempt began (ns since 1970); None when nothing is recorded.

    Never raises: what cannot be had is told in its place.
    """
    hosts = [host for network in networks for host in network.hosts]
    events = tuple(event for event in since(began) if any(_is_of(event, network) for network in networks))
    plugged = {index: (host.name, name) for host in hosts for index, name in host.plugs}
    owners = {index: name for index, (name, _) in plugged.items()}
    names = Names({address: host.name for host in hosts for address in host.addresses}, owners, owners)
    interfaces = tuple(
        Interface(index, f"{host} {name}", f"{name} of {host}: what it sends", SNAPLEN)
        for index, (host, name) in plugged.items()
    )
    try:
        recorder = Recorder.current()
        if not plugged or recorder is None:
            return Traffic(began, events=events) if events else None
        recording = recorder.read(plugged, began, max(_LOOKED_AT // len(plugged), _LEAST))
    except PoorContainerError as error:
        return Traffic(began, interfaces=interfaces, names=names, events=events, trouble=str(error))
    return Traffic(
        began,
        tuple(recording.frames),
        interfaces,
        names,
        events,
        recording.lost,
        known_since=_known_since(recording.gaps, names),
        export=lambda: recorder.export(plugged, began),
    )


def _known_since(gaps: Mapping[int, int], names: Names) -> dict[str, int]:
    """Return, for addresses of hosts of which not all frames are there, the time from which on they are."""
    until = {names.interfaces[index]: time for index, time in gaps.items()}
    return {address: until[host] + 1 for address, host in names.addresses.items() if host in until}


def _is_of(event: Event, network: NetworkFacts) -> bool:
    """Return whether an event names a host or a cable; others belong to tests that run beside, or to nobody."""
    words = event.what.replace(":", " ").replace(",", " ").split()
    if any(host.name in words for host in network.hosts):
        return True
    return any(event.what.startswith(f"{names}:") for names, _ in network.links)  # between switches
