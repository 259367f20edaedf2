"""What every source can do."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Protocol

from pytest_poorcontainer.mirror.errors import BadConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pytest_poorcontainer.mirror.entries import Listing
    from pytest_poorcontainer.mirror.plan import Want
    from pytest_poorcontainer.mirror.planner import Planner
    from pytest_poorcontainer.mirror.rules import Rules
    from pytest_poorcontainer.mirror.staging import Stage
    from pytest_poorcontainer.mirror.tree import Tree

__all__ = ["FAR", "USUAL", "Access", "Opener", "Options", "Source", "Visitor", "check_family", "check_netrc"]

USUAL, FAR = 8, 16
"""How many connections a run has if nobody says how many: in general, and by HTTP to a server that is far away."""


@dataclass(kw_only=True)
class Access:
    """How to talk to a source. Times are seconds, ``bandwidth`` and ``min_rate`` bytes/s (0: no limit).

    ``connections`` 0 means that nobody has said how many: :data:`USUAL`, or up to :data:`FAR`.
    """

    connections: int = 0
    bandwidth: int = 0
    connect: float = 15.0
    idle: float = 60.0
    min_rate: int = 1
    retries: int = 3
    backoff: float = 1.0
    user: str = ""
    password: str = ""
    netrc: str = ""
    proxy: str = ""
    ca: str = ""
    insecure: bool = False
    tls: bool = False
    ip: int = 0
    rsync: str = "rsync"
    ssh: str = ""
    delete_excluded: bool = False
    old_rsync: bool = False


@dataclass(kw_only=True)
class Options(Access):
    """What a source is opened with.

    ``memory`` is what earlier runs have learned about this server (its dialect, its offset from UTC); what a source
    writes into it is kept for the next run. ``share`` tells what of ``bandwidth`` is this run's now; 0 is all of it.
    """

    memory: dict[str, Any] = field(default_factory=dict)
    log: Callable[[str], None] = lambda _: None
    tick: Callable[[], None] = lambda: None
    share: Callable[[], int] = lambda: 0

    @classmethod
    def of(cls, access: Access) -> Options:
        """Return the options of a mirror."""
        return cls(**{one.name: getattr(access, one.name) for one in fields(Access)})


def check_family(host: str, ip: int) -> None:
    """Raise :class:`BadConfig` for an address of a family that ``ip`` rules out; a name is left to the resolver."""
    found = 6 if ":" in host else 4 if host.replace(".", "").isdigit() else 0
    if ip and found and ip != found:
        raise BadConfig(f"the source has the IPv{found} address {host}, but ip = {ip}")


def check_netrc(path: str) -> str:
    """Return the path of a netrc, "~" resolved; raises :class:`BadConfig` when it cannot be read."""
    if not path:
        return ""
    whole = os.path.expanduser(path)  # noqa: PTH111 - "" is no path
    try:
        os.close(os.open(whole, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise BadConfig(f"cannot read the netrc {whole}: {error.strerror}; name another, or none") from error
    return whole


class Visitor(Protocol):
    """What a walk over a source reports to."""

    def found(self, path: str, listing: Listing) -> list[str]:
        """Take a directory; return the paths in it to list next."""

    def failed(self, path: str, reason: str) -> None:
        """Take the news that a directory cannot be listed."""


class Source(Protocol):
    """An archive somewhere else. One object serves one run; it is not safe to use from two threads."""

    protocol: str
    """What the status page says: "https", "ftp", "rsync", "file"."""

    def survey(self, planner: Planner, tree: Tree, rules: Rules) -> None:
        """List all of it, and have the planner compare. Raises :class:`~..errors.SourceError` and its kin."""

    def relist(self, directories: Iterable[str]) -> Mapping[str, Listing | None]:
        """List these directories once more; None for one that cannot be listed now."""

    def fetch(self, wants: Iterable[Want], stage: Stage) -> None:
        """Deliver these files to the stage, in any order. Raises what :meth:`survey` raises."""

    def read(self, path: str, most: int, known: str = "") -> tuple[bytes | None, str]:
        """Return (content, validator) of a small file, ``None`` for the content if it is still the known one.

        Raises :class:`FileNotFoundError` when there is no such file, or when this source cannot tell cheaply.
        """

    def close(self) -> None:
        """Close all connections. Idempotent."""


class Opener(Protocol):
    """What makes a source of a URL, and connects to nothing yet."""

    def __call__(self, url: str, options: Options, /) -> Source:
        """Return it; raises :class:`BadConfig`, and :class:`~..errors.MirrorError` for what is missing here."""
