"""What was seen of the containers, as the sections of a test's report."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_poorcontainer.machine import LEVELS
from pytest_poorcontainer.traffic.ladder import headline, ladder, latest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_poorcontainer.report.evidence import HostFacts, NetworkFacts, ServiceFacts
    from pytest_poorcontainer.report.traffic import Traffic

__all__ = [
    "clean",
    "conversations_text",
    "hosts_text",
    "links_text",
    "mounts_text",
    "sections",
    "services_text",
    "sockets_text",
    "timeline_text",
    "topology_text",
]

_MOST_HOSTS = 32
_MOST_SOCKETS = 40
_MOST_EVENTS = 40
_MOST_CONVERSATIONS = 6
_LONGEST_LADDER = 60
_WIDEST = 400
# What would move the cursor, clear the screen or ring: C0 but tab and newline, DEL, C1, and the separators of lines
# that str.splitlines knows and terminals do not.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def sections(networks: Sequence[NetworkFacts], traffic: Traffic | None = None) -> list[tuple[str, str]]:
    """Return (title, text) of every section that has something to say, in the order of the report."""
    shown = [host for network in networks for host in network.hosts]
    texts = [
        ("poor-container: hosts", hosts_text(shown)),
        ("poor-container: topology", topology_text(networks)),
        ("poor-container: links", links_text(networks)),
        ("poor-container: mounts", mounts_text(shown)),
        ("poor-container: services", services_text(shown)),
        ("poor-container: open sockets", sockets_text(shown)),
    ]
    if traffic is not None:
        texts += [
            ("poor-container: timeline", timeline_text(traffic)),
            ("poor-container: conversations", conversations_text(traffic)),
        ]
    for host in shown[:_MOST_HOSTS]:
        texts += [_log(host, service) for service in host.services]
    return [(title, text) for title, text in texts if text]


def hosts_text(hosts: Sequence[HostFacts]) -> str:
    """Return one line per host or container: name, level, addresses, root, limits; then what is to be told about it."""
    lines = []
    for host in hosts[:_MOST_HOSTS]:
        rootfs = clean(host.rootfs) if host.rootfs != "host" else ""
        known = (host.level, ", ".join(host.addresses), rootfs, host.limits)
        lines.append(f"{host.name}: {'; '.join(filter(None, known))}")
        if host.news:
            lines.append(f"    {host.news}")
        if host.level != LEVELS[0]:
            lines.append(f"    no higher level, because {host.level_reason}")
        lines += [f"    not known: {clean(text)}" for text in host.trouble]
    return "\n".join([*lines, *_rest(len(hosts), _MOST_HOSTS, "hosts")])


def topology_text(networks: Iterable[NetworkFacts]) -> str:
    """Return the pictures of those networks that can draw themselves."""
    return "\n".join(clean(network.drawing).strip("\n") for network in networks if network.drawing)


def links_text(networks: Iterable[NetworkFacts]) -> str:
    """Return one line per cable: its two hosts, its state."""
    lines = [f"{ends}: {state}" for network in networks for ends, state in network.links]
    return "\n".join([*lines[:_MOST_HOSTS], *_rest(len(lines), _MOST_HOSTS, "links")])


def mounts_text(hosts: Iterable[HostFacts]) -> str:
    """Return one line per mount that was made on request."""
    return "\n".join(f"{host.name}: {clean(line)}" for host in hosts for line in host.mounts)


def services_text(hosts: Iterable[HostFacts]) -> str:
    """Return one line per service: its host, its name, its state."""
    return "\n".join(f"{host.name}: {service.name}: {service.state}" for host in hosts for service in host.services)


def sockets_text(hosts: Sequence[HostFacts], most: int = _MOST_SOCKETS) -> str:
    """Return one line per open socket, at most ``most`` for each host."""
    lines = []
    for host in hosts:
        lines += [f"{host.name}: {clean(line)}" for line in host.sockets[:most]]
        lines += [f"{host.name}: {text}" for text in _rest(len(host.sockets), most, "sockets")]
    return "\n".join(lines)


def timeline_text(traffic: Traffic, most: int = _MOST_EVENTS) -> str:
    """Return one line per thing that was done to hosts and links: seconds since the test began, what."""
    events = traffic.events[-most:]
    lines = [f"{traffic.seconds(event.time):12.6f}  {clean(event.what)}" for event in events]
    return "\n".join([*_rest(len(traffic.events), most, "earlier"), *lines])


def conversations_text(traffic: Traffic, most: int = _MOST_CONVERSATIONS) -> str:
    """Return ladder diagrams of the latest conversations, the odd ones first of all."""
    if traffic.trouble:
        return f"not known: {clean(traffic.trouble)}"
    shown = latest(traffic.conversations, most)
    lines = [f"{traffic.lost} frames were lost: the recorder did not get a processor in time"] if traffic.lost else []
    for each in shown:
        lines += [*ladder(each, traffic.names, traffic.zero, traffic.events, clean)[:_LONGEST_LADDER], ""]
    others = [each for each in latest(traffic.conversations, len(traffic.conversations)) if each not in shown]
    lines += [clean(headline(each, traffic.names)) for each in others[-most:]]
    lines += _rest(len(others), most, "conversations")
    return "\n".join(lines).rstrip("\n")


def _log(host: HostFacts, service: ServiceFacts) -> tuple[str, str]:
    """Return the section with the last lines of a service's log."""
    title = f"poor-container: log of {service.name} on {host.name} ({service.state})"
    try:
        text, earlier = service.log(), service.earlier()
    except Exception as error:  # noqa: BLE001 - a report tells the rest all the same
        return title, f"(cannot be read: {type(error).__name__}: {clean(str(error))})"
    lines = [_short(line) for line in clean(text).rstrip("\n").split("\n")] if text else []
    if earlier:
        before = "1 earlier line" if earlier == 1 else f"{earlier} earlier lines"
        lines.insert(0, f"({before} came before this test{'' if lines else ', and none while it ran'})")
    return title, "\n".join(lines)


def clean(text: str) -> str:
    """Return the text with its control characters spelled out: a server's log must not paint a person's terminal."""
    return _CONTROL.sub(_spelled, text.replace("\r\n", "\n"))


def _spelled(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"  # noqa: PLR2004 - one byte


def _short(line: str) -> str:
    return line if len(line) <= _WIDEST else f"{line[:_WIDEST]}... ({len(line) - _WIDEST} more characters)"


def _rest(count: int, most: int, what: str) -> list[str]:
    return [f"... and {count - most} more {what}"] if count > most else []
