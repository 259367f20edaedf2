"""Attacks on the net: paths that change during the call, a killed supervisor, ways round the calls that it knows."""

import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from random import Random

import pytest
from net_tree import NetTree, alive, children, compile_program, fill, wait_for

SECONDS = "1"  # how long two threads fight; thousands of calls
ENOUGH = 10  # of them, for a sanitized supervisor on a busy machine
ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def flip(tmp_path_factory):
    """The program whose one thread changes the path that the other uses."""
    return compile_program("flip", tmp_path_factory.mktemp("flip"))


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """The program that tries one way round the net."""
    return compile_program("odd", tmp_path_factory.mktemp("odd"))


@pytest.mark.parametrize("operation", ["open", "chmod", "truncate", "unlink", "mkdir"])
def test_a_path_that_changes_during_the_call_never_reaches_the_lower(flip, tmp_path, operation):
    """Another thread flips the path between a file outside and one in the tree: the lower's never changes."""
    tree = NetTree(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").write_text("outside")
    done = tree.run(flip, SECONDS, operation, tmp_path / "other" / "a.txt", tree.lower / "a.txt")
    tree.check()
    assert int(done.stdout) > ENOUGH
    if operation != "mkdir":  # which leaves nothing behind
        assert (tree.upper / "a.txt").lstat()  # the tree's file was reached: there was something to win


def test_a_directory_that_changes_during_chdir_never_leads_to_the_lower(flip, tmp_path):
    """Whichever directory a process gets into, what it makes there is in the upper or outside."""
    tree = NetTree(tmp_path)
    (tmp_path / "other").mkdir()
    done = tree.run(flip, SECONDS, "chdir", tmp_path / "other", tree.lower)
    tree.check()
    assert int(done.stdout) > ENOUGH
    assert (tree.upper / "here").exists()
    assert (tmp_path / "other" / "here").exists()


def test_a_path_that_changes_during_exec_never_runs_the_lowers_program(flip, tmp_path):
    """Run is the tree's changed program or the other one, never what the tree's path is in the lower."""

    def program(word, directory):
        directory.mkdir()
        compile_program("word", directory, f'-DWORD="{word}"').rename(directory / "program")

    program("upper", tmp_path / "new")
    program("other", tmp_path / "other")
    tree = NetTree(tmp_path, fill=lambda directory: program("lower", directory))
    tree.run("cp", tmp_path / "new" / "program", tree.lower / "program")
    done = tree.run(flip, SECONDS, "exec", tmp_path / "other" / "program", tree.lower / "program")
    assert set(re.findall(r"[a-z]+", done.stdout)) == {"upper", "other"}
    tree.check()


@pytest.fixture(scope="module")
def swap(tmp_path_factory):
    """The program that exchanges a directory on the way to a file for a link, and the one that uses the way."""
    return compile_program("swap", tmp_path_factory.mktemp("swap"))


SWAPPED = ["open", "create", "chmod", "truncate", "utimensat", "setxattr", "unlink", "mkdir", "rename", "link"]


@pytest.mark.parametrize(
    ("operation", "where"),
    [*((operation, "outside") for operation in SWAPPED), *((operation, "upper") for operation in SWAPPED[:3])],
)
def test_a_directory_that_becomes_a_link_during_the_call_never_leads_to_the_lower(swap, tmp_path, operation, where):
    """A process without a net exchanges a directory on the way for a link into the lower, all the time."""
    tree = NetTree(tmp_path)
    if where == "outside":
        way = real = tmp_path / "way"
        real.mkdir()
    else:
        way, real = tree.lower / "new", tree.upper / "new"
        tree.run("mkdir", way)
    (real / "b.txt").write_text("not the lower's")
    link = real.with_name("link-to-lower")
    link.symlink_to(tree.lower / "d")
    with subprocess.Popen([swap, "exchange", real, link]) as swapping:
        try:
            done = tree.run(swap, operation, SECONDS, way, "b.txt")
        finally:
            swapping.kill()
    tree.check()
    assert int(done.stdout) > ENOUGH


def test_a_killed_supervisor_takes_the_command_with_it(tmp_path):
    """SIGKILL of the supervisor ends the command and what it started; pccow says so, and the lower is untouched."""
    tree = NetTree(tmp_path)
    script = "sleep 1000 & while :; do echo x >>a.txt; echo went; done"
    with tree.popen("sh", "-c", script, cwd=tree.lower) as pccow:
        (supervisor,) = wait_for(lambda: children(pccow.pid), "the supervisor")
        (command,) = wait_for(lambda: children(supervisor), "the command")
        assert pccow.stdout.readline() == "went\n"
        family = [command, *wait_for(lambda: children(command), "its child")]
        os.kill(supervisor, signal.SIGKILL)
        said = pccow.communicate()[1]
    assert pccow.returncode == 125
    assert "the supervisor was killed" in said
    assert not any(alive(pid) for pid in family)
    tree.check()


ROUNDS = 25


def test_a_supervisor_killed_at_any_moment_leaves_whole_files(tmp_path):
    """After SIGKILL in the middle of copies, renames and removals every file is whole, and the next start goes on."""
    size = 300_000

    def fill_with_large(directory):
        directory.mkdir()
        for number in range(40):
            (directory / f"{number}").write_text("x" * size)

    tree = NetTree(tmp_path, fill=fill_with_large)
    script = (
        "for i in $(seq 0 39); do [ -e $i ] || mv moved-$i $i; echo more >>$i; mv $i moved-$i; "
        "mkdir -p d/$i; cp moved-$i d/$i/copy; rm -r d/$i; mv moved-$i $i; done"
    )
    random = Random(0)
    for _ in range(ROUNDS):
        with tree.popen("sh", "-c", script, cwd=tree.lower, stdout=subprocess.DEVNULL) as pccow:
            (supervisor,) = wait_for(lambda pccow=pccow: children(pccow.pid), "the supervisor")
            time.sleep(random.uniform(0.0, 0.15))
            os.kill(supervisor, signal.SIGKILL)
            pccow.communicate()
        tree.check()
    # A command that was ended between two steps has left a file under its other name, never less than all of it.
    look = (
        f"for i in $(seq 0 39); do [ -e $i ] || mv moved-$i $i; done; ls | grep -c '[0-9]$'; "
        f"for i in $(seq 0 39); do head -c {size} $i; done | tr -d x | wc -c; "
        "for i in $(seq 0 39); do tr -d x <$i; done | sort -u"
    )
    assert tree.run("sh", "-c", look, cwd=tree.lower).stdout.split() == ["40", "0", "more"]


WAYS = {
    "io_uring": "ENOSYS",
    "i386": "ENOSYS",
    "x32": "ENOSYS",
    "newer": "ENOSYS",
    "handle": "EOPNOTSUPP",
    "open-by-handle": "EPERM",
    "open-tree": "EPERM",
    "chroot": "EPERM",
    "mark": "EPERM",
    "look-at-mark": "ok",
    "cookie-of-another-call": "ok",
    "cookie-of-another-path": "ok",
    "flags": "EROFS",
    "undumpable": "ok" if ROOT else "EACCES",
}
LOGGED = {"flags", "i386", "handle", "open-by-handle", "open-tree", "chroot", *([] if ROOT else ["undumpable"])}


@pytest.mark.parametrize("way", WAYS)
def test_ways_round_the_net_end_in_an_error_or_in_the_upper(odd, tmp_path, way):
    """What cannot be served fails closed and is named in the log; a number for another call vouches for nothing."""
    tree = NetTree(tmp_path)
    assert tree.run(odd, way, tree.lower / "a.txt").stdout.strip() == WAYS[way]
    tree.check()
    assert tree.log.exists() == (way in LOGGED)
    if way in {"open-tree", "chroot"}:
        assert f"{way.replace('-', '_')} {tree.lower / 'a.txt'}: " in tree.log.read_text()
    if way.startswith("cookie"):
        assert (tree.upper / "a.txt").read_text() == "h"


def test_mounts_in_a_namespace_of_ones_own_are_refused(odd, tmp_path):
    """A bind mount would be another way to the lower; it is refused, with call and path in the log."""
    tree = NetTree(tmp_path)
    said = tree.run(odd, "mount", tree.lower).stdout.strip()
    if said in {"EPERM", "ENOSPC"} and not tree.log.exists():
        pytest.skip("this machine gives no user namespace, so there is no way round to try")
    assert said == "EPERM"
    assert "mount /mnt: " in tree.log.read_text()


def test_senseless_arguments_do_no_harm(odd, tmp_path):
    """20,000 calls with wrong pointers, descriptors and flags: the net goes on, and the lower is untouched."""
    tree = NetTree(tmp_path)
    # Its descriptors are files of the tree: as root it would change the modes and owners of a /dev/null among them.
    done = tree.run("sh", "-c", f": >in; {odd} garbage a.txt <in >said 2>&1; echo $?", cwd=tree.lower)
    assert done.stdout == "0\n"
    tree.check()


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_calls_are_made_with_the_callers_ids(tmp_path):
    """After a change of user, files belong to that user, and what it may not do is refused, though root serves it."""

    def fill_for_others(directory):
        fill(directory)
        directory.chmod(0o777)
        (directory / "secret").write_text("secret")
        (directory / "secret").chmod(0o600)

    # pytest's own directories are closed to other users
    with tempfile.TemporaryDirectory() as base:
        Path(base).chmod(0o755)
        tree = NetTree(base, fill=fill_for_others)
        tree.upper.chmod(0o777)
        tree.work.chmod(0o777)
        script = "umask 077; echo x >mine; echo y >>a.txt; echo z >d/b.txt; rm d/b.txt; cat secret; rm empty"
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        done = tree.run(*user, "sh", "-c", script, cwd=tree.lower)
        assert done.stderr.count("Permission denied") == 4
        assert done.stdout == ""
        info = (tree.upper / "mine").stat()
        assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (65534, 65534, 0o600)
        assert sorted(path.name for path in tree.upper.iterdir()) == ["empty", "mine"]
        tree.check()
