"""Kills runs of pytest at random moments, and counts what is left half a second later.

``python tests/system/nothing_left.py [-N ROUNDS] [--seed S] [--jobs J] [--json]``. Each round is a real pytest on a
temporary test file, whose tests start commands in the hosts of ``netns_pair`` that ignore polite signals, called
setsid and double-forked. 0.5 s after the death of the pytest process that owns a lab there may be no process, no
namespace, no mount and no directory of it. Exit status 1 when there was one, or when a run hung or ended in another
way than it should.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from killed_run import CONFTEST, TESTS
from leftovers import Left, Traces

SETTLE = 0.5
"""Seconds after a death by which all must be gone."""
LIMIT = 60.0
FAILED, INTERRUPTED = 1, 2

MOMENTS = {
    "spawn": ("spawn", 0.010),
    "set-up": ("spawn", 0.150),
    "steady": ("steady", 0.200),
    "teardown": ("teardown", 0.008),
}
"""A moment: after which word of the run, and at most how many seconds later."""
PLAN = [
    *(("plain", "pytest", moment) for moment in ("spawn", "spawn", "spawn", "set-up", "steady", "teardown")),
    *(("plain", victim, moment) for victim in ("lab", "an init") for moment in ("spawn", "steady", "teardown")),
    *(
        ("xdist", victim, moment)
        for victim in ("a worker", "the controller")
        for moment in ("spawn", "steady", "teardown")
    ),
    *(("xdist", victim, "steady") for victim in ("lab", "an init")),
    *(("fork", victim, "steady") for victim in ("pytest", "lab")),
    *(("ctrl-c", "-", moment) for moment in ("spawn", "steady", "teardown")),
    *(("_exit", "-", "steady"), ("timeout", "-", "steady"), ("plain", "-", "end"), ("xdist", "-", "end")),
    *(("fail-step", "-", "set-up") for _ in range(3)),
    ("fail-step", "pytest", "set-up"),
]
"""One turn of all rounds: how the run ends (variant), who is killed, when. A turn is shuffled."""


@dataclass
class Round:
    """One run, and how it ended."""

    variant: str
    victim: str
    moment: str
    seed: int
    step: int = 0
    left: Left = field(default_factory=lambda: Left([], [], [], []))
    hung: bool = False
    wrong: str = ""
    returncode: int | None = None
    killed: bool = False
    output: str = ""


class Words:
    """What the processes of the run say: lines "PID WORD ..." through a named pipe."""

    def __init__(self, path: Path) -> None:
        """Make the pipe; opened for writing too, so that it has no end of file."""
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._rest = b""
        self.lines: list[list[str]] = []

    def wait(
        self, word: str, process: subprocess.Popen[bytes], deadline: float, occurrence: int = 1
    ) -> list[str] | None:
        """Return the line of the n-th ``word``; None when the run ends before."""
        while True:
            said = [line for line in self.lines if line[1] == word]
            if len(said) >= occurrence:
                return said[occurrence - 1]
            if process.poll() is not None or time.monotonic() > deadline:
                return None
            select.select([self._fd], [], [], 0.02)
            with contextlib.suppress(BlockingIOError):
                *complete, self._rest = (self._rest + os.read(self._fd, 65536)).split(b"\n")
                self.lines += [line.decode().split() for line in complete]

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._fd)


class Run:
    """A pytest run in a directory of its own."""

    def __init__(self, one: Round, directory: Path) -> None:
        """Write the files and start pytest, as the leader of a session of its own."""
        self.one = one
        self.directory = directory
        self.random = random.Random(one.seed)
        self.word = f"nothing-left-{directory.name}-"
        (directory / "tmp").mkdir()
        (directory / "conftest.py").write_text(CONFTEST)
        (directory / "test_killed.py").write_text(TESTS)
        (directory / "pytest.ini").write_text("[pytest]\n")
        self.words = Words(directory / "words")
        self.traces = Traces(directory, self.word)
        self.log = (directory / "log").open("wb")
        self.process = subprocess.Popen(
            self.command(),
            cwd=directory,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        self.deadline = time.monotonic() + LIMIT

    def command(self) -> list[str]:
        """Return pytest's command line."""
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:randomly",
            "--poor-container-require",
        ]
        command += [f"--basetemp={self.directory}/base", "-rfE"]
        if self.one.variant == "xdist":
            command += ["-n", "2"]
        if self.one.variant == "timeout":
            command += ["--timeout=2", "--timeout-method=thread"]
        return command

    def environment(self) -> dict[str, str]:
        """Return the environment, whose TMPDIR belongs to this run alone."""
        native = os.environ.get("POOR_CONTAINER_NATIVE") or str(
            Path(__file__).parents[2] / "pytest_poorcontainer" / "_native"
        )
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "POOR_CONTAINER_"))
        }
        environment |= {
            "NOTHING_LEFT": str(self.directory),
            "NOTHING_LEFT_NATIVE": native,
            "NOTHING_LEFT_WORD": self.word,
        }
        environment |= {"NOTHING_LEFT_VARIANT": self.one.variant, "TMPDIR": str(self.directory / "tmp")}
        environment |= {"NOTHING_LEFT_HOLD": "0.25", "NOTHING_LEFT_TESTS": "4" if self.one.variant == "xdist" else "2"}
        if self.one.step:
            environment["POOR_CONTAINER_FAIL_STEP"] = str(self.one.step)
        return environment

    def go(self) -> None:
        """Let the run come to its end, by our hand or by its own, and look what is left."""
        one = self.one
        dead_owner = 0
        if one.moment in MOMENTS and (one.victim != "-" or one.variant == "ctrl-c"):
            dead_owner = self.strike()
        elif one.variant != "fail-step":
            self.words.wait("steady", self.process, self.deadline)
            self.traces.processes()
        if dead_owner and dead_owner != self.process.pid:
            time.sleep(SETTLE)
            one.left = self.traces.left(dead_owner)
        if dead_owner and one.victim == "the controller":
            self.orphaned_workers()
        try:
            one.returncode = self.process.wait(max(0.0, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            one.hung = True
            self.process.kill()
            self.process.wait()
        time.sleep(SETTLE)
        if not one.left:
            one.left = self.traces.left()
        self.judge()

    def orphaned_workers(self) -> None:
        """Look for labs half a second after the controller's death, and wait for the workers: they may go on."""
        self.process.wait()
        time.sleep(SETTLE)
        labs = [f"{found.role} {found.pid}" for found in self.traces.processes() if "pcprobe" not in found.text]
        self.one.left = Left(labs, [], [], [])
        while self.traces.pytest_processes() and time.monotonic() < self.deadline:
            time.sleep(0.05)

    def strike(self) -> int:
        """Wait for the moment, and kill the victim. Return which pytest process has lost its life with it, or 0."""
        word, at_most = MOMENTS[self.one.moment]
        said = self.words.wait(word, self.process, self.deadline, occurrence=self.random.choice((1, 1, 2)))
        delay = self.random.uniform(0, at_most)
        heard = time.monotonic()
        if self.one.moment != "spawn":
            self.traces.processes()  # the namespaces that must be gone later
        if said is None:
            return 0
        time.sleep(max(0.0, heard + delay - time.monotonic()))
        if self.one.variant == "ctrl-c":
            os.killpg(self.process.pid, signal.SIGINT)
            self.one.killed = True
            return 0
        victim = self.find(said)
        if victim:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                self.one.killed = True
        return victim if victim and self.one.victim in ("pytest", "a worker", "the controller") else 0

    def find(self, said: list[str]) -> int:
        """Return the pid of the victim; 0 when there is none (any more)."""
        if self.one.victim in ("pytest", "the controller"):
            return self.process.pid
        if self.one.victim == "a worker":
            return int(said[0])
        role = "lab" if self.one.victim == "lab" else "init"
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            found = [process.pid for process in self.traces.processes(int(said[0])) if process.role == role]
            if found:
                return self.random.choice(found)
        return 0

    def judge(self) -> None:
        """Note when the run did not end as it should have, or ran into nothing that could be left."""
        one, code = self.one, self.one.returncode
        self.log.flush()
        one.output = (self.directory / "log").read_text(errors="replace")
        expected: tuple[int | None, ...] = (0, FAILED)
        if one.hung:
            one.wrong = "hung"
        elif one.victim in ("pytest", "the controller") and one.killed:
            expected = (-signal.SIGKILL, 0) if one.moment == "teardown" else (-signal.SIGKILL,)  # 0: it was over
            expected += (FAILED,) if one.variant == "fail-step" else ()
        elif one.variant == "_exit":
            expected = (3,)
        elif one.variant == "timeout" or (one.victim == "lab" and one.moment == "steady" and one.killed):
            expected = (FAILED,)  # an init may be of a pair built ahead: the next test gets another
        elif one.variant == "ctrl-c" and one.killed:
            # The last teardown may be over: then the signal meets pytest, or Python itself, on its way out.
            expected = (INTERRUPTED, FAILED, 0, -signal.SIGINT) if one.moment == "teardown" else (INTERRUPTED,)
        elif one.victim == "-" and one.variant in ("plain", "xdist"):
            expected = (0,)
        if not one.wrong and code not in expected:
            one.wrong = f"exit status {code}, expected {' or '.join(map(str, expected))}"
        if "INTERNALERROR" in one.output:
            one.wrong = one.wrong or "INTERNALERROR"
        if one.victim == "-" and one.variant in ("plain", "xdist", "_exit", "timeout") and not self.traces.seen:
            one.wrong = one.wrong or "no namespace was ever seen: this round proves nothing"

    def close(self) -> None:
        """End what the run's own tests left on purpose (a forked child), and delete the directory."""
        for pid in self.traces.pytest_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for found in self.traces.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(found.pid, signal.SIGKILL)
        self.words.close()
        self.log.close()
        shutil.rmtree(self.directory)


def play(one: Round) -> Round:
    """Do one round."""
    run = Run(one, Path(tempfile.mkdtemp(prefix="killed-")))
    try:
        run.go()
    finally:
        run.close()
    return one


def plan(count: int, seed: int) -> list[Round]:
    """Return ``count`` rounds: whole shuffled turns of ``PLAN``; steps that fail go up from 1."""
    order = random.Random(seed)
    rounds: list[Round] = []
    step = 0
    while len(rounds) < count:
        for variant, victim, moment in order.sample(PLAN, len(PLAN)):
            step += variant == "fail-step"
            number = (step - 1) % STEPS + 1 if variant == "fail-step" else 0
            rounds.append(Round(variant, victim, moment, order.randrange(1 << 30), number))
    return rounds[:count]


STEPS = 45
"""Steps of a set-up that are made to fail in turn; the last ones lie beyond its end, where the run must pass."""


def summary(rounds: list[Round]) -> dict[str, Any]:
    """Return the rows of the table, the totals, and a text about them."""
    keys = ("processes", "namespaces", "mounts", "directories")
    rows: dict[tuple[str, str, str], collections.Counter[str]] = {}
    for one in rounds:
        row = rows.setdefault((one.variant, one.victim, one.moment), collections.Counter())
        row.update(
            {
                **one.left.counts(),
                "rounds": 1,
                "hung": int(one.hung),
                "wrong": int(bool(one.wrong)),
                "killed": int(one.killed),
            }
        )
    names = ("variant", "victim", "moment")
    table = [
        dict(zip(names, key, strict=True)) | {name: row[name] for name in ("rounds", *keys, "hung", "wrong")}
        for key, row in sorted(rows.items())
    ]
    total = {name: sum(int(row[name]) for row in table) for name in ("rounds", *keys, "hung", "wrong")}
    killed = sum(one.killed for one in rounds)
    failed = sum(bool(one.step) and one.returncode == FAILED for one in rounds)
    steps = max((one.step for one in rounds if one.returncode == FAILED), default=0)
    text = (
        f"{len(rounds)} runs of pytest, {killed} of them struck by a signal (SIGKILL; for ctrl-c SIGINT to the group), "
        f"{failed} with a set-up that failed, at each of {steps} steps. Looked for {SETTLE} s after the death of the "
        "pytest process that owns the lab."
    )
    return {
        "rows": table,
        "total": total,
        "text": text,
        "failures": [report(one) for one in rounds if one.left or one.wrong],
    }


def report(one: Round) -> dict[str, Any]:
    """Return what is to be known about a round that went wrong."""
    return {
        "round": f"{one.variant} {one.victim} {one.moment} step={one.step} seed={one.seed}",
        "wrong": one.wrong,
        "left": vars(one.left),
        "output": one.output[-1500:],
    }


def main() -> int:
    """Play the rounds; print a table, or JSON."""
    # Started in the background by a shell we ignore SIGINT, and so would the runs that are to be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-N", type=int, default=20, metavar="ROUNDS", help="how many rounds (20)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the order and the moments; printed")
    parser.add_argument("--jobs", type=int, default=2, help="rounds at a time (2)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled once, not in each of hundreds of runs
    with tempfile.TemporaryDirectory() as cache, concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        os.environ["PYTHONPYCACHEPREFIX"] = cache
        rounds = list(pool.map(play, plan(options.N, options.seed)))
    result = summary(rounds) | {"seed": options.seed}
    bad = bool(result["failures"])
    if options.json:
        print(json.dumps(result))
        return int(bad)
    for failure in result["failures"]:
        print(json.dumps(failure, indent=1), file=sys.stderr)
    columns = (
        "variant",
        "victim",
        "moment",
        "rounds",
        "processes",
        "namespaces",
        "mounts",
        "directories",
        "hung",
        "wrong",
    )
    for row in [
        dict(zip(columns, columns, strict=True)),
        *result["rows"],
        {"variant": "all", "victim": "", "moment": "", **result["total"]},
    ]:
        print("  ".join(str(row[column]).ljust(14 if column in columns[:3] else len(column)) for column in columns))
    print(f"seed {options.seed}. {result['text']}")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
