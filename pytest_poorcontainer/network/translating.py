"""Which router's address stands for a host's, where others see its packets: those behind one that masquerades."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_poorcontainer.network.topology import Node, Port, Segment

__all__ = ["hiding"]


def hiding(hidden: Iterable[Port], others: Iterable[Port]) -> Node | None:
    """Return the router that hides who has the first ports from who has the others, on the shortest way; else None."""
    goal = {port.segment for port in others}
    # Who hides what comes by a segment, as far as the way there: the first router does, others see only that.
    by: dict[Segment, Node | None] = {port.segment: None for port in hidden}
    wave = list(by)
    while wave:
        reached = next((segment for segment in wave if segment in goal), None)
        if reached is not None:
            return by[reached]
        following: list[Segment] = []
        for segment in wave:
            for router in (port.node for port in segment.ports if port.node.forwards):
                for other in router.ports:
                    if other.segment not in by:
                        leaves = segment not in router.outside and other.segment in router.outside
                        by[other.segment] = by[segment] or (router if leaves else None)
                        following.append(other.segment)
        wave = following
    return None
