"""``poor-container up``: a network without tests, entered from another shell, with a tidy end; as root and rootless."""

import contextlib
import shutil
import signal
import subprocess
import uuid
from pathlib import Path

import pytest
from keeping import Keeping, lives
from leftovers import mounts

from pytest_poorcontainer import eventually

TOPOLOGIES = Path(__file__).parents[1] / "unit" / "topologies"


@pytest.fixture
def keeping(user):
    """Return a user with a runtime directory of its own."""
    with contextlib.closing(Keeping(*user)) as made:
        yield made


@pytest.fixture
def file(keeping):
    """A topology that every user can read."""
    place = keeping.directory / "good.toml"
    shutil.copy(TOPOLOGIES / "good.toml", place)
    place.chmod(0o644)
    keeping.directory.chmod(0o755)
    return place


def test_a_network_stands_until_it_is_told_to_end(keeping, file):
    """It is shown, its hosts can be entered and reach each other by name; a signal ends it with all that runs in it."""
    before = mounts()
    process = keeping.start("up", str(file), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        lines = []
        while not lines or lines[-1] != "Ctrl-C ends it.\n":
            lines.append(process.stdout.readline())
            assert lines[-1], process.stderr.read()
        assert lines[0] == "[left] 192.168.1.0/24\n"
        listed = {one["host"]: one for one in keeping.listed()}
        assert set(listed) == {"a", "b", "n1", "n2", "r1", "r2", "server"}
        assert f"poor-container enter {listed['a']['name']}\n" in lines
        script = "import socket; socket.create_connection(('server', 80), 5)"
        done = keeping.run("enter", "a-", "--", keeping.python, "-c", script)
        assert (done.returncode, done.stderr) == (0, "")
        assert [service["state"] for service in listed["server"]["services"]] == ["ready"]
        lab = int(listed["a"]["name"].rpartition("-")[2])
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert not lives(lab)
    assert keeping.run("ps").stdout == "No containers are kept.\n"
    assert not keeping.left()
    assert not mounts() - before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_wait_for_a_service_too(keeping, file, number):
    """Status 0 and no word of a service that was not ready in time; what was built by then is gone."""
    word = uuid.uuid4().hex
    file.write_text(f'[hosts.a]\nstart = [{{ argv = ["sh", "-c", "sleep 600; : {word}"], ready = 80 }}]\n')
    process = keeping.start("up", str(file), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    eventually(lambda: bool(with_word(word)), timeout=30)
    process.send_signal(number)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0
    eventually(lambda: not with_word(word), timeout=5)
    assert not keeping.left()


def with_word(word):
    """Return the processes that have a word in their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if word.encode() in path.read_bytes():
                found.append(path.parent.name)
    return found


def test_a_killed_command_leaves_nothing(keeping, file):
    """Its network ends with it: no host is listed, no lab lives, no mount is there."""
    before = mounts()
    process = keeping.start("up", str(file), stdout=subprocess.PIPE)
    for line in process.stdout:
        if line == "Ctrl-C ends it.\n":
            break
    lab = int(keeping.names()[0].rpartition("-")[2])
    assert lives(lab)
    process.kill()
    process.communicate(timeout=30)
    eventually(lambda: not lives(lab), timeout=10)
    assert keeping.run("ps").stdout == "No containers are kept.\n"
    assert not keeping.left()
    assert not mounts() - before


def test_a_network_may_be_left_alone(keeping, file):
    """Detached it lives on without its command, until its hosts are ended."""
    done = keeping.run("up", "--detach", "--draw", "svg", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("<svg ")
    keeping.labs.append(int(keeping.listed()[0]["name"].rpartition("-")[2]))
    assert len(keeping.names()) == 7
    assert len(keeping.run("rm", "--all").stdout.splitlines()) == 7
    assert not keeping.left()


def test_a_file_with_a_mistake_builds_nothing(keeping, file):
    """The message has file and line, the status is 2, and nothing is left; nor for a file that is not there."""
    file.write_text('[switches.s]\nhosts = ["a"]\n[[links]]\nends = ["a", "s"]\n[[links]]\nends = ["b", "s"]\n')
    done = keeping.run("up", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (f"poor-container: {file}:6: links[1].ends: there is no host, router or switch 'b'\n")
    done = keeping.run("up", str(file.with_name("none.toml")))
    assert (done.returncode, done.stderr.splitlines()[0][:27]) == (2, "poor-container: cannot read")
    assert not keeping.left()


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ('argv = ["sh", "-c", "echo no disk; exit 3"], ready = 80', "service sh exited 3 while waiting for tcp:80"),
        ('argv = ["no-such-program"]', "cannot run 'no-such-program': No such file or directory"),
        ('argv = ["/etc"]', "cannot run '/etc': Permission denied"),
        ('argv = ["sleep", "9"], user = "nobody-knows"', "cannot find the user nobody-knows: ENOENT"),
    ],
    ids=["exits", "missing", "no program", "no user"],
)
def test_a_service_that_does_not_start_is_told_with_file_and_line(keeping, file, start, message):
    """Status 2, the end of its log, no traceback, and the network that was there by then is gone."""
    file.write_text(f'[switches.s]\nhosts = ["a"]\n[hosts.b]\nswitch = "s"\nstart = [{{ {start} }}]\n')
    before = mounts()
    done = keeping.run("up", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"poor-container: {file}:5: hosts.b.start[0]: {message}")
    assert ("\n  | no disk\n" in done.stderr) == ("no disk" in start)
    assert "Traceback" not in done.stderr
    assert not keeping.left()
    assert not mounts() - before


def test_a_setting_that_the_kernel_refuses_is_told_with_its_file(keeping, file):
    """Which file it stands in is said, and nothing is left."""
    file.write_text('[hosts.b]\nsysctls = { "net.ipv4.no_such" = 1 }\n')
    done = keeping.run("up", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"poor-container: {file}:1: cannot set ipv4/no_such=1: ENOENT")
    assert not keeping.left()
