"""Containers that outlive their pytest: who finds them, enters them and ends them, and that nothing is left then."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from keeping import Keeping, commands, lives, seconds
from leftovers import mounts

CONNECT = "import socket,sys; print(socket.create_connection((sys.argv[1], 80), 5).recv(9).decode())"


@pytest.fixture
def keeping(user):
    """Return a user who keeps containers; what is left of them at the end is ended."""
    with contextlib.closing(Keeping(*user)) as made:
        yield made


def test_kept_containers_outlive_their_process_and_end_when_told(keeping):
    """They live on with processes and link, the others end; rm ends one, rm --all the rest, and nothing is left."""
    before = mounts()
    said = keeping.hold("detach")
    other, *servers = said["pids"]
    assert not lives(other)
    assert all(map(lives, servers))
    assert keeping.names() == said["names"] == [f"primary-{said['lab']}", f"replica-{said['lab']}"]
    done = keeping.run("enter", "primary", "--", keeping.python, "-c", CONNECT, "replica")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")

    assert keeping.run("rm", "primary").stdout == f"primary-{said['lab']}\n"
    assert keeping.names() == said["names"][1:]
    assert [lives(pid) for pid in servers] == [False, True]
    done = keeping.run("enter", "replica", "--", keeping.python, "-c", CONNECT, "127.0.0.1")
    assert (done.returncode, done.stdout) == (0, "hello\n")

    done = keeping.run("rm", "--all")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"replica-{said['lab']}\n", "")
    assert not any(map(lives, [*servers, said["lab"]]))
    assert not keeping.runtime.exists()
    assert not mounts() - before
    assert keeping.run("ps").stdout == "No containers are kept.\n"
    done = keeping.run("rm", "--all")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_ps_says_what_was_published(keeping):
    """The table has a line for each container; --json has all of it, with what the publisher added."""
    said = keeping.hold("detach")
    title, first, second = keeping.run("ps").stdout.splitlines()
    assert title.split() == ["NAME", "TEST", "AGE", "ADDRESSES", "SERVICES", "LAB"]
    assert first.split()[:2] == [said["names"][0], "test_it.py::test_it"]
    assert said["ips"][1] in second.split()
    assert second.split()[-1] == str(said["lab"])
    one = keeping.listed()[0]
    assert list(one) == [
        "name",
        "host",
        "lab",
        "id",
        "test",
        "created",
        "addresses",
        "services",
        "level",
        "peer",
        "detached",
        "socket",
        "details",
    ]
    assert one["detached"] is True
    assert one["details"] == {"port": 80}
    assert abs(time.time() - one["created"]) < 60
    assert Path(one["socket"]).parent == keeping.runtime
    assert keeping.runtime.stat().st_mode & 0o777 == 0o700


def test_what_is_published_ends_with_its_process(keeping):
    """While its process holds it a container can be entered; then it is dead, and its socket file gone."""
    said = keeping.hold()
    assert [(one["name"], one["detached"], one["peer"]) for one in keeping.listed()] == [
        (name, False, "x") for name in said["names"]
    ]
    assert keeping.run("enter", "primary", "--", "hostname").stdout == "primary\n"
    keeping.held[0].communicate(timeout=20)
    assert keeping.held[0].returncode == 0
    assert not keeping.runtime.exists()
    assert not any(map(lives, [*said["pids"], said["lab"]]))
    assert keeping.names() == []


def test_rm_ends_what_a_living_process_has_published(keeping):
    """A container under somebody's feet can be ended too; the other one stays, and its process ends as ever."""
    said = keeping.hold()
    assert keeping.run("rm", said["names"][0]).returncode == 0
    assert [lives(pid) for pid in said["pids"]] == [True, False, True]
    assert keeping.names() == said["names"][1:]
    assert keeping.run("rm", "--all").returncode == 0
    assert keeping.names() == []
    assert lives(said["lab"])
    keeping.held[0].communicate(timeout=20)
    assert keeping.held[0].returncode == 0
    assert not keeping.runtime.exists()


def test_the_socket_of_a_killed_process_is_removed_by_whoever_looks(keeping):
    """SIGKILL of a process that had published leaves one dead socket file, until the next ps."""
    said = keeping.hold()
    keeping.held[0].kill()
    keeping.held[0].wait()
    assert [path.name for path in keeping.runtime.iterdir()] == [f"{said['lab']}.sock"]
    assert keeping.names() == []
    assert not keeping.runtime.exists()
    assert not any(map(lives, [*said["pids"], said["lab"]]))


def test_several_labs_are_one_list(keeping):
    """Two processes at once have different names for hosts of one name, and rm --all ends both their labs."""
    first, second, held = keeping.hold("detach", 2), keeping.hold("detach"), keeping.hold()
    lab = first["lab"]
    assert first["names"] == [f"primary-{lab}", f"replica-{lab}", f"primary-{lab}-2", f"replica-{lab}-2"]
    everyone = sorted((said["lab"], said["names"]) for said in (first, second, held))
    assert keeping.names() == [name for _, names in everyone for name in names]
    done = keeping.run("rm", "replica")
    assert done.returncode == 2
    assert done.stderr.startswith("poor-container: 'replica' is not one container but 4: ")
    assert done.stderr.endswith("; say more of the name\n")
    assert len(keeping.names()) == 8
    assert len(keeping.run("rm", "--all").stdout.splitlines()) == 8
    assert [lives(said["lab"]) for said in (first, second, held)] == [False, False, True]


def test_a_wrong_name_is_answered_with_those_that_are_there(keeping):
    """Both enter and rm name what there is; rm ends nothing when one of its names is wrong."""
    assert keeping.run("enter", "primary").stderr == "poor-container: there is no container 'primary'; none is kept\n"
    said = keeping.hold("detach")
    there = f"poor-container: there is no container 'nobody'; there are: {', '.join(said['names'])}\n"
    done = keeping.run("enter", "nobody", "--", "true")
    assert (done.returncode, done.stderr) == (125, there)
    done = keeping.run("rm", "primary", "nobody")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", there)
    assert keeping.names() == said["names"]


def test_a_lab_that_does_not_answer_is_named(keeping):
    """A stopped lab is named by ps and rm within seconds, what can be asked is still told, and it can be ended."""
    stopped, other = keeping.hold("detach"), keeping.hold("detach")
    os.kill(stopped["lab"], signal.SIGSTOP)
    done = keeping.run("ps")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"{stopped['lab']}.sock: it does not answer; is it stopped (SIGSTOP)" in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == other["names"]
    done = keeping.run("rm", "--all")
    assert done.returncode == 2
    assert done.stdout.split() == other["names"]
    assert f"{stopped['lab']}.sock: it does not answer" in done.stderr
    os.kill(stopped["lab"], signal.SIGCONT)
    assert keeping.names() == stopped["names"]
    assert keeping.run("rm", "--all").returncode == 0
    assert not lives(stopped["lab"])


def test_a_silent_visitor_is_no_harm(keeping):
    """Who connects and says nothing, or nonsense, is dropped; others are served meanwhile or right after."""
    said = keeping.hold("detach")
    path = str(keeping.runtime / f"{said['lab']}.sock")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as mute,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as mad,
    ):
        mute.connect(path)
        mad.connect(path)
        mad.sendall(b"\xff" * 100)
        assert keeping.names() == said["names"]
        mad.settimeout(10)
        mad.recv(1000)


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)]
)
def test_enter_has_the_commands_exit_status_and_the_callers_streams(keeping, script, status):
    """In pipes the streams are the caller's, and the status the command's, or 128 + N."""
    keeping.hold("detach")
    data = "line\n" * 50_000
    done = keeping.run("enter", "primary", "--", "sh", "-c", f"cat; echo err >&2; {script}", input=data)
    assert (done.returncode, done.stdout, done.stderr) == (status, data, "err\n")


def test_enter_runs_a_shell_by_default_in_a_sane_environment(keeping):
    """Without a command it is the user's shell, which starts at home with the container's PATH and our TERM."""
    keeping.hold("detach")
    script = "echo $HOME $PWD $TERM $LANG; echo ${0##*/}; hostname; exit 5"
    done = keeping.run("enter", "replica", input=script)
    places, shell, host = done.stdout.splitlines()
    assert places == "/root /root vt100 C.UTF-8"
    assert shell in ("sh", "bash", "dash", "zsh", "ash")
    assert host == "replica"
    assert done.returncode == 5
    done = keeping.run("enter", "--user", "nobody", "replica", input="id -u; echo ${0##*/}")
    assert done.stdout == "65534\nsh\n"


def test_what_enter_cannot_run_is_told_in_one_line(keeping):
    """A missing command answers 127, what is no program 126, a user that is not there 125; one line each."""
    keeping.hold("detach")
    for arguments, status, words in (
        (["primary", "--", "no-such-command"], 127, "cannot run no-such-command: there is no such command"),
        (["primary", "/etc/passwd"], 126, "cannot run /etc/passwd: Permission denied"),
        (["--user", "no-such-user", "primary", "--", "true"], 125, "cannot find the user no-such-user"),
    ):
        done = keeping.run("enter", *arguments)
        assert (done.returncode, done.stderr.count("\n")) == (status, 1)
        assert done.stderr.startswith(f"poor-container: {words}")


def entered(keeping, script):
    """Start a shell script inside, and return its process when it has said that it is ready."""
    process = keeping.start("enter", "primary", "--", "sh", "-c", script, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_signal_reaches_what_was_entered_and_the_container_lives_on(keeping):
    """SIGTERM is passed on; what ignores it is killed after two seconds, with all that it has started."""
    nap, nap2, nap3 = seconds(), seconds(), seconds()
    said = keeping.hold("detach")
    process = entered(keeping, f"echo ready; exec sleep {nap}")
    process.terminate()
    assert process.wait(10) == 143
    process.stdout.close()
    process = entered(keeping, f'trap "" TERM; setsid sleep {nap2} & echo ready; sleep {nap3}; sleep {nap3}')
    start = time.monotonic()
    process.terminate()
    assert process.wait(20) == 143
    assert time.monotonic() - start > 1.9
    process.stdout.close()
    assert commands(nap, nap2, nap3) == set()
    assert keeping.names() == said["names"]


def test_what_was_left_in_the_background_goes_on(keeping):
    """What a command leaves in the background is the container's, and ends with it."""
    nap = seconds()
    keeping.hold("detach")
    assert keeping.run("enter", "primary", "--", "sh", "-c", f"sleep {nap} >/dev/null 2>&1 & exit 0").returncode == 0
    assert commands(nap) == {nap}
    assert keeping.run("rm", "--all").returncode == 0
    assert commands(nap) == set()


def test_rm_ends_what_was_entered(keeping):
    """Whoever is inside when the container is ended is told so in one line."""
    nap = seconds()
    said = keeping.hold("detach")
    process = keeping.start(
        "enter", "primary", "--", "sh", "-c", f"echo ready; sleep {nap}", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == "ready\n"
    assert keeping.run("rm", "--all").returncode == 0
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (125, "")
    assert err == f"poor-container: cannot wait for sh; {said['names'][0]} was ended meanwhile\n"
