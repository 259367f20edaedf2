"""Parsers of listings: what real servers write, and what nobody should write."""

import calendar
import os
import re
import string
import time
import tracemalloc
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_poorcontainer.mirror import manifest
from pytest_poorcontainer.mirror.entries import COMPLETE, DIRECTORY, FILE, INCOMPLETE, LINK, UNRECOGNISED, why_refused
from pytest_poorcontainer.mirror.listings import ftp, html
from pytest_poorcontainer.mirror.listings.dates import without_year
from pytest_poorcontainer.mirror.listings.ftp import parse_list, parse_mlsd
from pytest_poorcontainer.mirror.listings.html import parse_html
from pytest_poorcontainer.mirror.listings.jsons import parse_json
from pytest_poorcontainer.mirror.manifest import parse as parse_manifest
from pytest_poorcontainer.mirror.sums import parse as parse_sums
from pytest_poorcontainer.mirror.testing.serving import Item
from pytest_poorcontainer.mirror.testing.web import DIALECTS

NOW = calendar.timegm((2026, 11, 23, 12, 0, 0))
MLSD = ["type=file;size=3;modify=20261123192918; a b", "type=dir;modify=20261123192918; sub"]

LIST = {
    "vsftpd": ("-rw-r--r--    1 1000     1000      1536000 Nov 23 10:29 file.bin", FILE, 1536000, "Nov 23 10:29 2026"),
    "vsftpd future": ("-rw-r--r--    1 0        0               3 May 01  2027 f", FILE, 3, "May 1 00:00 2027"),
    "proftpd": ("-rw-r--r--   1 ftp      ftp          1234 Jan  5  2020 old", FILE, 1234, "Jan 5 00:00 2020"),
    "directory": ("drwxr-xr-x    2 ftp      ftp          4096 Nov 23 10:29 d", DIRECTORY, None, "Nov 23 10:29 2026"),
    "link": ("lrwxrwxrwx   1 ftp ftp  7 Nov 23 10:29 l -> pool/a b", LINK, None, "Nov 23 10:29 2026"),
    "ACL mark": ("-rw-r--r--+  1 ftp ftp  7 Nov 23 10:29 f", FILE, 7, "Nov 23 10:29 2026"),
    "no group": ("-rw-r--r--   1 ftp  7 Nov 23 10:29 f", FILE, 7, "Nov 23 10:29 2026"),
    "owner with a space": ("-rw-r--r--   1 Domain Users ftp  7 Nov 23 10:29 f", FILE, 7, "Nov 23 10:29 2026"),
    "ISO date": ("-rw-r--r-- 1 ftp ftp 7 2026-11-23 10:29 f", FILE, 7, "Nov 23 10:29 2026"),
    "day first": ("-rw-r--r-- 1 ftp ftp 7 23 Nov 10:29 f", FILE, 7, "Nov 23 10:29 2026"),
    "Windows": ("04-14-15  09:46PM                  123 f", FILE, 123, "Apr 14 21:46 2015"),
    "Windows, long year": ("04-14-2015  12:46AM            1,123 f", FILE, 1123, "Apr 14 00:46 2015"),
    "Windows directory": ("04-14-15  09:46PM       <DIR>          d", DIRECTORY, None, "Apr 14 21:46 2015"),
    "EPLF": ("+i8388621.29609,m824255902,/,\td", DIRECTORY, None, "Feb 13 23:58 1996"),
    "EPLF file": ("+i8388621.44468,m839956783,r,s10376,\tf", FILE, 10376, "Aug 12 17:19 1996"),
    "last December": ("-rw-r--r-- 1 f f 7 Dec 30 10:29 f", FILE, 7, "Dec 30 10:29 2025"),
    "29 February": ("-rw-r--r-- 1 f f 7 Feb 29 18:23 f", FILE, 7, "Feb 29 18:23 2024"),
}


@pytest.mark.parametrize("dialect", LIST)
def test_list_in_its_dialects(dialect):
    """Each form of LIST is read: kind, size, time (rows 17 to 19, 27)."""
    line, kind, size, when = LIST[dialect]
    listing = parse_list(line.encode() + b"\r\n", NOW)
    assert listing.state == COMPLETE, listing.notes
    entry = listing.entries[0]
    assert (entry.kind, entry.size) == (kind, size)
    if not dialect.startswith("EPLF"):
        assert time.strftime("%b %-d %H:%M %Y", time.gmtime(entry.mtime)) == when
    if kind == LINK:
        assert (entry.name, entry.target) == ("l", "pool/a b")


def test_list_of_a_whole_directory():
    """Totals, the directory itself, its parent and devices are no entries; all else has to be read."""
    lines = [b"total 12", b"drwxr-xr-x 2 f f 4096 Nov 23 10:29 .", b"drwxr-xr-x 2 f f 4096 Nov 23 10:29 ..",
             b"crw-r--r-- 1 f f 1, 3 Nov 23 10:29 null", b"-rw-r--r-- 1 f f 7 Nov 23 10:29  two",
             b"-rw-r--r-- 1 f f 7 Nov 23 10:29 caf\xe9"]  # fmt: skip
    listing = parse_list(b"\r\n".join(lines), NOW)
    assert listing.state == COMPLETE
    assert [entry.name for entry in listing.entries] == [" two", "caf\udce9"]


@pytest.mark.parametrize(("parse", "line"), [(parse_list, b"something else"), (parse_mlsd, b"size=3; no type")])
def test_a_line_that_is_none_makes_it_incomplete(parse, line):
    """One bad line among good ones is incomplete, nothing but bad ones no listing at all (row 25)."""
    good = b"-rw-r--r-- 1 f f 7 Nov 23 10:29 f\r\n" if parse is parse_list else b"type=file; f\r\n"
    assert parse(good + line + b"\r\n").state == INCOMPLETE
    assert parse(line + b"\r\n").state == UNRECOGNISED
    assert parse(b"").state == COMPLETE


def test_dates_without_a_year():
    """This year, unless that is more than a day ahead; then the year before, and vague."""
    assert without_year(11, 24, 11, 0, NOW) == (calendar.timegm((2026, 11, 24, 11, 0, 0)), False)
    assert without_year(11, 25, 11, 0, NOW) == (calendar.timegm((2025, 11, 25, 11, 0, 0)), True)
    assert without_year(2, 29, 1, 0, NOW) == (calendar.timegm((2024, 2, 29, 1, 0, 0)), True)
    assert without_year(2, 30, 1, 0, NOW) == (None, True)


def test_mlsd_of_real_servers():
    """Facts in any order, links in three forms, the directory itself left out (rows 16, 26)."""
    lines = [b"type=cdir;modify=20261123192918; .", b"modify=20261123192918;type=file;size=5;UNIX.mode=0755; x",
             b"type=OS.unix=slink:../y;unique=8U12; l1", b"type=OS.unix=symlink; l2", b"Type=dir;Unique=8U13; d",
             b"type=OS.unix=chr-1/3; null"]  # fmt: skip
    listing = parse_mlsd(b"\r\n".join(lines))
    assert listing.state == COMPLETE
    assert [(entry.name, entry.kind) for entry in listing.entries] == [
        ("x", FILE),
        ("l1", LINK),
        ("l2", LINK),
        ("d", DIRECTORY),
    ]
    assert listing.entries[0].executable
    assert listing.entries[1].target == "../y"
    assert listing.entries[3].unique == "8U13"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_pages_of_web_servers(dialect):
    """Every server's page gives names from its links, and sizes within their rounding (rows 21 to 23, 25)."""
    items = [
        Item("x" * 200, FILE, 1_536_000, NOW),
        Item("sub dir", DIRECTORY, 0, NOW),
        Item("one?#%\"'<&>", FILE, 1, NOW),
    ]
    page = DIALECTS[dialect]("/pub/", items)
    listing = parse_json(page) if dialect in {"caddy", "nginx-json"} else parse_html(page, b"/pub/")
    assert (listing.state, listing.notes) == (COMPLETE, [])
    assert {entry.name for entry in listing.entries} == {item.name for item in items}
    for item, entry in zip(sorted(items), sorted(listing.entries), strict=True):
        assert entry.kind == item.kind
        if item.kind == FILE and entry.size is not None:
            assert abs(entry.size - item.size) <= entry.slack
        if entry.mtime is not None:
            assert entry.mtime <= item.mtime < entry.mtime + entry.precision


@pytest.mark.parametrize("dialect", [one for one in DIALECTS if one not in {"caddy", "nginx-json"}])
def test_a_page_without_its_end_is_incomplete(dialect):
    """What was cut off may have named anything."""
    page = DIALECTS[dialect]("/", [Item(f"f{number}", FILE, 1, NOW) for number in range(50)])
    listing = parse_html(page[: len(page) * 2 // 3])
    assert listing.state in {INCOMPLETE, UNRECOGNISED}


@pytest.mark.parametrize(
    "page",
    [b"", b"<html></html>", b"<title>Index of</title><a href='x'>x</a>", b'<a href="a.iso">a.iso</a>', b"[]x",
     b'<title>Login</title><pre><a href="/login">x</a></pre>', b"<title>Index of /x - Shop</title><ul></ul>"],
)  # fmt: skip
def test_pages_that_are_no_listing(page):
    """A page of another kind is not recognised, whatever links it has (row 2)."""
    assert parse_html(page).state == UNRECOGNISED


@pytest.mark.parametrize(
    "link", ["http://other/x", "//other/x", "mailto:a@b", "javascript:x", "?C=N", "#top", "../", "/", "./"]
)
def test_links_that_are_no_entries(link):
    """What leads to other places, sorts, or goes up is passed over."""
    page = (
        f'<title>Index of /p/</title><h1>Index of /p/</h1><hr><pre><a href="{link}">x</a>  23-Nov-2026 19:29  3\n</pre>'
    )
    listing = parse_html(page.encode(), b"/p/")
    assert (listing.state, listing.entries) == (COMPLETE, [])


@pytest.mark.parametrize(
    "link", ["..%2fx", "a/b", "%2fetc%2fpasswd", "/etc/passwd", "x%00y", "a%0ab", "%2e%2e/%2e%2e/x"]
)
def test_links_that_leave_the_directory(link):
    """Are refused, and make the listing incomplete (row 13)."""
    page = (
        f'<title>Index of /p/</title><h1>Index of /p/</h1><hr><pre><a href="{link}">x</a>  23-Nov-2026 19:29  3\n</pre>'
    )
    listing = parse_html(page.encode(), b"/p/")
    assert listing.entries == []
    assert listing.state == INCOMPLETE
    assert "refused" in listing.notes[0]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "a\0", "a\nb", "a\r", "x" * 256, "\ud800"])
def test_names_that_are_none(name):
    """The last gate of every parser, also for what each of them keeps out before (row 13)."""
    assert why_refused(name)
    assert not why_refused(f"..{'x' * 200}")


texts = st.text(string.printable + "é\udce9\0<>&\"'", max_size=60).map(os.fsencode)
pieces = st.one_of(
    st.binary(max_size=40),
    texts,
    st.sampled_from([line.encode() for line, *_ in LIST.values()] + [line.encode() for line in MLSD]),
    st.sampled_from(
        [
            dialect("/", [Item("n", FILE, 9, NOW), Item(hostile, FILE, 9, NOW)])
            for dialect in DIALECTS.values()
            for hostile in ("../up", "..", ".", "a\nb", "a\rb", "x" * 300)
        ]
    ),
    st.sampled_from([b"\r\n", b"\n", b"type=file;", b" ", b"<tr>", b'<a href="', b"</pre>", b"..", b"/", b"\0", b"; "]),
)
pages = st.lists(pieces, max_size=12).map(b"".join)
PARSERS = [parse_mlsd, parse_list, parse_html, parse_json]


@pytest.mark.parametrize("parse", PARSERS)
@given(data=pages)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_read_without_harm(parse, data):
    """Whatever comes, there is a listing with a state, and no name in it that leaves the directory."""
    listing = parse(data)
    assert listing.state in {COMPLETE, INCOMPLETE, UNRECOGNISED}
    assert not {"", ".", ".."} & {entry.name for entry in listing.entries}
    assert not [entry for entry in listing.entries if set("/\0\n\r") & set(entry.name)]
    assert not [entry for entry in listing.entries if len(os.fsencode(entry.name)) > 255]  # NAME_MAX
    assert all(entry.size is None or entry.size >= 0 for entry in listing.entries)
    if listing.state == UNRECOGNISED:
        assert not listing.entries


facts = st.sampled_from([b"type=file;", b"type=dir;", b"size=7;", b"size=-1;", b"modify=20261123192918;", b"unique=;",
                         b"modify=20261323192918;", b"modify=20261123242918;", b"modify=20261123235960;",
                         b"UNIX.mode=0755;", b"UNIX.mode=644;", b"UNIX.mode=07;", b"unique=8U12;"])  # fmt: skip
odd = [b"a.deb", b".", b"..", b"~x", b"a" * 255, b"a" * 256, b".hidden", b"a b", b"a\r", b"dir/", b"%41", b"x&amp;y"]
names = st.one_of(texts, st.sampled_from(odd))
dates = st.sampled_from([b"23-Nov-2026 19:29", b"31-Feb-2026 19:29", b"23-Nov-2026 29:29", b"-"])
rows = st.tuples(names, names, dates, st.sampled_from([b"9", b"-", b"1K", b"9" * 15, b"9" * 16]))


@given(
    lines=st.lists(st.tuples(st.lists(facts, max_size=6).map(b"".join), names), max_size=4),
    day=st.sampled_from([b"20261123", b"20261123", b"20260231"]),
    end=st.sampled_from([b"", b"\r\n"]),
)
@settings(max_examples=300, deadline=None)
def test_plain_lines_are_read_as_all_others(lines, day, end):
    """The short way for the lines of files with plain names says what the long one does, in the same order."""
    usual = [(b"type=file;size=7;modify=" + day + b"192918;UNIX.mode=0755;" + some, name) for some, name in lines]
    mixed = [one for pair in zip(usual, lines, strict=True) for one in pair] + usual
    data = b"\r\n".join(some + b" " + name for some, name in mixed) + end
    short = parse_mlsd(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ftp, "_FILE", re.compile("(?!)"))
        assert parse_mlsd(data) == short


@given(found=st.lists(rows, max_size=4))
@settings(max_examples=300, deadline=None)
def test_plain_rows_are_read_as_all_others(found):
    """As above, for the pages of nginx."""
    lines = [b'<a href="%s">%s</a>   %s   %s' % row for row in found]
    page = b"<title>Index of /p/</title><h1>Index of /p/</h1><hr><pre>\n" + b"\r\n".join(lines) + b"\n</pre>"
    short = parse_html(page, b"/p/")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html, "_SIMPLE_ROW", re.compile(b"(?!)"))
        assert parse_html(page, b"/p/") == short


@given(data=pages)
@settings(max_examples=200, deadline=None)
def test_other_files_of_strangers(data):
    """Checksum files of any content are read without an exception, and name nothing outside."""
    assert not [path for path in parse_sums(data) if path.startswith(("/", "../"))]
    assert parse_manifest(data) is None


paths = st.sampled_from(
    ["a", "d", "d/x", "d/d", "..", "../x", "/x", "a%2Fb", "a%00", "%0a", "", "d>%2Fetc", "%FF", "x" * 300]
)
numbers = st.one_of(st.sampled_from(["0", "7", "-1", "x", "9" * 15, "9" * 16, "9" * 28]), st.integers(0).map(str))
manifest_lines = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["f", "fx", "d", "l", "q", ""]), numbers, numbers, paths).map(" ".join),
        st.text(max_size=20),
    ),
    max_size=8,
)


@given(lines=manifest_lines, cut=st.sampled_from([None, -1, 10]))
@settings(max_examples=500, deadline=None)
def test_manifests_of_strangers(lines, cut):
    """Whatever is in one that can be unpacked: no exception, no name that leaves its directory, a time with a date."""
    text = "\n".join(["poor-mirror manifest 1", *lines, ".", ""]).encode()
    found = parse_manifest(zlib.compress(text)[:cut])
    entries = [entry for listing in (found or {}).values() for entry in listing.entries]
    assert cut is None or found is None
    assert not [entry for entry in entries if why_refused(entry.name)]
    assert all(time.gmtime(entry.mtime).tm_year < 10000 for entry in entries)


def test_a_manifest_is_bounded(monkeypatch):
    """One that unpacks to more than any archive's is none, and is not unpacked to its end."""
    whole = b"poor-mirror manifest 1\n" + b"f 1 1 " + b"a" * 10_000 + b"\n.\n"
    assert parse_manifest(zlib.compress(whole)) is not None
    monkeypatch.setattr(manifest, "_LARGEST_TEXT", 5000)
    assert parse_manifest(zlib.compress(whole)) is None
    monkeypatch.setattr(manifest, "_LARGEST_TEXT", 1 << 20)
    bomb = zlib.compress(b"poor-mirror manifest 1\n" + bytes(64 << 20))
    tracemalloc.start()
    try:
        assert parse_manifest(bomb) is None
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "byte", [b"a ", b"1 ", b"-", b'<a href="x">', b"<tr><td>", b"Nov 23 10:29 ", b"&lt;", b"[", b'<td class="n">']
)
def test_long_nonsense_takes_no_time(byte):
    """A megabyte made to be slow is read within the test's limit, by each parser."""
    for parse in PARSERS:
        assert parse(byte * (1_000_000 // len(byte))).state in {COMPLETE, INCOMPLETE, UNRECOGNISED}
