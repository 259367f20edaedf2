"""Random sequences of operations on a tree and on a plain copy: the same listing, content and errno."""

import errno
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from operations import do, seen

from pytest_poorcontainer import CowTree
from pytest_poorcontainer.cow.layer import Layer
from pytest_poorcontainer.cow.tree import Stored
from pytest_poorcontainer.cow.upper import Upper

NAMES = ("a", "b", "d", "d/x", "d/y", "d/sub", "d/sub/z", "e", "e/x", "new")
path = st.sampled_from(NAMES)
text = st.sampled_from(("", "one", "two\n", "x" * 5000))
mode = st.sampled_from((0o700, 0o711, 0o755, 0o777))  # else an ordinary user could not look into a directory
operation = st.one_of(
    st.tuples(st.just("write"), path, text),
    st.tuples(st.just("append"), path, text),
    st.tuples(st.just("truncate"), path, st.integers(0, 20)),
    st.tuples(st.just("create"), path),
    st.tuples(st.just("unlink"), path),
    st.tuples(st.just("mkdir"), path),
    st.tuples(st.just("rmdir"), path),
    st.tuples(st.just("rename"), path, path),
    st.tuples(st.just("link"), path, path),
    st.tuples(st.just("symlink"), path, st.sampled_from(("a", "d", "../a", "nowhere"))),
    st.tuples(st.just("chmod"), path, mode),
    st.tuples(st.just("rmtree"), path),
    st.tuples(
        st.just("snapshot"),
    ),
    st.tuples(
        st.just("restore"),
    ),
    st.tuples(
        st.just("reset"),
    ),
)
WORKER = """
import pickle, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from operations import do, seen
root = Path(sys.argv[2])
while True:
    try:
        step = pickle.load(sys.stdin.buffer)
    except EOFError:
        break
    pickle.dump(seen(root) if step is None else do(root, *step), sys.stdout.buffer)
    sys.stdout.buffer.flush()
"""
# As PEP 706 has it; Debian's 3.11 is older than that.
TRUSTED = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
START = {"a": "lower a\n", "b": "", "d/x": "lower x", "d/sub/z": "lower z", "e/x": "e"}


def start(directory):
    """Make what the original has."""
    for name, content in START.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content)
    (directory / "l").symlink_to("d")


def apply_layer(file, root):
    """Apply a layer of an image as its specification says: whiteouts hide what is below, the rest replaces it."""
    with tarfile.open(file) as tar:
        members = tar.getmembers()
        for member in members:
            head, name = os.path.split(member.name)
            if name.startswith(".wh."):
                gone = root / head / name[4:]
                shutil.rmtree(gone) if gone.is_dir() and not gone.is_symlink() else gone.unlink(missing_ok=True)
        for member in members:
            place = root / member.name
            if place.name.startswith(".wh."):
                continue
            if not member.isdir() and os.path.lexists(place):
                place.unlink()
            tar.extract(member, root, **TRUSTED)


class Here:
    """Does operations in a tree from outside, by its path."""

    def __init__(self, tree):
        self._tree = tree

    def do(self, *step):
        """Do one; return its errno, or 0."""
        return do(self._tree.path, *step)

    def seen(self):
        """Return all that is in the tree."""
        return seen(self._tree.path)

    def close(self):
        """Nothing runs."""


class Inside:
    """Does operations by a program that runs in the tree."""

    def __init__(self, tree):
        argv = [sys.executable, "-S", "-c", WORKER, str(Path(__file__).parent), tree.place]
        self._process = tree.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def _ask(self, what):
        pickle.dump(what, self._process.stdin)
        self._process.stdin.flush()
        return pickle.load(self._process.stdout)

    def do(self, *step):
        """Do one; return its errno, or 0."""
        return self._ask(step)

    def seen(self):
        """Return all that is in the tree."""
        return self._ask(None)

    def close(self):
        """End the program."""
        self._process.stdin.close()
        assert self._process.wait(30) == 0
        self._process.stdout.close()


def run(tree, inside, plain, saved, steps):
    """Do all steps on both; return the copy as it is in the end."""
    for step in steps:
        what, *rest = step
        if what == "snapshot":
            tree.snapshot()
            shutil.rmtree(saved, ignore_errors=True)
            shutil.copytree(plain, saved, symlinks=True)
        elif what in {"restore", "reset"}:
            if what == "restore" and not saved.exists():
                continue
            tree.restore() if what == "restore" else tree.reset()
            shutil.rmtree(plain)
            plain.mkdir()
            if what == "restore":
                shutil.copytree(saved, plain, symlinks=True, dirs_exist_ok=True)
            else:
                start(plain)
        else:
            got = inside.do(what, *rest)
            if got == errno.EXDEV and what == "rename":
                continue  # a directory of the lower's: the kernel renames none without redirects
            assert (step, got) == (step, do(plain, what, *rest))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", ["overlay", "preload", "copy"])
def test_a_tree_behaves_as_a_copy(backend, tmp_path):
    """After any sequence, with snapshots and resets: what it shows, what has changed, what a commit makes."""

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.lists(operation, max_size=14))
    # The old name is looked up first; and e/x is another file, whose ctime is that of the copy.
    @example([("rmtree", "d/sub"), ("write", "d/sub", ""), ("link", "d/y", "d/sub/z")])
    @example([("rename", "e", "d/y"), ("rename", "d", "e")])
    def check(steps):
        with tempfile.TemporaryDirectory(dir=tmp_path) as base:
            lower, plain, saved, upper = (Path(base, name) for name in ("lower", "plain", "saved", "upper"))
            for directory in (lower, plain):
                directory.mkdir()
                start(directory)
            before = seen(lower)
            with CowTree(lower, backend=backend, upper=upper, temporary=base) as tree:
                inside = (Inside if backend == "preload" else Here)(tree)
                run(tree, inside, plain, saved, steps)
                expected = seen(plain)
                assert inside.seen() == expected
                inside.close()
                assert seen(lower) == before
                differing = {name for name in {*expected, *before} if expected.get(name) != before.get(name)}
                assert set(tree.diff()) - {"."} == differing
                if backend != "copy":
                    ours = Upper(Layer.at(upper), [Layer.at(lower)], str(lower)).view
                    assert {name for name, _, _ in ours.walk()} == set(expected)
                if backend == "preload":
                    layers = Stored((f"{upper}/upper", str(lower)), str(lower))
                    with CowTree(layers, backend="overlay") as kernels:
                        assert seen(kernels.path) == expected
                if backend == "overlay":
                    tree.export_oci(f"{base}/layer.tar")
                    applied = Path(base, "applied")
                    shutil.copytree(lower, applied, symlinks=True)
                    apply_layer(f"{base}/layer.tar", applied)
                    assert seen(applied) == expected
                tree.check_original()
                tree.commit()
                assert seen(lower) == expected
                assert tree.diff() == {}

    check()
