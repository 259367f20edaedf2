"""Letting others enter containers, from the process that made them: names, descriptions, changes of mind, failures."""

import contextlib
import os
import select
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from descriptors import descriptor_count

from pytest_poorcontainer import Container, PoorContainerError, machine
from pytest_poorcontainer.container import keep, runtime_dir
from pytest_poorcontainer.container.keep import publish
from pytest_poorcontainer.container.kept import choose, end, enter, kept, survey
from pytest_poorcontainer.lab.client import Lab

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path):
    """Return the directory of the sockets; nothing is published when the test is over. The lab is new."""
    Lab.close_current()
    monkeypatch.setenv(runtime_dir.ENVIRONMENT, str(tmp_path / "r"))
    yield tmp_path / "r"
    publish([])
    assert not (tmp_path / "r").exists()


@pytest.fixture
def three():
    """Return two containers of one name and one of another."""
    with Container("a") as first, Container("a") as second, Container("b") as third:
        yield first, second, third


def names():
    """Return what others find."""
    return [one.name for one in kept()]


def test_a_name_is_one_containers_for_good(three):
    """Host name and lab, with a number where there are two: the same at every call, in whatever order."""
    lab = Lab.current().pid
    first, second, third = three
    assert publish(three) == {first: f"a-{lab}", second: f"a-{lab}-2", third: f"b-{lab}"}
    assert publish([third, second]) == {third: f"b-{lab}", second: f"a-{lab}-2"}
    assert names() == [f"a-{lab}-2", f"b-{lab}"]
    publish([])
    assert publish([first, first]) == {first: f"a-{lab}"}
    assert names() == [f"a-{lab}"]


def test_a_later_list_replaces_an_earlier(place, three):
    """What is left out of the list cannot be entered any more, though it lives; an empty list removes the file."""
    publish(three)
    place_of_third = kept()[2]
    publish(three[:2])
    with pytest.raises(PoorContainerError, match="has ended"):
        enter(place_of_third, ["true"])
    assert three[2].run(["true"]).returncode == 0
    assert [stat.S_ISSOCK(path.stat().st_mode) for path in place.iterdir()] == [True]
    assert publish([]) == {}
    assert not place.exists()
    assert survey() == ([], [])


def test_what_is_told_about_a_container(three):
    """What describe() says is carried along, and cannot pass for what is known."""
    told = {
        "test": "test_it.py::test_\u00e9",
        "created": 5.0,
        "peer": "b",
        "more": {"x": [1]},
        "name": "no",
        "path": Path("/x"),
    }
    publish(three[:1], describe=lambda container: {**told, "host": container.name * 2})
    (one,) = kept()
    assert (one.test, one.created, one.peer, one.host) == (told["test"], 5.0, "b", "a")
    assert one.name == f"a-{Lab.current().pid}"
    assert one.level == "namespaces"
    assert not one.detached
    assert one.as_json()["details"] == {"more": {"x": [1]}, "path": "/x"}


def test_closed_and_dead_containers_are_passed_over(three):
    """Who is closed, or was killed, cannot be published; who ends later is no longer listed."""
    first, second, third = three
    second.close()
    os.kill(third.pid, signal.SIGKILL)
    select.select([third._handle.pidfd], [], [], 60)  # until the kernel has come to kill it
    assert list(publish(three)) == [first]
    first.close()
    assert names() == []


def test_ended_by_a_visitor(three):
    """A container that a visitor has ended says so to its owner, and the others live on."""
    publish(three)
    end([choose("b", kept())])
    with pytest.raises(PoorContainerError, match="has ended although nobody asked it to"):
        three[2].run(["true"])
    three[2].close()
    assert three[0].run(["true"]).returncode == 0
    assert len(publish(three)) == 2


def test_more_containers_than_go_into_a_message(place):
    """Seventy containers are published, found, and replaced by seventy others; each publishing costs no descriptor."""
    with contextlib.ExitStack() as stack:
        many = [stack.enter_context(Container("x")) for _ in range(70)]
        assert len(publish(many)) == 70
        assert len(names()) == 70
        before = descriptor_count()
        for _ in range(10):
            publish(many[:2])
            publish(many)
        assert descriptor_count() == before
        assert names() == list(publish(many).values())
        assert len(list(place.iterdir())) == 1


def test_commands_of_owner_and_visitor_do_not_mix(three):
    """Owner and visitors start commands over one line at the same time; each gets the end of its own."""
    publish(three)
    (there, *_rest) = kept()
    wrong = []

    def visit(offset):
        for number in range(25):
            process = enter(there, ["sh", "-c", f"exit {offset + number}"])
            if process.wait(20) != offset + number:
                wrong.append((offset, number, process.returncode))
            process.close()

    visitors = [threading.Thread(target=visit, args=(offset,)) for offset in (50, 100)]
    for visitor in visitors:
        visitor.start()
    own = [three[0].run(["sh", "-c", f"exit {number}"]).returncode for number in range(25)]
    for visitor in visitors:
        visitor.join(60)
    assert own == list(range(25))
    assert wrong == []


def test_visitors_while_the_list_is_replaced(three):
    """Whoever asks at the moment of a change gets the old answer or the new one, never an error."""
    publish(three)
    stop = threading.Event()
    seen, troubles = set(), []

    def look():
        while not stop.is_set():
            found, silent = survey()
            seen.add(len(found))
            troubles.extend(silent)

    looking = threading.Thread(target=look)
    looking.start()
    for _ in range(100):
        publish(three)
    stop.set()
    looking.join(30)
    assert troubles == []
    assert seen == {3}


def test_a_killed_lab_is_no_lasting_trouble(place, three):
    """After the lab was killed there is nothing to publish, its file goes, and a new lab is published as ever."""
    publish(three)
    old = Lab.current().pid
    os.kill(old, signal.SIGKILL)
    with contextlib.suppress(PoorContainerError):
        three[0].run(["true"])
    assert publish(three) == {}
    assert not place.exists()
    with Container("c") as fresh:
        assert publish([fresh]) == {fresh: f"c-{Lab.current().pid}"}
        assert Lab.current().pid != old
        assert names() == [f"c-{Lab.current().pid}"]


def test_a_long_path_is_no_trouble(monkeypatch, tmp_path, three):
    """The directory may have a longer path than a socket's address can hold."""
    long = tmp_path / ("x" * 120) / "r"
    long.parent.mkdir()
    monkeypatch.setenv(runtime_dir.ENVIRONMENT, str(long))
    publish(three)
    assert len(names()) == 3
    assert enter(kept()[0], ["true"]).wait(20) == 0
    publish([])
    assert not long.exists()


def test_a_file_that_another_lab_uses_is_left_to_it(place, three):
    """In another pid namespace that shares the directory a lab may have the same pid: both are found."""
    os.close(runtime_dir.opened())
    taken = place / f"{Lab.current().pid}.sock"
    listener = keep.protocol.Socket(keep.AF_UNIX, keep.SOCK_SEQPACKET)
    listener.bind(str(taken))
    listener.listen()
    publish(three)
    assert sorted(path.name for path in place.iterdir()) == [f"{Lab.current().pid}-2.sock", taken.name]
    listener.close()
    assert len(names()) == 3
    assert not taken.exists()


def test_a_directory_that_is_not_ours_alone_is_refused(place, three):
    """Nothing is published where others could reach it, and the containers are none the worse."""
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(PoorContainerError, match="its mode 0777 lets others in; chmod 0700"):
        publish(three)
    assert three[0].run(["true"]).returncode == 0
    place.rmdir()
    assert len(publish(three)) == 3


def run(code, **options):
    """Run the code in a Python of its own; return what it printed."""
    prelude = "from pytest_poorcontainer import *\nfrom pytest_poorcontainer.container.keep import publish\n"
    argv = [sys.executable, "-W", "error", "-c", prelude + code]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, **options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_detaching_leaves_a_process_that_goes_on(place):
    """Who has detached is none the worse: the old objects say that they are closed; new containers get a new lab."""
    out = run("""
from pytest_poorcontainer.lab.client import Lab
a, b, c = Container("a"), Container("b"), Container("c")
process = a.popen(["sleep", "4320"], stdout=-3, stderr=-3)
old = Lab.current().pid
print(*publish([a, b], detach=True).values())
try:
    a.run(["true"])
except PoorContainerError as error:
    print(error)
a.close(), c.close()
del a, b, c, process
print(Container("d").run(["hostname"], capture_output=True, text=True).stdout.strip(), Lab.current().pid != old)
Lab.close_current()
""")
    first, error, fresh = out.splitlines()
    assert first.split() == names()
    assert error == "container a has ended with its lab, which was closed"
    assert fresh == "d True"
    process = enter(kept()[0], ["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"], stdout=-1)
    assert b"sleep 4320" in process.communicate(timeout=20)[0]
    end(kept())
    assert survey() == ([], [])
    assert not place.exists()


def test_a_forked_child_takes_nothing_away(place):
    """A child that was forked after publishing, and ends as Python does, leaves the file to its parent."""
    out = run("""
import os, sys
a = Container("a")
publish([a])
child = os.fork()
if child == 0:
    publish([])
    sys.exit(0)
os.waitpid(child, 0)
from pytest_poorcontainer.container.kept import kept
print(len(kept()))
""")
    assert out == "1\n"
    assert not place.exists()
