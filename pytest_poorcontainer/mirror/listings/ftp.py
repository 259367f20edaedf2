"""Listings of FTP servers: MLSD (RFC 3659) and what ``LIST`` may answer.

RFC 959 leaves the form of LIST open. Read here: ``ls -l`` in its variants (link targets, ACL marks, groups left out,
ISO dates, names of months first or last), Windows (IIS), and EPLF. A line that is none of them makes the listing
incomplete.
"""

from __future__ import annotations

import functools
import os
import re

from pytest_poorcontainer.mirror.entries import DIRECTORY, FILE, LINK, UNRECOGNISED, Entry, Listing
from pytest_poorcontainer.mirror.listings.dates import MONTHS, seconds, without_year

__all__ = ["parse_list", "parse_mlsd"]

_STAMP = re.compile(r"\d{14}(?:\.\d+)?$", re.ASCII)
_DATE = (
    r"(?:(?P<mon>[A-Z][a-z]{2})\s+(?P<day>\d{1,2})|(?P<day2>\d{1,2})\s+(?P<mon2>[A-Z][a-z]{2}))"
    r"\s+(?:(?P<hour>\d{1,2}):(?P<min>\d\d)|(?P<year>\d{4}))"
    r"|(?P<iso>\d{4}-\d\d-\d\d)\s(?P<ihour>\d\d):(?P<imin>\d\d)"
)
_UNIX = re.compile(
    r"(?P<type>[-dlbcpsD])(?P<perm>[-rwxsStTlL]{9})[+.@]?\s*"
    r"\d*\s+"  # links
    r"(?:\S.*?\s+)?"  # owner and group, of which some servers leave out one or both, and which may have spaces
    r"(?P<size>\d+)\s+(?:" + _DATE + r")\s(?P<name>.+)$",
    re.ASCII,
)
_DEVICE = re.compile(r"[bcps][-rwxsStTlL]{9}[+.@]?\s", re.ASCII)
_WINDOWS = re.compile(
    r"(?P<m>\d\d)-(?P<d>\d\d)-(?P<y>\d{4}|\d\d)\s+(?P<hour>\d\d):(?P<min>\d\d)(?P<half>[AP]M)?\s+"
    r"(?:(?P<dir><(?:DIR|JUNCTION|SYMLINKD?)>)|(?P<size>[\d,.]+))\s(?P<name>.+)$",
    re.ASCII,
)
_FILE = re.compile(
    r"^type=file;size=(\d{1,15});modify=(\d{8}(?:[01]\d|2[0-3]))([0-5]\d)([0-5]\d);"
    r"(?:UNIX\.mode=0?(\d)\d\d;)?(?:unique=([^;\n]*);)? ([A-Za-z0-9_~][A-Za-z0-9._~+-]{0,254})\r?\n",
    re.ASCII | re.MULTILINE,
)
"""What most lines of MLSD are: a file whose name means nothing but itself, with the facts in pure-ftpd's order."""
_EXECUTABLE = frozenset("1357")
_DIGITS = 15  # more than a petabyte is no size, and int() of a long line is slow
_LINE = 2048  # characters; longer ones would make the search for the date slow, and name no file of ours
_CENTURY = 70
_NOON = 12


def _lines(text: str) -> list[str]:
    """Return the lines of a listing. Only LF ends a line: other bytes may be in a name."""
    return [line.removesuffix("\r") for line in text.split("\n") if line not in {"", "\r"}]


def parse_mlsd(data: bytes) -> Listing:
    """Parse an answer to MLSD: ``fact=value;fact=value; name``. Facts are optional, except for the type."""
    listing = Listing(dialect="MLSD")
    text = os.fsdecode(data)
    pieces = _FILE.split(text)  # what is between the plain lines, and the facts of each, in turn
    others = pieces[:: _FILE.groups + 1]
    try:
        plain = _plain(*(pieces[number :: _FILE.groups + 1] for number in range(1, _FILE.groups + 1)))
    except ValueError:  # a date that there is none of
        others, plain = [text], []
    begun = 0
    for place, between in enumerate(others):
        if between:
            listing.entries += plain[begun:place]
            begun = place
            _by_line(between, listing)
    listing.entries += plain[begun:]
    if listing.notes and not listing.entries:
        listing.state = UNRECOGNISED
    return listing


def _plain(*columns: list[str]) -> list[Entry]:
    """Return the entries of plain lines: all of them at once, since they are most of what a run without changes reads.

    Raises ValueError for a date that there is none of.
    """
    return [
        tuple.__new__(
            Entry,
            (name, FILE, int(size), _hour(hour) + int(minute) * 60 + int(second), 1.0, 0, "", unique or "",
             False, False, mode in _EXECUTABLE),
        )
        for size, hour, minute, second, mode, unique, name in zip(*columns, strict=True)
    ]  # fmt: skip


@functools.lru_cache(maxsize=4096)
def _hour(text: str) -> float:
    """Return the seconds at which an hour (YYYYMMDDhh) begins; raises ValueError if there is no such day."""
    found = seconds(int(text[:4]), int(text[4:6]), int(text[6:8]), int(text[8:10]))
    if found is None:
        raise ValueError(text)
    return found


def _by_line(text: str, listing: Listing) -> None:
    """Take the lines of MLSD, whatever they are."""
    for line in _lines(text):
        facts, space, name = line.partition(" ")
        known = {}
        for fact in facts.split(";"):
            key, equals, value = fact.partition("=")
            if equals:
                known[key.lower()] = value
        if not space or "type" not in known:
            listing.doubt(f"cannot read the line {line!a}")
            continue
        entry = _of_facts(name, known)
        if entry is not None:
            listing.add(entry)


def _stamp(text: str) -> float | None:
    """Return the seconds of a time-val (RFC 3659 2.3); None for what is none."""
    if not _STAMP.match(text):
        return None
    return seconds(int(text[:4]), int(text[4:6]), int(text[6:8]), int(text[8:10]), int(text[10:12]), int(text[12:14]))


def _of_facts(name: str, known: dict[str, str]) -> Entry | None:
    """Return the entry of these facts; None for the directory itself, its parent, and what is no file."""
    kind, _, target = known["type"].partition(":")
    kind = kind.lower()
    if kind in {"cdir", "pdir"} or name in {".", ".."}:
        return None
    mtime = _stamp(known.get("modify", ""))
    unique = known.get("unique", "")
    if kind == "dir":
        return Entry(name, DIRECTORY, mtime=mtime, unique=unique)
    if kind in {"os.unix=slink", "os.unix=symlink"}:
        return Entry(name, LINK, mtime=mtime, target=target, unique=unique)
    if kind == "file":
        mode = known.get("unix.mode", "")
        executable = mode.isascii() and mode.isdigit() and len(mode) < _DIGITS and mode[-3:-2] in {"1", "3", "5", "7"}
        return Entry(name, FILE, _number(known.get("size", "")), mtime, unique=unique, executable=executable)
    return None  # a device, a socket: nothing for a mirror


def parse_list(data: bytes, now: float | None = None) -> Listing:
    """Parse an answer to LIST; ``now`` (seconds since 1970) is what dates without a year are counted from."""
    listing = Listing(dialect="LIST")
    for line in _lines(os.fsdecode(data)):
        if re.fullmatch(r"total \d+", line.strip(), re.ASCII):
            continue
        entry = _unix(line, now) or _windows(line) or _eplf(line)
        if entry is None:
            if not _DEVICE.match(line):
                listing.doubt(f"cannot read the line {line!a}")
        elif entry.name not in {".", ".."}:
            listing.add(entry)
    if listing.notes and not listing.entries:
        listing.state = UNRECOGNISED
    return listing


def _unix(line: str, now: float | None) -> Entry | None:
    found = _UNIX.match(line) if len(line) <= _LINE else None
    if not found or found["type"] in "bcpsD":
        return None
    name, kind = found["name"], {"d": DIRECTORY, "l": LINK}.get(found["type"], FILE)
    target = ""
    if kind == LINK:
        name, arrow, target = name.partition(" -> ")
        if not arrow:
            return None
    mtime, precision, vague = _time(found, now)
    if mtime is None:
        return None
    size = _number(found["size"]) if kind == FILE else None
    executable = found["perm"][2] in "xs"
    return Entry(
        name,
        kind,
        size,
        mtime,
        precision,
        target=target,
        local=True,
        vague=vague,
        executable=executable and kind == FILE,
    )


def _time(found: re.Match[str], now: float | None) -> tuple[float | None, float, bool]:
    """Return (seconds, precision, vague) of the date that was found."""
    if found["iso"]:
        year, month, day = (int(part) for part in found["iso"].split("-"))
        return seconds(year, month, day, int(found["ihour"]), int(found["imin"])), 60.0, False
    month = MONTHS.get(found["mon"] or found["mon2"], 0)
    day = int(found["day"] or found["day2"])
    if found["year"]:
        return seconds(int(found["year"]), month, day), 86400.0, False
    if int(found["hour"]) > 23 or int(found["min"]) > 59:  # noqa: PLR2004 - a clock's own numbers
        return None, 0.0, False
    mtime, vague = without_year(month, day, int(found["hour"]), int(found["min"]), now)
    return mtime, 60.0, vague


def _windows(line: str) -> Entry | None:
    found = _WINDOWS.match(line)
    if not found:
        return None
    year, hour = int(found["y"]), int(found["hour"])
    if len(found["y"]) == 2:  # noqa: PLR2004 - two digits
        year += 1900 if year >= _CENTURY else 2000
    if found["half"]:
        hour = hour % _NOON + (_NOON if found["half"] == "PM" else 0)
    mtime = seconds(year, int(found["m"]), int(found["d"]), hour, int(found["min"]))
    if mtime is None:
        return None
    name = found["name"].lstrip(" ")  # right-aligned columns: a leading space cannot be told from padding
    if found["dir"]:
        if found["dir"] == "<DIR>":
            return Entry(name, DIRECTORY, mtime=mtime, precision=60.0, local=True)
        name, _, target = name.partition(" [")
        return Entry(name, LINK, mtime=mtime, precision=60.0, target=target.removesuffix("]"), local=True)
    size = _number(re.sub(r"[,.]", "", found["size"]))
    return Entry(name, FILE, size, mtime, 60.0, local=True)


def _eplf(line: str) -> Entry | None:
    r"""Parse Bernstein's easily parsed list format: ``+fact,fact,\tname``."""
    facts, tab, name = line.partition("\t")
    if not tab or not facts.startswith("+"):
        return None
    kind, size, mtime = "", None, None
    for fact in facts[1:].split(","):
        if fact in {"/", "r"}:
            kind = DIRECTORY if fact == "/" else FILE
        elif fact.startswith("s"):
            size = _number(fact[1:])
        elif fact.startswith("m"):
            mtime = _number(fact[1:])
    return Entry(name, kind, size, mtime) if kind else None


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else None
