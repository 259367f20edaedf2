"""host.call(): functions of this very file, called in containers on the real lab."""

import asyncio
import contextlib
import functools
import multiprocessing.connection
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from descriptors import descriptor_count, descriptors

from pytest_poorcontainer import Container, LabDied, Network, PoorContainerError, machine

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)
ANSWER = 42


@pytest.fixture(scope="module")
def box():
    """Return one container for all the tests here that leave it alive."""
    with Container("box") as container:
        yield container


class Point:
    """A class of a test module."""

    origin = (0, 0)

    def __init__(self, x):
        self.x = x

    def answer(self):
        """Use a global of this module."""
        return ANSWER + self.x


def add(first, second=10, *rest, scale=1):
    """Add."""
    return (first + second + sum(rest)) * scale


def test_arguments_go_in_and_the_value_comes_back(box):
    """Positional and keyword arguments arrive, and so does what is returned."""
    assert box.call(add, 1) == 11
    assert box.call(add, 1, 2, 3, 4, scale=2) == 20
    assert box.call(dict, function=1, handle=2) == {"function": 1, "handle": 2}
    assert box.call(sorted, [3, 1, 2], reverse=True) == [3, 2, 1]


@pytest.mark.parametrize(
    "value", [None, True, 0, -1.5, "ü\ud800", b"\0", [1, {2: {3}}], Path("/x"), ValueError("v"), int]
)
def test_values_survive_both_ways(box, value):
    """What is given to a function that returns its argument comes back equal."""
    came = box.call(lambda given: given, value)
    assert repr(came) == repr(value)


def test_lambdas_closures_and_partials(box):
    """Functions without a name that can be imported go as they are, with what they refer to."""
    offset = [5]
    assert box.call(lambda x: x + offset[0] + ANSWER, 1) == 48
    assert box.call(functools.partial(add, 1, scale=3), 2) == 9
    assert box.call(Point(1).answer) == 43
    nested = lambda depth: depth if depth > 2 else nested(depth + 1)  # noqa: E731
    assert box.call(nested, 0) == 3
    offset[0] = 6
    assert box.call(lambda: offset) == [6]


def test_a_function_may_return_a_function(box):
    """A closure made in the container works here."""

    def maker(number):
        return lambda x: x * number

    assert box.call(maker, 3)(4) == 12


def test_it_runs_in_the_container(box):
    """The function sees the container's host name, pids, root and network, and changes nothing of the machine's."""
    assert box.call(socket.gethostname) == "box"
    assert box.call(os.getpid) < os.getpid() or box.call(os.getppid) != os.getppid()
    assert box.call(lambda: sorted(name for _, name in socket.if_nameindex())) == ["lo"]
    box.call(lambda: Path("/etc/poor-container-call").write_text("inside"))
    assert box.run(["cat", "/etc/poor-container-call"], capture_output=True, text=True).stdout == "inside"
    assert not Path("/etc/poor-container-call").exists()


def test_it_runs_in_the_hosts_network():
    """A connection that a function makes comes from its host, and finds the other by name."""
    with Network() as network:
        primary, replica = network.pair("primary", "replica")
        with primary.listen((primary.ip, 80)) as server:

            def knock():
                with socket.create_connection(("primary", 80), timeout=5) as line:
                    return line.getsockname()[0]

            assert replica.call(knock) == replica.ip
            accepted, peer = server.accept()
            accepted.close()
            assert peer[0] == replica.ip
        with pytest.raises(ConnectionRefusedError):
            replica.call(lambda: socket.create_connection(("primary", 80), timeout=5))


def test_module_path_and_working_directory_are_ours(box, monkeypatch, tmp_path):
    """sys.path is the same in the container, and so is the working directory where it can be seen."""
    monkeypatch.syspath_prepend(str(tmp_path))
    assert box.call(lambda: sys.path) == [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100
    monkeypatch.chdir("/usr/bin")
    assert box.call(os.getcwd) == "/usr/bin"
    hidden = Path("/tmp", f"poor-container-hidden-{os.getpid()}")
    hidden.mkdir()
    try:
        monkeypatch.chdir(hidden)
        assert box.call(os.getcwd) == box.call(lambda: str(Path.home()))
    finally:
        monkeypatch.undo()
        hidden.rmdir()


def test_the_same_python_answers_again(box):
    """The interpreter stays; what a function leaves in a module is there the next time."""
    pid = box.call(os.getpid)
    box.call(lambda: setattr(sys, "poor_container_left", ANSWER))
    assert box.call(lambda: (os.getpid(), sys.poor_container_left)) == (pid, ANSWER)


def test_globals_are_copies(box):
    """What a function changes in a global of a test module, or in an argument, changes nothing here."""
    given = [1]

    def change():
        global ANSWER  # noqa: PLW0603
        ANSWER = 1
        Point.origin = (1, 1)
        given.append(2)
        return Point(0), given

    point, came = box.call(change)
    assert type(point) is Point
    assert (ANSWER, Point.origin, given, came) == (42, (0, 0), [1], [1, 2])
    assert Point(0).answer.__func__.__globals__ is globals()


def test_a_class_made_inside_can_go_into_another_container(box):
    """Objects of a class that a function has made are understood here, where they came from, and elsewhere."""

    def make():
        class Made:
            number = 42

        return Made()

    made = box.call(make)
    assert made.number == 42
    with Container("other") as other:
        assert [container.call(lambda it: it.number + 1, made) for container in (box, other, box)] == [43] * 3


def test_prints_are_captured_like_local_ones(box, capsys):
    """What a function prints goes to this process's sys.stdout and sys.stderr, in order, also bytes."""

    def talk():
        print("one ü")
        print("two", end="")
        sys.stdout.flush()
        sys.stdout.buffer.write(b"\nthree\n")
        print("complaint", file=sys.stderr)

    print("before")
    box.call(talk)
    print("after")
    assert capsys.readouterr() == ("before\none ü\ntwo\nthree\nafter\n", "complaint\n")


def test_output_of_the_functions_children_is_captured(box, capfd):
    """Programs that a function starts write where those of this process write, and so do forked children."""

    def talk():
        subprocess.run(["echo", "child"], check=True)
        child = os.fork()
        if child == 0:
            print("fork", flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        os.write(2, b"descriptor\n")

    box.call(talk)
    assert capfd.readouterr() == ("child\nfork\n", "descriptor\n")


def test_prints_come_while_the_function_runs(box, capsys):
    """Output is not kept back until the function returns."""

    def talk():
        print("early")
        time.sleep(30)

    seen = []

    def strike(*_):
        seen.append(capsys.readouterr().out)
        raise TimeoutError("struck")

    with alarm(strike, 1.0), pytest.raises(TimeoutError, match="struck"):
        box.call(talk)
    assert seen == ["early\n"]


@contextlib.contextmanager
def alarm(handler, seconds):
    """Let SIGALRM call a handler after some time, besides pytest-timeout's own use of it."""
    previous, left = signal.signal(signal.SIGALRM, handler), signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, previous)
        signal.setitimer(signal.ITIMER_REAL, *left)


def test_an_interrupted_wait_ends_the_function(box):
    """KeyboardInterrupt while waiting ends the function with what it started; the next call works."""

    def forever(token):
        subprocess.run(["sleep", token], check=False)

    def strike(*_):
        raise KeyboardInterrupt

    token = f"{31536000 + os.getpid()}"
    before = descriptors()
    with alarm(strike, 1.0), pytest.raises(KeyboardInterrupt):
        box.call(forever, token)
    listed = box.run(["ps", "-eo", "args"], capture_output=True, text=True)
    assert token not in listed.stdout
    assert box.call(add, 1) == 11
    assert descriptor_count() <= len(before) + 3  # the worker that has just been started


def test_large_values_go_both_ways(box):
    """A hundred megabytes pass in each direction."""
    assert box.call(len, bytes(100_000_000)) == 100_000_000
    assert len(box.call(bytes, 100_000_000)) == 100_000_000


def test_calls_of_several_threads_run_at_once(box):
    """A call that waits for another one's effect does not keep that from running."""
    name = f"/tmp/flag-{os.getpid()}"

    def wait():
        deadline = time.monotonic() + 20
        while not Path(name).exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return os.getpid()

    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(box.call, wait) for _ in range(3)]
        time.sleep(0.2)
        assert box.call(lambda: Path(name).touch()) is None
        pids = {future.result(30) for future in waiting}
        assert len(pids) == 3
        values = list(threads.map(lambda number: box.call(add, number), range(200)))
    assert values == [number + 10 for number in range(200)]


def test_it_works_inside_a_running_event_loop(box):
    """A call blocks, also where an event loop runs."""

    async def main():
        return box.call(add, 1)

    assert asyncio.run(main()) == 11
    assert box.call(lambda: asyncio.run(asyncio.sleep(0, "inner"))) == "inner"


def test_a_closed_container_refuses():
    """Calls to a closed container, and calls during which it is closed, raise PoorContainerError."""
    container = Container("brief")
    threading.Timer(0.5, container.close).start()
    with pytest.raises(PoorContainerError, match="closed"):
        container.call(time.sleep, 30)
    with pytest.raises(PoorContainerError, match="closed"):
        container.call(os.getpid)


def test_a_killed_container_is_no_closed_one():
    """When somebody kills the container during a call, LabDied says so at once."""
    with Container("victim") as victim:
        threading.Timer(0.5, os.kill, (victim.pid, signal.SIGKILL)).start()
        with pytest.raises(LabDied, match="victim has ended although nobody asked"):
            victim.call(time.sleep, 60)


def test_a_python_that_died_between_calls_is_replaced(box):
    """What a function leaves behind may end its process later; the next call then gets a fresh one."""
    pid = box.call(os.getpid)
    box.call(lambda: threading.Timer(0.2, os._exit, (5,)).start())
    deadline = time.monotonic() + 20
    while box.run(["kill", "-0", str(pid)], stderr=subprocess.DEVNULL).returncode == 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert box.call(os.getpid) != pid


def test_closed_containers_keep_no_descriptors():
    """Objects of closed containers that somebody holds do not pile up the lines of their calls."""
    before, held = descriptor_count(), []
    for number in range(10):
        with Container(f"held{number}") as container:
            assert container.call(socket.gethostname) == f"held{number}"
        held.append(container)
    assert descriptor_count() <= before + 10


def test_dropping_a_container_ends_it_and_its_pythons():
    """Pythons that wait for calls do not keep a container that nobody refers to, and leave no descriptor."""
    before = descriptors()
    container = Container("dropped")
    process = container.popen(["sleep", "1000"])
    pidfd = os.pidfd_open(process.pid)
    container.call(os.getpid)
    del container, process
    try:
        assert multiprocessing.connection.wait([pidfd], timeout=10) == [pidfd]
    finally:
        os.close(pidfd)
    assert descriptor_count() <= len(before) + 3  # the lab, if this test was the first


def test_a_forked_child_is_refused(box):
    """A forked child of the test cannot call, and its end does not disturb ours."""
    box.call(os.getpid)
    child = os.fork()
    if child == 0:
        try:
            box.call(os.getpid)
        except PoorContainerError as error:
            os._exit(7 if "forked child" in str(error) else 8)
        except BaseException:  # noqa: BLE001
            os._exit(9)
        os._exit(10)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert box.call(add, 1) == 11


def test_a_forked_child_that_comes_out_of_the_function_ends(box):
    """A function that forks and returns in both processes answers once, and goes on answering."""

    def fork():
        return os.fork() > 0

    assert [box.call(fork) for _ in range(3)] == [True] * 3
    assert box.call(add, 1) == 11


def test_stdin_is_empty_and_the_line_is_not_inherited(box):
    """A function that reads gets an end of file, and programs that it starts have none of our descriptors."""
    assert box.call(lambda: os.read(0, 10)) == b""
    listed = box.call(
        lambda: subprocess.run(["ls", "/proc/self/fd"], capture_output=True, text=True, check=True).stdout
    )
    assert listed.split() == ["0", "1", "2", "3"]


def test_no_bytecode_is_written(box):
    """A module that the container imports leaves no compiled file beside its source."""

    def look():
        place = Path("/tmp/modules")
        place.mkdir()
        (place / "freshly_written.py").write_text("value = 5\n")
        sys.path.insert(0, str(place))
        return __import__("freshly_written").value, [entry.name for entry in place.iterdir()]

    assert box.call(look) == (5, ["freshly_written.py"])
