"""What a call costs: the first in a host, which starts a Python there, and the later ones."""

from __future__ import annotations

import subprocess
import sys

from containers import WAYS, label
from stats import Section, Table, Target, paragraph, spread
from subjects import ORDINARY, interleave, ours

__all__ = ["call"]

FIGURES = {
    "first": "the first in a host, `os.getpid`",
    "named": "later, `os.getpid`",
    "closure": "later, a closure",
    "megabyte": "later, `len` of 1 MiB",
    "peer": "ProcessPoolExecutor, `os.getpid`",
}
LIMITS = {"named": 2.0, "closure": 2.0}  # ms, issue 3


def readable(program: str) -> bool:
    """Return whether an ordinary user may start a program."""
    return subprocess.run([*ORDINARY, "env", "test", "-x", program], check=False).returncode == 0


def call(*, quick: bool, **_: object) -> Section:
    """Measure ``host.call`` against a process pool of the standard library, which is in no container."""
    rounds = 20 if quick else 200
    subjects = [ours("calls", rootless=rootless, name=label(rootless)) for rootless in WAYS]
    for subject in subjects:
        subject.argv = [part.replace("ours.py", "calls.py") for part in subject.argv]
        if subject.argv[0] == ORDINARY[0] and not readable(sys.executable):
            # setpriv may start what its user may not: but nobody could start it a second time, in the host.
            subject.argv = ["/usr/bin/python3" if part == sys.executable else part for part in subject.argv]
    interleave(subjects, rounds)
    section = Section("call", "host.call")
    table = Table(("a call", "rounds", "median ms", "p10", "p90"))
    for subject in subjects:
        for key, what in FIGURES.items():
            if not subject.rounds or key not in subject.rounds[0]:
                why = subject.missing or "no cloudpickle in the Python that this user may run"
                table.rows.append([f"{subject.name}, {what}", 0, "-", "-", why])
                continue
            figures = [value / 1e3 for value in spread(subject.figures(key))]
            table.rows.append([f"{subject.name}, {what}", len(subject.rounds), *figures])
            if key in LIMITS:
                section.targets.append(Target(f"{subject.name}, {what}: median", figures[0], LIMITS[key], "ms"))
    section.parts += [
        paragraph(
            """All in one process, in shuffled order. The first call of a host starts a Python in it and is measured
            in a fresh pair; the later ones are in a host that has had calls of the same kind."""
        ),
        table,
    ]
    return section
