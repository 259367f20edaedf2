"""What breaks mirrors, each row a test: whatever a source does, the mirror stays good."""

import os
import socket
import time

import pytest
from places import FTP

from pytest_poorcontainer.mirror.home import Home
from pytest_poorcontainer.mirror.testing.serving import Served

SCRIPTED = ["nginx", "apache", *FTP]
LISTED = [*SCRIPTED, "nginx-json", "caddy", "lighttpd"]
over = pytest.mark.parametrize("served", SCRIPTED, indirect=True)
over_all = pytest.mark.parametrize("served", LISTED, indirect=True)
over_http = pytest.mark.parametrize("served", ["nginx", "caddy"], indirect=True)
over_ftp = pytest.mark.parametrize("served", FTP, indirect=True)


@over_all
def test_one_that_pretends_to_be_empty_is_held(served):
    """A server that lists nothing at the top is no reason to delete anything (row 1)."""
    served.fill()
    assert served.sync().state == "ok"
    before = served.tree()
    served.faults({"kind": "empty", "path": ""})
    assert served.sync().state == "held"
    assert served.tree() == before


@over_http
@pytest.mark.parametrize("text", ["<html>welcome</html>", "", "null and void", "[1, 2]", '{"error": 1}'])
def test_a_page_that_is_no_listing_is_an_error(served, text):
    """A login page, an error page with status 200, or nonsense is never an empty directory (row 2)."""
    served.fill()
    assert served.sync().state == "ok"
    before = served.tree()
    served.faults({"kind": "page", "path": "", "text": text})
    result = served.sync()
    assert (result.state, result.status) == ("failed", 6)
    assert served.tree() == before


@over_http
def test_a_login_page_everywhere_is_an_error(served):
    """Neither listings nor files come from a portal that answers everything with 200 (row 2)."""
    served.fill()
    assert served.sync().state == "ok"
    before = served.tree()
    served.faults({"kind": "login"})
    assert served.sync().status == 6
    assert served.tree() == before


@over_all
def test_a_directory_that_cannot_be_listed_is_kept(served):
    """What is below it and beside it stays; everything else follows (row 3)."""
    served.fill()
    served.put("beside/x/old")
    assert served.sync().state == "ok"
    (served.source / "beside/x/old").unlink()
    (served.source / "beside/x").rmdir()
    served.put("new")
    served.put("d1/more")
    (served.source / "d2/f2.bin").unlink()
    served.faults({"kind": "error", "path": "d1", "status": 500, "code": 550})
    result = served.sync()
    assert (result.state, result.status) == ("partial", 3)
    found = served.tree()
    assert "new" in found
    assert "d1/f1.bin" in found
    assert "d2/f2.bin" not in found
    assert "beside" in found


@over_all
def test_a_listed_file_that_is_gone_stops_nothing(served):
    """One file that answers 404 or 550 makes the run partial, and the others come (row 4)."""
    served.fill()
    served.faults({"kind": "vanish", "path": "d1/f1.bin"})
    result = served.sync()
    assert (result.state, result.status) == ("partial", 3)
    assert "d1/f1.bin" in result.reason
    assert len([one for one in served.tree().values() if one is not None]) == 24


@over
@pytest.mark.parametrize("kind", ["cut", "truncate", "stall"])
@pytest.mark.parametrize("size", [5000, 3_000_000])
def test_a_transfer_that_is_cut_short_leaves_the_old_file(served, kind, size):
    """Half a file never gets the name of the whole one, small or large (row 5)."""
    served.put("f", b"old" * 100, age=5000)
    assert served.sync().state == "ok"
    content = os.urandom(size)
    served.put("f", content, age=10)
    served.faults({"kind": kind, "path": "f", "bytes": size // 2})
    assert served.sync(retries=0).state in {"partial", "failed"}
    assert served.tree()["f"] == b"old" * 100
    served.faults()
    assert served.sync().state == "ok"
    assert served.tree()["f"] == content


@over
def test_a_cut_transfer_goes_on_where_it_ended(served):
    """The second attempt asks for the rest alone, in the same run and in the next."""
    content = os.urandom(4_000_000)
    served.put("f", content)
    served.faults({"kind": "cut", "path": "f", "bytes": 2_000_000, "times": 1})
    result = served.sync(retries=2)
    assert result.state == "ok"
    assert served.tree()["f"] == content
    assert result.fetched < 4_100_000
    (served.dest / "f").unlink()
    served.faults({"kind": "cut", "path": "f", "bytes": 3_000_000})
    assert served.sync(retries=0).state in {"partial", "failed"}
    served.faults()
    result = served.sync()
    assert served.tree()["f"] == content
    if served.kind not in {"apache", "ftp-list"}:
        assert result.fetched < 2_000_000


@over_http
def test_a_rest_is_never_put_behind_another_files_beginning(served):
    """When the file has changed between the attempts it comes from its beginning."""
    served.put("f", b"a" * 4_000_000, age=100)
    served.faults({"kind": "cut", "path": "f", "bytes": 2_000_000})
    assert served.sync(retries=0).state in {"partial", "failed"}
    file = served.put("f", b"b" * 4_000_000, age=100)
    os.utime(file, ns=(time.time_ns(), int(file.stat().st_mtime) * 10**9 + 5))  # the same second, another ETag
    served.faults()
    assert served.sync().state == "ok"
    assert served.tree()["f"] == b"b" * 4_000_000


@over
def test_a_listing_that_lies_about_a_size_publishes_nothing(served):
    """A file that has not the listed size does not get its name (row 5)."""
    served.fill(5)
    served.faults({"kind": "lie", "path": "d1/f1.bin", "size": 5_000})
    assert served.sync().state == "partial"
    assert "d1/f1.bin" not in served.tree()


@over_all
@pytest.mark.parametrize("name", ["../escaped.txt", "..", ".", "a/../../b", "/abs", "line\nbreak", "n\rr"])
def test_names_that_leave_the_tree_are_refused(served, name):
    """A hostile name is refused and said; the other files come, and nothing is deleted there (row 13)."""
    served.fill(5)
    assert served.sync().state == "ok"
    (served.source / "d0/f0.bin").unlink()
    served.faults({"kind": "entries", "path": "d0", "names": [name]})
    result = served.sync()
    assert not (served.base / "escaped.txt").exists()
    assert served.tree().keys() <= {f"d{n}" for n in range(5)} | {f"d{n}/f{n}.bin" for n in range(5)}
    if name not in {"..", "."}:
        assert result.state == "partial"
        assert "d0/f0.bin" in served.tree()


@pytest.mark.parametrize("served", FTP, indirect=True)
def test_a_link_and_then_a_directory_of_its_name(served):
    """What is below a directory is never written through a link of the same name (rows 14, 15)."""
    outside = served.base / "outside"
    outside.mkdir()
    served.fill(5)
    served.faults({"kind": "entries", "path": "", "names": [["trap", "l", str(outside)], ["up", "l", "../outside"]]})
    result = served.sync()
    assert result.state == "ok"
    assert not (served.dest / "trap").is_symlink()
    assert not (served.dest / "up").is_symlink()
    served.faults()
    served.put("trap/file", b"x")
    (served.dest / "trap").symlink_to(outside)
    assert served.sync().state == "ok"
    assert not list(outside.iterdir())
    assert served.tree() == served.tree(served.source)


@pytest.mark.parametrize("served", FTP, indirect=True)
def test_a_link_and_a_directory_in_one_listing(served):
    """Of one name that comes twice the first counts, and nothing else is deleted."""
    served.fill(5)
    served.put("trap/file", b"x")
    served.faults({"kind": "entries", "path": "", "names": [["trap", "l", "/tmp"]]})
    assert served.sync().state == "partial"
    assert {path for path, content in served.tree().items() if content} == {f"d{n}/f{n}.bin" for n in range(1, 5)} | {
        "trap/file"
    }


@pytest.mark.parametrize("served", ["file", "ftp", "rsync"], indirect=True)
def test_links_inside_are_kept_and_others_left_out(served):
    """A link within the tree is copied as a link; one that leads out is not (row 15)."""
    served.put("pool/file", b"x")
    (served.source / "in").symlink_to("pool/file")
    (served.source / "pool/up").symlink_to("../pool")
    (served.source / "out").symlink_to("/etc/passwd")
    (served.source / "out2").symlink_to("../../x")
    assert served.sync().state == "ok"
    assert served.tree() == {"pool": None, "pool/file": b"x", "in": "pool/file", "pool/up": "../pool"}


@pytest.mark.parametrize("served", ["nginx", "apache", "nginx-json"], indirect=True)
def test_a_loop_of_directories_is_noticed(served):
    """A directory that contains itself is looked into once, and said (row 16)."""
    served.fill(5)
    (served.source / "d1/loop").symlink_to("..")
    result = served.sync()
    assert result.state == "ok"
    assert "a loop" in served.log() or any("a loop" in note for note in result.plan.notes)
    assert max(path.count("/") for path in served.tree()) <= 2
    assert len(served.server.seen) < 60


@pytest.mark.parametrize("served", ["nginx", "apache", "ftp", "ftp-list"], indirect=True)
def test_a_loop_withholds_nothing(served, monkeypatch):
    """It is no directory that could not be listed: indexes come, and what is gone beside it goes (row 16)."""
    served.put("pool/one", b"one")
    served.put("pool/two", b"two")
    served.put("dists/Packages", b"pool/one pool/two")
    served.put("beside", b"x")
    (served.source / "debian").symlink_to(".")
    items = Served.items  # of any server, as of one that shows a link as what it leads to
    monkeypatch.setattr(Served, "items", lambda self, path, links: items(self, path, links=False))
    assert served.sync(profile="debian").state == "ok"
    (served.source / "beside").unlink()
    served.put("dists/Packages", b"pool/one only", age=100)
    result = served.sync(profile="debian")
    assert (result.state, result.deleted) == ("ok", 1), result.reason
    assert served.tree()["dists/Packages"] == b"pool/one only"


@over_ftp
def test_an_index_of_the_same_size_is_published(served):
    """A listing to the minute and an exact MDTM are of one file: nothing has moved."""
    served.put("pool/one", b"one")
    served.put("dists/Packages", b"pool/one")
    assert served.sync(profile="debian").state == "ok"
    served.put("dists/Packages", b"pool/1st", age=437)
    result = served.sync(profile="debian")
    assert result.state == "ok", result.reason
    assert served.tree() == served.tree(served.source)
    assert result.fetched == 8


@over_ftp
def test_a_server_in_another_zone(make_place, served):
    """A LIST in the server's own time is understood, and nothing is fetched twice for it (rows 17, 20, 21)."""
    served.server.zone = 7200 + 1800
    served.fill()
    assert served.sync().state == "ok"
    for path, content in served.tree().items():
        if content is not None:
            assert int((served.dest / path).stat().st_mtime) == int((served.source / path).stat().st_mtime)
    assert served.sync().fetched == 0
    if served.kind == "ftp-list":
        assert Home(served.dest, name="m", source="").state()["memory"]["offset"] == 9000


@over_ftp
def test_old_files_are_not_fetched_again(served):
    """A file of which LIST shows the day alone gets its exact time, and stays (rows 18, 21)."""
    for number, age in enumerate((0, 100, 86400 * 100, 86400 * 300, 86400 * 2000, -40000)):
        served.put(f"f{number}", b"x", age=age)
    assert served.sync().state == "ok"
    result = served.sync()
    assert (result.state, result.fetched) == ("ok", 0)


@over
def test_a_server_with_few_connections(served):
    """One that refuses more than two at once is asked by two at once, and all comes (row 28)."""
    served.fill()
    served.faults({"kind": "busy", "path": "" if served.kind.startswith("ftp") else None, "most": 2})
    result = served.sync(connections=8, retries=5)
    assert (result.state, result.reason) == ("ok", "")
    assert served.tree() == served.tree(served.source)
    assert "busy" in served.log()


@over_ftp
def test_a_server_that_is_full_at_first(served):
    """A 530 that is about the number of users is asked again as a 421 is, before anything came (row 28)."""
    served.fill(3)
    served.faults({"kind": "busy", "path": "", "most": 0, "code": 530, "times": 1})
    assert served.sync().state == "ok"
    assert served.tree() == served.tree(served.source)
    served.faults({"kind": "busy", "path": "", "most": 0, "code": 530})
    assert served.sync().status == 6


@pytest.mark.parametrize("served", ["nginx", "ftp"], indirect=True)
@pytest.mark.parametrize("hangs", ["d1", "d1/f1.bin"])
def test_one_that_hangs_is_left_out(served, hangs):
    """A directory or file that never sends a byte is kept as it is, and everything else comes (row 4)."""
    served.fill(10)
    assert served.sync().state == "ok"
    served.put("d1/f1.bin", b"another")
    (served.source / "d1/f6.bin").unlink()
    served.put("new", b"x")
    served.faults({"kind": "hang" if hangs == "d1" else "stall", "path": hangs})
    result = served.sync(connections=2)
    assert (result.state, result.status) == ("partial", 3), result.reason
    assert "new" in served.tree()
    assert served.tree()["d1/f1.bin"] != b"another"
    assert ("d1/f6.bin" in served.tree()) == (hangs == "d1")


@pytest.mark.parametrize("served", LISTED, indirect=True)
def test_a_connection_that_is_closed_behind_our_back(served):
    """A connection that was to be kept costs nothing, first and while comparing: no byte comes twice (row 37)."""
    served.fill()
    served.faults({"kind": "drop"})
    assert served.sync(retries=0).state == "ok"
    assert served.tree() == served.tree(served.source)
    result = served.sync(retries=0)
    assert (result.state, result.fetched) == ("ok", 0)


@pytest.mark.parametrize("served", FTP, indirect=True)
def test_wrong_credentials_are_not_an_empty_source(served):
    """A server that refuses the password is an error of its own, and nothing is deleted (row 10)."""
    served.fill()
    served.server.password = ("me", "secret")
    assert served.sync(user="me", password="secret").state == "ok"
    before = served.tree()
    result = served.sync(user="me", password="hunter2")
    assert (result.state, result.status) == ("failed", 9)
    assert served.tree() == before
    assert "hunter2" not in served.log() + result.reason
    assert "secret" not in served.log()


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
@over_http
def test_errors_at_the_top_are_errors(served, status):
    """Whatever a server answers in place of its top, nothing is deleted, and the status says so (row 10)."""
    served.fill()
    assert served.sync().state == "ok"
    before = served.tree()
    served.faults({"kind": "error", "path": "", "status": status})
    result = served.sync(use_manifest=False)
    assert result.state == "failed"
    assert result.status == (9 if status == 401 else 6)
    assert served.tree() == before


@over
def test_a_server_that_says_nothing(served):
    """One that accepts connections and is silent ends the run within its limits (row 29)."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"{served.url.partition(':')[0]}://127.0.0.1:{mute.getsockname()[1]}/"
        result = served.sync(source=url, retries=0)
    assert (result.state, result.status) == ("failed", 6)


@pytest.mark.parametrize("scheme", ["http", "ftp", "rsync"])
def test_nobody_listens(make_place, scheme):
    """A refused connection is one sentence and a status (bad input)."""
    with make_place("file") as place:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        result = place.sync(source=f"{scheme}://127.0.0.1:{port}/x/")
        assert (result.state, result.status) == ("failed", 6)
        assert "\n" not in result.reason


@over
def test_an_incomplete_line_forbids_deletions_there(served):
    """A listing with a line that cannot be read deletes nothing in that directory (row 25)."""
    served.fill()
    assert served.sync().state == "ok"
    text = "-rw-r--r-- nonsense" if served.kind.startswith("ftp") else "<title>Index of /</title>"
    served.faults({"kind": "page", "path": "d1", "text": text})
    before = served.tree()
    assert served.sync().state == "partial"
    assert served.tree() == before


@pytest.mark.parametrize("served", ["nginx", "apache", "lighttpd", "caddy"], indirect=True)
@pytest.mark.parametrize("size", [100, 3_000_000])
def test_a_server_that_tells_no_times(served, size):
    """Without Last-Modified and ETag a file gets the listing's time, and is not fetched again (rows 22, 24)."""
    served.put("f", os.urandom(size))
    served.faults({"kind": "bare"})
    assert served.sync().state == "ok"
    assert served.tree() == served.tree(served.source)
    assert served.sync().fetched == 0


@pytest.mark.parametrize("served", ["file", *SCRIPTED, "rsync"], indirect=True)
def test_what_is_excluded_keeps_its_directory(served):
    """A directory that is gone at the source stays as long as it has something that is excluded (row 36)."""
    served.fill(10)
    served.put("gone/a")
    assert served.sync(exclude=["*.keep"]).state == "ok"
    (served.dest / "gone/mine.keep").write_text("mine")
    (served.source / "gone/a").unlink()
    (served.source / "gone").rmdir()
    result = served.sync(exclude=["*.keep"])
    assert (result.state, result.deleted) == ("ok", 1)
    assert (served.dest / "gone/mine.keep").exists()
    assert not (served.dest / "gone/a").exists()


@pytest.mark.parametrize("served", ["file", *SCRIPTED], indirect=True)
def test_directories_without_end_are_bounded(served):
    """A tree deeper than any archive is followed so far; rsync shows links, and so no loop (rows 16, 34)."""
    served.put("/".join("d" for _ in range(70)) + "/f")
    result = served.sync()
    assert result.state == "partial"
    assert "deeper than" in result.reason
    assert max(path.count("/") for path in served.tree()) <= 64


@pytest.mark.parametrize("served", ["file", *SCRIPTED, "rsync"], indirect=True)
def test_a_directory_with_thousands_of_names(served):
    """Thousands of names in one directory are one listing, and one plan (row 34)."""
    for number in range(3000):
        (served.source / f"f{number}").write_bytes(b"x")
    result = served.sync(connections=8)
    assert (result.state, result.added) == ("ok", 3000)
    assert served.sync().fetched == 0


@over_ftp
def test_a_server_that_says_no_size_and_no_date(served):
    """Facts and commands that are missing are done without (row 26)."""
    text = "type=file; f\r\ntype=dir;unique=1; d" if served.kind == "ftp" else "+r,\tf\r\n+/,\td"
    served.put("f", b"content")
    served.put("d/g", b"more")
    served.faults({"kind": "page", "path": "", "text": text})
    assert served.sync().state == "ok"
    assert {path: content for path, content in served.tree().items() if content} == {"f": b"content", "d/g": b"more"}
