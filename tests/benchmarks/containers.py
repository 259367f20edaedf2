"""What a container costs besides its set-up: its end, its memory, and the commands that run in it."""

from __future__ import annotations

import contextlib
import math
import os
import time
from pathlib import Path

from stats import Section, Table, Target, paragraph, percentile, spread
from subjects import Subject, interleave, ours, started

__all__ = ["memory", "run", "teardown"]

IS_ROOT = os.geteuid() == 0
WAYS = (False, True) if IS_ROOT else (False,)


def label(rootless: bool) -> str:
    """Return what a side is called in tables."""
    return "rootless" if rootless or not IS_ROOT else "root"


def teardown(*, quick: bool, **_: object) -> Section:
    """Measure closing a network of two hosts, and count the processes that are alive when that returns."""
    rounds = 20 if quick else 150
    subjects = [
        ours("teardown", str(commands), rootless=rootless, name=f"{label(rootless)}, {commands} commands")
        for rootless in WAYS
        for commands in (0, 6)
    ]
    interleave(subjects, rounds)
    section = Section("teardown", "Teardown: every process is dead when it returns")
    table = Table(("a pair", "rounds", "median ms", "p10", "p90", "processes before", "alive after"))
    for subject in subjects:
        figures = [value / 1e3 for value in spread(subject.figures("down"))]
        alive = sum(subject.figures("alive"))
        processes = max(subject.figures("processes"), default=0)
        table.rows.append(
            [subject.name, len(subject.rounds), *figures, processes, alive if subject.rounds else subject.missing]
        )
        section.targets.append(
            Target(f"{subject.name}: median", figures[0], 2.0 if " 6 " in subject.name else 1.0, "ms")
        )
        section.targets.append(Target(f"{subject.name}: processes alive after it, all rounds", alive, 0))
    section.parts += [
        paragraph(
            f"""{rounds} rounds in shuffled order. A pidfd of every init, subreaper and command is opened before, and
            polled without waiting right after."""
        ),
        table,
    ]
    return section


PARTS = ("Slab", "KernelStack", "PageTables", "Percpu", "Shmem")
"""What of /proc/meminfo is the kernel's part (proc_meminfo(5))."""


def memory(*, quick: bool, **_: object) -> Section:
    """Measure the memory of 100 containers alive at once."""
    pairs = 10 if quick else 50
    section = Section("memory", "Memory of a container")
    header = ("KiB a container", "init PSS", "init RSS", "slab", "stacks", "page tables", "per-cpu", "tmpfs", "sum")
    table = Table((*header, "MemAvailable"))
    for rootless in WAYS:
        subject = ours("hold", str(pairs), rootless=rootless, name=label(rootless))
        taken = [held(subject) for _ in range(1 if quick else 3)]
        each = [percentile(column, 0.5) for column in zip(*taken, strict=True)]
        table.rows.append([subject.name, *each] if not subject.missing else [subject.name, *["-"] * 8, subject.missing])
        section.targets.append(Target(f"{subject.name}: memory of a container", each[-2] / 1024, 0.5, "MiB"))
    section.parts += [
        paragraph(
            f"""{2 * pairs} hosts (pairs) alive at once, against the same process with one pair before; the sum is the
            inits' PSS and what /proc/meminfo says the kernel took, both two seconds later; the median of
            three times. All but PSS and RSS are the machine's, so other programs move them."""
        ),
        table,
    ]
    return section


def held(subject: Subject) -> list[float]:
    """Let a worker make its pairs; return the KiB a container of the columns after the first."""
    with started([subject]):
        time.sleep(2)
        before = meminfo()
        pids = subject.ask("round").get("pids", [])
        time.sleep(2)
        grown = {key: value - before[key] for key, value in meminfo().items()}
        figures = [sum(rollup(pid, key) for pid in pids) for key in ("Pss", "Rss")]
    figures += [grown[part] for part in PARTS]
    figures += [figures[0] + sum(figures[2:]), -grown["MemAvailable"]]
    return [value / len(pids) if pids else math.nan for value in figures]


def meminfo() -> dict[str, int]:
    """Return /proc/meminfo in KiB."""
    fields = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return {name.rstrip(":"): int(value) for name, value, *_ in fields}


def rollup(pid: int, key: str) -> int:
    """Return a sum of /proc/PID/smaps_rollup in KiB (proc_pid_smaps(5)), 0 where that may not be read."""
    with contextlib.suppress(PermissionError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1])
    return 0


def run(*, quick: bool, **_: object) -> Section:
    """Measure ``host.run(["true"])`` against ``subprocess.run(["true"])`` in one process, also in a large one."""
    rounds = 30 if quick else 250
    subjects = [
        ours("run", heap, rootless=rootless, name=f"{label(rootless)}, {heap} MB of heap")
        for rootless in WAYS
        for heap in ("0", "400")
    ]
    interleave(subjects, rounds)
    section = Section("run", "host.run against subprocess.run")
    table = Table(("`true`", "rounds", "subprocess ms", "p10", "p90", "host.run ms", "p10", "p90", "x subprocess"))
    for subject in subjects:
        for suffix, how in (("", "no pipes"), ("_capture", "output captured")):
            table.rows.append(run_row(subject, suffix, how, section))
    section.parts += [
        "`subprocess.run` and `host.run` take turns, in shuffled order, in one process; stdin is /dev/null for both.",
        table,
    ]
    return section


def run_row(subject: Subject, suffix: str, how: str, section: Section) -> list[object]:
    """Return one row, and note its target."""
    name = f"{subject.name}, {how}"
    if not subject.rounds:
        return [name, 0, *["-"] * 6, subject.missing]
    peer, mine = subject.figures(f"peer{suffix}"), subject.figures(f"ours{suffix}")
    share = percentile(mine, 0.5) / percentile(peer, 0.5)
    section.targets.append(Target(f"{name}: median, x subprocess.run", share, 1.2))
    return [name, len(peer), *(value / 1e3 for value in spread(peer)), *(value / 1e3 for value in spread(mine)), share]
