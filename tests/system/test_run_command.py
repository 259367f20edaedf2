"""``poor-container run``, as a shell sees it: exit statuses, streams, signals, and nothing left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from shells import Shell, python_of_all

REFUSE = Path(__file__).with_name("refuse_namespaces.py")


class Run(Shell):
    """Starts ``poor-container run``."""

    def argv(self, *command):
        """Return the command line."""
        return super().argv("run", *command)


@pytest.fixture
def shell(user):
    """Return a shell of each of them; what it started must have ended by the end of the test."""
    made = Run(*user)
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
        env=shell.environment,
        stdin=subprocess.DEVNULL,
        timeout=30,
        cwd="/",
        check=False,
        **shell.who,
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


SECONDS = 10_000 + os.getpid()
"""What commands of this run sleep, with a digit behind it: those of another run of this suite are not ours."""


def wait_for(process, word):
    """Read the first line that the command prints."""
    assert process.stdout.readline() == f"{word}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_and_all_it_started(shell, number):
    """A signal is passed on; the status is 128 + N; what the command started, also by setsid, is gone."""
    process = shell.start(
        "--", "sh", "-c", f"setsid sleep {SECONDS}1 & echo ready; exec sleep {SECONDS}2", stdout=subprocess.PIPE
    )
    wait_for(process, "ready")
    start = time.monotonic()
    process.send_signal(number)
    assert process.wait(10) == 128 + number
    assert time.monotonic() - start < 1.5
    assert shell.left_for_long(f"sleep\x00{SECONDS}1", f"sleep\x00{SECONDS}2") == []
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
    process = shell.start(
        "--", "sh", "-c", f'trap "" INT; echo ready; sleep {SECONDS}3; sleep {SECONDS}3', stdout=subprocess.PIPE
    )
    wait_for(process, "ready")
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    assert 1.9 < time.monotonic() - start < 5
    assert shell.left_for_long(f"sleep\x00{SECONDS}3") == []
    process.stdout.close()


def test_a_signal_that_the_caller_ignores_stays_ignored(shell):
    """Under nohup SIGHUP ends nothing."""
    nohup = [sys.executable if not shell.who else python_of_all(), "-c"]
    nohup += ["import os, signal, sys; signal.signal(1, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"]
    process = shell.start("--", "sh", "-c", "echo ready; sleep 0.5; exit 3", before=nohup, stdout=subprocess.PIPE)
    wait_for(process, "ready")
    process.send_signal(signal.SIGHUP)
    assert process.wait(10) == 3
    process.stdout.close()


def test_nothing_is_left_when_we_are_killed_ourselves(shell):
    """SIGKILL of poor-container, at any moment, ends the command and all that it started."""
    for delay in (0.05, 0.1, 0.15, 0.2, 0.3):
        process = shell.start("--", "sh", "-c", f"setsid sleep {SECONDS}4 & sleep {SECONDS}5")
        time.sleep(delay)
        process.kill()
        process.wait()
        assert shell.left_for_long(f"sleep\x00{SECONDS}4", f"sleep\x00{SECONDS}5") == []


def test_refused_namespaces_are_one_clear_line(shell):
    """Where no container can be made the status is 125, and one line says why and where to read on."""
    python = shell.argv()[0]
    done = shell.run("--", "true", before=[python, str(REFUSE), "--"])
    assert done.returncode == 125
    assert done.stderr.startswith("poor-container: mountns does not work here: ")
    assert "seccomp filter refuses namespaces" in done.stderr
    assert "seccomp=unconfined" in done.stderr
    assert done.stderr.count("\n") == 1


MOUNTED = """
mount -t tmpfs s /srv && mkdir /srv/open /srv/open/m && mkdir -m 700 /srv/secret && mkdir /srv/secret/m
mount -t tmpfs v /var && mkdir -p /var/lib/docker/m
for place in /srv/open/m /srv/secret/m /var/lib/docker/m; do mount -t tmpfs m $place && touch $place/there; done
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount something on the machine for another user")
def test_mounts_of_others_are_left_out(user):
    """Those that the user cannot reach, and an engine's, which could not be removed while a lab holds them."""
    python, directory, who = user
    become = f"setpriv --reuid={who['user']} --regid={who['group']} --clear-groups" if who else ""
    shell = Run(python, directory, {})
    begin = ("unshare", "-m", "sh", "-ec", f'{MOUNTED}exec {become} "$@"', "sh")
    done = shell.run("--", "ls", "/srv/open/m", "/var/lib/docker/m", before=begin)
    assert (done.returncode, done.stdout, done.stderr) == (0, "/srv/open/m:\nthere\n\n/var/lib/docker/m:\n", "")
