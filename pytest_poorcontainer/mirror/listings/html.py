"""Directories as web servers show them: nginx, Apache, lighttpd, Caddy, and Python's http.server.

Names come from ``href`` alone, since the text is shortened. A page is read only if it looks as one of these servers
makes it: a login page or an error page with links in it is no listing. A row that cannot be read, or a page without its
end, makes the listing incomplete.
"""

from __future__ import annotations

import functools
import html
import os
import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from pytest_poorcontainer.mirror.entries import DIRECTORY, FILE, UNRECOGNISED, Entry, Listing
from pytest_poorcontainer.mirror.listings.dates import MONTHS, seconds

__all__ = ["parse_html"]

_HREF = rb"<a\s+(?:[a-z]+=\"[^\"]*\"\s+){0,4}href=(?:\"(?P<href>[^\"<>]*)\"|'(?P<href2>[^'<>]*)')[^<>]*>"
_SIZE = rb"(?P<size>-|[\d.]+\s?[KMGTP]?)"
_PLAIN = re.compile(  # nginx, and Apache's <pre>
    _HREF + rb"(?P<text>[^\n]*?)</a>\s*(?P<date>\d\d-[A-Z][a-z]{2}-\d{4} \d\d:\d\d|\d{4}-\d\d-\d\d \d\d:\d\d|-)?"
    rb"\s*" + _SIZE + rb"?\s*(?P<rest>[^\n]*)$"
)
_APACHE_ROW = re.compile(
    rb"<td[^>]*>(?:<a [^>]*>)?<img[^>]*>(?:</a>)?</td>\s*<td[^>]*>" + _HREF + rb".*?</td>"
    rb"(?:\s*<td[^>]*>(?:\s*|&nbsp;)(?P<date>\d{4}-\d\d-\d\d \d\d:\d\d)?(?:\s*|&nbsp;)</td>)?"
    rb"(?:\s*<td[^>]*>(?:\s*|&nbsp;)" + _SIZE + rb"?\s*(?:&nbsp;)?\s*</td>)?",
    re.DOTALL,
)
_LIGHTTPD_ROW = re.compile(
    rb"<td class=\"n\">"
    + _HREF
    + rb".*?</td>\s*<td class=\"m\">(?P<date>\d{4}-[A-Z][a-z]{2}-\d\d \d\d:\d\d:\d\d|&nbsp;|)</td>"
    rb"\s*<td class=\"s\">" + _SIZE + rb"(?:\s|&nbsp;)*</td>",
    re.DOTALL,
)
_CADDY_ROW = re.compile(
    rb"<td[^>]*>\s*" + _HREF + rb".*?</td>\s*(?:<td[^>]*data-(?:order|size)=\"(?P<bytes>-?\d+)\"[^>]*>.*?</td>"
    rb"|<td[^>]*>\s*&mdash;\s*</td>).*?<time datetime=\"(?P<date>[^\"]{10,40})\"",
    re.DOTALL,
)
_PYTHON_ROW = re.compile(rb"<li>" + _HREF)
_SIMPLE_ROW = re.compile(
    rb"<a href=\"([A-Za-z0-9_~][A-Za-z0-9._~+-]{0,254})\">[^<\n]*</a>"
    rb" +(\d\d-[A-Z][a-z]{2}-\d{4} \d\d:\d\d) +(\d{1,15})\r?"
)
"""What most rows of nginx are: a file whose name means nothing but itself."""
_DATES = (
    (re.compile(r"(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d)(?::(\d\d))?(?:\.\d+)?(Z|[+-]\d\d:?\d\d)?", re.ASCII), "ymd"),
    (re.compile(r"(\d\d)-([A-Z][a-z]{2})-(\d{4}) (\d\d):(\d\d)", re.ASCII), "dMy"),
    (re.compile(r"(\d{4})-([A-Z][a-z]{2})-(\d\d) (\d\d):(\d\d):(\d\d)", re.ASCII), "yMd"),
)
_DIGITS = 15  # more than a petabyte is no size
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_SIMPLE = re.compile(rb"[A-Za-z0-9_~][A-Za-z0-9._~+-]*/?")
"""What most links are: nothing of it means anything but itself, neither in HTML nor in a URL."""
_ZONE = re.compile(r"([+-])(\d\d):?(\d\d)", re.ASCII)


class _Dialect(NamedTuple):
    """How one server's pages look: what they begin with, where the rows are, and how each is read."""

    name: str
    mark: re.Pattern[bytes]
    start: re.Pattern[bytes]
    end: bytes
    split: bytes
    row: re.Pattern[bytes]
    rounded: bool
    local: bool = True


_DIALECTS = (
    _Dialect(
        "lighttpd",
        re.compile(rb"<title>Index of /.*<td class=\"[nm]\">|<title>Index of /.*<div class=\"list\">", re.DOTALL),
        re.compile(rb"<tbody>"),
        b"</tbody>",
        b"<tr",
        _LIGHTTPD_ROW,
        rounded=True,
    ),
    _Dialect(
        "apache table",
        re.compile(rb"<title>Index of /[^<]*</title>.*<table[^>]*>\s*<tr><th", re.DOTALL),
        re.compile(rb"<table[^>]*>"),
        b"</table>",
        b"<tr",
        _APACHE_ROW,
        rounded=True,
    ),
    _Dialect(
        "apache",
        re.compile(rb"<title>Index of /[^<]*</title>.*<pre>.*<a href=\"\?C=", re.DOTALL),
        re.compile(rb"<pre>"),
        b"</pre>",
        b"\n",
        _PLAIN,
        rounded=True,
    ),
    _Dialect(
        "nginx",
        re.compile(rb"<title>Index of /[^<]*</title>.*<h1>Index of /[^<]*</h1>\s*<hr><pre>", re.DOTALL),
        re.compile(rb"<pre>"),
        b"</pre>",
        b"\n",
        _PLAIN,
        rounded=False,
    ),
    _Dialect(
        "caddy",
        re.compile(
            rb"<tbody>\s*<tr class=\"file\">|<table[^>]*aria-describedby=\"summary\"|<span class=\"meta-item\">"
        ),
        re.compile(rb"<tbody>"),
        b"</tbody>",
        b"<tr",
        _CADDY_ROW,
        rounded=False,
        local=False,
    ),
    _Dialect(
        "python",
        re.compile(rb"<title>Directory listing for /[^<]*</title>"),
        re.compile(rb"<ul>"),
        b"</ul>",
        b"\n",
        _PYTHON_ROW,
        rounded=False,
    ),
)


def parse_html(page: bytes, path: bytes = b"/") -> Listing:
    """Parse a page; ``path`` is the request's (decoded), for servers that write absolute links."""
    dialect = next((one for one in _DIALECTS if one.mark.search(page[:65536])), None)
    begin = dialect.start.search(page) if dialect else None
    if dialect is None or begin is None:
        return Listing(state=UNRECOGNISED, notes=["the page is no listing of a server that we know"])
    listing = Listing(dialect=dialect.name)
    body, end, _ = page[begin.end() :].partition(dialect.end)
    if not end:
        listing.doubt("the page has no end")
    simple = _SIMPLE_ROW.fullmatch if dialect.name == "nginx" else None
    for row in body.split(dialect.split):
        plain = simple(row) if simple else None
        if plain:
            name, date, size = plain.groups()
            mtime, precision, _ = _date(date.decode())
            listing.entries.append(Entry(name.decode(), FILE, int(size), mtime, precision, local=True))
        elif b"href=" in row:
            _add_row(listing, dialect, row, path)
    return listing


def _add_row(listing: Listing, dialect: _Dialect, row: bytes, path: bytes) -> None:
    found = dialect.row.search(row)
    if not found:
        if not _is_furniture(row):
            listing.doubt(f"cannot read the row {row[:200]!r}")
        return
    href = found["href"] if found["href"] is not None else found["href2"]
    name = _name(href, path)
    if name is None:
        return
    is_directory = name.endswith("/")
    groups = found.groupdict()
    mtime, precision, zoned = _date((groups.get("date") or b"").decode("ascii", "replace"))
    size, slack = None, 0
    if not is_directory:
        size, slack = _size(
            (groups.get("bytes") or groups.get("size") or b"").decode("ascii", "replace"), dialect.rounded
        )
    kind = DIRECTORY if is_directory else FILE
    local = dialect.local and not zoned
    listing.add(Entry(name.removesuffix("/"), kind, size, mtime, precision, slack, local=local))


def _is_furniture(row: bytes) -> bool:
    """Whether a row without the form of an entry is the heading with links to sort by, or the link to the parent."""
    links = re.findall(_HREF, row)
    return bool(links) and all(
        (first or second).startswith((b"?", b"/", b"..", b"./?", b"./..")) for first, second in links
    )


def _name(href: bytes, path: bytes) -> str | None:
    """Return the name that a link leads to, with "/" at its end for a directory; None if it is no entry's link."""
    if _SIMPLE.fullmatch(href):
        return href.decode("ascii")
    link = html.unescape(href.decode("utf-8", "surrogateescape"))
    if link.startswith(("?", "#")) or re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|//|mailto:|javascript:", link):
        return None
    if link in {"../", "..", "./", ".", "/"}:
        return None
    link = link.partition("?")[0].partition("#")[0]
    name = unquote_to_bytes(link.encode("utf-8", "surrogateescape"))
    name = name.removeprefix(b"./")
    if name.startswith(b"/"):
        base = path if path.endswith(b"/") else path + b"/"
        if base.startswith(name):
            return None  # the parent's link, or the directory's own
        name = name.removeprefix(base)  # what leads elsewhere keeps its slashes, and is refused for them
    return os.fsdecode(name)


@functools.lru_cache(maxsize=4096)
def _date(text: str) -> tuple[float | None, float, bool]:
    """Return (seconds, precision, whether the zone is known)."""
    for pattern, order in _DATES:
        found = pattern.match(text)
        if not found:
            continue
        parts = found.groups()
        zone = parts[6] if order == "ymd" else None
        second = parts[5] if order != "dMy" else None
        month = MONTHS.get(parts[1], 0) if "M" in order else int(parts[1])
        year, day = (parts[2], parts[0]) if order == "dMy" else (parts[0], parts[2])
        value = seconds(int(year), month, int(day), int(parts[3]), int(parts[4]), int(second or 0))
        ahead = _ZONE.match(zone or "")
        if value is not None and ahead:
            value -= (int(ahead[2]) * 3600 + int(ahead[3]) * 60) * (1 if ahead[1] == "+" else -1)
        return value, 1.0 if second else 60.0, bool(zone)
    return None, 1.0, False


def _size(text: str, rounded: bool) -> tuple[int | None, int]:
    """Return (bytes, slack). Apache and lighttpd round to a tenth of a unit, or from ten on to a whole one."""
    text = text.strip()
    if text.isdigit() and text.isascii() and len(text) <= _DIGITS:
        return int(text), 0
    unit = text[-1:] if text[-1:] in _UNITS else ""
    digits = text[: len(text) - len(unit)].strip()
    if not re.fullmatch(r"\d{1,15}(\.\d{1,3})?", digits):
        return None, 0
    factor = _UNITS[unit]
    if factor == 1 and "." not in digits:
        return int(digits), 0
    step = factor / 10 if "." in digits else factor
    # lighttpd truncates, and shows 0.1K for one byte; Apache rounds: one whole step either way is always enough.
    return int(float(digits) * factor), int(step) + 1 if rounded or factor > 1 else 0
