"""What libpccow.so costs a program: usual calls, and git status, against a plain directory and proot."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from stats import Section, Table, Target, paragraph, percentile, spread
from subjects import Subject, build_directory, interleave

from pytest_poorcontainer import native

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["calls", "git_status"]

CALLS = {
    "stat": ("stat", 1.3),
    "read": ("open + read + close", 1.2),
    "list": ("readdir, an entry", 1.5),
    "write": ("first write to an existing file", 6.0),
    "create": ("create + write + unlink", 1.5),
}
READS, WRITES = 200, 20
FILES = 5000


@cache
def program() -> Path:
    """Return the compiled program."""
    target = build_directory() / "cow"
    source = Path(__file__).with_name("cow.c")
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", target, source], check=True)
    return target


def base() -> Path:
    """Return a fresh directory in memory: what is measured is the library, not a disk."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="poor-container-bench-", dir=memory if os.access(memory, os.W_OK) else None))


def fill(directory: Path, rounds: int) -> Path:
    """Make the tree that cow.c works on."""
    for name, count in (("read", READS), ("write", (rounds + 2) * WRITES)):
        (directory / name).mkdir(parents=True)
        for i in range(count):
            (directory / name / str(i)).write_text("x" * 100)
    return directory


def in_view(lower: Path, beside: Path) -> Mapping[str, str]:
    """Make upper and work; return the environment of a program in the view."""
    for name in ("upper", "work"):
        (beside / name).mkdir(parents=True)
    values = (b"version=1", *(os.fsencode(f"{key}={value}") for key, value in _records(lower, beside)))
    (beside / "config").write_bytes(b"".join(value + b"\0" for value in values))
    return {"LD_PRELOAD": native.program("libpccow.so"), "POOR_CONTAINER_COW": str(beside / "config")}


def _records(lower: Path, beside: Path) -> list[tuple[str, Path]]:
    return [("tree", lower), ("upper", beside / "upper"), ("work", beside / "work"), ("lower", lower)]


def below_the_net(lower: Path, beside: Path) -> list[str]:
    """Return the command that runs the program in a view of its own, with the library and the net below it."""
    view = in_view(lower, beside)
    file = beside / "config"
    file.write_bytes(file.read_bytes().replace(b"version=1\0", b"version=1\0net=1\0"))
    start = [native.program("pccow"), "--net", "required", "--config", str(file), "--", "env"]
    return [*start, *(f"{key}={value}" for key, value in view.items()), str(program()), str(lower)]


def calls(*, quick: bool, **_: object) -> Section:
    """Measure usual calls: in a plain directory, in a view, under proot."""
    rounds = 10 if quick else 200
    root = base()
    try:
        view = {**os.environ, **in_view(fill(root / "lower", rounds), root / "beside")}
        plain = Subject("plain", [str(program()), str(fill(root / "plain", rounds))])
        ours = Subject("libpccow", [str(program()), str(root / "lower")], environment=view)
        netted = Subject("libpccow and the net", below_the_net(fill(root / "lower2", rounds), root / "beside2"))
        proot = Subject("proot", ["proot", str(program()), str(fill(root / "proot", rounds))])
        interleave([plain, ours, netted, proot], rounds)
    finally:
        shutil.rmtree(root)
    section = Section("cow-calls", "Copy-on-write: what the library costs a call")
    table = Table(("call", "subject", "rounds", "median µs", "p10", "p90", "x plain"))
    for key, (what, limit) in CALLS.items():
        floor = percentile(plain.figures(key), 0.5)
        for one in (plain, ours, netted, proot):
            if one.missing:
                table.rows.append([what, one.name, 0, "-", "-", "-", one.missing])
                continue
            figures = spread(one.figures(key))
            table.rows.append([what, one.name, len(one.rounds), *figures, figures[0] / floor])
        for one in (ours, netted):
            if not one.missing:
                below = " and the net" if one is netted else ""
                of = f"{what}, the library{below}, x plain"
                section.targets.append(Target(of, percentile(one.figures(key), 0.5) / floor, limit))
        if not ours.missing and not proot.missing:
            share = percentile(ours.figures(key), 0.5) / percentile(proot.figures(key), 0.5)
            plainest = floor / percentile(proot.figures(key), 0.5)
            what_of = f"{what}, the library's share of proot's time (plain's own: {plainest:.3g})"
            section.targets.append(Target(what_of, share, 0.1))
    section.parts += [
        paragraph(
            f"""Calls of a dynamic program on files of 100 bytes in memory, by relative paths. In the view, `read/` lies
            in the lower alone and `write/` in both. One round is {READS} of each reading call and {WRITES} of each
            writing one; every file is written to once. Without a net the current directory is the upper's, so the
            lower's files are named by longer paths. Where plain's own share of proot's time, in brackets, is above the
            target already, no library can meet it: its calls come on top of the plain ones."""
        ),
        table,
    ]
    return section


def _status(directory: Path, environment: Mapping[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(["git", "status", "--short"], cwd=directory, env=environment, check=True, capture_output=True)
    return time.perf_counter() - start


def git_status(*, quick: bool, **_: object) -> Section:
    """Measure git status on a repository of 5,000 files."""
    rounds = 5 if quick else 60
    root = base()
    times: dict[str, list[float]] = {"plain": [], "libpccow": []}
    try:
        for i in range(FILES):
            path = root / "plain" / f"d{i // 100}" / f"f{i}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{i}\n")
        git = ["git", "-C", str(root / "plain"), "-c", "user.name=n", "-c", "user.email=e@example.org"]
        for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
            subprocess.run([*git, *command], check=True)
        subprocess.run(["cp", "-a", root / "plain", root / "lower"], check=True)
        view = {**os.environ, **in_view(root / "lower", root / "beside")}
        for directory, environment in ((root / "plain", os.environ), (root / "lower", view)):
            _status(directory, environment)  # the index is written anew once, for the copied inodes
        for _round in range(rounds):
            times["plain"].append(_status(root / "plain", os.environ) * 1000)
            times["libpccow"].append(_status(root / "lower", view) * 1000)
    finally:
        shutil.rmtree(root)
    section = Section("cow-git", f"Copy-on-write: git status on {FILES:,} files")
    table = Table(("subject", "rounds", "median ms", "p10", "p90"))
    for name, figures in times.items():
        table.rows.append([name, len(figures), *spread(figures)])
    ratio = percentile(times["libpccow"], 0.5) / percentile(times["plain"], 0.5)
    section.targets.append(Target("git status, x plain", ratio, 1.4))
    section.parts.append(table)
    return section
