"""What an admin reads when something is wrong: what it was about, why, and what to do; and a status of its own."""

import os
import re
import socket

import pytest
from test_command import poor_mirror

MISSING = "named-nothing.invalid"


def refused_port():
    """Return a port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("http://127.0.0.1:{port}/x/", "http://127.0.0.1:{port}: .* is the address right, and is the server up"),
        ("ftp://127.0.0.1:{port}/x/", "ftp://127.0.0.1:{port}: .* is the address right, and is the server up"),
        ("rsync://127.0.0.1:{port}/m/", "rsync://127.0.0.1:{port}/m/: .* is the address right, and is the server up"),
        (f"http://{MISSING}/", "is the name right, and does this machine resolve others"),
        ("file:///nowhere/at/all", "/nowhere/at/all: No such file .* is its disk mounted"),
    ],
)
def test_a_source_that_is_not_there(make_place, source, said):
    """Its address and a remedy are in the one sentence, over each protocol; the status is 6."""
    port = refused_port()
    with make_place("file") as place:
        result = place.sync(source=source.format(port=port), retries=0)
    assert (result.state, result.status) == ("failed", 6)
    assert "\n" not in result.reason
    assert re.search(said.format(port=port), result.reason), result.reason


def test_a_server_that_speaks_no_tls(make_place):
    """It is asked by https, and the question is whether it speaks TLS at all."""
    with make_place("nginx") as place:
        result = place.sync(source=place.url.replace("http:", "https:"), retries=0)
        assert (result.state, result.status) == ("failed", 6)
        assert "does the server speak TLS at this port" in result.reason


@pytest.mark.parametrize("to", ["/", "file:///etc/", "ftp://127.0.0.1/", "gopher://127.0.0.1/", "//[", "http://"])
@pytest.mark.parametrize("path", ["", "d1", "d1/f1.bin"])
def test_redirections_that_lead_nowhere(make_place, path, to):
    """A loop, or another scheme, is an error of that place alone: nothing is read from there, nothing is deleted."""
    with make_place("nginx") as place:
        place.fill(6)
        assert place.sync().state == "ok"
        before = place.tree()
        place.put("d1/f1.bin", b"another")
        place.put("d2/new", b"new")
        place.faults({"kind": "redirect", "path": path, "to": f"/{path}" if to == "/" else to})
        result = place.sync(retries=1, use_manifest=False)
        if path:
            assert (result.state, result.status) == ("partial", 3), result.reason
            assert place.tree() == {**before, "d2/new": b"new"}
        else:
            assert (result.state, result.status) == ("failed", 6)
            assert place.tree() == before
        place.faults()
        assert place.sync().state == "ok"
        assert place.tree() == place.tree(place.source)


def test_a_redirection_to_another_host(make_place):
    """Is followed, as mirrors' front ends send to other servers; the password stays with the first."""
    with make_place("nginx") as place, make_place("nginx", password=("me", "secret")) as other:
        place.fill(6)
        other.fill(6)
        other.put("d1/f1.bin", (place.source / "d1/f1.bin").read_bytes())
        os.utime(other.source / "d1/f1.bin", (place.source / "d1/f1.bin").stat()[-3:-1])
        place.faults(
            {"kind": "redirect", "path": "d1/f1.bin", "to": f"{other.url.replace('127.0.0.1', 'localhost')}d1/f1.bin"}
        )
        result = place.sync(user="me", password="secret", ip=4)
        assert result.state == "partial"
        assert "d1/f1.bin" not in place.tree()
        other.server.password = None
        assert place.sync(user="me", password="secret", ip=4).state == "ok"
        assert place.tree() == place.tree(place.source)


@pytest.mark.parametrize(("words", "said"), [(["", "x"], "SOURCE is empty"), (["x", ""], "DEST is empty")])
def test_an_empty_word_is_no_directory(tmp_path, words, said):
    """As a variable of a shell that is not set: nothing is copied to or from where one happens to be."""
    done = poor_mirror("copy", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert not list(tmp_path.iterdir())
