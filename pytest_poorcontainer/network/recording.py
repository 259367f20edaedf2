"""Which recorder a network's hosts have, and where in the lab's fabric their frames are seen."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import PoorContainerError, UsageError
from pytest_poorcontainer.lab.sizes import parse_size
from pytest_poorcontainer.network.host import INTERFACE
from pytest_poorcontainer.traffic.recorder import SIZE, Recorder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_poorcontainer.lab import Lab
    from pytest_poorcontainer.network.host import Host

__all__ = ["await_recorder", "plug", "retire", "start_recorder", "stored"]

_LEAST = 4096
_FIRST_PLUG = 1000  # link_plug_index() of preload/lab/link.c


def stored(record: bool | int | str) -> int:
    """Return how many bytes of frames are to be kept of each interface, 0: none.

    True or "on" are the usual number. Raises :class:`UsageError` for what is no size and for less than a few frames.
    """
    if record in (True, "on"):
        return SIZE
    if record in (False, "off"):
        return 0
    size = parse_size(record, "record")
    if size < _LEAST:
        raise UsageError(f"record is on, off or at least {_LEAST} bytes of frames for each interface, not {record!r}")
    return size


def start_recorder(lab: Lab, size: int = SIZE) -> None:
    """Let a lab's frames be recorded from a few milliseconds later on, ``size`` bytes of each interface.

    A machine that cannot do it has its tests all the same; who asks for the frames is told what went wrong.
    """
    with contextlib.suppress(PoorContainerError):
        Recorder.of(lab, size)


def await_recorder(lab: Lab) -> None:
    """Wait until frames are recorded: once a lab, for some 10 ms, as hosts are made meanwhile less."""
    recorder = Recorder.find(lab)
    if recorder is not None:
        with contextlib.suppress(PoorContainerError):
            recorder.ready()


def plug(link: int, hosts: Sequence[Host]) -> None:
    """Tell the hosts of a link where in the fabric their ends of it are."""
    for end, host in enumerate(hosts):
        host.plugs = (*host.plugs, (_FIRST_PLUG + 2 * link + end, INTERFACE))


def retire(hosts: Sequence[Host]) -> None:
    """Let the recorder forget the frames of closed hosts, when nobody can want them any more."""
    for host in hosts:
        recorder = Recorder.find(host._handle.lab)  # noqa: SLF001 - ours
        if recorder is not None and host.plugs:
            recorder.retire([index for index, _ in host.plugs])
