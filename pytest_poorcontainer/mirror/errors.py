"""What can go wrong with a mirror, each with the exit status that ``poor-mirror`` ends with."""

from __future__ import annotations

from pytest_poorcontainer.errors import PoorContainerError

__all__ = [
    "STATUSES",
    "BadConfig",
    "BadDestination",
    "Held",
    "Locked",
    "MirrorError",
    "NoPlan",
    "NoSpace",
    "NotAllowed",
    "SourceError",
    "Unreachable",
]

STATUSES = {
    0: "all well",
    1: "failed, for a reason that has no status of its own",
    2: "bad usage or configuration",
    3: "partial: the run reached its end, but something of the source is missing here",
    4: "held: the plan would delete more than is allowed; see `poor-mirror plan` and `release`",
    5: "locked: another run is at work on this mirror",
    6: "the source cannot be reached, or what it sends is no listing",
    7: "not enough space on the disk",
    8: "the destination is not ours, or is not what it was",
    9: "the source refuses us: wrong credentials, or a certificate that does not verify",
    10: "no plan: what a `command` will do cannot be told beforehand",
}
"""The exit statuses of ``poor-mirror`` and what they mean; docs/mirror.md has the same table."""


class MirrorError(PoorContainerError):
    """Base of what ends a run. ``status`` is the exit status, ``state`` what the status page says."""

    status = 1
    state = "failed"


class BadConfig(MirrorError):
    """The configuration, or an argument of the command, is wrong; the message names file, key and remedy."""

    status = 2


class Held(MirrorError):
    """The plan would delete more than the guard allows, and nobody has released it."""

    status = 4
    state = "held"


class Locked(MirrorError):
    """Another run has the lock of this mirror."""

    status = 5
    state = "locked"


class SourceError(MirrorError):
    """The source cannot be listed: it answers with an error, or with a page that is no listing."""

    status = 6


class Unreachable(SourceError):
    """No connection to the source, or none that lasts."""


class NoSpace(MirrorError):
    """The plan does not fit onto the disk, or the disk became full."""

    status = 7


class NoPlan(MirrorError):
    """A dry run was asked for where nobody can tell what a run would do."""

    status = 10


class BadDestination(MirrorError):
    """The destination is not ours, is not what it was, or is a place that must not be mirrored into."""

    status = 8


class NotAllowed(MirrorError):
    """The source refuses our credentials, or we refuse its certificate."""

    status = 9
