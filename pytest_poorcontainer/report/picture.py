"""Pictures of a report, as SVG: who is joined to whom, who sent when, who said what."""

from __future__ import annotations

import collections
import math
from typing import TYPE_CHECKING

from pytest_poorcontainer.report.evidence import is_well
from pytest_poorcontainer.report.markup import Markup, element, join
from pytest_poorcontainer.traffic.ladder import Rung, ends, headline, rungs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_poorcontainer.report.evidence import NetworkFacts
    from pytest_poorcontainer.report.traffic import Traffic
    from pytest_poorcontainer.traffic.conversations import Conversation

__all__ = ["activity", "ladder_picture", "topology"]

_NODE, _HIGH = 150, 46
_NAME_MOST, _WORD_MOST = 18, 44
_LEFT, _RIGHT, _STEP = 250, 610, 22
_WIDE = 900
_CHART_LEFT, _CHART_RIGHT = 120, 880
_BUCKETS = 190
_CIRCLE_MOST, _COLUMNS = 10, 6
_ROW = 34
_MOST_ROWS, _MOST_MARKS = 32, 60
_LABEL = 24  # the number of an event has so much room
_MOST_RUNGS = 80


def topology(networks: Sequence[NetworkFacts]) -> Markup | None:
    """Return the hosts, and the links between them with their states; None when there is nothing to be seen."""
    names = list(dict.fromkeys(host.name for network in networks for host in network.hosts))
    addresses = {host.name: host.addresses[0] for network in networks for host in network.hosts if host.addresses}
    links = [(*ends.partition(" -- ")[::2], state) for network in networks for ends, state in network.links]
    # A switch has no host of its own among the facts, but links that name it.
    names += [end for end in dict.fromkeys(end for a, b, _ in links for end in (a, b)) if end not in names]
    if not names:
        return None
    joined = collections.Counter(end for a, b, _ in links for end in (a, b))
    star = len(names) > 3 and max(joined.values(), default=0) == len(names) - 1  # noqa: PLR2004 - fewer are in a row
    if star or len(names) > _CIRCLE_MOST:
        names.sort(key=lambda name: joined[name], reverse=True)
    places, wide, high = _places(len(names), star=star)
    at = dict(zip(names, places, strict=True))
    ill = {
        host.name: "; ".join(f"{one.name} {one.state}" for one in host.services if not is_well(one.state))
        for network in networks
        for host in network.hosts
    }
    shapes = [_wire(at[a], at[b], state) for a, b, state in links]
    shapes += [_node(*at[name], name, addresses.get(name, ""), ill.get(name, "")) for name in names]
    shapes += [_state(at[a], at[b], state) for a, b, state in links if state != "up"]  # over the boxes
    return _svg(wide, high, "the hosts and their links", shapes)


def _places(count: int, *, star: bool) -> tuple[list[tuple[float, float]], int, int]:
    """Return where so many nodes stand, and the size of the picture: in a row, around an ellipse, or in rows.

    Of a ``star`` the first one is in the middle of the ellipse.
    """
    if count <= 3:  # noqa: PLR2004 - a row of four does not leave room for the states
        places = [(100 + number * 300.0, 50.0) for number in range(count)]
        return places, 200 + (count - 1) * 300, 100
    if count > _CIRCLE_MOST:
        return _rows(count)
    if star:
        around = [
            (
                430 + 330 * math.cos(2 * math.pi * number / (count - 1) - math.pi / 2),
                220 + 170 * math.sin(2 * math.pi * number / (count - 1) - math.pi / 2),
            )
            for number in range(count - 1)
        ]
        return [(430, 220), *around], 860, 450
    radius = max(150.0, count * _NODE * 1.2 / (2 * math.pi))
    high = radius * 0.62  # names are wide
    places = [
        (
            radius + 100 + radius * math.cos(2 * math.pi * number / count - math.pi / 2),
            high + 45 + high * math.sin(2 * math.pi * number / count - math.pi / 2),
        )
        for number in range(count)
    ]
    return places, int(2 * radius + 200), int(2 * high + 110)


def _rows(count: int) -> tuple[list[tuple[float, float]], int, int]:
    """Return places in rows, the first one alone in its own: often it is the switch or the server of the others."""
    columns = _COLUMNS
    wide = columns * (_NODE + 20) + 40
    places = [(wide / 2, 45.0)]
    for number in range(count - 1):
        # Every other row is shifted, so that a line from above passes between the boxes.
        row, column = divmod(number, columns)
        shift = 10 if row % 2 else -10
        places.append((20 + (column + 0.5) * (_NODE + 20) + shift, 145.0 + row * 80))
    return places, wide, int(places[-1][1] + 45)


def _node(x: float, y: float, name: str, address: str, ill: str) -> Markup:
    box = element(
        "rect",
        x=f"{x - _NODE / 2:.0f}",
        y=f"{y - _HIGH / 2:.0f}",
        width=_NODE,
        height=_HIGH,
        rx=8,
        class_="node bad" if ill else "node",
    )
    label = element(
        "text", _short(name, _NAME_MOST), x=f"{x:.0f}", y=f"{y - (3 if address else -4):.0f}", text_anchor="middle"
    )
    below = element("text", address, x=f"{x:.0f}", y=f"{y + 14:.0f}", text_anchor="middle", class_="soft")
    shapes = [box, label, below] if address else [box, label]
    if ill:
        words = _short(ill, 26)
        shapes.append(element("text", words, x=f"{x:.0f}", y=f"{y + 38:.0f}", text_anchor="middle", class_="bad over"))
    return join(shapes)


def _wire(one: tuple[float, float], other: tuple[float, float], state: str) -> Markup:
    bad = "" if state == "up" else " bad"
    return element(
        "line",
        x1=f"{one[0]:.0f}",
        y1=f"{one[1]:.0f}",
        x2=f"{other[0]:.0f}",
        y2=f"{other[1]:.0f}",
        class_=f"wire{bad}",
    )


def _state(one: tuple[float, float], other: tuple[float, float], state: str) -> Markup:
    x, y = (one[0] + other[0]) / 2, (one[1] + other[1]) / 2
    words = _short(state, _WORD_MOST)
    return element("text", words, x=f"{x:.0f}", y=f"{y - 6:.0f}", text_anchor="middle", class_="bad over")


def activity(traffic: Traffic) -> Markup | None:
    """Return a chart of how much each host's interface sent when, and of what was done then; None without either."""
    times = [frame.time for frame in traffic.frames] + [event.time for event in traffic.events]
    if not times:
        return None
    first, last = min(*times, traffic.zero), max(times)
    span = max(last - first, 1)
    scale = (_CHART_RIGHT - _CHART_LEFT) / span
    rows = traffic.interfaces[:_MOST_ROWS]
    counts = {interface.number: [0] * _BUCKETS for interface in rows}
    for frame in traffic.frames:
        if frame.interface in counts:
            counts[frame.interface][min((frame.time - first) * _BUCKETS // span, _BUCKETS - 1)] += 1
    most = max((count for row in counts.values() for count in row), default=0)
    high = 20 + _ROW * len(rows) + 22
    shapes: list[Markup] = []
    for number, interface in enumerate(rows):
        shapes.append(_activity_row(interface.name, counts[interface.number], most, 20 + _ROW * (number + 1)))
    shown = traffic.events[-_MOST_MARKS:]
    marks = [(len(traffic.events) - len(shown) + 1 + number, event.time) for number, event in enumerate(shown)]
    for _, when in marks:
        at = f"{_CHART_LEFT + (when - first) * scale:.1f}"
        shapes.append(element("line", x1=at, x2=at, y1=16, y2=high - 20, class_="event"))
    for words, x in _labels([(number, _CHART_LEFT + (when - first) * scale) for number, when in marks]):
        shapes.append(element("text", words, x=f"{x:.1f}", y=12, text_anchor="middle", class_="warm"))
    for time, anchor in ((first, "start"), (last, "end")):
        x = _CHART_LEFT + (time - first) * scale
        words = f"{traffic.seconds(time):.3f} s"
        shapes.append(element("text", words, x=f"{x:.1f}", y=high - 4, text_anchor=anchor, class_="soft"))
    return _svg(_WIDE, high, "frames that each host has sent, by time", shapes)


def _labels(marks: Sequence[tuple[int, float]]) -> list[tuple[str, float]]:
    """Return the numbers of events and where they stand; of several at one place the first and the last."""
    groups: list[list[tuple[int, float]]] = []
    for mark in marks:
        if groups and mark[1] - groups[-1][-1][1] < _LABEL:
            groups[-1].append(mark)
        else:
            groups.append([mark])
    return [
        (f"{some[0][0]}-{some[-1][0]}" if len(some) > 1 else f"{some[0][0]}", (some[0][1] + some[-1][1]) / 2)
        for some in groups
    ]


def _activity_row(name: str, counts: Sequence[int], most: int, base: int) -> Markup:
    width = (_CHART_RIGHT - _CHART_LEFT) / _BUCKETS
    bars = []
    for number, count in enumerate(counts):
        if count:
            # By the logarithm: one frame must be seen beside ten thousand.
            tall = 3 + (_ROW - 9) * math.log1p(count) / math.log1p(most)
            place = _CHART_LEFT + number * width
            bars.append(
                element(
                    "rect",
                    x=f"{place:.1f}",
                    y=f"{base - tall:.1f}",
                    width=f"{width - 0.5:.1f}",
                    height=f"{tall:.1f}",
                    class_="bar",
                )
            )
    line = element("line", x1=_CHART_LEFT, x2=_CHART_RIGHT, y1=base, y2=base, class_="rail")
    label = element("text", _short(name, _NAME_MOST), x=_CHART_LEFT - 8, y=base - 4, text_anchor="end")
    return join((line, label, *bars))


def ladder_picture(conversation: Conversation, traffic: Traffic) -> Markup:
    """Return a conversation as a figure: two lines for its ends, an arrow for each packet, a word on what is odd."""
    lines = rungs(conversation, traffic.names, traffic.zero, traffic.events)
    left_out = len(lines) - _MOST_RUNGS
    if left_out > 0:
        half = _MOST_RUNGS // 2
        lines = [*lines[:half], Rung(lines[half].time, None, f"{left_out} more"), *lines[-half:]]
    high = 40 + _STEP * len(lines) + 10
    shapes = [
        element("text", _short(name, 34), x=x, y=16, text_anchor="middle")
        for name, x in zip(ends(conversation, traffic.names), (_LEFT, _RIGHT), strict=True)
    ]
    shapes += [element("line", x1=x, x2=x, y1=24, y2=high - 6, class_="rail") for x in (_LEFT, _RIGHT)]
    shapes += [_rung(rung, 46 + _STEP * number) for number, rung in enumerate(lines)]
    bad = "bad" if conversation.oddities else None
    caption = element("figcaption", element("span", headline(conversation, traffic.names), class_=bad), class_="mono")
    return element("figure", caption, _svg(_WIDE, high, "a ladder diagram", shapes))


def _rung(rung: Rung, y: int) -> Markup:
    time = element("text", f"{rung.time:.6f}", x=110, y=y + 4, text_anchor="end", class_="soft")
    middle = (_LEFT + _RIGHT) // 2
    if rung.forward is None:
        return join(
            (time, element("text", _short(rung.text, _WORD_MOST), x=middle, y=y, text_anchor="middle", class_="warm"))
        )
    bad = " bad" if rung.odd else ""
    tip, back = (_RIGHT - 2, -8) if rung.forward else (_LEFT + 2, 8)
    start = _LEFT if rung.forward else _RIGHT
    line = element("line", x1=start, x2=tip, y1=y, y2=y, class_=f"arrow{bad}")
    head = element("path", d=f"M{tip} {y} l{back} -4 v8 z", class_=f"head{bad}")
    label = element(
        "text", _short(rung.text, _WORD_MOST), x=middle, y=y - 4, text_anchor="middle", class_=bad.strip() or None
    )
    odd = element("text", _short(rung.odd, 38), x=_RIGHT + 12, y=y + 4, class_="bad")
    return join((time, line, head, label, odd) if rung.odd else (time, line, head, label))


def _svg(wide: float, high: float, label: str, shapes: Sequence[Markup]) -> Markup:
    return element(
        "svg",
        join(shapes, "\n"),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {wide:.0f} {high:.0f}",
        width=f"{wide:.0f}",
        height=f"{high:.0f}",
        role="img",
        aria_label=label,
    )


def _short(words: str, most: int) -> str:
    return words if len(words) <= most else f"{words[: most - 1]}\N{HORIZONTAL ELLIPSIS}"
