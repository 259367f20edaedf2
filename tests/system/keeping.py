"""Somebody who keeps containers, apart from anybody else on the machine who does."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from shells import Shell

__all__ = ["Keeping", "commands", "lives", "seconds"]

_numbers = itertools.count()

KEEPER = Path(__file__).with_name("keeper.py")


def lives(pid):
    """Return whether the process runs; a dead one that nobody has waited for does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False


class Keeping(Shell):
    """A user with a runtime directory that no one else on the machine uses."""

    def __init__(self, *user):
        self.directory = Path(tempfile.mkdtemp(prefix="poor-container-test-", dir="/tmp"))
        if user[2]:
            os.chown(self.directory, user[2]["user"], user[2]["group"])
        self.runtime = self.directory / "runtime"
        super().__init__(*user, POOR_CONTAINER_RUNTIME_DIR=str(self.runtime))
        self.held = []
        self.labs = []

    def hold(self, how="hold", pairs=1):
        """Start a keeper and return what it said."""
        process = subprocess.Popen(
            [self.python, str(KEEPER), how, str(pairs)],
            cwd="/",
            env=self.environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            **self.who,
        )
        self.held.append(process)
        said = json.loads(process.stdout.readline())
        said["lab"] = int(said["names"][0].split("-")[1])
        self.labs.append(said["lab"])
        if how == "detach":
            assert process.wait(20) == 0
        return said

    def listed(self):
        """Return what ``ps --json`` says."""
        done = self.run("ps", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        said = json.loads(done.stdout)
        assert said["silent"] == []
        return said["containers"]

    def names(self):
        """Return the names that can be entered."""
        return [one["name"] for one in self.listed()]

    def close(self):
        """End all that is left."""
        for process in self.held:
            process.stdin.close()
            process.stdout.close()
            process.wait(20)
        for lab in self.labs:
            with contextlib.suppress(OSError):
                if "pclab" in Path(f"/proc/{lab}/comm").read_text():
                    os.kill(lab, signal.SIGKILL)
        shutil.rmtree(self.directory)


def commands(*words):
    """Return whether a process with such an argument runs."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found |= set(path.read_text(errors="replace").split("\0")) & set(words)
    return found


def seconds():
    """Return a long time for sleep(1) that nobody else's test, in whatever process, sleeps."""
    return f"{4_000_000_000 + os.getpid() * 100 + next(_numbers) % 100}"
