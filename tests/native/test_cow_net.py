"""The net below libc: bare system calls change the copy, and see what they would on a plain one."""

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest
from net_tree import PROGRAMS, NetTree, compile_program, manifest

from pytest_poorcontainer import native

# What the program knows; a table in C, so that a new operation is tested as soon as it is there.
OPERATIONS = re.findall(r"(?<!define )OP\((\w+)\)", (PROGRAMS / "raw.c").read_text().partition("operations[] = {")[2])


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """The program that does one operation by bare system calls and then prints the tree, by such calls too."""
    return compile_program("raw", tmp_path_factory.mktemp("raw"))


def test_the_matrix_is_there(raw):
    """The operations tested below are those that the program lists."""
    listed = subprocess.run([raw, "list"], capture_output=True, text=True, check=True).stdout.split()
    assert listed == OPERATIONS
    assert len(OPERATIONS) > 80


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_bare_system_call_does_to_the_tree_what_it_does_to_a_plain_copy(raw, tmp_path, operation):
    """Results, errors and the tree are those of a plain copy, also for the next process; the lower is untouched."""
    tree = NetTree(tmp_path)
    plain = tree.copy()
    expected = subprocess.run(
        [raw, operation, plain], cwd=plain, capture_output=True, encoding="utf-8", errors="replace", check=True
    ).stdout.replace(str(plain), "ROOT")
    done = tree.run(raw, operation, tree.lower, cwd=tree.lower)
    assert done.stdout.replace(str(tree.lower), "ROOT") == expected
    tree.check()
    after = tree.run(raw, "none", tree.lower, cwd=tree.lower)
    assert after.stdout == re.search(r"^\. .*", expected, re.MULTILINE | re.DOTALL)[0]
    tree.check()
    assert not tree.log.exists()


def test_a_socket_whose_real_path_is_longer_than_an_address(raw, tmp_path):
    """107 bytes are all that an address holds (unix(7)); the copy lies deeper than that."""
    tree = NetTree(tmp_path / ("deep" * 30))
    plain = tree.copy()
    expected = subprocess.run([raw, "datagrams", "."], cwd=plain, capture_output=True, text=True, check=True).stdout
    assert tree.run(raw, "datagrams", ".", cwd=tree.lower).stdout == expected
    tree.check()


def test_a_datagram_does_not_reach_who_listens_on_the_original(raw, tmp_path):
    """A tree's socket of the same path gets it, as with connect."""
    tree = NetTree(tmp_path)
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        os.chdir(tree.lower)  # the whole path may be too long for an address
        try:
            daemon.bind("d/datagrams")
        finally:
            os.chdir(here)
        tree.before = manifest(tree.lower)
        done = tree.run("sh", "-c", 'rm d/datagrams && exec "$0" datagrams .', raw, cwd=tree.lower)
        assert "\none, 0 along\n" in done.stdout
        with pytest.raises(BlockingIOError):
            daemon.recv(16, socket.MSG_DONTWAIT)
        tree.check()


NUMBERS = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")


@pytest.mark.skipif(not NUMBERS.exists(), reason="no list of this architecture's calls: apt install linux-libc-dev")
def test_every_call_of_the_kernels_list_has_been_decided_about():
    """Each is served, refused or absent by the net's table, or written down as one that reaches no file by itself."""
    calls = (Path(native.__file__).parents[1] / "preload" / "cownet" / "calls.h").read_text()
    table = set(re.findall(r'X\(\w+, "(\w+)", [A-Z]+\)', calls))
    lines = (PROGRAMS / "other_calls.txt").read_text().splitlines()
    others = {name for line in lines if not line.startswith("#") for name in line.split()}
    known = set(re.findall(r"#define __NR_(\w+) \d+", NUMBERS.read_text()))
    assert known - table - others == set()
    assert table & others == set()


def test_only_the_upper_has_what_was_changed(raw, tmp_path):
    """The copy lies in the upper, in the kernel's own format: files as they are, a whiteout for what was deleted."""
    tree = NetTree(tmp_path)
    tree.run(raw, "open_trunc", tree.lower, cwd=tree.lower)
    tree.run(raw, "unlinkat", tree.lower, cwd=tree.lower)
    assert (tree.upper / "a.txt").read_text() == "new"
    info = (tree.upper / "d" / "b.txt").lstat()
    assert os.major(info.st_rdev) == os.minor(info.st_rdev) == 0
    assert not (tree.upper / "d" / "e" / "deep.txt").exists()


def test_several_trees_are_served_at_once(raw, tmp_path):
    """A command sees two trees, each with an upper of its own; a rename between them fails as between disks."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = NetTree(tmp_path / "one")
    two = NetTree(tmp_path / "two", others=[one])
    for tree in (one, two):
        two.run(raw, "open_trunc", tree.lower, cwd=tree.lower)
    script = f"import os; os.rename({str(one.lower / 'empty')!r}, {str(two.lower / 'empty2')!r})"
    done = two.run("python3", "-c", script, check=False)
    assert "Invalid cross-device link" in done.stderr
    assert [tree.upper.joinpath("a.txt").read_text() for tree in (one, two)] == ["new", "new"]
    one.check()
    two.check()
