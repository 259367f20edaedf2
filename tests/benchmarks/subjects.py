"""What is measured, as child processes that do one round for every line they read."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "ORDINARY",
    "PATIENCE",
    "PAUSE",
    "REPOSITORY",
    "Subject",
    "build_directory",
    "floor",
    "interleave",
    "ordinary_python",
    "ours",
    "rest",
    "started",
    "worker_environment",
]

REPOSITORY = Path(__file__).resolve().parents[2]
ORDINARY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
"""What makes a command run as a user without privileges (nobody), for a harness that runs as root."""
PAUSE = 0.02
"""Seconds between two rounds: without them the kernel's clean-up of the last is measured with the next."""
PATIENCE = 60.0
"""Seconds in all that one table waits for other programs to be quiet."""
IDLE = 0.6
"""Share of the pause that all processors together must have idled, else others were at work."""
ROUND_LIMIT = 120.0


@dataclass
class Subject:
    """A child process that answers each line with one JSON object of figures.

    ``builds`` says what one round of it builds, for the table. A subject whose command cannot
    be started, or ends early, says why in ``missing`` and is left out of the rounds.
    """

    name: str
    argv: Sequence[str]
    builds: str = ""
    every: int = 1
    environment: Mapping[str, str] | None = None
    missing: str = ""
    rounds: list[dict[str, Any]] = field(default_factory=list)
    _process: subprocess.Popen[str] | None = None
    _errors: Any = None

    def start(self) -> None:
        """Start the child and let it do one round that does not count."""
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives as long as the child
        try:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                bufsize=1,
                env=self.environment,
                cwd=REPOSITORY,
            )
        except OSError as error:
            self.missing = f"{self.argv[0]}: {error.strerror}"
            return
        # The first round warms caches and starts helpers (ours: the lab); it is no figure.
        self.ask("warm")

    def ask(self, line: str) -> dict[str, Any]:
        """Send one line and return the answer; an early end of the child marks the subject as missing."""
        process = self._process
        if self.missing or process is None or process.stdin is None or process.stdout is None:
            return {}
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(line + "\n")
        if not select.select([process.stdout], [], [], ROUND_LIMIT)[0]:
            process.kill()
            self.missing = f"no answer to {line!r} within {ROUND_LIMIT:.0f} s"
            return {}
        answer = process.stdout.readline()
        if not answer.startswith("{"):
            process.wait(10)
            self._errors.seek(0)
            lines = [text for text in self._errors.read().splitlines() if text.strip()]
            self.missing = lines[-1][:200] if lines else f"ended with status {process.returncode}"
            return {}
        figures: dict[str, Any] = json.loads(answer)
        if "missing" in figures:
            self.missing = str(figures["missing"])
        return figures

    def round(self, line: str = "round") -> None:
        """Do one measured round."""
        figures = self.ask(line)
        if figures and not self.missing:
            self.rounds.append(figures)

    def figures(self, key: str) -> list[float]:
        """Return one figure of all rounds."""
        return [float(one[key]) for one in self.rounds]

    def stop(self) -> None:
        """End the child by closing its standard input; kill it when that does not help."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        self._errors.close()


@contextlib.contextmanager
def started(subjects: Sequence[Subject]) -> Iterator[None]:
    """Start all subjects, and stop them at the end."""
    try:
        for subject in subjects:
            subject.start()
        yield
    finally:
        for subject in subjects:
            subject.stop()


def interleave(subjects: Sequence[Subject], rounds: int, *, pause: float = PAUSE, seed: int = 0) -> None:
    """Do ``rounds`` rounds of every subject, in an order shuffled anew for each, ``pause`` seconds between any two.

    A subject with ``every`` = n takes part in each n-th round only (slow peers).
    """
    order = random.Random(seed)
    patience = PATIENCE
    with started(subjects):
        for number in range(rounds):
            turn = [subject for subject in subjects if number % subject.every == 0]
            order.shuffle(turn)
            for subject in turn:
                patience = rest(pause, patience)
                subject.round()


def rest(pause: float, patience: float) -> float:
    """Sleep for ``pause`` seconds, and again while other programs keep the machine busy; return the patience left.

    A pause of 0 is none. Who is measured does not enter into it: it is asleep as well.
    """
    while pause > 0:
        before = idle()
        time.sleep(pause)
        if patience <= 0 or (idle() - before) / (pause * (os.cpu_count() or 1)) > IDLE:
            break
        patience -= pause
    return patience


def idle() -> float:
    """Return the seconds that all processors together have idled since boot (proc_uptime(5))."""
    return float(Path("/proc/uptime").read_text().split()[1])


@cache
def build_directory() -> Path:
    """Return a directory that every user can read, for the compiled floor; it goes when this process ends."""
    path = Path(tempfile.mkdtemp(prefix="benchmarks-"))
    path.chmod(0o755)
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@cache
def _compiled_floor() -> Path:
    target = build_directory() / "floor"
    source = Path(__file__).with_name("floor.c")
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", target, source], check=True)
    return target


def floor(*, rootless: bool = False, ipv6: bool = False) -> Subject:
    """Return the floor of the machine as a subject (``floor.c``)."""
    argv = [str(_compiled_floor()), *(["-6"] if ipv6 else [])]
    builds = "two network namespaces, a veth pair, one IPv4 address an end"
    if ipv6:
        builds += ", an IPv6 address an end, lo up"
    if rootless or os.geteuid() != 0:
        argv = ["unshare", "--user", "--map-root-user", "--net", *argv]
        builds += "; in one user namespace"
        if os.geteuid() == 0:
            argv = [*ORDINARY, *argv]
    kind = "rootless" if rootless else "root"
    return Subject(f"floor in C, {kind}{', both families' if ipv6 else ''}", argv, builds)


@cache
def ordinary_python() -> tuple[str, str]:
    """Return an interpreter that an ordinary user may execute, and the PYTHONPATH that has our package for it.

    The interpreter of a virtual environment under /root cannot be executed by others, and a
    checkout may be as closed: then the system's Python runs a copy of the package.
    """
    package = REPOSITORY / "pytest_poorcontainer"
    code = "import pytest_poorcontainer, pytest_poorcontainer.native as n; n.program('pclab')"
    for path in (REPOSITORY, None):
        where = path
        if where is None:
            where = build_directory() / "copy"
            shutil.copytree(package, where / package.name, ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copytree(REPOSITORY / "tests" / "benchmarks", where / "tests" / "benchmarks")
        for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
            environment = {"PYTHONPATH": str(where), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
            # By env(1): setpriv itself still finds what only root can reach.
            argv = [*(ORDINARY if os.geteuid() == 0 else ()), "env", python, "-c", code]
            with contextlib.suppress(OSError):
                if subprocess.run(argv, env=environment, capture_output=True, check=False, cwd="/").returncode == 0:
                    return python, str(where)
    msg = "no Python here that an ordinary user can execute and that imports pytest_poorcontainer"
    raise RuntimeError(msg)


def worker_environment(python_path: str = str(REPOSITORY), temporary: str | None = None) -> dict[str, str]:
    """Return the environment of a worker: small, and the same for all."""
    keep = ("PATH", "LANG", "HOME", "POOR_CONTAINER_NATIVE")
    environment = {key: os.environ[key] for key in keep if key in os.environ}
    environment |= {"PYTHONPATH": python_path, "PYTHONUNBUFFERED": "1"}
    if temporary:
        environment["TMPDIR"] = temporary
    return environment


def ours(task: str, *arguments: str, rootless: bool = False, name: str = "") -> Subject:
    """Return a worker of ours (``workers/ours.py``) that does ``task`` for every line."""
    python, where, argv = sys.executable, str(REPOSITORY), []
    environment = worker_environment()
    if rootless and os.geteuid() == 0:
        python, where = ordinary_python()
        temporary = build_directory() / "ordinary"
        temporary.mkdir(exist_ok=True)
        temporary.chmod(0o1777)
        argv = list(ORDINARY)
        environment = worker_environment(where, str(temporary)) | {"HOME": str(temporary)}
    argv += [python, str(Path(where, "tests", "benchmarks", "workers", "ours.py")), task, *arguments]
    kind = "rootless" if rootless else ("root" if os.geteuid() == 0 else "ordinary user")
    builds = (
        "two hosts: network, mount, pid, uts, ipc and cgroup namespaces, private directories, own /dev, "
        "pivot_root, dropped capabilities, IPv4 and IPv6, names"
    )
    return Subject(name or f"netns_pair, {kind}", argv, builds, environment=environment)
