"""``poor-container run``, as a shell sees it: exit statuses, streams, signals, and nothing left."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest

from pytest_poorcontainer import native

ROOT = Path(__file__).parents[2]
REFUSE = Path(__file__).with_name("refuse_namespaces.py")
NOBODY = 65534
MARK = "POOR_CONTAINER_TEST_MARK"


def python_of_all():
    """Return a Python that every user can start: the machine's own, when ours is in somebody's home."""
    for python in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            who = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            if subprocess.run([python, "-c", ""], stderr=subprocess.DEVNULL, **who, check=False).returncode == 0:
                return python
    return None


@pytest.fixture(scope="module")
def native_of_all():
    """Return a directory with the native programs that every user can reach."""
    with tempfile.TemporaryDirectory(prefix="poor-container-test-", dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        for program in ("pclab", "pcprobe"):
            shutil.copy(native.program(program), directory)
        yield directory


class Shell:
    """Starts ``poor-container run`` as a user, and knows its processes by a mark in their environment."""

    def __init__(self, python, native_directory, who):
        self._python, self._who = python, who
        self.mark = uuid.uuid4().hex
        self._environment = {
            "PATH": os.defpath,
            "PYTHONPATH": str(ROOT),
            "POOR_CONTAINER_NATIVE": native_directory,
            "TERM": "vt100",
            MARK: self.mark,
        }

    def argv(self, *command):
        """Return the command line."""
        return [self._python, "-m", "pytest_poorcontainer.cli.main", "run", *command]

    def diagnosis(self):
        """Return what the doctor says to this user."""
        command = [self._python, "-m", "pytest_poorcontainer.cli.main", "doctor", "--json"]
        said = subprocess.run(command, cwd="/", env=self._environment, capture_output=True, **self._who, check=False)
        return json.loads(said.stdout)

    def start(self, *command, before=(), **streams):
        """Start it and return its Popen."""
        return subprocess.Popen(
            [*before, *self.argv(*command)], cwd="/", env=self._environment, text=True, **self._who, **streams
        )

    def run(self, *command, before=(), **options):
        """Run it to its end."""
        return subprocess.run(
            [*before, *self.argv(*command)],
            cwd="/",
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            **self._who,
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


@pytest.fixture(scope="module", params=["self", "nobody"])
def user(request, native_of_all):
    """Return who runs the tests, and nobody where that is root: Python, native programs, arguments of subprocess."""
    if request.param == "self":
        found = (sys.executable, native_of_all, {})
    elif os.geteuid() != 0 or python_of_all() is None:
        pytest.skip("only root can become another user, who then needs a Python within reach")
    else:
        found = (python_of_all(), native_of_all, {"user": NOBODY, "group": NOBODY, "extra_groups": []})
    level = Shell(*found).diagnosis()["level"]
    if not level["built"]:
        pytest.skip(level["reason"])
    return found


@pytest.fixture
def shell(user):
    """Return a shell of each of them; what it started must have ended by the end of the test."""
    made = Shell(*user)
    yield made
    assert made.left_for_long() == []


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
        ("exit 137", 137),
    ],
)
def test_the_exit_status_is_the_commands_as_a_shell_tells_it(shell, script, status):
    """The exit status is the command's own, or 128 + N when signal N ended it, and nothing is printed about it."""
    done = shell.run("--", "sh", "-c", script)
    assert done.returncode == status
    assert done.stdout == done.stderr == ""


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        ("no-such-command", 127, "there is no such command"),
        ("/etc/passwd", 126, "Permission denied"),
        ("/usr", 126, ""),
    ],
)
def test_what_cannot_be_executed_is_told_in_one_line(shell, command, status, words):
    """A command that is not there answers 127, one that is no program 126, each with one line that names it."""
    done = shell.run("--", command, "argument")
    assert done.returncode == status
    assert done.stderr.startswith(f"poor-container: cannot run {command}: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_the_streams_are_the_callers(shell):
    """Standard input, output and error pass through, of any size."""
    data = "line\n" * 200_000
    done = shell.run("--", "sh", "-c", "echo to-stderr >&2; cat", input=data)
    assert done.stdout == data
    assert done.stderr == "to-stderr\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_like_dev_null(shell, closed):
    """Where the caller closed a stream, the command finds /dev/null there, and no socket of ours."""
    script = (
        "for fd in 0 1 2; do readlink /proc/$$/fd/$fd; done >/tmp/seen; ! grep socket /tmp/seen >/dev/null; exit $?"
    )
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *shell.argv("--", "sh", "-c", script)],
        env=shell._environment,
        stdin=subprocess.DEVNULL,
        timeout=30,
        cwd="/",
        check=False,
        **shell._who,
    )
    assert done.returncode == 0


def test_options_of_the_command_are_its_own(shell):
    """Whatever follows the command is the command's, also --net and --."""
    assert shell.run("echo", "--net", "--", "-n").stdout == "--net -- -n\n"
    assert shell.run("--", "echo", "--", "--net").stdout == "-- --net\n"


def test_the_command_sees_a_container(shell):
    """Inside is pid 1 of ours, a host name of its own, the caller's TERM, a private /etc over the machine's."""
    script = (
        "readlink /proc/1/exe; hostname; echo $TERM; echo mine > /etc/poor-container-test; cat /etc/poor-container-test"
    )
    done = shell.run("--", "sh", "-c", script)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-3:] == ["c", "vt100", "mine"]
    assert not Path("/etc/poor-container-test").exists()


def test_the_network_is_its_own_unless_asked_otherwise(shell):
    """Without --net there is only lo; with it the machine's interfaces."""
    assert shell.run("--", "ls", "/sys/class/net").stdout.split() == ["lo"]
    assert set(shell.run("--net", "--", "ls", "/sys/class/net").stdout.split()) == {
        path.name for path in Path("/sys/class/net").iterdir()
    }


def wait_for(process, word):
    """Read the first line that the command prints."""
    assert process.stdout.readline() == f"{word}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_and_all_it_started(shell, number):
    """A signal is passed on; the status is 128 + N; what the command started, also by setsid, is gone."""
    process = shell.start("--", "sh", "-c", "setsid sleep 4201 & echo ready; exec sleep 4202", stdout=subprocess.PIPE)
    wait_for(process, "ready")
    start = time.monotonic()
    process.send_signal(number)
    assert process.wait(10) == 128 + number
    assert time.monotonic() - start < 1.5
    assert shell.left_for_long("sleep\x004201", "sleep\x004202") == []
    process.stdout.close()


def test_a_command_that_handles_the_signal_decides_on_the_status(shell):
    """A command that ends itself on SIGTERM, in its own time, gives the exit status."""
    script = 'trap "sleep 0.2; echo bye; exit 9" TERM; echo ready; while :; do sleep 0.05; done'
    process = shell.start("--", "sh", "-c", script, stdout=subprocess.PIPE)
    wait_for(process, "ready")
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=10) == ("bye\n", None)
    assert process.returncode == 9


def test_a_command_that_ignores_the_signal_is_killed_after_two_seconds(shell):
    """Ctrl-C ends also what ignores it."""
    process = shell.start("--", "sh", "-c", 'trap "" INT; echo ready; sleep 4203; sleep 4203', stdout=subprocess.PIPE)
    wait_for(process, "ready")
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    assert 1.9 < time.monotonic() - start < 5
    assert shell.left_for_long("sleep\x004203") == []
    process.stdout.close()


def test_a_signal_that_the_caller_ignores_stays_ignored(shell):
    """Under nohup SIGHUP ends nothing."""
    nohup = [sys.executable if not shell._who else python_of_all(), "-c"]
    nohup += ["import os, signal, sys; signal.signal(1, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"]
    process = shell.start("--", "sh", "-c", "echo ready; sleep 0.5; exit 3", before=nohup, stdout=subprocess.PIPE)
    wait_for(process, "ready")
    process.send_signal(signal.SIGHUP)
    assert process.wait(10) == 3
    process.stdout.close()


def test_nothing_is_left_when_we_are_killed_ourselves(shell):
    """SIGKILL of poor-container, at any moment, ends the command and all that it started."""
    for delay in (0.05, 0.1, 0.15, 0.2, 0.3):
        process = shell.start("--", "sh", "-c", "setsid sleep 4204 & sleep 4205")
        time.sleep(delay)
        process.kill()
        process.wait()
        assert shell.left_for_long("sleep\x004204", "sleep\x004205") == []


def test_refused_namespaces_are_one_clear_line(shell):
    """Where no container can be made the status is 125, and one line says why and where to read on."""
    python = shell.argv()[0]
    done = shell.run("--", "true", before=[python, str(REFUSE), "--"])
    assert done.returncode == 125
    assert done.stderr.startswith("poor-container: mountns does not work here: ")
    assert "seccomp filter refuses namespaces" in done.stderr
    assert "seccomp=unconfined" in done.stderr
    assert done.stderr.count("\n") == 1
