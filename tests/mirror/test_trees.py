"""What breaks mirrors, over the protocols that have no scripted server: files and rsync, where they show the same."""

import os
import shutil
import socket
import threading
import time

import pytest

from pytest_poorcontainer.mirror.sources.files import FileSource

TREES = ["file", "rsync"]
over_trees = pytest.mark.parametrize("served", TREES, indirect=True)
over_all = pytest.mark.parametrize("served", [*TREES, "nginx", "ftp", "ftp-list"], indirect=True)
with_rsync = pytest.mark.parametrize("served", ["rsync"], indirect=True)


@over_trees
def test_a_directory_that_may_not_be_read_is_kept(served, monkeypatch):
    """What is below it stays, and what is new elsewhere comes (row 3)."""
    served.fill()
    assert served.sync().state == "ok"
    before = served.tree()
    served.put("new")
    (served.source / "d1/f1.bin").unlink()
    (served.source / "d1").chmod(0)  # the server is bound by it, whoever runs this
    real = FileSource._listing

    def listing(source, path):
        if path == "d1":
            raise PermissionError(13, "Permission denied")
        return real(source, path)

    monkeypatch.setattr(FileSource, "_listing", listing)
    try:
        result = served.sync()
    finally:
        (served.source / "d1").chmod(0o755)
    assert (result.state, result.status) == ("partial", 3)
    assert "d1" in result.reason
    assert served.tree() == {**before, "new": b"content\n"}


@over_all
def test_a_file_that_goes_while_the_run_is_at_work(served):
    """It is looked for once more, and the others come (row 4)."""
    served.fill()
    gone = []

    def tell(told):
        if told["phase"] == "fetch" and not gone:
            gone.append((served.source / "d1/f1.bin").unlink())

    assert served.sync(tell=tell).state == "ok"
    assert gone
    assert served.tree() == served.tree(served.source)
    assert "looking once more" in served.log()


@over_trees
def test_names_that_are_refused(served):
    """A line break in a name is refused and said; the other files come, and nothing is deleted beside it (row 13)."""
    served.fill(5)
    served.put("d1/old")
    assert served.sync().state == "ok"
    before = served.tree()
    (served.source / "d1/old").unlink()
    served.put("d1/line\nbreak")
    served.put("d2/new")
    result = served.sync()
    assert (result.state, result.status) == ("partial", 3)
    assert "refused" in result.reason
    assert served.tree() == {**before, "d2/new": b"content\n"}


@pytest.mark.parametrize("served", [*TREES, "ftp", "ftp-list"], indirect=True)
def test_a_link_becomes_a_directory_and_back(served):
    """What is below the directory is not written through the link that was there, nor deleted through it (row 14)."""
    served.fill(5)
    (served.source / "trap").symlink_to("d1")
    assert served.sync().state == "ok"
    assert served.tree() == served.tree(served.source)
    (served.source / "trap").unlink()
    served.put("trap/inside", b"x")
    assert served.sync().state == "ok"
    assert served.tree() == served.tree(served.source)
    (served.source / "trap/inside").unlink()
    (served.source / "trap").rmdir()
    (served.source / "trap").symlink_to("d1")
    assert served.sync().state == "ok"
    assert served.tree() == served.tree(served.source)


@over_all
def test_a_link_that_somebody_has_set_here(served):
    """A link in the place of a directory of the mirror is replaced; nothing is written to where it leads (row 14)."""
    outside = served.base / "outside"
    outside.mkdir()
    served.fill(10)
    assert served.sync().state == "ok"
    shutil.rmtree(served.dest / "d1")
    (served.dest / "d1").symlink_to(outside)
    assert served.sync().state == "ok"
    assert not list(outside.iterdir())
    assert served.tree() == served.tree(served.source)


@pytest.mark.parametrize("links", ["skip", "error"])
@pytest.mark.parametrize("served", [*TREES, "ftp"], indirect=True)
def test_other_policies_for_links(served, links):
    """They may be left out all of them, or one that leads out may make the run partial (row 15)."""
    served.put("file", b"x")
    (served.source / "in").symlink_to("file")
    assert served.sync(links=links).state == "ok"
    assert ("in" in served.tree()) == (links == "error")
    (served.source / "out").symlink_to("/etc/passwd")
    result = served.sync(links=links)
    assert result.state == ("partial" if links == "error" else "ok")
    assert "out" not in served.tree()
    assert links == "skip" or "leads out of the tree" in result.reason


@over_all
def test_a_source_that_changes_between_list_and_fetch(served):
    """The index at the end is the one that fits, with all that it names (row 8)."""
    assert served.sync(profile="debian", tell=served.package_while_fetching()).state == "ok"
    assert served.tree() == served.tree(served.source)


@with_rsync
def test_an_rsync_server_that_says_nothing(served):
    """One that accepts connections and is silent ends the run within its limits (row 29)."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began = time.monotonic()
        result = served.sync(source=f"rsync://127.0.0.1:{mute.getsockname()[1]}/x/", retries=0)
    assert (result.state, result.status) == ("failed", 6)
    assert time.monotonic() - began < 20


def test_an_rsync_server_with_few_connections(make_place):
    """One that has no place for us is asked again later (row 28)."""
    if shutil.which("rsync") is None:
        pytest.skip("needs rsync: sudo apt-get install rsync")
    with make_place("rsync", more="max connections = 1\nlock file = {base}/rsyncd.lock\n") as served:
        served.fill(5)
        port = int(served.url.split(":")[2].split("/")[0])
        with socket.create_connection(("127.0.0.1", port)) as other:
            other.sendall(b"@RSYNCD: 31.0 sha512 sha256 sha1 md5 md4\nmirror\n")
            said = b""
            while b"OK" not in said:
                said += other.recv(1000)
            assert served.sync(retries=0).status == 6
            timer = threading.Timer(1, lambda: other.shutdown(socket.SHUT_RDWR))
            timer.start()
            assert served.sync(retries=8, backoff=0.2).state == "ok"
            timer.join()
        assert served.tree() == served.tree(served.source)


@over_all
def test_a_source_without_any_file_is_no_success(served):
    """A wrong path or pattern lists nothing, and nothing comes of it: that is not well (row 30)."""
    result = served.sync()
    assert (result.state, result.status) == ("partial", 3)
    assert "no file that belongs to this mirror" in result.reason
    served.put("file", b"x")
    assert served.sync(exclude=["*"]).state == "partial"
    assert served.sync().state == "ok"


@pytest.mark.parametrize("kind", ["nginx", "ftp", "rsync"])
def test_a_password_that_is_wrong(make_place, kind):
    """Is an error of its own over each protocol; nothing is deleted, and no password is told (row 10)."""
    if kind == "rsync" and shutil.which("rsync") is None:
        pytest.skip("needs rsync: sudo apt-get install rsync")
    with make_place(kind, password=("me", "secret")) as served:
        served.fill()
        assert served.sync(user="me", password="secret").state == "ok"
        before = served.tree()
        for given in ({"user": "me", "password": "hunter2"}, {"user": "nobody", "password": "hunter2"}):
            result = served.sync(**given)
            assert (result.state, result.status) == ("failed", 9)
            assert served.tree() == before
            assert not {word for word in ("hunter2", "secret") if word in served.log() + result.reason}


@pytest.mark.parametrize("served", ["ftp", "ftp-list"], indirect=True)
def test_the_last_reply_comes_early(served):
    """A server may say 226 in one packet with 150, before the bytes (row 26)."""
    served.fill()
    served.put("large", os.urandom(3_000_000))
    served.faults({"kind": "early"})
    assert served.sync(retries=0).state == "ok"
    assert served.tree() == served.tree(served.source)


@pytest.mark.parametrize("served", ["nginx", "ftp"], indirect=True)
def test_one_that_is_too_slow(served):
    """Bytes that trickle below `min_rate` for `idle` seconds are given up; the mirror stays as it was (row 29)."""
    served.put("f", b"old", age=5000)
    assert served.sync().state == "ok"
    served.put("f", os.urandom(900_000), age=5)
    served.faults({"kind": "slow", "path": "f", "rate": 100_000})
    began = time.monotonic()
    assert served.sync(min_rate=5_000_000, idle=1, retries=0).state in {"partial", "failed"}
    assert time.monotonic() - began < 8
    assert served.tree()["f"] == b"old"


@over_all
@pytest.mark.parametrize("size", [5000, 3_000_000])
def test_a_file_that_shrinks_after_it_was_listed(served, size):
    """What came is never published in the place of what was listed: the old file or a whole new one (row 5)."""
    served.put("f", b"old" * 100, age=5000)
    assert served.sync().state == "ok"
    served.put("f", os.urandom(size), age=50)
    shrunk = b"short"
    changed = []

    def tell(told):
        if told["phase"] == "fetch" and not changed:
            changed.append(served.put("f", shrunk, age=10))

    result = served.sync(tell=tell, retries=0)
    assert changed
    assert result.state in {"ok", "partial"}
    assert served.tree()["f"] in {b"old" * 100, shrunk}
    assert served.sync().state == "ok"
    assert served.tree()["f"] == shrunk


@over_all
def test_a_top_that_is_gone(served):
    """Is an error of the source, and no empty one (row 10)."""
    served.fill(5)
    assert served.sync().state == "ok"
    before = served.tree()
    gone = served.source.rename(served.base / "gone")
    result = served.sync(retries=0)
    assert (result.state, result.status) == ("failed", 6), result.reason
    assert served.tree() == before
    gone.rename(served.source)
    assert served.sync().state == "ok"


@pytest.mark.parametrize("served", ["ftp", "ftp-list"], indirect=True)
@pytest.mark.parametrize("code", [421, 425, 426, 450, 451, 500, 530, 550])
def test_replies_of_ftp_at_the_top(served, code):
    """Whatever is said in place of the listing of the top, nothing is deleted (row 10)."""
    served.fill(5)
    assert served.sync().state == "ok"
    before = served.tree()
    served.faults({"kind": "error", "path": "", "code": code})
    result = served.sync(retries=0)
    assert (result.state, result.status) in {("failed", 6), ("failed", 9)}, result.reason
    assert served.tree() == before


@with_rsync
def test_an_rsync_server_that_dies_within_a_file(served):
    """The old file stays until the whole new one is there, and the next run goes on (row 5)."""
    served.put("f", b"old" * 100, age=5000)
    served.put("g", b"g")
    assert served.sync().state == "ok"
    content = os.urandom(3_000_000)
    served.put("f", content, age=50)

    def tell(told):
        if told["phase"] == "fetch":
            partial = list((served.dest / ".poor-mirror/incoming").rglob(".f.*"))
            if partial and partial[0].stat().st_size > 100_000:
                served.cut()

    result = served.sync(tell=tell, retries=0, bandwidth=500_000)
    assert (result.state, result.status) == ("failed", 6), result.reason
    assert served.tree() == {"f": b"old" * 100, "g": b"g"}
    assert served.sync().state == "ok"
    assert served.tree() == {"f": content, "g": b"g"}
