"""Copy-on-write trees as pclab mounts them, asked for by bare messages: what it refuses, and what it leaves."""

import contextlib
import errno
import os
import socket
import struct
import time
from pathlib import Path

import pytest
from test_pclab import ERROR, FIELD, HEADER, ID, OK, Lab, number, program  # noqa: F401 - a fixture

from pytest_poorcontainer import machine

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)

COW, COW_END = 56, 57
OBJECT, ERRNO, REMEDY = 2, 3, 4
SOURCE, TARGET, OPTIONS, FLAGS, PATH, VALUE = 34, 35, 37, 38, 39, 43
LAYERS_MOST = 40


@pytest.fixture
def lab(program):  # noqa: F811 - the fixture of that name
    """A lab that is ended after the test."""
    lab = Lab(program)
    yield lab
    lab.close()


@pytest.fixture
def lower(tmp_path):
    """A directory that may be a lower."""
    (tmp_path / "lower/d").mkdir(parents=True)
    (tmp_path / "lower/file").write_text("lower")
    return tmp_path / "lower"


def ask(lab, op, fields, fd=None):
    """Ask with a descriptor, or without; return errno or 0, the fields, and the descriptors."""
    body = b"".join(FIELD.pack(kind, len(value)) + value for kind, value in fields)
    data = HEADER.pack(1, op, 0, 0 if fd is None else 1, 1, len(body)) + body
    socket.send_fds(lab.socket, [data], [] if fd is None else [fd])
    answer, _, fields, fds = lab.receive()
    assert answer in (OK, ERROR)
    return struct.unpack("=I", fields[ERRNO])[0] if answer == ERROR else 0, fields, fds


def listed(fd):
    """Return the names in a directory of which we have a descriptor of any kind."""
    return sorted(path.name for path in Path(f"/proc/self/fd/{fd}").iterdir())


def test_a_tree_is_three_descriptors(lab, lower):
    """The overlay, the stage it is on, and its store; what is written through the first is in the last alone."""
    failed, _, fds = ask(lab, COW, [(ID, number(1)), (SOURCE, bytes(lower))])
    assert (failed, len(fds)) == (0, 3)
    tree, stage, store = fds
    Path(f"/proc/self/fd/{tree}/file").write_text("upper")
    Path(f"/proc/self/fd/{tree}/d").rmdir()
    assert listed(tree) == ["file"]
    assert listed(store) == ["upper", "work"]
    assert (lower / "file").read_text() == "lower"
    assert Path(f"/proc/self/fd/{store}/upper/d").stat().st_rdev == 0
    failed, _, fds = ask(lab, COW_END, [(ID, number(1))], stage)
    assert (failed, fds) == (0, [])


def test_a_second_mount_has_what_the_first_wrote(lab, lower):
    """Asked again by the same number, the overlay is mounted anew with the store that it has."""
    _, _, (tree, stage, store) = ask(lab, COW, [(ID, number(1)), (SOURCE, bytes(lower))])
    Path(f"/proc/self/fd/{tree}/new").touch()
    os.close(tree)
    deadline = time.monotonic() + 5
    while True:  # the kernel lets go of the upper a moment after the last descriptor was closed
        failed, _, fds = ask(lab, COW, [(ID, number(1)), (SOURCE, bytes(lower))], stage)
        if failed != errno.EBUSY or time.monotonic() > deadline:
            break
        time.sleep(0.005)
    assert failed == 0
    assert "new" in listed(fds[0])
    layers = [(ID, number(2)), (TARGET, b"/proc/1/store/upper"), (SOURCE, bytes(lower))]
    failed, _, fds = ask(lab, COW, [*layers, (FLAGS, number(1))], stage)
    assert (failed, listed(fds[0])) == (0, ["d", "file", "new"])
    with pytest.raises(OSError, match="Read-only"):
        Path(f"/proc/self/fd/{fds[0]}/other").touch()
    assert listed(store) == ["upper", "work"]


def test_a_store_on_the_machine(lab, lower, tmp_path):
    """With a directory for it the changes are there, and stay when the tree has ended."""
    (tmp_path / "store").mkdir()
    fields = [(ID, number(1)), (PATH, bytes(tmp_path / "store")), (SOURCE, bytes(lower))]
    _, _, (tree, stage, _) = ask(lab, COW, fields)
    Path(f"/proc/self/fd/{tree}/new").write_text("n")
    os.close(tree)
    ask(lab, COW_END, [(ID, number(1))], stage)
    assert (tmp_path / "store/upper/new").read_text() == "n"


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ([], errno.EPROTO),
        ([(ID, number(1))], errno.EPROTO),
        ([(SOURCE, b"/usr")], errno.EPROTO),
        ([(ID, number(1)), (SOURCE, b"/nonexistent")], errno.ENOENT),
        ([(ID, number(1)), (SOURCE, b"/etc/passwd")], errno.ENOTDIR),
        ([(ID, number(1)), (TARGET, b"/proc/9/store/upper")], errno.ENOENT),
        ([(ID, number(1)), (PATH, b"/nonexistent"), (SOURCE, b"/usr")], errno.ENOENT),
        ([(ID, number(1)), (OPTIONS, b"size=nonsense"), (SOURCE, b"/usr")], errno.EINVAL),
        ([(ID, number(1)), (OPTIONS, b"size"), (SOURCE, b"/usr")], errno.EINVAL),
        ([(ID, number(1)), (VALUE, struct.pack("=QQ", 1, 1)), (SOURCE, b"/usr")], errno.ESTALE),
        ([(ID, number(1)), *[(SOURCE, b"/usr")] * (LAYERS_MOST + 1)], errno.E2BIG),
        ([(ID, number(1)), (99, b"x"), (SOURCE, b"/usr")], errno.EPROTO),
    ],
)
def test_what_makes_no_sense_is_refused(lab, lower, fields, wrong):
    """Each with its errno; the lab goes on, and nothing of it is on the stage that comes next."""
    failed, said, fds = ask(lab, COW, fields)
    assert (failed, fds) == (wrong, [])
    assert said[OBJECT]
    failed, _, (tree, _, _) = ask(lab, COW, [(ID, number(1)), (SOURCE, bytes(lower))])
    assert (failed, listed(tree)) == (0, ["d", "file"])


def test_an_end_without_a_stage_is_refused(lab, lower):
    """There is no default: the lab knows no trees of its own. A number that there is not is no error."""
    assert ask(lab, COW_END, [(ID, number(1))])[0] == errno.EPROTO
    _, _, (_, stage, _) = ask(lab, COW, [(ID, number(1)), (SOURCE, bytes(lower))])
    assert ask(lab, COW_END, [(ID, number(7))], stage)[0] == 0
    null = os.open(os.devnull, os.O_RDONLY)
    assert ask(lab, COW_END, [(ID, number(1))], null)[0] == errno.EINVAL
    assert ask(lab, COW, [(ID, number(1)), (SOURCE, bytes(lower))], null)[0] == errno.EINVAL
    os.close(null)


def test_the_lab_has_no_child_or_descriptor_left(lab, lower):
    """After a hundred trees it has as many of both as after the first."""
    _, _, fds = ask(lab, COW, [(ID, number(1)), (SOURCE, bytes(lower))])
    stage = fds[1]

    def count():
        with contextlib.suppress(PermissionError):
            return len(list(Path(f"/proc/{lab.pid}/fd").iterdir()))
        return 0

    before = count()
    for turn in range(2, 102):
        _, _, fds = ask(lab, COW, [(ID, number(turn)), (SOURCE, bytes(lower))], stage)
        for fd in fds:
            os.close(fd)
        assert ask(lab, COW_END, [(ID, number(turn))], stage)[0] == 0
    assert count() == before
    deadline = time.monotonic() + 5
    while lab.children():  # the last one answers before it ends
        assert time.monotonic() < deadline
        time.sleep(0.01)
