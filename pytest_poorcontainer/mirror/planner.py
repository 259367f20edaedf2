"""Compares what a source lists with what lies in the destination, directory by directory, and writes the plan.

Only differences are kept, so that an unchanged mirror of a million files needs the memory of one directory.
"""

from __future__ import annotations

import posixpath
from operator import itemgetter
from typing import TYPE_CHECKING

from pytest_poorcontainer.mirror.entries import COMPLETE, DIRECTORY, FILE, LINK, Entry, Listing
from pytest_poorcontainer.mirror.plan import Deletion, Plan, Want, printable
from pytest_poorcontainer.mirror.rules import OURS
from pytest_poorcontainer.mirror.sums import NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_poorcontainer.mirror.profiles import Profile
    from pytest_poorcontainer.mirror.rules import Rules
    from pytest_poorcontainer.mirror.tree import Local, Tree

__all__ = ["Planner", "compare", "escapes"]

_DEEPEST = 64
_LONGEST = 4000  # bytes of a path; PATH_MAX is 4096
_SUMS = frozenset(NAMES)
_EPSILON = 0.002  # what a float and a file system lose of a time


def escapes(path: str, target: str) -> bool:
    """Whether a symbolic link at ``path`` leads out of the tree, read as text. An absolute or an empty target does."""
    if not target or target.startswith("/") or "\0" in target:
        return True
    depth = path.count("/")
    for part in target.split("/"):
        if part == "..":
            depth -= 1
            if depth < 0:
                return True
        elif part not in {"", "."}:
            depth += 1
    return False


class Planner:
    """Takes one listing after the other (:meth:`found`), or the news that there is none (:meth:`failed`)."""

    def __init__(
        self,
        tree: Tree,
        rules: Rules,
        profile: Profile,
        *,
        links: str = "keep",
        delete_excluded: bool = False,
        own: frozenset[str] = frozenset(),
    ) -> None:
        """``links`` is "keep", "skip", or "error" for a link that leads out of the tree; ``own`` is never deleted."""
        self._own = own | {OURS, f"{OURS}.manifest"}
        self.plan = Plan()
        self._tree = tree
        self._rules = rules
        self._profile = profile
        self._links = links
        self._delete_excluded = delete_excluded
        self._fresh: set[str] = set()
        self._seen: dict[str, tuple[int, str]] = {}
        self._uniques: dict[str, str] = {}

    def found(self, path: str, listing: Listing) -> list[str]:
        """Compare one directory (``path``, "" at the top); return the directories in it that are to be listed next."""
        if self._loops(path, listing):
            return []
        for note in listing.notes:
            self.plan.problems.append(f"{printable(path) or 'the top'}: {note}")
        fresh = path.rpartition("/")[0] in self._fresh  # nothing can lie there yet
        there = {} if fresh else self._tree.scan(path)
        if path:
            self.plan.listed["directories"] += 1
            if not there:  # what something lies in is a directory
                self._make(path, fresh=fresh)
        names = self._unchanged(path, listing, there)
        below = []
        left = (one for one in listing.entries if one.name not in names) if len(names) < len(listing.entries) else ()
        # By the names alone: of two entries of one name, one may not say what the other says.
        for entry in sorted(left, key=itemgetter(0)):
            whole = f"{path}/{entry.name}" if path else entry.name
            if not self._counts(whole, entry, names):
                continue
            names.add(entry.name)
            if self._take(whole, entry, there.get(entry.name)):
                below.append(whole)
                if entry.unique:
                    self._uniques[whole] = entry.unique
        self._absent(path, there, names, complete=listing.state == COMPLETE)
        return below

    def _unchanged(self, path: str, listing: Listing, there: Mapping[str, Local]) -> set[str]:
        """Count the files that lie there as they are listed; return their names.

        They are most files of most runs, so they are not asked about one by one: only where no pattern has a say.
        """
        names: set[str] = set()
        entries = listing.entries
        several = len({entry[0] for entry in entries}) < len(entries)
        if self._rules or self._profile.updating or self._profile.trace or not path or several:
            return names
        listed = held = 0
        newest = self.plan.newest
        for entry in entries:
            name, kind, size, mtime = entry[:4]
            local = there.get(name)
            if local is None or kind != FILE or name in _SUMS:
                continue
            what, length, when, _ = local
            if (what != FILE or length != size or when != mtime) and compare(entry, local) is not None:
                continue
            names.add(name)
            listed += size or 0
            held += length
            newest = max(newest, when)
        if names:
            plan = self.plan
            plan.newest = newest
            plan.listed["files"] += len(names)
            plan.listed["bytes"] += listed
            plan.count_local(f"{path}/", FILE, held, len(names))
        return names

    def _counts(self, path: str, entry: Entry, names: set[str]) -> bool:
        """Whether an entry belongs to the mirror; ``names`` are those of its directory that were taken before it."""
        if entry.name in names:
            self.plan.problems.append(f"{printable(path)}: the name comes twice; the first counts")
            return False
        if self._profile.is_updating(path):
            self.plan.facts["updating"] = entry.name
            return False
        if not self._rules.wanted(path, entry.kind == DIRECTORY):
            return False
        if entry.name in _SUMS and self.plan.sums is not None:
            self.plan.sums.add(path)
        return True

    def failed(self, path: str, reason: str) -> None:
        """Keep a subtree that cannot be listed as it is."""
        self.plan.kept.append(path)
        self.plan.problems.append(f"{printable(path) or 'the top'}: cannot be listed: {reason}")

    def differs(self, path: str, entry: Entry) -> None:
        """Plan for one entry that somebody else has found to differ; a directory comes before what is in it."""
        if self._profile.is_updating(path):
            self.plan.facts["updating"] = entry.name
            return
        fresh = path.rpartition("/")[0] in self._fresh  # nothing can lie there yet
        if entry.kind == DIRECTORY:
            self._make(path, fresh=fresh)
            return
        local = None if fresh else self._tree.look(path)
        if local is not None and local.kind == DIRECTORY:
            self.plan.displaced.add(path)
        if entry.kind == LINK:
            self._link(path, entry, local)
            return
        if entry.mtime is not None and self._profile.dates(path):
            self.plan.newest = max(self.plan.newest, entry.mtime)
        stage = self._profile.stage(path)
        self.plan.fetches.append(
            Want(path, entry.size, entry.mtime, executable=entry.executable, stage=stage, changed=local is not None)
        )

    def vanished(self, path: str, local: Local) -> None:
        """Plan the deletion of what somebody else has found to be gone."""
        if path.partition("/")[0] not in {OURS, f"{OURS}.manifest"} and path not in self._own:
            self.plan.deletions.append(Deletion(path, local.kind, local.size, path.rpartition("/")[0]))

    def settle(self, *, delete: bool) -> Plan:
        """Return the plan after all is listed: without the deletions that are not to be.

        A directory that becomes a file takes all below it along, so it may only if every name there is to be deleted.
        """
        plan = self.plan
        plan.spare()
        if not delete:
            plan.keep_all()
        gone = {one.path for one in plan.deletions} if plan.displaced else set()
        for path in sorted(plan.displaced):
            if any(below not in gone for below, _ in self._tree.walk(path)):
                plan.leave(path)
        return plan

    def _make(self, path: str, *, fresh: bool) -> None:
        """Plan a directory, if there is none; ``fresh`` tells that the one that it is in is only planned, too."""
        found = None if fresh else self._tree.look(path)
        if found is not None and found.kind == DIRECTORY:
            return
        self.plan.directories.append(path)
        self._fresh.add(path)
        if found is not None:
            self.plan.displaced.add(path)
            self.plan.deletions.append(Deletion(path, found.kind, found.size, path.rpartition("/")[0]))

    def _take(self, path: str, entry: Entry, local: Local | None) -> bool:
        """Plan what an entry asks for; whether it is a directory to look into."""
        if entry.kind == DIRECTORY:
            if local is not None:
                self.plan.count_local(path, local.kind, local.size)
            if path.count("/") >= _DEEPEST or len(path.encode("utf-8", "surrogateescape")) > _LONGEST:
                self.failed(path, f"it is deeper than {_DEEPEST} directories, or a loop")
                return False
            return True
        if local is not None:
            self.plan.count_local(path, local.kind, local.size)
            if local.kind == DIRECTORY:
                self.plan.displaced.add(path)
                self._delete_below(path, path.rpartition("/")[0])
        if entry.kind == LINK:
            self._link(path, entry, local)
        else:
            self._file(path, entry, local)
        return False

    def _file(self, path: str, entry: Entry, local: Local | None) -> None:
        self.plan.listed["files"] += 1
        self.plan.listed["bytes"] += entry.size or 0
        verdict = compare(entry, local)
        # A listing may have minutes only, or no times at all; what came with the file is exact.
        when = local.mtime if local is not None and verdict != "fetch" else entry.mtime
        if when is not None and when > self.plan.newest and self._profile.dates(path):
            self.plan.newest = when
        if verdict is None:
            return
        ask = local.mtime if local is not None and verdict == "ask" else None
        self.plan.fetches.append(
            Want(
                path,
                entry.size,
                entry.mtime,
                entry.precision,
                entry.slack,
                entry.executable,
                self._profile.stage(path),
                local is not None,
                ask,
            )
        )

    def _link(self, path: str, entry: Entry, local: Local | None) -> None:
        if self._links == "skip" or not entry.target:
            if not entry.target:
                self.plan.notes.append(f"{printable(path)}: the source does not say where this link points: left out")
            return
        if escapes(path, entry.target):
            note = f"{printable(path)}: the link leads out of the tree, to {entry.target!a}: left out"
            (self.plan.problems if self._links == "error" else self.plan.notes).append(note)
            return
        if local is None or local.kind != LINK or self._tree.target(path) != entry.target:
            self.plan.links.append((path, entry.target))

    def _absent(self, path: str, there: Mapping[str, Local], names: set[str], *, complete: bool) -> None:
        """Plan the deletion of what the listing does not name, if the listing is complete."""
        for name in sorted(there.keys() - names):
            local = there[name]
            whole = f"{path}/{name}" if path else name
            if whole in self._own:
                continue
            if not self._delete_excluded and not self._rules.wanted(whole, local.kind == DIRECTORY):
                continue
            if local.kind == DIRECTORY:
                self._delete_below(whole, path, planned=complete)
            else:
                self.plan.count_local(whole, local.kind, local.size)
            if complete:
                self.plan.deletions.append(Deletion(whole, local.kind, local.size, path))

    def _delete_below(self, path: str, where: str, *, planned: bool = True) -> None:
        for whole, local in self._tree.walk(path):
            self.plan.count_local(whole, local.kind, local.size)
            if planned and (self._delete_excluded or self._rules.wanted(whole, local.kind == DIRECTORY)):
                self.plan.deletions.append(Deletion(whole, local.kind, local.size, where))

    def _loops(self, path: str, listing: Listing) -> bool:
        """Whether this directory is one of those above it once more: a link or a bind mount that leads upwards.

        Known by the server's own identity of the directory (RFC 3659's ``unique``), or by a content that is the same to
        the last size and time, a directory included; one name alone would tell too little.
        """
        mine = self._uniques.get(path, "")
        tells = len(listing.entries) > 1 and any(entry.kind == DIRECTORY for entry in listing.entries)
        same = hash(frozenset(listing.entries)) if tells else 0
        above = path
        while above:
            above = posixpath.dirname(above)
            content, unique = self._seen.get(above, (0, ""))
            if (mine and mine == unique) or (same and same == content):
                self.plan.notes.append(
                    f"{printable(path)}: the same directory as {printable(above) or 'the top'}: a loop"
                )
                return True
        self._seen[path] = (same, mine)
        return False


def compare(entry: Entry, local: Local | None) -> str | None:
    """Return "fetch" or "ask" (whether it has changed), or None when what is there is what the listing says."""
    if local is None or local.kind != FILE:
        return "fetch"
    if entry.size is not None and abs(local.size - entry.size) > entry.slack:
        return "fetch"
    if entry.mtime is None:
        return "ask"
    off = local.mtime - entry.mtime
    if -_EPSILON <= off < entry.precision - _EPSILON or abs(off) <= _EPSILON:
        return None
    return "ask" if entry.local or entry.vague or entry.size is None else "fetch"
