"""Terminals of a container's, and descriptors that its commands inherit: ``popen(tty=)``, ``shell()``, ``pass_fds``."""

import os
import signal
import socket
import subprocess
import sys

import pytest
from descriptors import descriptor_count
from shells import Shell
from test_keep_terminal import CONTROL_C, CONTROL_D, Person

from pytest_poorcontainer import Container, UsageError, machine, native

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["chroot_env"].works, reason=machine.fixtures_ready()["chroot_env"].reason
)


@pytest.fixture
def box():
    """A container on the machine's root."""
    with Container("box") as container:
        yield container


def test_a_command_has_a_terminal_of_the_container_s(box):
    """It is its controlling one, has a name in there, a size and a kind, and what is typed is echoed."""
    script = "tty; stty size; echo $TERM; read line; echo got $line; test -t 0 && test -t 1 && test -t 2 && : >/dev/tty"
    with box.popen(["/bin/sh", "-c", script], tty=(100, 30), text=True) as process:
        process.stdin.write("hello\n")
        process.stdin.flush()
        seen = process.stdout.read()
    assert process.returncode == 0
    assert sorted(seen.split("\n")) == sorted(["/dev/pts/0", "30 100", "xterm", "hello", "got hello", ""])


def test_what_is_typed_has_a_meaning(box):
    """Ctrl-C is SIGINT for the foreground, Ctrl-D the end of the input; communicate() types it."""
    with box.popen(["cat"], tty=True) as process:
        process.stdin.write(CONTROL_C.encode())
        process.stdin.flush()
        assert process.wait() == -signal.SIGINT
    with box.popen(["cat"], tty=True, text=True) as process:
        out, err = process.communicate("a line\n")
    assert (process.returncode, out, err) == (0, "a line\na line\n", None)
    with box.popen(["wc", "-c"], tty=True, text=True) as process:
        assert process.communicate("no end of line")[0].endswith("14\n")


def test_its_window_can_be_resized(box):
    """The foreground gets SIGWINCH; what has no terminal cannot be resized, and odd sizes are refused."""
    script = "import os, signal\nwindow = {signal.SIGWINCH}\nsignal.pthread_sigmask(signal.SIG_BLOCK, window)\n"
    script += "print('go', flush=True)\nsignal.sigwait(window)\nprint(*os.get_terminal_size())"
    with box.popen(["python3", "-c", script], tty=True, text=True) as process:
        assert process.stdout.readline() == "go\n"
        process.resize(132, 43)
        assert process.stdout.readline() == "132 43\n"
    with box.popen(["true"]) as process, pytest.raises(UsageError, match="no terminal to resize"):
        process.resize(80, 24)
    for size in ((80,), (0, 24), (80, 65536), "80x24", (80, True)):
        with pytest.raises(UsageError, match="the size of a terminal is"):
            box.popen(["true"], tty=size)
    with pytest.raises(ValueError, match="may not be used with tty"):
        box.popen(["true"], tty=True, stdout=subprocess.PIPE)


def test_a_terminal_belongs_to_its_user(box):
    """``user=`` may write to it, and nobody else's is opened."""
    with box.popen(
        ["/bin/sh", "-c", "stat -c %U $(tty) && echo x >$(tty)"], tty=True, text=True, user="nobody"
    ) as process:
        assert process.stdout.read() == "nobody\nx\n"
    assert process.returncode == 0


def test_many_terminals_leave_nothing(box):
    """Sixty commands, all killed, leave neither terminals nor descriptors."""
    for turn in range(60):
        if turn == 1:
            count = descriptor_count()
        with box.popen(["cat"], tty=True) as process:
            process.kill()
    assert descriptor_count() == count
    assert [name for name in box.glob("/dev/pts/*") if name != "/dev/pts/ptmx"] == []


def test_a_terminal_multiplexer_that_is_not_one_is_refused(box):
    """Who mounts something over /dev/pts gets no descriptor of ours to write to."""
    box.mounts.tmpfs("/dev/pts")
    box.run(["/bin/sh", "-c", "echo mine >/dev/pts/ptmx"])
    with pytest.raises(Exception, match="no terminal multiplexer"):
        box.popen(["true"], tty=True)


def test_a_descriptor_under_its_number_and_under_another(box):
    """A sequence keeps the numbers, a mapping chooses them; nothing else is open, and ours stays open."""
    reader, writer = os.pipe()
    script = "echo one >&{}; ls /proc/self/fd | tr '\\n' ' '"
    done = box.run(["bash", "-c", script.format(writer)], pass_fds=(writer,), capture_output=True, text=True)
    assert os.read(reader, 100) == b"one\n"
    assert set(done.stdout.split()) <= {"0", "1", "2", "3", str(writer)}
    with socket.create_server(("127.0.0.1", 0)) as server:
        passed = {9: server, 3: writer, 700: reader}
        names = "print(*sorted((int(n) for n in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + n))))"
        done = box.run(
            ["python3", "-c", f"import os; {names}"], pass_fds=passed, capture_output=True, text=True, check=True
        )
        assert done.stdout == "0 1 2 3 9 700\n"
        assert server.fileno() >= 0
    os.close(reader)
    os.close(writer)


def test_a_service_inherits_its_listening_socket(box):
    """As socket activation does it: the socket is the test's network, the process the container's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        script = (
            "import os, socket\nassert os.environ['LISTEN_FDS'] == '1'\n"
            "s = socket.socket(fileno=3)\nc, _ = s.accept()\nc.send(os.uname().nodename.encode())\nc.close()"
        )
        service = box.start(["python3", "-c", script], pass_fds={3: server}, env={"LISTEN_FDS": "1"})
        with socket.create_connection(server.getsockname(), timeout=10) as client:
            assert client.recv(100) == b"box"
        service.stop()


@pytest.mark.parametrize(
    ("passed", "error", "message"),
    [
        ((1,), UsageError, "a number from 3 to 65535, not 1; 0, 1 and 2 are"),
        ({2: 0}, UsageError, "not 2"),
        ((True,), UsageError, "not True"),
        ("3", UsageError, "a sequence of descriptors"),
        ({70000: 0}, UsageError, "not 70000"),
        ((99999,), UsageError, "99999"),
        ((4000,), OSError, "4000, which is not open"),
        (dict.fromkeys(range(3, 80), 0), UsageError, "77 descriptors; at most 59"),
    ],
)
def test_descriptors_that_cannot_be_passed(box, passed, error, message):
    """The error names the number and what it may be; nothing was started."""
    with pytest.raises(error, match=message):
        box.run(["true"], pass_fds=passed)


SHELL = """
import sys
from pytest_poorcontainer import Container
with Container("box") as box:
    box.write("/etc/mine", "it is the container's")
    status = box.shell(ARGV)
    print("status", status, flush=True)
    box.run(["true"], check=True)
"""


def person(argv):
    """Somebody at a terminal where a Python runs that calls ``shell()``."""
    at = Shell(sys.executable, str(native.directory()), {}, PATH=os.environ["PATH"])
    return Person(at, sys.executable, "-c", SHELL.replace("ARGV", repr(argv)))


def test_a_shell_in_the_person_s_terminal():
    """A shell of the container's with the window's size; its status comes back, and the terminal is as it was."""
    somebody = person(None)
    somebody.read(r"box:")
    assert "it is the container's" in somebody.say("cat /etc/mine")
    assert "33 111" in somebody.say("stty size")
    # Said by the command itself, which then has the terminal; what is typed is shown before the shell has it.
    somebody.type("sh -c 'echo be\"\"gun; exec sleep 100'\n")
    somebody.read("begun")
    somebody.type(CONTROL_C)
    assert "=42=" not in somebody.say("hostname")
    somebody.type("exit 7\n")
    assert "status 7" in somebody.read(r"status \d+")
    assert somebody.end() == 0
    assert somebody.is_as_before()


def test_a_command_in_the_person_s_terminal():
    """What the person types is its input; a signal is 128 and its number, as a shell tells it."""
    somebody = person(["/bin/sh", "-c", 'read a; echo "<$a>"; kill -9 $$'])
    somebody.type("typed\n")
    somebody.read("<typed>")
    assert "status 137" in somebody.read(r"status \d+")
    assert somebody.end() == 0
    assert somebody.is_as_before()


def test_the_end_of_input_ends_the_shell():
    """Ctrl-D."""
    somebody = person(None)
    somebody.read(r"box:")
    somebody.type(CONTROL_D)
    somebody.read("status 0")
    assert somebody.end() == 0


def test_without_a_terminal_it_says_so(tmp_path):
    """In CI, and in a worker of pytest-xdist, there is nobody to look around."""
    code = "from pytest_poorcontainer import Container\nwith Container() as box: box.shell()"
    for environment, message in (({}, "needs a terminal"), ({"PYTEST_XDIST_WORKER": "gw0"}, "run the test with -n 0")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTEST_XDIST_WORKER": "", **environment} if environment else _plain(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
        )
        assert done.returncode == 1
        assert "UsageError" in done.stderr
        assert message in done.stderr


def _plain():
    """Return our environment without what pytest-xdist adds."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_XDIST")}
