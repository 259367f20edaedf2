"""Starts our console command as this user or as another, and knows what it started."""

import contextlib
import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

__all__ = ["NOBODY", "ROOT", "Shell", "python_of_all"]

ROOT = Path(__file__).parents[2]
NOBODY = 65534
MARK = "POOR_CONTAINER_TEST_MARK"


def python_of_all():
    """Return a Python that every user can start: the machine's own, when ours is in somebody's home.

    None when there is none, or when this checkout is where other users cannot read it (mktemp -d).
    """
    for python in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            who = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "cwd": "/", "env": {"PYTHONPATH": str(ROOT)}}
            command = [python, "-c", "import pytest_poorcontainer.errors"]
            if subprocess.run(command, stderr=subprocess.DEVNULL, **who, check=False).returncode == 0:
                return python
    return None


class Shell:
    """Starts ``poor-container`` as a user, and knows its processes by a mark in their environment."""

    def __init__(self, python, native_directory, who, **environment):
        self.python, self.who = python, who
        self.mark = uuid.uuid4().hex
        self.environment = {
            "PATH": os.defpath,
            "PYTHONPATH": str(ROOT),
            "POOR_CONTAINER_NATIVE": native_directory,
            "TERM": "vt100",
            MARK: self.mark,
            **environment,
        }

    def argv(self, *command):
        """Return the command line."""
        return [self.python, "-m", "pytest_poorcontainer.cli.main", *command]

    def diagnosis(self):
        """Return what the doctor says to this user."""
        command = Shell.argv(self, "doctor", "--json")
        said = subprocess.run(command, cwd="/", env=self.environment, capture_output=True, **self.who, check=False)
        return json.loads(said.stdout)

    def start(self, *command, before=(), **streams):
        """Start it and return its Popen."""
        return subprocess.Popen(
            [*before, *self.argv(*command)], cwd="/", env=self.environment, text=True, **self.who, **streams
        )

    def run(self, *command, before=(), **options):
        """Run it to its end."""
        return subprocess.run(
            [*before, *self.argv(*command)],
            cwd="/",
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            **self.who,
            **options,
        )

    def left(self, *words):
        """Return the processes that we started, or that carry one of the words in their command line."""
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                line = (directory / "cmdline").read_bytes()
                if self.mark.encode() in (directory / "environ").read_bytes() or any(w.encode() in line for w in words):
                    found.append((directory.name, line))
        return found

    def left_for_long(self, *words):
        """Return them after they had half a second to be gone."""
        deadline = time.monotonic() + 0.5
        while (found := self.left(*words)) and time.monotonic() < deadline:
            time.sleep(0.01)
        return found
