"""A run of one mirror: guard, stages, checksums, space, hooks, manifest, snapshots."""

import hashlib
import importlib.metadata
import json
import os
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from pytest_poorcontainer.mirror import staging
from pytest_poorcontainer.mirror.config import Mirror
from pytest_poorcontainer.mirror.history import History
from pytest_poorcontainer.mirror.home import Home
from pytest_poorcontainer.mirror.plan import Limits, Plan

over = pytest.mark.parametrize("served", ["file", "nginx", "ftp", "rsync"], indirect=True)
over_two = pytest.mark.parametrize("served", ["nginx", "ftp"], indirect=True)
web = pytest.mark.parametrize("served", ["nginx"], indirect=True)


@pytest.mark.parametrize(
    ("limits", "gone", "held"),
    [
        (Limits(files=3, ratio=None, top=None), 3, False),
        (Limits(files=3, ratio=None, top=None), 4, True),
        (Limits(ratio=0.5, floor=0, top=None), 10, False),
        (Limits(ratio=0.5, floor=0, top=None), 11, True),
        (Limits(bytes=300, ratio=None, top=None), 3, False),
        (Limits(bytes=300, ratio=None, top=None), 4, True),
        (Limits(ratio=None, top=0.5, floor=1), 4, True),
    ],
)
@over
def test_the_guard_decides_on_the_whole_plan(served, limits, gone, held):
    """Count, share, bytes, and share of a directory at the top: refused before the first deletion (rows 1, 9, 11)."""
    for number in range(20):
        served.put(f"d{number // 5}/f{number:02}", b"x" * 100)
    assert served.sync(max_delete=limits).state == "ok"
    before = served.tree()
    for number in range(gone):
        (served.source / f"d{number // 5}/f{number:02}").unlink()
    result = served.sync(max_delete=limits)
    assert result.state == ("held" if held else "ok"), result.reason
    assert served.tree() == (before if held else served.tree(served.source))


@over
def test_a_release_is_for_exactly_that_plan(served):
    """What was released passes; a plan that deletes something else is held again."""
    served.fill(20)
    assert served.sync().state == "ok"
    for number in range(15):
        (served.source / f"d{number % 5}/f{number}.bin").unlink()
    assert served.sync().state == "held"
    plan, saved = Home.held(served.dest)
    assert len([one for one in plan.deletions if one.kind == "f"]) == 15
    assert saved["reasons"]
    Home.release(served.dest)
    (served.source / "d1/f16.bin").unlink()
    assert served.sync().state == "held"
    Home.release(served.dest)
    assert served.sync().state == "ok"
    assert served.tree() == served.tree(served.source)
    assert Home.held(served.dest) is None


@over
def test_a_plan_is_a_value(served):
    """A dry run changes nothing; its plan can be printed, saved, and read again."""
    served.fill(6)
    (served.source / "link").symlink_to("d1/f1.bin")
    result = served.sync(dry=True)
    assert served.tree() == {}
    assert len(result.plan.fetches) == (7 if served.kind == "nginx" else 6)
    again = Plan.load(json.dumps(result.plan.dump()))
    assert (again.fetches, again.deletions, again.links) == (
        result.plan.fetches,
        result.plan.deletions,
        result.plan.links,
    )
    assert list(again.lines()) == list(result.plan.lines())
    assert again.digest() == result.plan.digest()


@over
def test_indexes_come_after_what_they_name(served):
    """While a run is at work, every file that the published index names is there (row 7)."""
    served.put("dists/Packages", b"")
    assert served.sync(profile="debian").state == "ok"
    for number in range(300):
        served.put(f"pool/p{number}", os.urandom(2000))
    served.put("dists/Packages", "\n".join(f"pool/p{number}" for number in range(300)).encode(), age=1)
    missing, ending = [], threading.Event()

    def watch():
        while not ending.is_set():
            named = (served.dest / "dists/Packages").read_text().split()
            missing.extend(path for path in named if not (served.dest / path).exists())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert served.sync(profile="debian").state == "ok"
    finally:
        ending.set()
        watcher.join()
    assert not missing
    assert served.tree() == served.tree(served.source)


@over_two
def test_old_indexes_and_their_files_stay_when_data_does_not_come(served):
    """A package that cannot be fetched keeps the old index published, and all that it names."""
    served.put("pool/old", b"old")
    served.put("dists/Packages", b"pool/old")
    assert served.sync(profile="debian").state == "ok"
    (served.source / "pool/old").unlink()
    served.put("pool/new", b"new", age=5)
    served.put("dists/Packages", b"pool/new", age=5)
    served.faults({"kind": "vanish", "path": "pool/new"})
    assert served.sync(profile="debian").state == "partial"
    assert served.tree()["dists/Packages"] == b"pool/old"
    assert served.tree()["pool/old"] == b"old"
    served.faults()
    assert served.sync(profile="debian").state == "ok"
    assert served.tree() == served.tree(served.source)


@over_two
def test_a_source_that_changes_meanwhile_is_copied_once_more(served, monkeypatch):
    """An index that is another one at the end of the run is fetched again, with what it names (row 8)."""
    result = served.sync(profile="debian", tell=served.package_while_fetching())
    assert result.state == "ok"
    assert served.tree() == served.tree(served.source)
    assert (result.added, result.changed) == (3, 0)


@over
def test_a_source_that_says_it_is_being_updated(served):
    """Data comes, the old indexes stay, and the run is partial; afterwards all of it comes."""
    served.put("pool/one", b"one")
    served.put("dists/Packages", b"pool/one")
    served.put("Archive-Update-in-Progress-ftp.example.org", b"")
    result = served.sync(profile="debian")
    assert (result.state, result.status) == ("partial", 3)
    assert "being updated" in result.reason
    assert set(served.tree()) >= {"pool/one"}
    assert not {"dists/Packages", "Archive-Update-in-Progress-ftp.example.org"} & set(served.tree())
    (served.source / "Archive-Update-in-Progress-ftp.example.org").unlink()
    assert served.sync(profile="debian").state == "ok"
    assert "dists/Packages" in served.tree()


@over
@pytest.mark.parametrize("name", ["SHA256SUMS", "MD5SUMS", "Release"])
def test_published_checksums_are_verified(served, name):
    """A file that is not what its checksum says is not published, and the checksum file not either."""
    hasher = hashlib.md5 if name == "MD5SUMS" else hashlib.sha256
    size = " 4" if name == "Release" else ""
    sums = "".join(
        f" {hasher(text).hexdigest()}{size} {path}\n" for path, text in (("good", b"good"), ("sub/bad", b"what"))
    )
    if name != "Release":
        sums = "".join(f"{hasher(text).hexdigest()}  {path}\n" for path, text in (("good", b"good"), ("bad", b"what")))
    bad = "sub/bad" if name == "Release" else "bad"
    served.put("good", b"good")
    served.put(bad, b"evil")
    served.put(name, sums.encode())
    result = served.sync()
    assert result.state == "partial"
    assert "is not the published one" in result.reason
    assert {path for path, content in served.tree().items() if content} == {"good"}
    served.put(bad, b"what", age=3)
    assert served.sync().state == "ok"
    assert served.tree() == served.tree(served.source)


@over
def test_no_space_is_known_before(served):
    """A plan that does not fit is not begun (row 32)."""
    served.fill(5)
    result = served.sync(reserve=1 << 60)
    assert (result.state, result.status) == ("failed", 7)
    assert served.tree() == {}


@over_two
def test_a_disk_that_becomes_full(served, monkeypatch):
    """ENOSPC in the middle ends the run with its status, and leaves the old files (row 32)."""
    served.put("f", b"old", age=5000)
    assert served.sync().state == "ok"
    served.put("f", b"new!", age=5)

    def full(fd, chunks):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(staging, "_write", full)
    result = served.sync()
    assert (result.state, result.status) == ("failed", 7)
    assert served.tree()["f"] == b"old"


@web
def test_hooks_have_the_result_in_their_environment(served, tmp_path):
    """Pre comes before, post after a good run, fail after another, change when the state is a new one."""
    hooks = {
        name: ["/bin/sh", "-c", f'echo {name} "$MIRROR_NAME" "$MIRROR_STATE" "$MIRROR_ADDED" >>{tmp_path}/said']
        for name in ("pre", "post", "fail", "change")
    }
    served.fill(3)
    said = tmp_path / "said"
    served.sync(hooks=hooks)
    assert said.read_text().splitlines() == ["pre m ok 0", "post m ok 3", "change m ok 3"]
    said.unlink()
    served.sync(hooks=hooks)
    assert said.read_text().splitlines() == ["pre m ok 0", "post m ok 0"]
    said.unlink()
    served.faults({"kind": "error", "path": ""})
    served.sync(hooks=hooks)
    assert said.read_text().splitlines() == ["pre m ok 0", "fail m failed 0", "change m failed 0"]


@web
def test_a_failing_pre_hook_forbids_the_run(served):
    """Its status and words are in the reason and the log."""
    served.fill(3)
    result = served.sync(hooks={"pre": ["/bin/sh", "-c", "echo not now; exit 7"]})
    assert (result.state, served.tree()) == ("failed", {})
    assert "ended with 7" in result.reason
    assert "not now" in served.log()


def test_hooks_hear_of_a_destination_that_is_refused(make_place, capfd):
    """When the disk is not mounted there is no log and no directory to run in, and the admin is told all the same."""
    with make_place("file") as place:
        place.fill(3)
        assert place.sync().state == "ok"
        place.dest.rename(place.base / "elsewhere")
        say = f'echo "$0 $MIRROR_STATUS $MIRROR_REASON" | tee -a {place.base}/said'
        hooks = {name: ["/bin/sh", "-c", say, name] for name in ("pre", "post", "fail", "change")}
        assert place.sync(hooks=hooks).status == 8
        said = (place.base / "said").read_text().splitlines()
        assert [line.split()[:2] for line in said] == [["fail", "8"], ["change", "8"]]
        assert "is its disk mounted" in said[0]
        assert said[0] in capfd.readouterr().err


def test_a_mistake_of_ours_is_no_success(make_place, monkeypatch):
    """An exception that nobody has thought of ends the run as failed, in history, log and hooks."""

    def broken(self, *_):
        raise ZeroDivisionError("unthought-of")

    with make_place("file") as place:
        place.fill(3)
        monkeypatch.setattr(Plan, "summary", broken)
        with pytest.raises(ZeroDivisionError):
            place.sync()
        last = History(place.state / "history.sqlite3").last("m")
        assert (last["state"], last["status"]) == ("failed", 1)
        assert "unthought-of" in last["reason"]
        assert "all well" not in place.log()


@pytest.mark.parametrize("text", ["garbage", "[1]", '{"memory": 3}', '{"memory": {"command": 3}, "complete": 4}', ""])
@over_two
def test_state_that_is_damaged_is_done_without(served, text):
    """What earlier runs have left is a help, and no more."""
    served.fill(3)
    assert served.sync().state == "ok"
    for name in ("state.json", "status.json", "held.json", "released"):
        (served.dest / ".poor-mirror" / name).write_text(text)
    assert served.sync().state == "ok"


def test_a_dry_run_calls_no_hook(make_place):
    """It changes nothing, and neither do they."""
    with make_place("file") as place:
        place.fill(3)
        hooks = {name: ["/bin/sh", "-c", f"touch {place.base}/called"] for name in ("pre", "post", "fail", "change")}
        assert place.sync(dry=True, hooks=hooks).plan
        assert not (place.base / "called").exists()


def test_notifiers_are_told_of_changes(make_place):
    """A plugin hears of every new state, and its own mistakes change nothing."""
    from pytest_poorcontainer.mirror.sources.finding import manager
    from pytest_poorcontainer.plugins import hookimpl

    class Notifier:
        def __init__(self):
            self.heard = []

        @hookimpl
        def poor_container_mirror_notify(self, name, state, previous, reason):
            self.heard.append((name, state, previous))
            raise ValueError("mine")

    notifier = Notifier()
    manager().register(notifier)
    try:
        with make_place("file") as place:
            place.fill(3)
            assert place.sync().state == "ok"
            assert place.sync().state == "ok"
            assert place.sync(source="file:///nowhere").state == "failed"
            assert "the notifier" in place.log()
    finally:
        manager().unregister(notifier)
    assert notifier.heard == [("m", "ok", ""), ("m", "failed", "ok")]


def test_notifiers_of_installed_distributions_are_told_too(make_place, monkeypatch):
    """Nobody has to register them: the entry point is enough. One that cannot be loaded is named in the log."""
    from pytest_poorcontainer import plugins

    heard = []

    class Notifier:
        @plugins.hookimpl
        def poor_container_mirror_notify(self, name, state, previous, reason):
            heard.append((name, state, previous, reason))

    module = types.ModuleType("their_notifier")
    module.notifier = Notifier()
    monkeypatch.setitem(sys.modules, "their_notifier", module)
    entries = [importlib.metadata.EntryPoint("theirs", "their_notifier:notifier", plugins.GROUP)]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries)
    monkeypatch.setattr(plugins, "_loaded", False)
    try:
        with make_place("file") as place:
            place.fill(3)
            assert place.sync().state == "ok"
            assert heard == [("m", "ok", "", "")]
            entries.append(importlib.metadata.EntryPoint("broken", "their_notifier:nothing", plugins.GROUP))
            monkeypatch.setattr(plugins, "_loaded", False)
            assert place.sync(source="file:///nowhere").state == "failed"
            assert "cannot load the plugin broken" in place.log()
            assert [one[1] for one in heard] == ["ok", "failed"]
    finally:
        if plugins.manager().has_plugin("theirs"):
            plugins.manager().unregister(name="theirs")


@pytest.mark.parametrize("kind", ["nginx", "ftp", "file"])
def test_an_unchanged_manifest_is_one_request(make_place, kind):
    """A mirror of a mirror asks for its manifest, and for nothing else if that is unchanged."""
    with make_place("file") as first:
        first.fill()
        (first.source / "d1/link").symlink_to("f1.bin")
        assert first.sync(manifest=True).state == "ok"
        with make_place(kind) as second:
            second.source.rmdir()
            second.source.symlink_to(first.dest)
            assert second.sync().state == "ok"
            assert second.tree() == first.tree()
            if second.server:
                second.server.seen.clear()
            result = second.sync()
            assert (result.state, result.unchanged, result.files) == ("ok", True, 25)
            if kind == "nginx":
                assert [path for _, path in second.server.seen] == [".poor-mirror.manifest"]
            if kind == "ftp":
                assert not {"MLSD", "RETR"} & {verb for verb, _ in second.server.seen}
            first.put("new", b"x", age=1)
            assert first.sync(manifest=True).state == "ok"
            assert second.sync().added == 1
            assert second.tree() == first.tree()
            (second.dest / "new").unlink()
            assert second.sync(verify=True).added == 1


@over
def test_snapshots_are_switched_as_a_whole(served):
    """With snapshots the destination is a link to a complete state; old ones stay, and take no space."""
    served.fill(5)
    assert served.sync(snapshots=2).state == "ok"
    assert served.dest.is_symlink()
    first = served.dest.resolve()
    assert served.tree() == served.tree(served.source)
    assert served.sync(snapshots=2).state == "ok"
    assert served.dest.resolve() == first
    for number in range(3):
        served.put("d0/f0.bin", b"another" * (number + 2), age=30 - number)
        assert served.sync(snapshots=2).state == "ok"
        assert served.tree() == served.tree(served.source)
    assert served.dest.resolve() != first
    kept = [path for path in first.parent.iterdir() if path.name.startswith("snapshot-")]
    assert len(kept) == 2
    assert len({(path / "d1/f1.bin").stat().st_ino for path in kept}) == 1
    assert served.sync(snapshots=0).state == "failed" or not served.dest.is_symlink()


@over
def test_a_run_that_fails_leaves_the_snapshot(served):
    """Nothing of a partial or held run is seen by readers."""
    served.fill(20)
    assert served.sync(snapshots=1).state == "ok"
    before, where = served.tree(), served.dest.resolve()
    for path in served.source.rglob("f*"):
        path.unlink()
    assert served.sync(snapshots=1).state == "held"
    assert (served.tree(), served.dest.resolve()) == (before, where)


@over
def test_a_trace_tells_when_the_mirror_was_complete(served):
    """project/trace/NAME has the time, the marker of an update is gone, and neither is deleted by the next run."""
    served.fill(3)
    for _ in range(2):
        assert served.sync(trace="edge.example").state == "ok"
        found = set(served.tree())
        assert "project/trace/edge.example" in found
        assert not [path for path in found if path.startswith("Archive-Update")]
    assert (
        (served.dest / "project/trace/edge.example")
        .read_text()
        .splitlines()[0]
        .endswith(time.strftime("%Y", time.gmtime()))
    )


def test_a_command_under_tunasyncs_contract(make_place, tmp_path):
    """It finds its orders in the environment; a failure and an empty success are failures (rows 30, 29)."""
    with make_place("file") as place:
        script = 'echo working; test "$TUNASYNC_WORKING_DIR" = "$PWD" && echo "$TUNASYNC_UPSTREAM_URL" >got; exit $0'
        run = lambda code: place.sync(command=["/bin/sh", "-c", script, code])  # noqa: E731 - three times
        result = place.sync(command=["/bin/sh", "-c", script.replace("$0", "0")], source="http://u:p@h.example/x")
        assert (result.state, result.files) == ("ok", 1)
        assert (place.dest / "got").read_text() == "http://u:p@h.example/x\n"
        assert "working" in place.log()
        assert "u:p@" not in place.log()
        assert run("3").state == "failed"
        (place.dest / "got").unlink()
        result = place.sync(command=["true"])
        assert result.state == "failed"
        assert "there is no file" in result.reason


def test_a_command_that_never_ends(make_place):
    """`timeout` ends it and all that it has started (row 29)."""
    with make_place("file") as place:
        result = place.sync(command=["/bin/sh", "-c", f"sleep 1000 & echo $! >{place.base}/pid; wait"], timeout=1)
        assert result.state == "failed"
        assert "timeout" in result.reason
        stat = Path(f"/proc/{(place.base / 'pid').read_text().strip()}/stat")
        assert not stat.exists() or stat.read_text().split()[2] == "Z"  # nobody may be there to reap it


@pytest.mark.parametrize("served", ["rsync"], indirect=True)
@pytest.mark.parametrize("code", [11, 23])
def test_a_disk_that_becomes_full_under_rsync(served, code):
    """What rsync says of it ends the run with the status of a full disk, whatever rsync's own is (row 32)."""
    served.fill(3)
    program = served.base / "rsync"
    program.write_text(
        '#!/bin/sh\ncase "$*" in *--version*|*-nrlt*) exec rsync "$@";; esac\n'
        f"""echo 'rsync: [receiver] write failed on "f": No space left on device (28)' >&2; exit {code}\n"""
    )
    program.chmod(0o755)
    result = served.sync(rsync=str(program), old_rsync=True)
    assert (result.state, result.status) == ("failed", 7), result.reason
    assert "No space left" in result.reason


@over_two
@pytest.mark.parametrize("sizes", [[800_000], [100_000] * 8, [700_000, *[5000] * 20]])
def test_interpretation_of_limits(served, sizes):
    """A limit of the bandwidth is for all connections together, and a transfer that is alone has all of it."""
    for number, size in enumerate(sizes):
        served.put(f"f{number}", os.urandom(size))
    began = time.monotonic()
    assert served.sync(bandwidth=400_000, connections=8).state == "ok"
    took = time.monotonic() - began
    assert took > 0.8 * sum(sizes) / 400_000
    assert took < 10  # an eighth of the limit for each would be 14 s for the largest


def test_copies_do_not_share_bytes_with_their_source(tmp_path, make_place):
    """A file:// copy is a file of its own: writing into the source later changes nothing here."""
    with make_place("file") as place:
        file = place.put("large", os.urandom(3_000_000))
        assert place.sync().state == "ok"
        before = place.tree()
        with file.open("r+b") as out:
            out.write(b"changed in place")
        assert place.tree() == before
    assert Mirror("x").layout().name == "plain"
