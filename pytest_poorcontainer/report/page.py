"""The page of a failed test: everything that is known of it, in one file that needs no other."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_poorcontainer.report.evidence import is_well
from pytest_poorcontainer.report.index import INDEX
from pytest_poorcontainer.report.markup import Markup, document, element, join
from pytest_poorcontainer.report.picture import activity, ladder_picture, topology
from pytest_poorcontainer.report.text import sockets_text
from pytest_poorcontainer.traffic.ladder import headline, latest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_poorcontainer.report.evidence import HostFacts, NetworkFacts
    from pytest_poorcontainer.report.traffic import Traffic

__all__ = ["LOG_MOST", "Story", "findings", "page"]

_MOST_FIGURES = 8
_MOST_HEADLINES = 50
_MOST_SOCKETS = 200
LOG_MOST = 64 << 10
"""How much of a log a page shows: bytes."""
_TEXT_MOST = 256 << 10
_NS = 1e9
_MOST_FINDINGS, _MOST_ODD = 12, 4


@dataclass(frozen=True)
class Story:
    """A phase of a test: what it is called, and what was seen.

    ``texts`` are titles and what pytest had to say, ``files`` the names of those beside the page, ``logs`` title, file
    and end of each; ``failure`` is why it failed, in a line.
    """

    test: str
    attempt: int
    phase: str
    networks: Sequence[NetworkFacts]
    traffic: Traffic | None = None
    texts: Sequence[tuple[str, str]] = ()
    files: Sequence[str] = ()
    logs: Sequence[tuple[str, str, str]] = ()
    failure: str = ""

    @property
    def hosts(self) -> list[HostFacts]:
        """All hosts and containers."""
        return [host for network in self.networks for host in network.hosts]


def page(story: Story) -> str:
    """Return the page as HTML. Whatever a test, a log or a packet says, it is shown as text."""
    parts: list[Markup] = [_head(story), *_at_a_glance(story)]
    for title, words in story.texts:
        parts += [_heading(title), element("pre", words[-_TEXT_MOST:])]
    picture = topology(story.networks)
    if picture is not None:
        parts += [_heading("hosts and links"), element("figure", picture)]
    parts += [*_hosts(story.hosts), *_traffic(story.traffic), *_services(story), *_sockets(story.hosts)]
    if story.files:
        links = join((element("a", name, href=name) for name in story.files), ", ")
        parts += [_heading("files"), element("p", links)]
    parts.append(element("p", element("a", "all failed tests", href=f"../../{INDEX}")))
    return document(f"{story.test} ({story.phase})", *parts)


def _heading(words: str) -> Markup:
    return element("h2", words)


def _head(story: Story) -> Markup:
    began = story.traffic.zero if story.traffic else 0
    when = (
        f"began {datetime.datetime.fromtimestamp(began / _NS, datetime.timezone.utc):%Y-%m-%d %H:%M:%S.%f} UTC"
        if began
        else ""
    )
    return join(
        (
            element("h1", story.test),
            element("p", ", ".join(filter(None, (f"attempt {story.attempt}", story.phase, when))), class_="soft"),
            element("p", element("code", story.failure, class_="bad")),
        )
    )


def findings(story: Story) -> list[str]:
    """Return what is not as it should be, each in a line: services that died, links, hosts, the latest odd talks."""
    dead = [
        f"{host.name}: {service.name} {service.state}"
        for host in story.hosts
        for service in host.services
        if not is_well(service.state)
    ]
    links = [f"{ends}: {state}" for network in story.networks for ends, state in network.links if state != "up"]
    hosts = [f"{host.name}: {words}" for host in story.hosts for words in (host.news, *host.trouble) if words]
    traffic = story.traffic
    odd = [] if traffic is None else [each for each in latest(traffic.conversations, _MOST_FIGURES) if each.oddities]
    odd.sort(key=lambda each: each.ended, reverse=True)
    talks = [] if traffic is None else [headline(each, traffic.names) for each in odd[:_MOST_ODD]]
    found = [*dead, *links, *hosts]
    return [*found[:_MOST_FINDINGS], *talks]


def _at_a_glance(story: Story) -> list[Markup]:
    found = findings(story)
    if not found:
        return []
    return [_heading("what is odd"), element("ul", join(element("li", words) for words in found), class_="odd")]


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    titles = element("tr", join(element("th", title) for title in head))
    body = join(element("tr", join(element("td", cell) for cell in row)) for row in rows)
    return element("div", element("table", titles, body), class_="wide")


def _hosts(hosts: Sequence[HostFacts]) -> list[Markup]:
    if not hosts:
        return []
    rows = [
        (
            host.name,
            ", ".join(host.addresses),
            "; ".join(filter(None, (host.level, host.rootfs if host.rootfs != "host" else "", host.limits))),
            element("span", "; ".join(filter(None, (host.news, *host.trouble))), class_="warm"),
        )
        for host in hosts
    ]
    columns = 4 if any(host.news or host.trouble for host in hosts) else 3
    parts = [_table(("host", "addresses", "level", "to be told")[:columns], (row[:columns] for row in rows))]
    mounts = [(host.name, mount) for host in hosts for mount in host.mounts]
    if mounts:
        parts += [_heading("mounts"), _table(("host", "mount"), mounts)]
    return parts


def _traffic(traffic: Traffic | None) -> list[Markup]:
    if traffic is None:
        return []
    parts: list[Markup] = []
    chart = activity(traffic)
    if chart is not None:
        parts += [_heading("timeline"), element("figure", chart)]
        if traffic.known_since:
            few = "Of hosts that have sent much the newest frames alone are drawn."
            parts.append(element("p", few, class_="soft"))
    if traffic.events:
        events = enumerate(traffic.events, 1)
        rows = [(number, f"{traffic.seconds(event.time):.6f}", event.what) for number, event in events]
        parts.append(_table(("", "s", "what was done"), rows[-500:]))
    if traffic.trouble:
        return [*parts, _heading("conversations"), element("p", f"not known: {traffic.trouble}", class_="warm")]
    if traffic.lost:
        lost = f"{traffic.lost} frames were lost: the recorder did not get a processor in time"
        parts.append(element("p", lost, class_="warm"))
    shown = latest(traffic.conversations, _MOST_FIGURES)
    if shown:
        parts += [_heading("conversations"), *(ladder_picture(each, traffic) for each in shown)]
    others = [each for each in latest(traffic.conversations, len(traffic.conversations)) if each not in shown]
    if others:
        lines = [headline(each, traffic.names) for each in others[-_MOST_HEADLINES:]]
        more = [f"... and {len(others) - len(lines)} earlier ones"] if len(others) > len(lines) else []
        parts.append(_folded(f"{len(others)} other conversations", "\n".join([*more, *lines])))
    return parts


def _services(story: Story) -> list[Markup]:
    rows = [
        (host.name, service.name, element("span", service.state, class_="good" if is_well(service.state) else "bad"))
        for host in story.hosts
        for service in host.services
    ]
    if not rows:
        return []
    parts = [_heading("services"), _table(("host", "service", "state"), rows)]
    for title, file, words in story.logs:
        parts.append(_folded(title, words[-LOG_MOST:], element("p", element("a", "the whole log", href=file))))
    return parts


def _sockets(hosts: Sequence[HostFacts]) -> list[Markup]:
    words = sockets_text(hosts, _MOST_SOCKETS)
    count = words.count("\n") + 1
    return [_heading("open sockets"), _folded(f"{count} line{'s' * (count > 1)}", words)] if words else []


def _folded(title: str, words: str, *more: Markup) -> Markup:
    return element("details", element("summary", title), element("pre", words or "(nothing)"), *more)
