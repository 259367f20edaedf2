"""Carries a plan out: what is fetched in which order, what is tried once more, what may be published and deleted."""

from __future__ import annotations

import posixpath
from collections import deque
from typing import TYPE_CHECKING

from pytest_poorcontainer.mirror import sums
from pytest_poorcontainer.mirror.entries import DIRECTORY, FILE, Entry
from pytest_poorcontainer.mirror.plan import DATA, INDEX, printable
from pytest_poorcontainer.mirror.planner import compare
from pytest_poorcontainer.mirror.rules import OURS
from pytest_poorcontainer.mirror.staging import disk_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_poorcontainer.mirror.config import Mirror
    from pytest_poorcontainer.mirror.plan import Plan, Want
    from pytest_poorcontainer.mirror.sources.base import Source
    from pytest_poorcontainer.mirror.staging import Stage
    from pytest_poorcontainer.mirror.tree import Local, Tree

__all__ = ["Carrying"]

_ONCE_MORE = {"gone", "size", "checksum"}
_LARGEST_SUMS = 64 << 20
_ASKED = 16  # directories, before deletions


def _parents(path: str) -> Iterator[str]:
    while path:
        path = posixpath.dirname(path)
        yield path


class Carrying:
    """A plan that is being carried out. ``moved`` tells that the source has changed under it."""

    def __init__(
        self, mirror: Mirror, source: Source, tree: Tree, stage: Stage, plan: Plan, log: Callable[[str], None]
    ) -> None:
        """Nothing happens yet."""
        self.plan = plan
        self.stage = stage
        self.moved = False
        self.deleted = 0
        self._mirror = mirror
        self._profile = mirror.layout()
        self._source = source
        self._tree = tree
        self._log = log
        self._withheld = ""

    def fetch(self) -> None:
        """Fetch data, which is published as it comes, then indexes, which are not."""
        self.stage.displaced = set(self.plan.displaced)
        for path in self.plan.directories:
            self.stage.directory(path)
        known: set[str] = set()
        if self.plan.sums != set():  # else the source has none that could vouch for anything
            vouching = [want for want in self.plan.fetches if posixpath.basename(want.path) in sums.NAMES]
            if vouching:
                self._source.fetch(vouching, self.stage)
            known = {want.path for want in vouching}
            self._expect({want.path for want in self.plan.fetches} - known)
        self._fetch(want for want in self.plan.fetches if want.stage == DATA and want.path not in known)
        self._fetch(want for want in self.plan.fetches if want.stage == INDEX and want.path not in known)
        self.moved = self.moved or self._has_moved()

    def _fetch(self, wants: Iterable[Want]) -> None:
        before = len(self.stage.failures)
        self._source.fetch(wants, self.stage)
        again = [pair for pair in self.stage.failures[before:] if pair[1].kind in _ONCE_MORE]
        if not again:
            return
        self._log(f"{len(again)} files are not as they were listed: looking once more")
        fresh = self._fresh({want.path for want, _ in again})
        wanted = []
        for pair in again:
            want, entry = pair[0], fresh.get(pair[0].path)
            if entry is None:
                continue
            self.stage.failures.remove(pair)
            if isinstance(entry, str):
                self._log(f"{printable(want.path)}: the source has it no more")
            else:
                # It was another one when what it names was listed.
                self.moved = self.moved or (want.stage == INDEX and bool(self._profile.indexes))
                wanted.append(
                    want._replace(
                        size=entry.size, mtime=entry.mtime, precision=entry.precision, slack=entry.slack, ask=None
                    )
                )
        if wanted:
            self._source.fetch(wanted, self.stage)

    def _fresh(self, paths: set[str]) -> dict[str, Entry | str]:
        """Return the present entry of each path, "gone" where there is none; nothing where nobody can tell."""
        found: dict[str, Entry | str] = {}
        by_directory = self._source.relist(sorted({posixpath.dirname(path) for path in paths}))
        for path in paths:
            listing = by_directory.get(posixpath.dirname(path))
            if listing is None:
                continue
            entries = {entry.name: entry for entry in listing.entries if entry.kind == FILE}
            found[path] = entries.get(posixpath.basename(path), "gone")
        return found

    def _expect(self, paths: set[str]) -> None:
        """Look up the checksums that the source publishes for these files."""

        def read(path: str) -> bytes | None:
            waiting = self.stage.read_waiting(path)
            if waiting is not None:
                return waiting
            local = self._tree.look(path)
            if local is None or local.kind != FILE or local.size > _LARGEST_SUMS:
                return None
            with open(self._tree.open(path), "rb") as file:  # noqa: PTH123 - a descriptor
                return file.read()

        there = self.plan.sums
        if there is None:  # nobody has listed the source: what came, or is here
            above = {posixpath.dirname(path) for path in paths}
            above |= {parent for path in above for parent in _parents(path)}
            found = ((path, self._tree.scan(path)) for path in above)
            there = set(self.stage.waiting)
            there |= {posixpath.join(path, name) for path, names in found for name in sums.NAMES if name in names}
        if not there:
            return
        for path, expected in sums.published(paths, read, there):
            self.stage.checksums.setdefault(path, expected)

    def _has_moved(self) -> bool:
        """Whether the source's indexes are not those that came, or those that stay while something is deleted."""
        if not self._profile.indexes or not (self.stage.waiting or self.plan.deletions):
            return False
        self._look_for_update()
        # As they were listed: of a file that was asked about, what came has an exact time, and a listing may not.
        came = {want.path: want for want in self.plan.fetches if want.path in self.stage.waiting}
        if not came:
            return self._others_are_published()
        fresh = self._fresh(set(came))
        for path, want in came.items():
            entry = fresh.get(path, "gone")
            if isinstance(entry, str) or entry.size != want.size or entry.mtime != want.mtime:
                return True
        return False

    def _look_for_update(self) -> None:
        """Look whether the source is being updated by now: it was listed a while ago."""
        if self._profile.updating and "updating" not in self.plan.facts:
            top = self._source.relist([""]).get("")
            for entry in top.entries if top is not None else []:
                if self._profile.is_updating(entry.name):
                    self.plan.facts["updating"] = entry.name

    def _others_are_published(self) -> bool:
        """Whether the source has other indexes than we have, though none was to be fetched: they came after its list.

        A few are asked about, those nearest to the top, which change with all below them.
        """
        here = self._nearest_indexes()
        fresh = self._fresh(set(here))
        return any(isinstance(entry, Entry) and compare(entry, here[path]) == "fetch" for path, entry in fresh.items())

    def _nearest_indexes(self) -> dict[str, Local]:
        """Return the indexes in the few directories nearest to the top that have any."""
        found: dict[str, Local] = {}
        rules, asked = self._mirror.rules(), {want.path for want in self.plan.fetches}
        directories, count = deque([""]), 0
        while directories and count < _ASKED:
            directory = directories.popleft()
            before = len(found)
            for name, local in self._tree.scan(directory).items():
                path = posixpath.join(directory, name)
                if name == OURS or not rules.wanted(path, local.kind == DIRECTORY):
                    continue
                if local.kind == DIRECTORY:
                    directories.append(path)
                elif local.kind == FILE and path not in asked and self._profile.stage(path) == INDEX:
                    found[path] = local
            count += len(found) > before
        return found

    def _is_of_indexes(self, directory: str) -> bool:
        return self._profile.stage(f"{directory}/x") == INDEX

    def publish(self) -> None:
        """Publish indexes and links, if all that they name is there; else they stay as they are."""
        failed = [want for want, _ in self.stage.failures]
        if self.moved:
            self._withheld = "the source keeps changing while it is copied"
        elif "updating" in self.plan.facts:
            self._withheld = f"the source is being updated ({printable(self.plan.facts['updating'])})"
        elif failed and self._profile.indexes and (self.stage.waiting or any(want.stage == INDEX for want in failed)):
            self._withheld = f"{len(failed)} files did not come"
        elif (
            self.plan.kept
            and self._profile.indexes
            and (self.stage.waiting or any(map(self._is_of_indexes, self.plan.kept)))
        ):
            self._withheld = "a directory could not be listed"
        if self._withheld:
            self._log(f"the old indexes stay: {self._withheld}")
            return
        self._hold_back(failed)
        try:
            for path, target in self.plan.links:
                self.stage.link(path, target)
            self.stage.publish()
        except OSError as error:
            raise disk_error(error, str(error.filename2 or error.filename or "")) from error

    def _hold_back(self, failed: list[Want]) -> None:
        """Keep checksum files unpublished that vouch for a file that did not come: those beside and above it."""
        for path in list(self.stage.waiting):
            above = posixpath.dirname(path)
            if any(not above or want.path.startswith(f"{above}/") for want in failed):
                del self.stage.waiting[path]
                self._log(f"{printable(path)}: the old one stays, since a file beside or below it did not come")

    def delete(self) -> None:
        """Delete what the source has no more, unless indexes that may name it are still published."""
        if self._withheld and self._profile.indexes:
            return
        for one in self.plan.deletions:
            if (one.path not in self.plan.displaced and self._tree.remove(one.path)) or one.path in self.plan.displaced:
                self.deleted += one.kind == FILE

    def problems(self) -> list[str]:
        """Return what is missing of the source, in words."""
        found = [f"{printable(want.path)}: {failure}" for want, failure in self.stage.failures]
        found += [printable(problem) for problem in self.plan.problems]
        if self._withheld:
            found.insert(0, f"{self._withheld}: the old indexes stay")
        return found
