"""How long a fresh pair takes, against the floor and against other tools, and whether it stays so."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

from stats import Section, Table, Target, paragraph, percentile, spread
from subjects import PAUSE, Subject, floor, interleave, ours, started

__all__ = ["churn", "fresh", "limited", "peers", "stalls"]

HEADER = (
    "",
    "rounds",
    "set-up ms",
    "1st TCP connect ms",
    "cycle ms: median",
    "p10",
    "p90",
    "x floor: median",
    "p90 / p90",
    "p90 / median",
)
STALL = 0.5e6
"""Microseconds that make a first connect a stalled one: a lost SYN is sent again after 1 s (RFC 6298, 2.1)."""
IS_ROOT = os.geteuid() == 0


def fresh(*, quick: bool, **_: object) -> Section:
    """Measure a fresh pair against the floor, as root and rootless, all in one shuffled order."""
    rounds = 40 if quick else 300
    base = floor(rootless=not IS_ROOT)
    subjects = [base, floor(rootless=not IS_ROOT, ipv6=True), rootless := ours("fresh", rootless=True)]
    if IS_ROOT:
        subjects += [floor(rootless=True), rooted := ours("fresh")]
    interleave(subjects, rounds)
    section = Section("fresh", "A fresh pair, from asking until a first TCP connect has succeeded")
    table = Table(HEADER)
    for subject in subjects:
        table.rows.append(cycle_row(subject, base))
    section.parts += [
        paragraph(
            f"""{rounds} rounds of each, in shuffled order, {PAUSE * 1000:.0f} ms of pause between any two rounds,
            more while other programs kept the machine busy. The
            floor (`tests/benchmarks/floor.c`) does two `unshare(CLONE_NEWNET)`, one netlink datagram each and the
            operstate read-back, in one process, and no more."""
        ),
        table,
        builds(subjects),
    ]
    judged = rooted if IS_ROOT else rootless
    section.targets.append(Target(f"{judged.name}: median, x floor", ratio(judged, base, 0.5), 1.75))
    section.targets.append(Target(f"{judged.name}: p90, x floor's p90", ratio(judged, base, 0.9), 2.5))
    if IS_ROOT:
        section.targets.append(Target("rootless: median, x root", ratio(rootless, rooted, 0.5), 1.15))
        alike = subjects[3]
        section.parts.append(
            f"Against the floor in a user namespace, rootless is {ratio(rootless, alike, 0.5):.2f} x (median)."
        )
    return section


def ratio(subject: Subject, base: Subject, share: float) -> float:
    """Return how many times as long the subject's cycle takes, at one percentile of both."""
    return percentile(subject.figures("cycle"), share) / percentile(base.figures("cycle"), share)


def cycle_row(subject: Subject, base: Subject) -> list[object]:
    """Return the row of one subject; why it is missing, if it is."""
    if not subject.rounds:
        return [subject.name, 0, *["-"] * 7, subject.missing or "-"]
    median, low, high = (value / 1e3 for value in spread(subject.figures("cycle")))
    parts = [percentile(subject.figures(key), 0.5) / 1e3 for key in ("setup", "connect")]
    against = [
        ratio(subject, base, 0.5),
        ratio(subject, base, 0.9),
        high * 1e3 / percentile(base.figures("cycle"), 0.5),
    ]
    return [subject.name, len(subject.rounds), *parts, median, low, high, *against]


def builds(subjects: list[Subject]) -> str:
    """Return the list of what each subject builds for its figure."""
    return "What each builds:\n\n" + "\n".join(f"- **{subject.name}**: {subject.builds}." for subject in subjects)


PEERS = (
    (
        "pyroute2_anonymous",
        "pyroute2, anonymous",
        "two unnamed network namespaces, veth, an address an end; netlink by pyroute2",
        2,
    ),
    (
        "pyroute2_documented",
        "pyroute2, as documented",
        "two named network namespaces (`netns.create`), `IPRoute(netns=)` each",
        4,
    ),
    (
        "ip_netns",
        "`ip netns`",
        "two named network namespaces, veth, an address an end, lo up; nine processes of iproute2",
        4,
    ),
    (
        "mininet",
        "mininet",
        "two hosts (network and mount namespace, a shell each), one link, no switch or controller",
        4,
    ),
    ("munet", "munet", "BaseMunet with two hosts (network, mount, uts, ipc namespaces) and a link", 20),
)
"""The peers: task of ``workers/peers.py``, name, what it builds, and in which rounds it takes part (each n-th)."""


def peers(*, quick: bool, pythons: list[str], **_: object) -> Section:
    """Measure other tools that join two network namespaces, for scale."""
    rounds = 10 if quick else 100
    base, mine = floor(rootless=not IS_ROOT), ours("fresh")
    subjects = [base, mine]
    worker = str(Path(__file__).with_name("workers") / "peers.py")
    for task, name, what, every in PEERS:
        argv = [interpreter(task.split("_")[0], pythons), worker, task]
        subjects.append(Subject(name, argv, what, every if not quick else 5))
    interleave(subjects, rounds)
    section = Section("peers", "The same from other tools, for scale")
    table = Table((*HEADER[:-3], "x floor", "teardown ms", "stalls"))
    for subject in subjects:
        row = cycle_row(subject, base)
        if subject.rounds:
            row[8:] = [percentile(subject.figures("down"), 0.5) / 1e3, stalled(subject)]
        table.rows.append(row)
    section.parts += [
        paragraph(
            f"""{rounds} shuffled rounds, in which slow tools take part in each second to twentieth. Teardown is the
            caller's wait, which for namespaces held by descriptors is none, while ours returns when all processes are
            dead. A stall is a first connect of more than 0.5 s, because the tool returned before the link was
            usable."""
        ),
        table,
        builds(subjects),
    ]
    return section


def interpreter(module: str, pythons: list[str]) -> str:
    """Return the first Python that has ``module``; the last one when none has, to be told so by the worker."""
    module = "os" if module == "ip" else module
    for python in pythons:
        try:
            found = subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0
        except OSError:
            found = False
        if found:
            return python
    return sys.executable


def stalled(subject: Subject) -> int:
    """Return how many first connects stalled."""
    return sum(value > STALL for value in subject.figures("connect"))


def stalls(*, quick: bool, **_: object) -> Section:
    """Count the first connects that stall, with no pause between pairs."""
    rounds = 300 if quick else 5000
    section = Section("stalls", "Stalled first connects")
    table = Table(("first connect by", "pairs", "median ms", "p10", "p90", "longest", "stalled"))
    for family, name in (("", "IPv4"), ("6", "IPv6")):
        subject = ours("fresh", family, name=name)
        interleave([subject], rounds, pause=0)
        connects = subject.figures("connect")
        figures = [value / 1e3 for value in (*spread(connects), max(connects, default=math.nan))]
        table.rows.append([name, len(connects), *figures, stalled(subject)])
        what = f"{name}: first connects of more than 0.5 s, of {len(connects)}"
        section.targets.append(Target(what, stalled(subject), 0))
        section.targets.append(
            Target(f"{name}: rounds that failed {subject.missing}".strip(), rounds - len(connects), 0)
        )
    section.parts += ["Each pair is connected to as soon as it is there, without pause between pairs.", table]
    return section


def series(subject: Subject, rounds: int) -> list[dict[str, float]]:
    """Do ``rounds`` rounds without pause; return the census after the first tenth, and at the end."""
    taken = []
    with started([subject]):
        for number in range(1, rounds + 1):
            subject.round()
            if number in (rounds // 10, rounds):
                taken.append(subject.ask("census"))
    return taken


def churn(*, quick: bool, **_: object) -> Section:
    """Make 1,000 pairs one after the other, and look whether anything grows."""
    rounds = 200 if quick else 1000
    tenth = rounds // 10
    section = Section("churn", f"{rounds:,} pairs one after the other")
    table = Table(
        (
            "cycle ms, median",
            "first tenth",
            "last tenth",
            "last / first",
            "fds",
            "processes",
            "memory of pytest KiB",
            "of the lab KiB",
        )
    )
    for subject in [ours("fresh"), *([ours("fresh", rootless=True)] if IS_ROOT else []), floor(rootless=not IS_ROOT)]:
        census = series(subject, rounds) if subject.name.startswith("netns") else []
        if not census:
            with started([subject]):
                for _ in range(rounds):
                    subject.round()
        cycles = subject.figures("cycle")
        first, last = percentile(cycles[:tenth], 0.5), percentile(cycles[-tenth:], 0.5)
        row: list[object] = [subject.name, first / 1e3, last / 1e3, last / first, "-", "-", "-", "-"]
        if len(census) == 2 and all(census):
            grown = {key: census[1][key] - census[0][key] for key in census[0]}
            row[4:] = [
                f"{grown['fds']:+.0f}",
                f"{grown['processes']:+.0f}",
                f"{grown['rss'] / 1024:+.0f}",
                f"{grown['lab'] / 1024:+.0f}",
            ]
            section.targets.append(Target(f"{subject.name}: last hundred, x first hundred", last / first, 1.25))
            section.targets.append(Target(f"{subject.name}: growth in fds", grown["fds"], 0))
        else:
            row[4] = subject.missing or "-"
        table.rows.append(row)
    section.parts += [
        paragraph(
            """No pause between two pairs. Growth is counted between the end of the first tenth and the end; processes
            are the whole machine's."""
        ),
        table,
    ]
    return section


def limited(*, quick: bool, **_: object) -> Section:
    """Make pairs where few network namespaces are allowed: the dead count until the kernel has freed them."""
    rounds, limit = (50 if quick else 300), 12
    subject = ours("fresh", name=f"netns_pair, user.max_net_namespaces = {limit}")
    script = f'echo {limit} > /proc/sys/user/max_net_namespaces && exec "$@"'
    subject.argv = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", *subject.argv]
    with started([subject]):
        for _ in range(rounds):
            subject.round()
    median, low, high = (value / 1e3 for value in spread(subject.figures("cycle")))
    section = Section("limited", "Pairs under a low user.max_net_namespaces")
    section.targets.append(Target(f"pairs that failed, of {rounds}", rounds - len(subject.rounds), 0))
    section.parts.append(
        paragraph(
            f"""In a user namespace that allows {limit} network namespaces, without pause between pairs: median
            {median:.1f} ms (p10 {low:.1f}, p90 {high:.1f}); a request waits until dead namespaces have been freed.
            {subject.missing}"""
        )
    )
    return section
