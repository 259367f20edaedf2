"""A copy-on-write tree for the tests of pccow: directories, configuration, commands in it, what its lower was."""

import os
import shutil
import subprocess
import time
from pathlib import Path

from pytest_poorcontainer import native

PROGRAMS = Path(__file__).parent / "programs"
OLD = 1_000_000_000  # the time of all that is in a lower, so that a changed one shows
PATIENCE = 60.0


def compile_program(name, directory, *flags):
    """Return a statically linked program of tests/native/programs, with no part of libc's that could be preloaded."""
    out = Path(directory) / name
    source = PROGRAMS / f"{name}.c"
    subprocess.run(
        ["cc", "-std=gnu11", "-O2", "-static", "-pthread", "-Wall", "-Wextra", "-Werror", *flags, source, "-o", out],
        check=True,
    )
    return out


def fill(directory):
    """Make files of each kind below ``directory``, which must not exist."""
    directory.mkdir()
    (directory / "d" / "e").mkdir(parents=True)
    for name, text in [("a.txt", "hello a"), ("empty", ""), ("d/b.txt", "hello b"), ("d/e/deep.txt", "deep")]:
        (directory / name).write_text(text)
        (directory / name).chmod(0o644)
    (directory / "link").symlink_to("a.txt")
    (directory / "dirlink").symlink_to("d")
    os.setxattr(directory / "a.txt", "user.test", b"x")
    for path in sorted([directory, *directory.rglob("*")], reverse=True):
        os.utime(path, (OLD, OLD), follow_symlinks=False)


def manifest(directory):
    """Return what tells any change of a directory tree: ctimes cannot be set back (inode(7))."""
    paths = [directory, *sorted(directory.rglob("*"))]
    return [(str(path), info.st_ino, info.st_ctime_ns) for path in paths for info in [path.lstat()]]


class NetTree:
    """A tree seen at its lower's own path. ``check()`` fails if the lower has changed since it was made."""

    def __init__(self, base, *, fill=fill, lower=None, others=()):
        """Make all of it in ``base``; ``fill`` makes the lower, or it is another one that is there.

        ``others`` are seen by the same commands.
        """
        self.base = Path(base)
        self.lower, self.upper, self.work = (self.base / name for name in ("lower", "upper", "work"))
        self.base.mkdir(exist_ok=True)
        if lower is None:
            fill(self.lower)
        else:
            self.lower = lower
        self.upper.mkdir()
        self.work.mkdir()
        self.config, self.log = self.base / "config", self.base / "log"
        self.write([self, *others])
        self.before = manifest(self.lower)

    def records(self):
        """Return this tree's part of a configuration."""
        return [f"tree={self.lower}", f"upper={self.upper}", f"work={self.work}", f"lower={self.lower}"]

    def write(self, trees):
        """Write the configuration of some trees."""
        lines = ["version=1", "net=1", f"log={self.log}", *(line for tree in trees for line in tree.records())]
        self.config.write_bytes(b"".join(os.fsencode(line) + b"\0" for line in lines))

    def argv(self, *command, net="required", options=()):
        """Return the whole command line."""
        return [native.program("pccow"), "--net", net, "--config", self.config, *options, "--", *command]

    def run(self, *command, net="required", check=True, **arguments):
        """Run a command on the tree and return its CompletedProcess."""
        settings = {"capture_output": True, "encoding": "utf-8", "errors": "replace", "timeout": PATIENCE, **arguments}
        return subprocess.run(self.argv(*command, net=net), check=check, **settings)

    def popen(self, *command, options=(), **arguments):
        """Start a command on the tree."""
        settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **arguments}
        return subprocess.Popen(self.argv(*command, options=options), **settings)

    def check(self):
        """Fail if anything of the lower was changed."""
        assert manifest(self.lower) == self.before

    def copy(self, name="plain"):
        """Return a plain copy of the lower, to do the same in."""
        plain = self.base / name
        shutil.copytree(self.lower, plain, symlinks=True)
        return plain


def children(pid):
    """Return the pids of a process's children, of its first thread."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    """Return whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition, what):
    """Return condition()'s value once it is true; fail after PATIENCE seconds."""
    until = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < until, f"{what}: not within {PATIENCE} seconds"
        time.sleep(0.005)
    return value
