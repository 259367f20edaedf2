"""What a run is going to do, as a value: it can be printed, compared, saved and held."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_poorcontainer.mirror.entries import DIRECTORY, FILE
from pytest_poorcontainer.mirror.errors import BadConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["DATA", "INDEX", "Deletion", "Limits", "Plan", "Want", "printable"]

DATA, INDEX = 0, 1
"""The stages of a file: data is published as it comes, indexes all at once when all data is there."""


class Want(NamedTuple):
    """A file to fetch. ``changed`` tells that an older one lies there; ``ask`` that it may be the same after all."""

    path: str
    size: int | None
    mtime: float | None
    precision: float = 1.0
    slack: int = 0
    executable: bool = False
    stage: int = DATA
    changed: bool = False
    ask: float | None = None


class Deletion(NamedTuple):
    """What is to go: ``where`` is the directory whose listing does not name it, or what it lies in, any more."""

    path: str
    kind: str
    size: int
    where: str


@dataclass(frozen=True)
class Limits:
    """How much one plan may delete before somebody has to look at it; None is no limit.

    ``ratio`` and ``top`` (of each directory at the top) are shares of the files that are there, 0..1; they count from
    ``floor`` deletions on. A plan that leaves nothing is always held.
    """

    files: int | None = 10_000
    ratio: float | None = 0.4
    bytes: int | None = None
    top: float | None = 0.9
    floor: int = 10


@dataclass
class Plan:
    """All that a run is going to do, in the order in which it does it."""

    name: str = ""
    source: str = ""
    directories: list[str] = field(default_factory=list)
    fetches: list[Want] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    displaced: set[str] = field(default_factory=set)
    deletions: list[Deletion] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    listed: dict[str, int] = field(default_factory=lambda: {"files": 0, "bytes": 0, "directories": 0})
    local: dict[str, int] = field(default_factory=lambda: {"files": 0, "bytes": 0, "others": 0})
    tops: dict[str, int] = field(default_factory=dict)
    newest: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    sums: set[str] | None = field(default_factory=set)

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.directories or self.fetches or self.links or self.deletions)

    @property
    def bytes(self) -> int:
        """How many bytes will be fetched, as far as the source says."""
        return sum(want.size or 0 for want in self.fetches)

    def spare(self) -> None:
        """Drop the deletions beside and below what could not be listed: nobody knows what became of it."""
        above = {path.rpartition("/")[0] for path in self.kept}
        below = tuple(f"{path}/" for path in self.kept)
        self.deletions = [
            one
            for one in self.deletions
            if self._replaced(one) or (one.where not in above and not f"{one.path}/".startswith(below or ("\0",)))
        ]

    def keep_all(self) -> None:
        """Drop all deletions, but for a file or link that becomes a directory, which is a change of its own name."""
        self.deletions = [one for one in self.deletions if self._replaced(one)]

    def _replaced(self, one: Deletion) -> bool:
        return one.path in self.displaced and one.kind != DIRECTORY

    def leave(self, path: str) -> None:
        """Leave a directory that a file or a link is to replace, with all in it, as it is."""
        self.displaced.discard(path)
        self.fetches = [want for want in self.fetches if want.path != path]
        self.links = [pair for pair in self.links if pair[0] != path]
        self.deletions = [one for one in self.deletions if not f"{one.path}/".startswith(f"{path}/")]
        self.problems.append(f"{printable(path)}: a directory here, with files that are to stay: it is kept as it is")

    def digest(self) -> str:
        """Return what identifies the deletions of this plan: who releases it releases these, and no others."""
        import hashlib  # noqa: PLC0415 - for a plan that is held

        found = hashlib.sha256()
        for path in sorted(os.fsencode(one.path) for one in self.deletions):
            found.update(path + b"\0")
        return found.hexdigest()[:16]

    def excess(self, limits: Limits) -> list[str]:
        """Return why the guard holds this plan, in words; nothing when it may pass."""
        gone = [one for one in self.deletions if one.kind != DIRECTORY]
        count, size, had = len(gone), sum(one.size for one in gone), self.local["files"] + self.local["others"]
        reasons = []
        if count and count >= had and (had > 1 or not self.fetches):
            return [f"all {had} files would be deleted"]
        if limits.files is not None and count > limits.files:
            reasons.append(f"{count} files would be deleted, more than {limits.files}")
        if limits.bytes is not None and size > limits.bytes:
            reasons.append(f"{size} bytes would be deleted, more than {limits.bytes}")
        if count > limits.floor:
            if limits.ratio is not None and count > limits.ratio * had:
                reasons.append(f"{count} of {had} files would be deleted, more than {limits.ratio:.0%}")
            reasons += self._tops(gone, limits)
        return reasons

    def _tops(self, gone: Iterable[Deletion], limits: Limits) -> Iterator[str]:
        if limits.top is None:
            return
        counts: dict[str, int] = {}
        for one in gone:
            top, slash, _ = one.path.partition("/")
            if slash:
                counts[top] = counts.get(top, 0) + 1
        for top, count in sorted(counts.items()):
            had = self.tops.get(top, count)
            if count > limits.floor and count > limits.top * had:
                yield f"{count} of the {had} files in {printable(top)}/ would be deleted, more than {limits.top:.0%}"

    def summary(self) -> str:
        """Return one line for a person."""
        new = sum(not want.changed for want in self.fetches)
        gone = sum(one.kind != DIRECTORY for one in self.deletions)
        size = self.bytes
        return f"+{new} ~{len(self.fetches) - new} -{gone} files, {size} bytes to fetch"

    def lines(self) -> Iterator[str]:
        """Yield the plan line by line, as ``diff`` would show it: +, ~, - and ! for problems."""
        for want in self.fetches:
            yield f"{'~' if want.changed else '+'} {printable(want.path)} {'?' if want.size is None else want.size}"
        for path, target in self.links:
            yield f"+ {printable(path)} -> {printable(target)}"
        for one in self.deletions:
            yield f"- {printable(one.path)}{'/' if one.kind == DIRECTORY else f' {one.size}'}"
        yield from (f"! {printable(text)}" for text in self.problems)

    def dump(self) -> dict[str, Any]:
        """Return the plan as what JSON can hold."""
        return {
            "name": self.name,
            "source": self.source,
            "digest": self.digest(),
            "summary": self.summary(),
            "directories": self.directories,
            "fetches": [want._asdict() for want in self.fetches],
            "links": self.links,
            "displaced": sorted(self.displaced),
            "deletions": [one._asdict() for one in self.deletions],
            "problems": self.problems,
            "notes": self.notes,
            "kept": self.kept,
            "listed": self.listed,
            "local": self.local,
            "tops": self.tops,
            "newest": self.newest,
            "facts": self.facts,
        }

    @classmethod
    def load(cls, text: str) -> Plan:
        """Return the plan that was saved as JSON; raises :class:`BadConfig` when it is none."""
        try:
            saved: Mapping[str, Any] = json.loads(text)
            plain = {key: value for key, value in saved.items() if key not in {"digest", "summary"}}
            plan = cls(**plain)
            plan.fetches = [Want(**want) for want in saved["fetches"]]
            plan.deletions = [Deletion(**one) for one in saved["deletions"]]
            plan.links = [(path, target) for path, target in saved["links"]]
            plan.displaced = set(saved["displaced"])
            plan.sums = None
        except (ValueError, TypeError, KeyError) as error:
            raise BadConfig(
                f"cannot read the saved plan: {error}; make it anew with poor-mirror plan NAME --fresh"
            ) from None
        return plan

    def count_local(self, path: str, kind: str, size: int, count: int = 1) -> None:
        """Count what lies in the destination; ``size`` is that of all ``count`` together.

        Links count as well: what they are to be compared with, the deletions, may be of links.
        """
        if kind == DIRECTORY:
            return
        self.local["files" if kind == FILE else "others"] += count
        self.local["bytes"] += size
        top, slash, _ = path.partition("/")
        if slash:
            self.tops[top] = self.tops.get(top, 0) + count


def printable(text: str) -> str:
    """Return a text of a stranger's on one line: what is no printable character is escaped, as are odd bytes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
