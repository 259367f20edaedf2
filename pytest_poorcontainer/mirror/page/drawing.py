"""Small drawings for the page, as SVG that needs no script: runs as a sparkline, figures as a line."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.mirror.units import human_bytes, human_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["badge", "chart", "spark"]

_STEP, _HEIGHT = 5, 26
_LOWEST = 4
_MARKS = {"ok": 1.0, "partial": 0.7, "held": 0.5, "failed": 0.35, "locked": 0.35}
_WIDTH, _TALL, _EDGE = 600, 150, 14

_COLOURS = {"ok": "#1a7f37", "late": "#9a6700", "partial": "#9a6700", "failed": "#c0262d", "held": "#c0262d",
            "running": "#0b6bcb"}  # fmt: skip
_OTHER, _LABEL = "#5c6366", "#3d4447"
_LETTER, _MARGIN, _TALLNESS = 7, 6, 20  # pixels, of letters that are 11 tall


def badge(name: str, word: str, shown: str) -> str:
    """Return a small picture of a mirror's state for another page: its name, and the state as a word on its colour."""
    left, right = (len(text) * _LETTER + 2 * _MARGIN for text in (name, word))
    texts = "".join(
        f'<text x="{start + _MARGIN}" y="14" textLength="{len(text) * _LETTER}" lengthAdjust="spacingAndGlyphs">'
        f"{escape(text)}</text>"
        for start, text in ((0, name), (left, word))
    )
    words = escape(f"{name}: {word}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="{_TALLNESS}" role="img" '
        f'aria-label="{words}"><title>{words}</title>'
        f'<rect width="{left}" height="{_TALLNESS}" fill="{_LABEL}"/>'
        f'<rect x="{left}" width="{right}" height="{_TALLNESS}" fill="{_COLOURS.get(shown, _OTHER)}"/>'
        f'<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">{texts}</g></svg>\n'
    )


def spark(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return the runs as bars: how long each took is its height, how it ended its colour and its place."""
    longest = max((run["ended"] - run["started"] for run in runs), default=0.0) or 1.0
    bars = []
    for place, run in enumerate(runs):
        took = run["ended"] - run["started"]
        height = max(_LOWEST, round(took / longest * (_HEIGHT - 6)))
        lift = 0 if run["state"] == "ok" else 5  # colour never alone: what did not end well hangs higher
        title = f"{run['state']}, {human_seconds(took)}"
        bars.append(
            f'<rect class="{escape(run["state"])}" x="{place * _STEP}" y="{_HEIGHT - height - lift}" '
            f'width="{_STEP - 1}" '
            f'height="{height}"><title>{escape(title)}</title></rect>'
        )
    count = {state: sum(run["state"] == state for run in runs) for state in _MARKS}
    words = ", ".join(f"{number} {state}" for state, number in count.items() if number) or "no runs"
    return (
        f'<svg class="spark" viewBox="0 0 150 {_HEIGHT}" role="img" aria-label="{escape(words)}">{"".join(bars)}</svg>'
    )


def chart(runs: Sequence[Mapping[str, Any]], what: str) -> str:
    """Return "took" (seconds) or "bytes" of the runs as a line, with its largest value in words."""
    values = [run["ended"] - run["started"] if what == "took" else float(run["bytes"] or 0) for run in runs]
    top = max(values, default=0.0) or 1.0
    step = (_WIDTH - 2 * _EDGE) / max(1, len(values) - 1)
    points = " ".join(
        f"{_EDGE + step * place:.1f},{_TALL - _EDGE - value / top * (_TALL - 3 * _EDGE):.1f}"
        for place, value in enumerate(values)
    )
    word = human_seconds(top) if what == "took" else human_bytes(top)
    return (
        f"<figure><figcaption>up to {escape(word)}</figcaption>"
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_TALL}" preserveAspectRatio="none" role="img" aria-label="up to '
        f'{escape(word)}"><polyline points="{points}"/></svg></figure>'
    )
