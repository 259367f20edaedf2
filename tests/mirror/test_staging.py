"""Where the bytes of one file arrive: in memory, in a temporary file, and all of them in their order."""

import errno
import hashlib
import os
import random

import pytest

from pytest_poorcontainer.mirror import staging
from pytest_poorcontainer.mirror.errors import NoSpace
from pytest_poorcontainer.mirror.plan import Want
from pytest_poorcontainer.mirror.staging import Stage
from pytest_poorcontainer.mirror.tree import Tree


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """Return a stage for which 64 bytes are a large file."""
    monkeypatch.setattr(staging, "LARGE", 64)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tmp").mkdir()
    fd = os.open(tmp_path / "tmp", os.O_RDONLY | os.O_DIRECTORY)
    with Tree(str(tmp_path / "tree")) as tree:
        yield Stage(tree, fd)
    os.close(fd)


def pieces(chance, content):
    """Cut bytes into pieces, mostly small ones, some larger than a file that stays in memory."""
    place = 0
    while place < len(content):
        size = chance.choice([0, 1, 7, 16, 31, 32, 33, 64, 100])
        yield content[place : place + size]
        place += size


@pytest.mark.parametrize("seed", range(60))
def test_bytes_arrive_as_they_were_sent(stage, tmp_path, seed):
    """However they are cut, and however often the server begins anew; so do checksum, size and count of bytes."""
    chance = random.Random(seed)
    content = chance.randbytes(chance.choice([0, 1, 63, 64, 65, 96, 97, 500]))
    incoming = stage.incoming(Want("file", len(content), 1e9))
    sent = 0
    for _ in range(chance.randrange(3)):
        for piece in list(pieces(chance, content))[: chance.randrange(20)]:
            incoming.data(piece)
            sent += len(piece)
        incoming.restart()
    for piece in pieces(chance, content):
        incoming.data(piece)
        sent += len(piece)
    if chance.random() < 0.5:
        assert incoming.digest("sha256") == hashlib.sha256(content).hexdigest()
    stage.arrived(incoming, None)
    assert (tmp_path / "tree/file").read_bytes() == content
    assert stage.bytes == sent
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("seed", range(20))
def test_what_was_kept_is_continued(stage, tmp_path, seed):
    """All that came before the connection was lost is in the temporary file, and the rest goes behind it."""
    chance = random.Random(seed)
    content = chance.randbytes(400)
    want = Want("file", len(content), 1e9)
    first = stage.incoming(want)
    came = 0
    for piece in list(pieces(chance, content))[: chance.randrange(8, 20)]:
        first.data(piece)
        came += len(piece)
    first.close(keep=True)
    second = stage.incoming(want)
    place, _ = second.resume()
    assert place in ({came % len(content)} if came > 64 else {0, came})
    for piece in pieces(chance, content[place:]):
        second.data(piece)
    stage.arrived(second, None)
    assert (tmp_path / "tree/file").read_bytes() == content


def test_short_writes_go_on_with_the_rest(stage, tmp_path, monkeypatch):
    """The kernel may take less than it was given (write(2)); nothing is left out, nothing comes twice."""
    real_write, real_writev = os.write, os.writev
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, data[:3]))
    monkeypatch.setattr(os, "writev", lambda fd, chunks: real_writev(fd, [bytes(chunks[0])[:5]]))
    content = bytes(range(256))
    incoming = stage.incoming(Want("file", len(content), 1e9))
    for start in range(0, len(content), 10):
        incoming.data(content[start : start + 10])
    stage.arrived(incoming, None)
    assert (tmp_path / "tree/file").read_bytes() == content


def test_a_full_disk_is_told_as_one(stage, tmp_path, monkeypatch):
    """What is in memory when the disk is full is an error of the run, and leaves no file under its name."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    incoming = stage.incoming(Want("file", 60, 1e9))
    incoming.data(bytes(50))
    incoming.data(bytes(10))
    monkeypatch.setattr(os, "writev", full)
    with pytest.raises(NoSpace, match="free some space"):
        stage.arrived(incoming, None)
    assert not list((tmp_path / "tree").iterdir())
    assert not list((tmp_path / "tmp").iterdir())
