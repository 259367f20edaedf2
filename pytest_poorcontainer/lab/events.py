"""What was done to the hosts and their links, and when: the timeline beside which their traffic is read."""

from __future__ import annotations

import collections
from typing import NamedTuple

from pytest_poorcontainer.lab.clock import wall

__all__ = ["Event", "note", "since"]

MOST = 4096


class Event(NamedTuple):
    """What happened (``"a -- b: cut"``) and when, in ns since 1970: the clock of the frames."""

    time: int
    what: str


_events: collections.deque[Event] = collections.deque(maxlen=MOST)


def note(what: str) -> None:
    """Take note of something that was done now. Of very many the oldest are forgotten."""
    _events.append(Event(wall(), what))


def since(when: int) -> list[Event]:
    """Return what was done from then on (ns since 1970), in its order."""
    return [event for event in tuple(_events) if event.time >= when]
