"""Root file systems as pclab makes them, asked for by bare messages: what it refuses, and what it leaves."""

import errno
import os
import struct
from pathlib import Path

import pytest
from test_pclab import ERROR, HOSTS, NAME, NETWORK, OK, STEP, STEPS_MOST, Lab, number, program  # noqa: F401 - a fixture

from pytest_poorcontainer import machine

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)

CREATE, ROOTFS, ROOTFS_END = 16, 26, 27
ERRNO, OBJECT, REMEDY = 3, 2, 4
NUMBER, SOURCE, TARGET, FLAGS, PATH = 33, 34, 35, 38, 39
MOST = 64


@pytest.fixture
def lab(program):  # noqa: F811 - the fixture of that name
    """A lab that is ended after the test."""
    lab = Lab(program)
    yield lab
    lab.close()


@pytest.fixture
def tree(tmp_path):
    """A directory that may be a root."""
    (tmp_path / "tree" / "etc").mkdir(parents=True)
    (tmp_path / "tree" / "etc" / "mine").write_text("of the tree\n")
    return tmp_path / "tree"


def container(rootfs):
    """Return the fields of a container on a root file system."""
    return [(NAME, b"c"), (HOSTS, b"127.0.0.1 localhost\n"), (NETWORK, number(0)), (NUMBER, number(rootfs))]


def failed(fields):
    """Return errno and object of an error."""
    return struct.unpack("=I", fields[ERRNO])[0], fields[OBJECT].decode()


def test_a_directory_becomes_a_root_and_an_empty_one_comes_with_a_descriptor(lab, tree):
    """A directory of the machine needs no filling; without one there is an empty directory that can be written."""
    op, _, fields, fds = lab.ask(ROOTFS, [(PATH, bytes(tree))])
    assert (op, fields[NUMBER], fds) == (OK, number(1), [])
    op, _, fields, fds = lab.ask(ROOTFS, [])
    assert (op, fields[NUMBER], len(fds)) == (OK, number(2), 1)
    with os.scandir(fds[0]) as entries:
        assert list(entries) == []
    os.mkdir("etc", dir_fd=fds[0])
    for one in (1, 2):
        op, _, _, made = lab.ask(CREATE, container(one))
        assert op == OK
        fds += made
    for fd in fds:
        os.close(fd)


def test_what_cannot_be_a_root_is_named(lab, tmp_path):
    """A path that is not there, a file, a relative place: each is told with its errno, and nothing stays."""
    (tmp_path / "file").write_text("")
    refused = {
        errno.ENOENT: [(PATH, bytes(tmp_path / "none"))],
        errno.ENOTDIR: [(PATH, bytes(tmp_path / "file"))],
        errno.EINVAL: [(SOURCE, bytes(tmp_path)), (TARGET, b"relative")],
        errno.EPROTO: [(SOURCE, bytes(tmp_path))],
        errno.ENAMETOOLONG: [(PATH, b"/" + b"x" * 300)],
        errno.E2BIG: [(SOURCE, bytes(tmp_path)), (TARGET, b"/t")] * (MOST + 1),
    }
    for expected, fields in refused.items():
        op, _, said, fds = lab.ask(ROOTFS, fields)
        assert (op, failed(said)[0], fds) == (ERROR, expected, [])
        assert said[STEP]
    assert lab.children() == []
    assert lab.ask(ROOTFS, [(PATH, bytes(tmp_path))])[0] == OK


def test_one_that_was_given_up_is_for_nobody_any_more(lab, tree):
    """Containers that have it keep it, new ones are refused, its number is not used again."""
    lab.ask(ROOTFS, [(PATH, bytes(tree))])
    op, _, _, held = lab.ask(CREATE, container(1))
    assert op == OK
    assert lab.ask(ROOTFS_END, [(NUMBER, number(1)), (NUMBER, number(99))])[0] == OK
    op, _, said, _ = lab.ask(CREATE, container(1))
    assert (op, failed(said)) == (ERROR, (errno.ENOENT, "c"))
    assert lab.ask(ROOTFS, [(PATH, bytes(tree))])[2][NUMBER] == number(2)
    assert len(lab.children()) == 1
    for fd in held:
        os.close(fd)


def test_there_are_many_and_no_more(lab, tree):
    """Sixty-four fit at a time; one more is refused with the remedy, and fits when another was given up."""
    for _ in range(MOST):
        assert lab.ask(ROOTFS, [(PATH, bytes(tree))])[0] == OK
    op, _, said, _ = lab.ask(ROOTFS, [(PATH, bytes(tree))])
    assert (op, failed(said)[0]) == (ERROR, errno.EMFILE)
    assert b"give up" in said[REMEDY]
    lab.ask(ROOTFS_END, [(NUMBER, number(7))])
    assert lab.ask(ROOTFS, [(PATH, bytes(tree))])[0] == OK


def test_making_and_giving_up_leaves_no_descriptor(lab, tree):
    """After a hundred of them the lab holds as many descriptors as before, and has no child."""
    lab.ask(ROOTFS, [(PATH, b"/nonexistent")])
    before = len(list(Path(f"/proc/{lab.pid}/fd").iterdir())) if os.geteuid() == 0 else None
    for _ in range(100):
        _, _, fields, _ = lab.ask(ROOTFS, [(PATH, bytes(tree))])
        assert lab.ask(ROOTFS_END, [(NUMBER, fields[NUMBER])])[0] == OK
    assert lab.children() == []
    if before is not None:  # rootless the lab's descriptors are its own business: proc(5), dumpable
        assert len(list(Path(f"/proc/{lab.pid}/fd").iterdir())) == before


def test_every_step_of_a_set_up_on_it_may_fail_and_leaves_nothing(program, tree):  # noqa: F811
    """Each step in turn fails with a made-up EIO: it is named, nothing stays, and there is a last step."""
    seen = set()
    for step in range(1, STEPS_MOST):
        lab = Lab(program, "--fail-step", str(step))
        assert lab.ask(ROOTFS, [(PATH, bytes(tree)), (SOURCE, b"/usr"), (TARGET, b"/usr"), (FLAGS, number(1))])[0] == OK
        op, _, fields, fds = lab.ask(CREATE, container(1))
        if op == ERROR:
            assert failed(fields)[0] == errno.EIO
            assert (fields[STEP], fields[OBJECT]) not in seen
            seen.add((fields[STEP], fields[OBJECT]))
            assert lab.children() == []
        for fd in fds:
            os.close(fd)
        lab.close()
        if op == OK:
            break
    assert op == OK
    assert len(seen) == step - 1 >= 20
