"""Partitions: groups of hosts that do not hear each other, in Jepsen's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.network.between import addresses_of, arriving, separating
from pytest_poorcontainer.network.canary import prove_apart
from pytest_poorcontainer.network.host import Host
from pytest_poorcontainer.network.ways import put_rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import TypeAlias

    from pytest_poorcontainer.network.ways import Fault, Place

    Group: TypeAlias = "Host | str | Iterable[Host | str]"

__all__ = ["Partition"]


class Partition:
    """``network.partition(group, group, ...)``, and the shapes that have names. The value is a context manager.

    Hosts of different groups do not hear each other; those that are in no group hear everybody. Before it is returned
    a packet of our own has been seen not to arrive.
    """

    def __init__(self, find: Callable[[Host | str], Host], everybody: Callable[[], list[Host]]) -> None:
        """Find hosts by name, and know those of the network that are meant when nobody is named."""
        self._find = find
        self.everybody = everybody

    def __call__(self, *groups: Group) -> Fault:
        """Part groups from each other: hosts, their names, or lists of them; of one group from all other hosts.

        Raises :class:`UsageError` for an unknown host, one in two groups, or nobody.
        """
        found = [self._group(group) for group in groups]
        if len(found) == 1:
            found.append([host for host in self.everybody() if host not in found[0]])
        if len(found) < 2 or not all(found):  # noqa: PLR2004 - two sides
            raise UsageError("a partition needs at least two groups, with a host in each")
        seen: dict[Host, int] = {}
        for number, group in enumerate(found):
            for host in group:
                if host in seen:
                    where = "one group twice" if seen[host] == number else "two groups"
                    raise UsageError(f"{host.name} is in {where} of a partition: expected each host once")
                seen[host] = number
        # One list for all hosts of a group: what follows from it is worked out once.
        strange = [[other for other in seen if seen[other] != number] for number in range(len(found))]
        others = {host: strange[number] for host, number in seen.items()}
        return self._part(" | ".join(_names(group) for group in found), others)

    def halves(self, hosts: Iterable[Host | str] | None = None) -> Fault:
        """Part the first half from the second, which is the larger one of an odd number."""
        all_of = self._hosts(hosts, 2)
        middle = len(all_of) // 2
        return self(all_of[:middle], all_of[middle:])

    def isolate(self, host: Host | str, hosts: Iterable[Host | str] | None = None) -> Fault:
        """Part one host from all others."""
        alone = self._find(host)
        return self([alone], [other for other in self._hosts(hosts, 2) if other is not alone])

    def bridge(self, host: Host | str, hosts: Iterable[Host | str] | None = None) -> Fault:
        """Part two halves from each other, but for one host that hears both."""
        middle = self._find(host)
        rest = [other for other in self._hosts(hosts, 3) if other is not middle]
        half = len(rest) // 2
        return self(rest[:half], rest[half:])

    def ring(self, hosts: Iterable[Host | str] | None = None) -> Fault:
        """Let each host hear a majority, and no two the same: its neighbours in a ring, as many as that takes."""
        all_of = self._hosts(hosts, 4)
        count = len(all_of)
        before, after = (count // 2) // 2, count // 2 - (count // 2) // 2
        hears = {place: {(place + step) % count for step in range(-before, after + 1)} for place in range(count)}
        # One that hears another is heard by it, or a connection is neither up nor down.
        others = {
            host: [all_of[other] for other in range(count) if other not in hears[place] and place not in hears[other]]
            for place, host in enumerate(all_of)
        }
        if not any(others.values()):
            raise UsageError(f"a ring of {count} hosts is whole: each majority has all of its hosts")
        return self._part(f"ring of {_names(all_of)}", others)

    def _part(self, what: str, others: Mapping[Host, Sequence[Host]]) -> Fault:
        known = {host: addresses_of(host) for host in others}
        for host, addresses in known.items():
            if not addresses:
                raise UsageError(f"{host.name} is joined to nothing: it cannot be parted from anybody")
        places: list[Place] = []
        united: dict[int, frozenset[bytes]] = {}
        for host, parted in others.items():
            strangers = united.get(id(parted))
            if strangers is None:
                strangers = united[id(parted)] = frozenset().union(*(known[other] for other in parted))
            if strangers:
                places += separating(host, known[host], strangers)
                places += arriving(host, strangers, known[host])
        fault = put_rules(f"partition {what}", places)
        pair = next(((host, parted[0]) for host, parted in others.items() if parted), None)
        if pair is not None:
            prove_apart(fault, *pair)
        return fault

    def _group(self, group: Group) -> list[Host]:
        if isinstance(group, (Host, str)):
            return [self._find(group)]
        try:
            return [self._find(host) for host in group]
        except TypeError:
            raise UsageError(f"a group of a partition is a host, a name, or a list of them, not {group!r}") from None

    def _hosts(self, hosts: Iterable[Host | str] | None, least: int) -> list[Host]:
        found = self.everybody() if hosts is None else self._group(hosts)
        twice = next((host for place, host in enumerate(found) if host in found[:place]), None)
        if twice is not None:
            raise UsageError(f"{twice.name} is there twice: expected each host of a partition once")
        if len(found) < least:
            raise UsageError(f"this partition needs at least {least} hosts, and there are {len(found)}")
        return found


def _names(hosts: Sequence[Host]) -> str:
    return " ".join(host.name for host in hosts)
