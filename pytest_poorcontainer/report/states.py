"""What was seen, for programs: as JSON takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.traffic.ladder import ends

if TYPE_CHECKING:
    from pytest_poorcontainer.report.evidence import HostFacts
    from pytest_poorcontainer.report.page import Story
    from pytest_poorcontainer.report.traffic import Traffic

__all__ = ["states"]

_FORM = 1


def states(story: Story) -> dict[str, Any]:
    """Return the states of a story. Their form is told in docs/reports.md."""
    return {
        "form": _FORM,
        "test": story.test,
        "attempt": story.attempt,
        "phase": story.phase,
        "failure": story.failure,
        "hosts": [_host(host) for host in story.hosts],
        "links": [
            {"ends": ends.split(" -- "), "state": state} for network in story.networks for ends, state in network.links
        ],
        **(_traffic(story.traffic) if story.traffic else {}),
    }


def _host(host: HostFacts) -> dict[str, Any]:
    return {
        "name": host.name,
        "level": host.level,
        "addresses": list(host.addresses),
        "rootfs": host.rootfs,
        "limits": host.limits,
        "mounts": list(host.mounts),
        "services": [{"name": service.name, "state": service.state} for service in host.services],
        "sockets": list(host.sockets),
        "trouble": [text for text in (host.news, *host.trouble) if text],
    }


def _traffic(traffic: Traffic) -> dict[str, Any]:
    return {
        "began": traffic.zero,
        "events": [{"time": traffic.seconds(event.time), "what": event.what} for event in traffic.events],
        "frames": len(traffic.frames),
        "lost": traffic.lost,
        "trouble": traffic.trouble,
        "conversations": [
            {
                "protocol": each.protocol,
                "ends": list(ends(each, traffic.names)),
                "packets": len(each.steps),
                "from": traffic.seconds(each.started),
                "to": traffic.seconds(each.ended),
                "odd": [traffic.names.blamed(odd) for odd in each.oddities],
            }
            for each in traffic.conversations
        ],
    }
