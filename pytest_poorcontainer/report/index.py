"""The index over the reports of a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.report.evidence import is_well
from pytest_poorcontainer.report.markup import Markup, document, element, join

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["INDEX", "PAGE", "STATES", "index", "index_page"]

INDEX = "index.html"
STATES = "states.json"
PAGE = "report.html"


def index(root: Path, places: Iterable[Path]) -> str:
    """Return the page that leads to the reports at these places below ``root``, in their order by test.

    What cannot be read (a worker on another machine has written it) has a line without particulars.
    """
    rows = []
    for place in sorted(set(places)):
        shown = place.relative_to(root).as_posix() if place.is_relative_to(root) else str(place)
        rows.append((shown, _read(place / STATES)))
    return index_page(rows)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def index_page(rows: Iterable[tuple[str, dict[str, Any]]]) -> str:
    """Return the page for reports, each given as its directory and its states."""
    lines: list[Markup] = []
    for place, states in rows:
        name = states.get("test", place)
        phase = f"{states.get('phase', '')} {states.get('attempt', '')}".strip()
        odd = sorted({odd for each in states.get("conversations", ()) for odd in each.get("odd", ())})
        down = [
            " -- ".join(link["ends"]) + f" {link['state']}" for link in states.get("links", ()) if link["state"] != "up"
        ]
        dead = [
            f"{host['name']}: {service['name']} {service['state']}"
            for host in states.get("hosts", ())
            for service in host.get("services", ())
            if not is_well(service["state"])
        ]
        hosts = ", ".join(host["name"] for host in states.get("hosts", ()))
        what = "; ".join([*dead, *down, *odd][:6])
        cells = (
            element("a", name, href=f"{place}/{PAGE}"),
            element("code", states.get("failure", "")),
            what,
            hosts,
            phase,
        )
        lines.append(element("tr", join(element("td", cell) for cell in cells)))
    count = "1 report" if len(lines) == 1 else f"{len(lines)} reports"
    head = element("tr", join(element("th", title) for title in ("test", "failure", "odd", "hosts", "phase")))
    table = element("div", element("table", head, join(lines)), class_="wide")
    body = table if lines else element("p", "Nothing has failed.", class_="good")
    return document("Failed tests", element("h1", "Failed tests"), element("p", count, class_="soft"), body)
