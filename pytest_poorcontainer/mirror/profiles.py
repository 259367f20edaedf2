"""Which files are the indexes of an archive, to be published after what they name; and what tells its age."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from pytest_poorcontainer.mirror.errors import BadConfig
from pytest_poorcontainer.mirror.plan import DATA, INDEX
from pytest_poorcontainer.mirror.rules import Rules

__all__ = ["PROFILES", "Profile", "find"]

_SUMS = re.compile(r"(?:.*/)?(?:(?:SHA|MD)\d{1,3}SUMS|(?:sha|md)\d{1,3}sums?\.txt|Release|InRelease)")


@dataclass(frozen=True)
class Profile:
    """How an archive is laid out. ``indexes``, ``trace`` and ``updating`` are patterns in rsync's syntax.

    ``trace`` names the files whose times are the age of the content (all files when there is none), ``updating`` those
    that stand at the source while it is being updated itself.
    """

    name: str
    indexes: tuple[str, ...] = ()
    trace: tuple[str, ...] = ()
    updating: tuple[str, ...] = ()

    @functools.cached_property
    def _index_rules(self) -> Rules:
        return Rules(exclude=self.indexes)

    @functools.cached_property
    def _trace_rules(self) -> Rules:
        return Rules(exclude=self.trace)

    @functools.cached_property
    def _updating_rules(self) -> Rules:
        return Rules(exclude=self.updating)

    def check(self) -> None:
        """Compile the patterns, which is otherwise done when they are needed; raises :class:`BadConfig`."""
        _ = self._index_rules, self._trace_rules, self._updating_rules

    def stage(self, path: str) -> int:
        """Return the stage of a file. Checksums belong to what they vouch for, and come last, in every profile."""
        if self._index_rules.leave_out(path) or _SUMS.fullmatch(path):
            return INDEX
        return DATA

    def dates(self, path: str) -> bool:
        """Whether the time of this file tells how old the content is."""
        return not self.trace or self._trace_rules.leave_out(path)

    def is_updating(self, path: str) -> bool:
        """Whether a file of this name means that the source is being updated."""
        return self._updating_rules.leave_out(path)


PROFILES = {
    one.name: one
    for one in (
        Profile("plain"),
        Profile(
            "debian",
            indexes=("/dists/**", "/project/trace/**", "/indices/**", "/ls-lR*", "/README*"),
            trace=("/project/trace/*", "/dists/**/Release", "/dists/**/InRelease", "/dists/Release"),
            updating=("/Archive-Update-in-Progress-*", "/Archive-Update-Required-*"),
        ),
        Profile(
            "rpm", indexes=("repodata/**", "/**/repodata/**", "/fullfiletimelist*", "/fullfilelist*", "/imagelist*")
        ),
        Profile("arch", indexes=("*.db", "*.db.tar.*", "*.files", "*.files.tar.*", "/lastupdate", "/lastsync")),
        Profile("alpine", indexes=("APKINDEX.tar.gz", "latest-releases.yaml", "/last-updated")),
        Profile("pypi", indexes=("/simple/**", "/pypi/**", "/last-modified")),
    )
}
"""The profiles by name. A mirror may have more ``indexes`` of its own in the configuration."""


def find(name: str) -> Profile:
    """Return the profile of this name; raises :class:`BadConfig`."""
    if name not in PROFILES:
        raise BadConfig(f'there is no profile "{name}"; there are {", ".join(sorted(PROFILES))}')
    return PROFILES[name]
