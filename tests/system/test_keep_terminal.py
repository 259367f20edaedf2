"""``poor-container enter`` and ``run`` where a person sits: job control, window sizes, Ctrl-C, the terminal after it.

Each test is the person: it has the other side of a real pseudo-terminal.
"""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest
from keeping import Keeping, commands, seconds
from shells import Shell

CONTROL_C, CONTROL_D, CONTROL_Z = "\x03", "\x04", "\x1a"
TAKE = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
PATIENCE = 20
LONGEST = 2000  # letters of what a pattern may fit


class Person:
    """Somebody at a terminal in which a command runs, as a login shell does: session leader in the foreground."""

    def __init__(self, shell, *argv, rows=33, columns=111, stdout=None):
        self.master, self.slave = pty.openpty()
        if shell.who:
            os.chown(os.ttyname(self.slave), shell.who["user"], shell.who["group"])
        self.resize(rows, columns)
        self.modes = termios.tcgetattr(self.slave)
        self.seen = ""
        self.process = subprocess.Popen(
            [shell.python, "-c", TAKE, *argv],
            cwd="/",
            env=shell.environment,
            stdin=self.slave,
            stdout=self.slave if stdout is None else stdout,
            stderr=self.slave,
            start_new_session=True,
            **shell.who,
        )

    def resize(self, rows, columns):
        """Pull at the corner of the window."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, text):
        """Press keys."""
        os.write(self.master, text.encode())

    def read(self, pattern):
        """Wait until the pattern is to be seen; return all up to its end, and forget that."""
        deadline = time.monotonic() + PATIENCE
        looked = 0
        while not (found := re.compile(pattern).search(self.seen, looked)):
            ready = select.select([self.master], [], [], max(0, deadline - time.monotonic()))[0]
            assert ready, f"{pattern!r} is not in {self.seen[-2000:]!r}"
            looked = max(0, len(self.seen) - LONGEST)
            self.seen += os.read(self.master, 65536).decode(errors="replace")
        text, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return text

    def say(self, command):
        """Type a command line to a shell; return what is seen up to a last word that only the shell can know."""
        self.type(f"{command}; echo =$((40+2))=\n")
        return self.read(r"=42=\r?\n").rpartition("=42=")[0]

    def end(self):
        """Wait for the end of the command; return its exit status."""
        return self.process.wait(PATIENCE)

    def is_as_before(self):
        """Return whether the terminal has the modes that it had at first."""
        return termios.tcgetattr(self.slave) == self.modes

    def is_raw(self):
        """Wait until it has others."""
        deadline = time.monotonic() + PATIENCE
        while self.is_as_before():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return not termios.tcgetattr(self.slave)[3] & (termios.ISIG | termios.ICANON | termios.ECHO)

    def close(self):
        """Leave."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for fd in (self.master, self.slave):
            with contextlib.suppress(OSError):
                os.close(fd)


@pytest.fixture
def keeping(user):
    """Return a user who keeps a pair."""
    with contextlib.closing(Keeping(*user)) as made:
        made.hold("detach")
        yield made


@pytest.fixture
def at_terminal():
    """Return a function that seats somebody; who leaves when the test is over."""
    people = []

    def seat(*arguments, **options):
        people.append(Person(*arguments, **options))
        return people[-1]

    yield seat
    for person in people:
        person.close()


@pytest.fixture(params=["enter", "run"])
def shell_inside(request, at_terminal, user):
    """Return somebody whose terminal has an interactive shell of a container, entered or made for it."""
    if request.param == "run":
        shell = Shell(*user)
        yield at_terminal(shell, *shell.argv("run", "--", "sh", "-i"))
        return
    with contextlib.closing(Keeping(*user)) as keeping:
        keeping.hold("detach")
        yield at_terminal(keeping, *keeping.argv("enter", "replica", "--", "sh", "-i"))


def test_an_interactive_shell_has_job_control(shell_inside):
    """Ctrl-Z stops the foreground, bg and fg work, Ctrl-C ends it and not the shell, and its status is ours."""
    nap = seconds()
    person = shell_inside
    assert "m" in person.say("echo $-")
    assert person.is_raw()
    person.type(f"sleep {nap}\n")
    wait_for_foreground(nap)
    person.type(CONTROL_Z)
    person.read("Stopped")
    assert f"sleep {nap}" in person.say("bg")
    assert "Running" in person.say("jobs")
    person.type("fg\n")
    person.read(f"sleep {nap}\r\n")
    wait_for_foreground(nap)  # the shell prints that before it gives the terminal away
    person.type(CONTROL_C)
    assert nap not in person.say("jobs")
    assert commands(nap) == set()
    person.type("exit 9\n")
    assert person.end() == 9
    assert person.is_as_before()


def wait_for_foreground(word):
    """Wait until a command with that argument, and no other process, has its terminal (proc_pid_stat(5), tpgid)."""
    deadline = time.monotonic() + PATIENCE
    while not any(has_its_terminal(path) for path in Path("/proc").glob("[0-9]*") if runs_with(path, word)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def runs_with(path, word):
    """Return whether a process has that argument."""
    with contextlib.suppress(OSError):
        return word in (path / "cmdline").read_text(errors="replace").split("\0")
    return False


def has_its_terminal(path):
    """Return whether a process is in the foreground, and runs."""
    with contextlib.suppress(OSError):
        state, _, group, _, _, foreground = (path / "stat").read_text().rpartition(")")[2].split()[:6]
        return group == foreground and state != "T"
    return False


def test_the_window_size_is_followed(shell_inside):
    """The command's terminal has the size of ours from the start, and after a change, of which it is told."""
    person = shell_inside
    assert person.say("stty size").split()[-2:] == ["33", "111"]
    person.say("trap \"echo win''ch\" WINCH")
    person.resize(44, 99)
    deadline = time.monotonic() + PATIENCE
    while (size := person.say("stty size")).split()[-2:] != ["44", "99"]:
        assert time.monotonic() < deadline, size
    person.type(CONTROL_D)
    assert person.end() == 0


def test_large_and_binary_data_pass_unchanged(shell_inside):
    """What is typed ahead and a third of a megabyte of output both arrive whole; a raw terminal passes every byte."""
    person = shell_inside
    out = person.say("seq 1 50000")
    numbers = re.findall(r"^(?:[#$] )?(\d+)\r$", out, re.MULTILINE)  # a late prompt before the first
    assert numbers == [str(number) for number in range(1, 50001)]
    person.type("stty raw -echo; echo rea''dy; head -c 256 | od -An -v -tu1 -w16; stty sane\n")
    person.read("ready")
    os.write(person.master, bytes(range(256)))
    seen = person.read(r"\b255\b")
    assert [int(word) for word in seen.split()] == list(range(256))


def test_the_last_words_of_a_command_are_not_lost(keeping, at_terminal):
    """What a command prints right before its end is printed, also while something it left holds the terminal."""
    nap = seconds()
    for script in ("seq 1 2000; echo last", f"trap '' HUP; sleep {nap} & seq 1 2000; echo last"):
        person = at_terminal(keeping, *keeping.argv("enter", "replica", "--", "sh", "-c", script))
        *out, last = person.read(r"last\r\n").split()
        assert last == "last"
        assert out == [str(number) for number in range(1, 2001)]
        assert person.end() == 0
        assert person.is_as_before()


def test_ctrl_c_goes_to_the_command(keeping, at_terminal):
    """Ctrl-C is the command's, which may do with it what it likes; otherwise it ends, as by SIGINT."""
    nap = seconds()
    script = 'trap "echo caught; exit 4" INT; echo ready; while :; do sleep 0.05; done'
    person = at_terminal(keeping, *keeping.argv("enter", "replica", "--", "sh", "-c", script))
    person.read("ready")
    person.type(CONTROL_C)
    person.read("caught")
    assert person.end() == 4
    person = at_terminal(keeping, *keeping.argv("enter", "replica", "--", "sh", "-c", f"echo ready; exec sleep {nap}"))
    person.read("ready")
    person.type(CONTROL_C)
    assert person.end() == 130
    assert person.is_as_before()


@pytest.mark.parametrize("end", ["SIGTERM", "SIGINT", "the container", "no command"])
def test_the_terminal_is_given_back_however_it_ends(keeping, at_terminal, end):
    """Signals, the container's end and errors leave the terminal with the modes that it had."""
    nap = seconds()
    if end == "no command":
        person = at_terminal(keeping, *keeping.argv("enter", "replica", "--", "no-such-command"))
        person.read("there is no such command")
        assert person.end() == 127
    else:
        person = at_terminal(keeping, *keeping.argv("enter", "replica", "--", "sh", "-c", f"echo ready; sleep {nap}"))
        person.read("ready")
        assert person.is_raw()
        if end == "the container":
            assert keeping.run("rm", "--all").returncode == 0
            assert person.end() == 125
        else:
            person.process.send_signal(signal.Signals[end])
            assert person.end() == 128 + signal.Signals[end]
        assert commands(nap) == set()
    assert person.is_as_before()


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_a_person_who_leaves_ends_what_was_entered(keeping, at_terminal, how):
    """When the window is closed, or we are killed, the command gets the hang-up that every terminal's shell gets."""
    nap = seconds()
    person = at_terminal(keeping, *keeping.argv("enter", "replica", "--", "sh", "-c", f"echo ready; sleep {nap}"))
    person.read("ready")
    if how == "killed":
        person.process.kill()
    else:
        os.close(person.master)
        os.close(person.slave)
    person.end()
    deadline = time.monotonic() + PATIENCE
    while commands(nap):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(keeping.names()) == 2


def test_a_pipe_behind_it_is_left_alone(keeping, at_terminal):
    """With an output that is no terminal the command has none of its own, and the person's stays as it is."""
    nap = seconds()
    reader, writer = os.pipe()
    script = f"test ! -t 0 || test ! -t 1 && echo ready && sleep {nap}"
    person = at_terminal(keeping, *keeping.argv("enter", "replica", "--", "sh", "-c", script), stdout=writer)
    os.close(writer)
    with os.fdopen(reader) as output:
        assert output.readline() == "ready\n"
        assert person.is_as_before()
        person.type(CONTROL_C)
        assert person.end() == 130
        assert output.read() == ""


def test_below_an_interactive_shell(keeping, at_terminal):
    """In a shell's foreground it has the terminal; as a background job it runs without, and is not stopped."""
    line = " ".join(keeping.argv("enter", "replica", "--", "hostname"))
    person = at_terminal(keeping, "/bin/sh", "-i")
    assert "replica\r\n" in person.say(line)
    assert "replica\r\n" in person.say(f"{line} & wait $!")
    assert "replica\r\n" in person.say(line.replace("-- hostname", "-- sh -c 'stty size >/dev/tty && hostname'"))
    person.type("exit\n")
    assert person.end() == 0


def test_stopped_and_continued(keeping, at_terminal):
    """SIGSTOP from outside is survived: when it goes on, the terminal is raw again, whatever was done to it."""
    person = at_terminal(keeping, *keeping.argv("enter", "replica", "--", "sh", "-i"))
    person.say("echo one")
    person.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, person.process.pid, os.WSTOPPED)
    termios.tcsetattr(person.slave, termios.TCSANOW, person.modes)
    person.process.send_signal(signal.SIGCONT)
    assert person.is_raw()
    assert "two" in person.say("echo two")
    person.type("exit\n")
    assert person.end() == 0
    assert person.is_as_before()
