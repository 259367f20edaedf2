"""A lower for tests, the same files as a plain copy, and programs run in both."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pytest_poorcontainer import native

HERE = Path(__file__).parent
LONG_AGO = 1_100_000_000
IS_ROOT = os.geteuid() == 0


def compiled(out: Path, sources: list[Path], *flags: str) -> Path:
    """Compile C sources into the program ``out``."""
    argv = ["cc", "-std=gnu11", "-O1", "-Wno-unused-result", *map(str, sources), *flags, "-o", str(out), "-pthread"]
    subprocess.run(argv, check=True, capture_output=True)
    return out


def fill(root: Path) -> Path:
    """Make a small tree with something of each kind, all of it years old."""
    for name in ("dir/sub", "emptydir", "d/e/e/p"):
        (root / name).mkdir(parents=True)
    texts = {"a.txt": "hello\n", "empty": "", "ro": "read only\n", "attr": "attr\n", "hard1": "pair\n", "sp ace": "s\n"}
    texts |= {"dir/f1": "one\n", "dir/f2": "two\n", "dir/sub/g": "gee\n", "d/e/e/p/x": "x\n", ".hidden": "h\n"}
    texts |= {"big": "0123456789abcdef" * 8192, "exec.sh": "#!/bin/sh\necho script ${0##*/} $1 > out\ncat out\n"}
    for name, text in texts.items():
        (root / name).write_text(text)
    Path(os.fsdecode(os.fsencode(root) + b"/latin\xe9")).write_text("latin\n")
    with (root / "sparse").open("wb") as file:
        file.write(b"start")
        file.truncate(1 << 20)
    os.link(root / "hard1", root / "hard2")
    links = {"link": "a.txt", "dlink": "dir", "dangling": "nowhere", "loop1": "loop2", "loop2": "loop1"}
    for name, target in links.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "fifo")
    (root / "ro").chmod(0o444)
    (root / "exec.sh").chmod(0o755)
    (root / "dir").chmod(0o750)
    os.setxattr(root / "attr", "user.color", b"red")
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, ns=(LONG_AGO * 10**9 + 123, LONG_AGO * 10**9 + 456), follow_symlinks=False)
    os.utime(root, ns=(LONG_AGO * 10**9, LONG_AGO * 10**9))
    return root


def manifest(root: Path) -> dict[str, tuple[object, ...]]:
    """Return what must not change of a lower: every inode's numbers, times and size."""
    found = {}
    for path in [root, *root.rglob("*")]:
        st = path.lstat()
        found[str(path)] = (st.st_ino, st.st_mode, st.st_uid, st.st_nlink, st.st_size, st.st_mtime_ns, st.st_ctime_ns)
    return found


def config(*trees: dict[str, object], **head: str) -> bytes:
    """Return a configuration: a tree has mount, upper, work, and lower, one or a list."""
    records = [b"version=1", *(os.fsencode(f"{key}={value}") for key, value in head.items())]
    for tree in trees:
        lower = tree["lower"]
        lowers = lower if isinstance(lower, list) else [lower]
        records.append(b"tree=" + os.fsencode(tree["mount"]))
        records += [key.encode() + b"=" + os.fsencode(tree[key]) for key in ("upper", "work") if key in tree]
        records += [b"lower=" + os.fsencode(path) for path in lowers]
    return b"".join(record + b"\0" for record in records)


@functools.cache
def preloaded(library: str) -> str:
    """Return the value of LD_PRELOAD for libpccow.so: after AddressSanitizer's library where it was built with that."""
    needed = subprocess.run(["ldd", library], check=True, capture_output=True, text=True).stdout.split()
    return " ".join([*(word for word in needed if word.startswith("/") and "/libasan." in word), library])


def library_environment() -> dict[str, str]:
    """Return what has programs load libpccow.so, as it was built."""
    library = preloaded(native.program("libpccow.so"))
    # AddressSanitizer looks for leaks by ptrace, which is not to be had below a net.
    return {"LD_PRELOAD": library} | ({"ASAN_OPTIONS": "detect_leaks=0"} if "libasan" in library else {})


@dataclass
class Case:
    """A view of ``lower`` at its own path."""

    lower: Path
    upper: Path
    work: Path
    config: Path
    before: dict[str, tuple[object, ...]]

    @classmethod
    def of(cls, lower: Path, beside: Path) -> Case:
        """Make upper, work and the configuration in the directory ``beside``."""
        case = cls(lower, beside / "upper", beside / "work", beside / "cow.config", manifest(lower))
        case.upper.mkdir(parents=True)
        case.work.mkdir()
        tree = {"mount": lower, "upper": case.upper, "work": case.work, "lower": lower}
        case.config.write_bytes(config(tree, log=str(beside / "refused")))
        return case

    @property
    def env(self) -> dict[str, str]:
        """The environment for a program in the view."""
        return {**os.environ, **library_environment(), "POOR_CONTAINER_COW": str(self.config)}

    def run(self, *argv: object, **options: object) -> subprocess.CompletedProcess[str]:
        """Run a program in the view's root."""
        return run(argv, **{"cwd": self.lower, "env": self.env, **options})

    def damage(self) -> list[str]:
        """Return the paths of the lower that are not as they were."""
        now = manifest(self.lower)
        return sorted({path for path, _ in set(now.items()) ^ set(self.before.items())})


def run(argv: tuple[object, ...], **options: object) -> subprocess.CompletedProcess[str]:
    """Run a program, with its output as text in which any byte may be."""
    settings = {"capture_output": True, "text": True, "errors": "surrogateescape", "timeout": 60, **options}
    return subprocess.run(list(map(str, argv)), check=False, stdin=subprocess.DEVNULL, **settings)


def copy(source: Path, target: Path) -> Path:
    """Return a copy with everything that a copy can have."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)
    return target


def clean(directory: Path) -> None:
    """Remove a directory that may hold directories nobody may enter."""
    shutil.rmtree(directory, ignore_errors=True)
