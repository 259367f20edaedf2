"""The fixtures mirror_source and poor_mirror: sources and mirrors in hosts, cables cut while files fly."""

import shutil

import pytest

from pytest_poorcontainer import PoorContainerError, UsageError

PROTOCOLS = ["http", "ftp", "ftp-list", pytest.param("rsync", marks=pytest.mark.skipif(
    shutil.which("rsync") is None, reason="needs rsync: sudo apt-get install rsync"))]  # fmt: skip


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_mirror_survives_a_cut(netns_pair, mirror_source, poor_mirror, protocol):
    """A cut in the middle publishes nothing; when the cable is whole again the next run completes it."""
    origin, edge = netns_pair
    src = mirror_source(origin, {"pool/a.deb": 5_000_000, "dists/Release": b"..."}, protocol=protocol)
    m = poor_mirror(edge, src, profile="debian")
    with m.syncing() as run:
        run.wait(bytes=0 if protocol == "rsync" else 1_000_000, phase="fetch")
        netns_pair.link.cut()
    assert run.result.state == "failed"
    assert run.result.status == 6
    assert m.tree() == {}
    netns_pair.link.heal()
    assert m.sync().state == "ok"
    assert m.tree() == src.tree()
    assert m.status["age"] < 60
    assert m.sync().fetched == 0


def test_a_pulled_plug_is_a_retry(netns_pair, mirror_source, poor_mirror):
    """A carrier that is lost for a moment costs an attempt, and no more."""
    origin, edge = netns_pair
    src = mirror_source(origin, {"a": 3_000_000})
    m = poor_mirror(edge, src, retries=5)
    with m.syncing() as run:
        run.wait(bytes=500_000)
        with netns_pair.link.unplug():
            pass
    assert run.result.state == "ok"
    assert m.tree() == src.tree()


def test_faults_of_a_source(netns_pair, mirror_source, poor_mirror):
    """A source misbehaves as it is told, until it is healed."""
    origin, edge = netns_pair
    src = mirror_source(origin, {"a": 1000, "d/b": 2000}, "http", dialect="apache")
    m = poor_mirror(edge, src)
    src.fault("truncate", "a", bytes=10)
    result = m.sync()
    assert (result.state, set(m.tree())) == ("partial", {"d/b"})
    assert "a:" in result.reason
    src.heal()
    assert m.sync().state == "ok"
    src.put("a", b"new")
    src.remove("d")
    assert m.sync().state == "ok"
    assert m.tree() == src.tree()
    assert "truncate" not in repr(src)


def test_held_and_released(netns_pair, mirror_source, poor_mirror):
    """What is held is in status and plan, and passes once it is released."""
    origin, edge = netns_pair
    m = poor_mirror(edge, mirror_source(origin, {f"f{number}": 10 for number in range(15)}, protocol="ftp"))
    assert m.sync().added == 15
    m.source.fault("empty")
    assert m.sync().status == 4
    assert m.status["held"]["reasons"]
    assert len(m.plan["deletions"]) == 15
    m.release()
    assert m.sync().deleted == 15
    assert "plan: +0 ~0 -15" in m.log()


def test_a_source_of_a_directory(netns_pair, mirror_source, poor_mirror, tmp_path):
    """Its files may come from a directory, links included."""
    origin, edge = netns_pair
    (tmp_path / "files/sub").mkdir(parents=True)
    (tmp_path / "files/sub/one").write_text("1")
    (tmp_path / "files/link").symlink_to("sub/one")
    src = mirror_source(origin, tmp_path / "files", protocol="ftp")
    m = poor_mirror(edge, src)
    assert m.sync().state == "ok"
    assert m.tree() == src.tree() == {**src.tree(), "link": "-> sub/one"}


def test_wrong_words_are_named(netns_pair, mirror_source, poor_mirror):
    """A protocol or a fault that there is none of, and waiting for what does not come, are errors with a remedy."""
    origin, edge = netns_pair
    with pytest.raises(UsageError, match="ftp-list, rsync"):
        mirror_source(origin, {}, protocol="gopher")
    src = mirror_source(origin, {"a": 1})
    with pytest.raises(ValueError, match="truncate"):
        src.fault("trunkate")
    m = poor_mirror(edge, src)
    with m.syncing() as run:
        with pytest.raises(PoorContainerError, match="has not ended"):
            assert run.result
        with pytest.raises(PoorContainerError, match="the run ended before"):
            run.wait(bytes=1_000_000)


def test_factories_are_for_wider_scopes(netns_pair, mirror_source_factory, poor_mirror_factory):
    """They take what the fixtures take."""
    origin, edge = netns_pair
    src = mirror_source_factory(origin, {"a": 1})
    assert poor_mirror_factory(edge, src).sync().state == "ok"


def test_a_disk_that_is_full(netns_pair, mirror_source, poor_mirror):
    """Before a run, in one, and read-only: a sentence and a status each, and what is published stays whole."""
    origin, edge = netns_pair
    src = mirror_source(origin, {"a": 300_000, "b": 400_000})
    m = poor_mirror(edge, src)
    edge.mounts.tmpfs("/srv", size=2 << 20)

    def copy(name, *words):
        argv = [*m._argv()[:-2], "copy", src.url, f"/srv/{name}", "--quiet", "--set=reserve=0", *words]
        done = edge.run(argv, capture_output=True, text=True)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stderr

    assert copy("m")[0] == 0
    whole = edge.run(["sha256sum", "/srv/m/a", "/srv/m/b"], capture_output=True, text=True).stdout
    src.put("a", 1_500_000)
    status, said = copy("m")
    assert status == 7
    assert "the plan needs 1500000 bytes" in said
    edge.run(["sh", "-c", "cat /dev/zero >/srv/fill"], capture_output=True)
    src.put("a", 300_001)
    for name in ("m", "new"):
        status, said = copy(name)
        assert status == 7, said
        assert "free some space" in said
    assert edge.run(["sha256sum", "/srv/m/a", "/srv/m/b"], capture_output=True, text=True).stdout == whole
    edge.run(["rm", "/srv/fill"], check=True)
    assert copy("m")[0] == 0
    edge.run(["mkdir", "/srv/m/pool"], check=True)
    edge.mounts.tmpfs("/srv/m/pool", size=2 << 20)
    src.put("pool/one", b"one")
    status, said = copy("m")
    assert status == 8
    assert "it belongs on another file system than the top of the mirror" in said
    edge.mounts.readonly("/srv")
    status, said = copy("m")
    assert status == 8
    assert "Read-only file system" in said
