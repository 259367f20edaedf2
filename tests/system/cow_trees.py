"""Copy-on-write trees for tests: an original, a tree of it on each backend, commands in it."""

import os
import stat
from pathlib import Path

import pytest

from pytest_poorcontainer import CowTree
from pytest_poorcontainer.cow.choosing import known
from pytest_poorcontainer.errors import Unavailable

__all__ = ["BACKENDS", "CONTENT", "backend", "described", "links_stay_whole", "make", "shell", "source", "tree"]

BACKENDS = [name for name in known() if name != "reflink"]
CONTENT = {"VERSION": "1\n2\n3\n", "old.db": "old", "data/one": "1", "data/two": "2", "sub/deep/file": "deep"}


@pytest.fixture
def source(tmp_path):
    """Return a directory with some files, two of which are one."""
    directory = tmp_path / "app"
    for name, text in CONTENT.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    (directory / "first").write_text("linked")
    os.link(directory / "first", directory / "second")
    (directory / "absolute").symlink_to(directory / "VERSION")
    (directory / "upgrade.sh").write_text("#!/bin/sh\necho 2 > VERSION; rm old.db; echo n > new.db; echo done\n")
    (directory / "upgrade.sh").chmod(0o755)
    return directory


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Return the name of each backend."""
    return request.param


@pytest.fixture
def links_stay_whole(backend):
    """Return whether the names of one file stay names of one file when it is changed by one of them.

    Overlay needs file handles for that, which the kernel keeps from user namespaces.
    """
    return backend != "overlay" or os.geteuid() == 0


@pytest.fixture
def make(backend, tmp_path):
    """Return a function that makes trees on a backend; all are closed, and their originals are as they were."""
    made = []

    def make(directory, **options):
        try:
            made.append(CowTree(directory, backend=backend, temporary=tmp_path, **options))
        except Unavailable as error:
            pytest.skip(str(error))
        return made[-1]

    yield make
    for tree in reversed(made):
        try:
            if not tree.closed:
                tree.check_original(most=None)
        finally:
            tree.close()


@pytest.fixture
def tree(make, source):
    """Return a tree of the source."""
    return make(source)


def shell(tree, script, **options):
    """Run a shell command in a tree and return what it prints."""
    done = tree.run(["sh", "-c", script], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def described(directory):
    """Return what is in a directory: kind, mode, content or target of everything."""
    found = {}
    for path in sorted(Path(directory).rglob("*")):
        info = path.lstat()
        content = (
            str(path.readlink())
            if stat.S_ISLNK(info.st_mode)
            else path.read_bytes()
            if stat.S_ISREG(info.st_mode)
            else b""
        )
        found[str(path.relative_to(directory))] = stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode), content
    return found
