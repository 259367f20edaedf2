"""What is looked at before the first deletion: indexes that stay published must not name what goes."""

import pytest

over = pytest.mark.parametrize("served", ["file", "nginx", "ftp", "ftp-list", "rsync"], indirect=True)
of_ours = pytest.mark.parametrize("served", ["nginx", "ftp"], indirect=True)


def with_one_to_delete(served):
    """Mirror an archive of which the source then has a file less."""
    served.put("pool/old", b"old")
    served.put("pool/one", b"one")
    served.put("dists/Packages", b"pool/one")
    assert served.sync(profile="debian").state == "ok"
    (served.source / "pool/old").unlink()


def while_it_fetches(act):
    """Return a listener that acts once, after the source was listed."""
    left = [act]

    def tell(told):
        if told["phase"] == "fetch" and left:
            left.pop()()

    return tell


@over
def test_an_update_that_begins_meanwhile(served):
    """Nothing is deleted while the source is being updated, also when that was not so as it was listed (row 8)."""
    with_one_to_delete(served)
    tell = while_it_fetches(lambda: served.put("Archive-Update-in-Progress-ftp.example.org", b""))
    result = served.sync(profile="debian", tell=tell)
    assert (result.state, result.deleted) == ("partial", 0)
    assert "being updated" in result.reason
    assert "pool/old" in served.tree()
    (served.source / "Archive-Update-in-Progress-ftp.example.org").unlink()
    assert served.sync(profile="debian").deleted == 1


@over
def test_an_index_that_changes_meanwhile(served):
    """An index that was not to be fetched is another one before the deletions: once more, with it (row 8)."""
    with_one_to_delete(served)

    def change():
        served.put("pool/new", b"new")
        served.put("dists/Packages", b"pool/one pool/new", age=5)

    assert served.sync(profile="debian", tell=while_it_fetches(change)).state == "ok"
    assert served.tree() == served.tree(served.source)


@over
def test_nothing_has_moved(served):
    """Deletions alone are one round, also with a trace of ours and with old indexes that are excluded."""
    with_one_to_delete(served)
    options = {"profile": "debian", "trace": "edge.example", "exclude": ["/dists/sid/"]}
    assert served.sync(**options).deleted == 1
    (served.source / "pool/one").unlink()
    served.put("pool/two")
    served.put("dists/sid/Release", b"not for us")
    (served.dest / "dists/sid").mkdir()
    (served.dest / "dists/sid/Release").write_text("mine")
    result = served.sync(**options)
    assert (result.state, result.deleted) == ("ok", 1)
    assert "has changed meanwhile" not in served.log()


@of_ours
@pytest.mark.parametrize("hidden", ["dists", "dists/Packages"])
def test_an_index_that_does_not_come(served, hidden):
    """The old one stays, and so does all that it may name."""
    with_one_to_delete(served)
    served.put("dists/Packages", b"another list", age=5)
    served.faults({"kind": "error", "path": hidden, "status": 403, "code": 550})
    result = served.sync(profile="debian")
    assert (result.state, result.deleted) == ("partial", 0), result.reason
    assert "pool/old" in served.tree()
    served.faults()
    assert served.sync(profile="debian").deleted == 1
    assert served.tree() == served.tree(served.source)
