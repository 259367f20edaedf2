"""Medians with their spread, and the tables and sections that docs/benchmarks.md is made of."""

from __future__ import annotations

import datetime as dt
import math
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Section", "Table", "Target", "paragraph", "percentile", "spread"]


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value below which ``share`` (0..1) of ``values`` lie, by linear interpolation; NaN for none."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return median, p10 and p90."""
    return percentile(values, 0.5), percentile(values, 0.1), percentile(values, 0.9)


def paragraph(text: str) -> str:
    """Return a text whose lines are as the source needed them as one paragraph, wrapped as Markdown is here."""
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


@dataclass
class Table:
    """A Markdown table: a header, and rows whose numbers are rounded to three significant digits."""

    header: Sequence[str]
    rows: list[Sequence[object]] = field(default_factory=list)

    def markdown(self) -> str:
        """Return the table as Markdown, numbers right-aligned."""
        cells = [[_cell(value) for value in row] for row in self.rows]
        numeric = [
            bool(self.rows)
            and all(isinstance(row[column], (int, float)) or row[column] in ("", "-") for row in self.rows)
            for column in range(len(self.header))
        ]
        rule = ["---:" if right else "---" for right in numeric]
        return "\n".join("| " + " | ".join(row) + " |" for row in [list(self.header), rule, *cells])


@dataclass(frozen=True)
class Target:
    """A figure that was promised: what was measured, the most it may be, and its unit."""

    what: str
    measured: float
    limit: float
    unit: str = ""

    @property
    def reached(self) -> bool:
        """Whether the figure is no more than its limit (a figure that is not a number never is)."""
        return self.measured <= self.limit

    def row(self) -> Sequence[object]:
        """Return the target as a row of a table."""
        unit = f" {self.unit}" if self.unit else ""
        return (
            self.what,
            f"≤ {_cell(self.limit)}{unit}",
            f"{_cell(self.measured)}{unit}",
            "pass" if self.reached else "**FAIL**",
        )


@dataclass
class Section:
    """One part of docs/benchmarks.md: a name that ``--only`` takes, a title, text, tables and targets."""

    name: str
    title: str
    parts: list[str | Table] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)

    def markdown(self, command: str) -> str:
        """Return the section as Markdown; ``command`` is what makes it again."""
        parts = [f"## {self.title}", f"`{command}`, {dt.datetime.now(dt.timezone.utc):%Y-%m-%d %H:%M} UTC"]
        if self.targets:
            parts.append(
                Table(("target", "at most", "measured", ""), [target.row() for target in self.targets]).markdown()
            )
        parts += [part if isinstance(part, str) else part.markdown() for part in self.parts]
        return "\n\n".join(parts)


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return "-"
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
