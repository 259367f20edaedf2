"""A look at containers while they are alive: what a report is made of when they are gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pytest_poorcontainer.container import Container
    from pytest_poorcontainer.container.service import Service
    from pytest_poorcontainer.network import Link

__all__ = ["Group", "HostFacts", "NetworkFacts", "ServiceFacts", "is_well", "look", "look_back"]

_WELL = ("ready", "running", "starting", "stopped")

LINES = 20
"""How many of the last lines of a service's log a report shows."""

Value = TypeVar("Value")


def is_well(state: str) -> bool:
    """Return whether a service of this state has neither died nor been killed."""
    return state in _WELL


@dataclass(frozen=True)
class ServiceFacts:
    """A service: its state at the time of the look. Its log is read when it is asked for; it outlives its host.

    ``mark`` is how far the log was when the test began.
    """

    name: str
    state: str
    mark: int
    service: Service

    def log(self) -> str:
        """Return the last lines of what it said since the test began."""
        if not self.mark:
            return self.service.log_tail(LINES)
        return "\n".join(self.service.log_between(self.mark).splitlines()[-LINES:])

    def earlier(self) -> int:
        """Return how many lines came before the test."""
        return self.service.log_between(0, self.mark).count("\n") if self.mark else 0


class Group(Protocol):
    """What is looked at as one: joined hosts, or a container alone."""

    @property
    def containers(self) -> tuple[Container, ...]:
        """The containers of which it consists."""

    @property
    def links(self) -> tuple[Link, ...]:
        """The cables between them."""


@dataclass(frozen=True)
class HostFacts:
    """A host, or a container without links, whose ``addresses`` are none.

    ``sockets`` has one line per socket, ``mounts`` one per mount that was made in it on request, ``trouble`` one for
    each thing that could not be found out. ``limits`` are those that it has, ``news`` what the kernel did for them.
    ``plugs`` say where its frames were recorded: an index in the lab's fabric, and its interface.
    """

    name: str
    level: str
    level_reason: str
    addresses: tuple[str, ...]
    services: tuple[ServiceFacts, ...]
    sockets: tuple[str, ...]
    trouble: tuple[str, ...]
    rootfs: str = "host"
    mounts: tuple[str, ...] = ()
    limits: str = ""
    news: str = ""
    plugs: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class NetworkFacts:
    """Hosts that are joined to each other, and their cables as (the two names, state); or a container alone.

    ``drawing`` is a picture of it as lines of text, where it can make one of itself.
    """

    hosts: tuple[HostFacts, ...]
    links: tuple[tuple[str, str], ...]
    drawing: str = ""


class _TooLate(Exception):
    """What was to be seen is gone."""


def look(groups: Iterable[Group], marks: Mapping[Service, int]) -> list[NetworkFacts]:
    """Return what can be seen of these now. Never raises: what cannot be seen is told in its place.

    ``marks`` are the positions of the logs when the test began; a service that is not among them began with the test.
    """
    return [_network(group, marks, _Eyes()) for group in groups]


def look_back(group: Group, *, why: str) -> Callable[[Mapping[Service, int]], list[NetworkFacts]]:
    """Remember what the end of the containers will change, and return what makes the facts of it, should anybody ask.

    This costs a microsecond where :func:`look` takes milliseconds; what cannot be known later is given ``why`` for.
    """
    states = {service: service.state for container in group.containers for service in container.services}
    return lambda marks: [_network(group, marks, _Memory(states, why))]


class _Eyes:
    """What is seen of a container that lives."""

    def states(self, container: Container) -> Mapping[Service, str]:
        return {service: service.state for service in container.services}

    def sockets(self, container: Container) -> tuple[str, ...]:
        return tuple(map(str, container.open_sockets()))

    def mounts(self, container: Container) -> tuple[str, ...]:
        if container._mounts is None:  # noqa: SLF001 - ours
            return ()
        return tuple(str(entry) for entry in container.mounts.table() if entry.ours)

    def limits(self, container: Container) -> tuple[str, str]:
        from pytest_poorcontainer.container.limits import Limits  # noqa: PLC0415 - only after a failure

        usage = Limits.used(container._handle)  # noqa: SLF001 - ours
        return ("", "") if usage is None else (str(usage.limits), usage.news())


class _Memory(_Eyes):
    """What is known of one that is gone."""

    def __init__(self, states: Mapping[Service, str], why: str) -> None:
        self._states = states
        self._why = why

    def states(self, container: Container) -> Mapping[Service, str]:  # noqa: ARG002 - of all of them
        return self._states

    def sockets(self, container: Container) -> tuple[str, ...]:  # noqa: ARG002 - nobody knows them
        raise _TooLate(self._why)

    def mounts(self, container: Container) -> tuple[str, ...]:
        if container._mounts is None:  # noqa: SLF001 - ours
            return ()
        raise _TooLate(self._why)

    def limits(self, container: Container) -> tuple[str, str]:  # noqa: ARG002 - as above
        return "", ""


def _network(group: Group, marks: Mapping[Service, int], eyes: _Eyes) -> NetworkFacts:
    hosts = tuple(_host(container, marks, eyes) for container in group.containers)
    links = tuple((" -- ".join(link.names), _state(link)) for link in group.links)
    draw = getattr(group, "draw", None)
    trouble: list[str] = []
    drawing = _told(trouble, "its picture", draw, "") if draw is not None and links else ""
    return NetworkFacts(hosts, links, drawing or "\n".join(trouble))


def _state(link: Link) -> str:
    if link.medium == "veth":
        return link.state
    from pytest_poorcontainer.network.describing import described  # noqa: PLC0415 - only after a failure

    return described(link)


def _host(container: Container, marks: Mapping[Service, int], eyes: _Eyes) -> HostFacts:
    trouble: list[str] = []
    services: tuple[ServiceFacts, ...] = ()
    lines: tuple[str, ...] = ()
    services = _told(trouble, "its services", lambda: _services(container, marks, eyes.states(container)), services)
    sockets = _told(trouble, "its sockets", lambda: eyes.sockets(container), lines)
    mounts = _told(trouble, "its mounts", lambda: eyes.mounts(container), lines)
    limits, news = _told(trouble, "its limits", lambda: eyes.limits(container), ("", ""))
    return HostFacts(
        container.name,
        container.level,
        container.level_reason,
        tuple(getattr(container, "addresses", ())),
        services,
        sockets,
        tuple(trouble),
        container.rootfs,
        mounts,
        limits,
        news,
        tuple(getattr(container, "plugs", ())),
    )


def _told(trouble: list[str], what: str, find: Callable[[], Value], nothing: Value) -> Value:
    """Return what ``find`` returns; whatever it raises becomes a line of ``trouble``, for a report hides no failure."""
    try:
        return find()
    except Exception as error:  # noqa: BLE001 - a dead container, a dead lab, a limit: all the same here
        kind = "" if isinstance(error, _TooLate) else f"{type(error).__name__}: "
        trouble.append(f"{what}: {kind}{error}")
        return nothing


def _services(
    container: Container, marks: Mapping[Service, int], states: Mapping[Service, str]
) -> tuple[ServiceFacts, ...]:
    """Return the services of a container; one that was started after the states were noted is not among them."""
    return tuple(
        ServiceFacts(service.name, states[service], marks.get(service, 0), service)
        for service in container.services
        if service in states
    )
