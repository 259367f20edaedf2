"""Two tiers of mirrors: one copies the origin by FTP, the next copies that one; a cable is cut while files fly."""

import pytest


@pytest.fixture
def story(capsys, request):
    """Print a line of the story to whoever watches with ``-v``."""

    def tell(line):
        if request.config.get_verbosity() > 0:
            with capsys.disabled():
                print(f"\n    {line}", end="", flush=True)

    return tell


def test_two_tiers_and_a_cut_cable(netns_pair, mirror_source, poor_mirror, story):
    """A cut in the middle of a file publishes nothing of it; after the repair both tiers equal the origin."""
    origin, edge = netns_pair
    archive = {"pool/a.deb": 5_000_000, "pool/b.deb": 300_000, "dists/Release": b"a and b"}
    src = mirror_source(origin, archive, protocol="ftp")
    first = poor_mirror(edge, src, profile="debian", manifest=True)
    second = poor_mirror(edge, first, profile="debian")

    with first.syncing() as run:
        run.wait(bytes=1_000_000)
        netns_pair.link.cut()
    story(f"cut after {run.progress['bytes'] / 1e6:.1f} MB: {run.result.reason}")
    assert run.result.state == "failed"
    assert "pool/a.deb" not in first.tree()  # not even a part of it
    assert "dists/Release" not in first.tree()  # the index would name a file that is not there

    netns_pair.link.heal()
    result = first.sync()
    story(f"the cable is whole: {result.added} files more, {result.fetched / 1e6:.1f} MB fetched of 5.3 in all")
    assert result.state == "ok"
    assert first.tree() == src.tree()
    assert first.status["age"] < 60  # seconds, of the content

    assert second.sync().state == "ok"
    assert second.tree() == src.tree()
    assert second.sync().unchanged  # told by the manifest of the first, in one request
    story("the second tier has it all, and asks for nothing twice")

    src.put("pool/c.deb", 100_000)
    src.put("dists/Release", b"a, b and c")
    for tier in (first, second):
        assert tier.sync().state == "ok"
        assert tier.tree() == src.tree()
    story("a new package went through both tiers\n")


def test_an_origin_that_is_suddenly_empty(netns_pair, mirror_source, poor_mirror, story):
    """Nothing is deleted before a person has looked at it."""
    origin, edge = netns_pair
    src = mirror_source(origin, {f"iso/{number}.iso": 10_000 for number in range(20)})
    mirror = poor_mirror(edge, src)
    assert mirror.sync().state == "ok"
    src.fault("empty", "")
    held = mirror.sync()
    assert (held.state, held.status) == ("held", 4)
    assert len(mirror.tree()) == 20
    assert len(mirror.plan["deletions"]) == 21  # with the directory
    story(f"{held.reason}\n")
    mirror.release()
    assert mirror.sync().state == "ok"
    assert mirror.tree() == {}
