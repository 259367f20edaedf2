"""Directories as JSON: nginx (``autoindex_format json``) and Caddy (``Accept: application/json``)."""

from __future__ import annotations

import email.utils
import json
import os
from typing import Any
from urllib.parse import unquote_to_bytes

from pytest_poorcontainer.mirror.entries import DIRECTORY, FILE, UNRECOGNISED, Entry, Listing
from pytest_poorcontainer.mirror.listings.html import _date

__all__ = ["parse_json"]

_LARGEST = 1 << 60


def parse_json(page: bytes) -> Listing:
    """Parse either form. nginx writes the raw bytes of a name, also where they are no UTF-8."""
    try:
        rows = json.loads(page.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        return Listing(state=UNRECOGNISED, notes=[f"not JSON: {error}"])
    if rows is None:
        rows = []  # Caddy's empty directory
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return Listing(state=UNRECOGNISED, notes=["JSON, but no listing"])
    listing = Listing(dialect="json")
    for row in rows:
        entry = _caddy(row) if "mod_time" in row else _nginx(row)
        if entry is None:
            listing.doubt(f"cannot read {json.dumps(row)[:200]}")
        elif entry.kind:
            listing.add(entry)
    if rows and not listing.entries and listing.notes:
        listing.state = UNRECOGNISED
    return listing


def _nginx(row: dict[str, Any]) -> Entry | None:
    name, kind, when = row.get("name"), row.get("type"), row.get("mtime")
    if not isinstance(name, str) or not isinstance(when, str) or not isinstance(kind, str):
        return None
    try:
        mtime = email.utils.parsedate_to_datetime(when).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    name = _name(name)
    if kind == "directory":
        return Entry(name, DIRECTORY, mtime=mtime)
    if kind == "file":
        size = _size(row.get("size"))
        return None if size is None else Entry(name, FILE, size, mtime)
    return Entry("", "")  # "other": a dangling link, a device


def _caddy(row: dict[str, Any]) -> Entry | None:
    """Read Caddy's: ``url`` keeps bytes that ``name`` has lost."""
    url, when = row.get("url"), row.get("mod_time")
    if not isinstance(url, str) or not isinstance(when, str):
        return None
    name = os.fsdecode(unquote_to_bytes(url.removeprefix("./").encode("utf-8", "surrogateescape")))
    mtime, precision, _ = _date(when)
    if mtime is None:
        return None
    if row.get("is_dir") is True:
        return Entry(name.removesuffix("/"), DIRECTORY, mtime=mtime, precision=precision)
    size = None if row.get("is_symlink") is True else _size(row.get("size"))  # a link's size is the link's own
    return Entry(name, FILE, size, mtime if size is not None else None, precision)


def _size(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST else None


def _name(text: str) -> str:
    """Return a name as os.fsdecode makes it; JSON's own lone surrogates stay what they are."""
    try:
        return os.fsdecode(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return "/"  # \\ud800 in the JSON text: no bytes that we could ask for; refused with its reason
