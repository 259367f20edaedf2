"""Copy-on-write trees: their set-up, what reset and snapshot cost, and a database that is ready."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from stats import Section, Table, Target, paragraph, percentile, spread
from subjects import REPOSITORY

from pytest_poorcontainer import CowTree, Network
from pytest_poorcontainer.cow.prepared import Prepared
from pytest_poorcontainer.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["changes", "prepared", "setup"]

FILES, SIZE = 50_000, 1_000
MEMORY = "/dev/shm"
LIMITS = {"overlay": 5.0, "preload": 1.0}  # ms


@contextlib.contextmanager
def original(files: int) -> Iterator[Path]:
    """Make a directory with so many files, 100 in each directory, in memory: disks would be what is measured."""
    base = Path(tempfile.mkdtemp(prefix="cow-bench-", dir=MEMORY if Path(MEMORY).is_dir() else None))
    try:
        source = base / "source"
        for number in range(files):
            directory = source / str(number // 100)
            if number % 100 == 0:
                directory.mkdir(parents=True)
            (directory / f"file{number}").write_bytes(b"x" * SIZE)
        yield source
    finally:
        shutil.rmtree(base)


@contextlib.contextmanager
def noted(missing: dict[str, str], name: str) -> Iterator[None]:
    """Note why a backend does not work here."""
    try:
        yield
    except Unavailable as error:
        missing[name] = error.reason


def timed(what: Callable[[], object]) -> float:
    """Return how many milliseconds a call takes."""
    began = time.perf_counter()
    what()
    return (time.perf_counter() - began) * 1e3


def round_of_tree(source: Path, backend: str) -> dict[str, float]:
    """Make a tree, run a first command in it, and close it."""
    trees: list[CowTree] = []
    figures = {"set-up": timed(lambda: trees.append(CowTree(source, backend=backend, temporary=source.parent)))}
    with trees[0] as tree:
        figures["first command"] = timed(lambda: tree.run(["true"], check=True))
        began = time.perf_counter()
    figures["end"] = (time.perf_counter() - began) * 1e3
    return figures


def round_of_cp(source: Path, option: str) -> dict[str, float]:
    """Copy with cp(1), run a command, and remove the copy."""
    to = source.parent / "copy"
    figures = {"set-up": timed(lambda: subprocess.run(["cp", option, source, to], check=True))}
    figures["first command"] = timed(lambda: subprocess.run(["true"], cwd=to, check=True))
    figures["end"] = timed(lambda: shutil.rmtree(to))
    return figures


def setup(*, quick: bool, **_: object) -> Section:
    """Measure how long a tree of 50,000 files takes to be there."""
    files = FILES // 10 if quick else FILES
    section = Section("cow-setup", f"Copy-on-write: a tree of {files:,} files")
    with original(files) as source:
        ways: dict[str, tuple[int, Callable[[], dict[str, float]]]] = {
            "overlay": (20 if quick else 100, lambda: round_of_tree(source, "overlay")),
            "preload": (20 if quick else 100, lambda: round_of_tree(source, "preload")),
            "copy": (2 if quick else 5, lambda: round_of_tree(source, "copy")),
            "`cp -a`": (2 if quick else 5, lambda: round_of_cp(source, "-a")),
            "`cp -al` (hard links, as fl-cow and cowdancer need)": (
                2 if quick else 5,
                lambda: round_of_cp(source, "-al"),
            ),
        }
        rounds = [name for name, (count, _) in ways.items() for _ in range(count)]
        random.shuffle(rounds)
        found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        missing: dict[str, str] = {}
        with contextlib.suppress(Unavailable):
            round_of_tree(source, "overlay")  # starts the lab
        for name in rounds:
            with noted(missing, name):
                found[name].append(ways[name][1]())
    table = Table(("a tree", "rounds", "set-up, median ms", "p10", "p90", "first command", "end"))
    for name, figures in found.items():
        if not figures:
            table.rows.append([f"{name}: {missing.get(name, '')}", 0, *["-"] * 5])
            continue
        ready = spread([each["set-up"] for each in figures])
        rest = [percentile([each[key] for each in figures], 0.5) for key in ("first command", "end")]
        table.rows.append([name, len(figures), *ready, *rest])
        if name in LIMITS:
            section.targets.append(Target(f"{name}: set-up, median", ready[0], LIMITS[name], "ms"))
    section.parts += [
        paragraph(
            f"""In turns, in shuffled order, on a tmpfs; {SIZE:,} bytes a file. The first command of overlay makes a
            container, in which the tree is mounted at the original's path. cp's end is the removal of the copy."""
        ),
        table,
    ]
    return section


def changed(tree: CowTree, count: int) -> None:
    """Change so many files of a tree."""
    for number in range(count):
        (tree / f"{number // 100}/file{number}").write_bytes(b"y" * SIZE)


def changes(*, quick: bool, **_: object) -> Section:
    """Measure reset, snapshot, restore and diff at few and many changes, in small and large originals."""
    section = Section("cow-changes", "Copy-on-write: reset, snapshot and diff cost what the changes cost")
    table = Table(("files", "changed", "rounds", "diff, ms", "snapshot", "restore", "reset"))
    rounds = 3 if quick else 20
    medians: dict[tuple[int, int], dict[str, float]] = {}
    for files in (FILES // 50, FILES // 10 if quick else FILES):
        with original(files) as source:
            for count in (10, 100, 1000):
                found: dict[str, list[float]] = {"diff": [], "snapshot": [], "restore": [], "reset": []}
                for _ in range(rounds):
                    with CowTree(source, backend="overlay", tripwire=False) as tree:
                        changed(tree, count)
                        for name, values in found.items():
                            values.append(timed(getattr(tree, name)))
                medians[files, count] = {name: percentile(values, 0.5) for name, values in found.items()}
                table.rows.append([files, count, rounds, *medians[files, count].values()])
    small, large = sorted({files for files, _ in medians})
    for name in ("snapshot", "restore", "reset"):
        ratio = medians[large, 100][name] / medians[small, 100][name]
        section.targets.append(Target(f"{name} of 100 changes: {large:,} files against {small:,}", ratio, 1.5))
        growth = medians[large, 1000][name] / medians[large, 10][name]
        section.targets.append(Target(f"{name}: 1,000 changes against 10", growth, 100.0))
    section.parts += [paragraph("Backend overlay, medians."), table]
    return section


def prepared(*, quick: bool, **_: object) -> Section:
    """Measure how long a PostgreSQL primary and its replica take to be ready on prepared data."""
    section = Section("cow-prepared", "Prepared data: a PostgreSQL primary and its replica")
    sys.path.insert(0, str(REPOSITORY / "docs" / "examples" / "prepared"))
    import test_prepared as example

    if not Path("/usr/lib/postgresql").is_dir():
        section.parts.append("Not measured: there is no PostgreSQL here.")
        return section
    rounds = 3 if quick else 20
    directory = tempfile.mkdtemp(prefix="cow-bench-")
    try:
        shared: Prepared[CowTree] = Prepared(os.path.join(directory, "prepared"), CowTree)  # noqa: PTH118
        built = timed(lambda: shared.stored("postgresql", example.build, place=example.PLACE)) / 1e3
        found = [one_pair(shared, example) for _ in range(rounds)]
        shared.close()
    finally:
        shutil.rmtree(directory)
    table = Table(("from nothing to", "rounds", "median s", "p10", "p90"))
    for name in found[0]:
        table.rows.append([name, rounds, *spread([each[name] for each in found])])
    table.rows.append(["the data, prepared once: initdb, rows, base backup", 1, built, "-", "-"])
    section.targets.append(
        Target("both are ready", percentile([each["both are ready"] for each in found], 0.5), 0.7, "s")
    )
    section.parts += [
        paragraph(
            """Each round: two hosts on a cable that are there already, two trees, both mounted, both servers started
            one after the other and waited for, then a query of the replica."""
        ),
        table,
    ]
    return section


def one_pair(shared: Prepared[CowTree], example: object) -> dict[str, float]:
    """Return the seconds of one round."""
    build, place, cluster = example.build, example.PLACE, example.Cluster  # type: ignore[attr-defined]
    with Network() as network, contextlib.ExitStack() as trees:
        hosts = network.pair("primary", "replica")
        began = time.perf_counter()

        def tree() -> CowTree:
            return trees.enter_context(CowTree(shared.stored("postgresql", build, place=place)))

        made = [tree(), tree()]
        figures = {"both trees": time.perf_counter() - began}
        clusters = [cluster(host, one) for host, one in zip(hosts, made, strict=True)]
        figures["both are ready"] = time.perf_counter() - began
        assert clusters[1].sql("SELECT count(*) FROM t") == "10000"
        figures["an answer of the replica's"] = time.perf_counter() - began
        for one in clusters:
            one.service.stop()
    return figures
