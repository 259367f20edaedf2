"""Which backend a tree gets, and why."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import Unavailable, UsageError
from pytest_poorcontainer.plugins import declare, load

if TYPE_CHECKING:
    from pytest_poorcontainer.cow.backend import Backend, Request

__all__ = ["AUTO", "choose", "known"]

AUTO = "auto"
_SPECIFICATIONS = "pytest_poorcontainer.cow.hookspecs"
_OURS = ("pytest_poorcontainer.cow.backends",)


def known() -> dict[str, type[Backend]]:
    """Return the backends by name, the best first: ours, and those of other people's plugins that are loaded."""
    manager = declare(_SPECIFICATIONS, _OURS)
    found = [kind for kinds in manager.hook.poor_container_cow_backends() for kind in kinds]
    return {kind.name: kind for kind in sorted(found, key=lambda kind: kind.rank)}


def choose(name: str, request: Request) -> tuple[Backend, str]:
    """Return a tree's backend, made, and why it is this one.

    "auto" takes the first that works here. Plugins of installed distributions are loaded for a name that is none of
    ours: to look for them takes longer than to make a tree. Raises :class:`UsageError` for a name that there is not,
    :class:`Unavailable` with what stands in the way of the one that was named, or of all.
    """
    backends = known()
    if name != AUTO:
        if name not in backends:
            load()
            backends = known()
        kind = backends.get(name)
        if kind is None:
            near = difflib.get_close_matches(str(name), backends, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UsageError(f"there is no backend {name!r}; {hint}the backends are {', '.join((AUTO, *backends))}")
        return kind(request), "it was asked for"
    refused: list[str] = []
    for kind in backends.values():
        try:
            return kind(request), "; ".join(refused) or "the first that works here"
        except Unavailable as error:
            refused.append(f"not {kind.name}: {error.reason}")
        except UsageError:
            if request.size is None:
                raise
            refused.append(f"not {kind.name}: it knows no size=")
    raise Unavailable("cow_dir", "; ".join(refused), "poor-container doctor says more")
