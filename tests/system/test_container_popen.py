"""Commands in a container that are not waited for at once, in the manner of subprocess.Popen; on the real lab."""

import gc
import os
import select
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from descriptors import descriptor_count

from pytest_poorcontainer import Container, LabDied, PoorContainerError, Process, machine

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)
PIPE = subprocess.PIPE


@pytest.fixture
def box():
    """Return a container of the test's own."""
    with Container("box") as container:
        yield container


def alive(pid):
    """Return whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_attributes_are_popens(box):
    """A process has Popen's attributes, its pid here, and its pid in the container."""
    script = "echo up; read line; echo $$ $line"
    with box.popen(["sh", "-c", script], stdin=PIPE, stdout=PIPE, text=True) as process:
        assert isinstance(process, Process)
        assert process.args == ["sh", "-c", script]
        assert process.returncode is None
        assert process.poll() is None
        assert process.stderr is None
        assert process.universal_newlines
        assert process.stdout.readline() == "up\n"
        assert alive(process.pid)
        assert Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(b"sh\0-c\0echo up")
        process.stdin.write("hello\n")
        process.stdin.flush()
        assert process.stdout.read() == f"{process.pid_inside} hello\n"
    assert process.returncode == 0
    assert process.poll() == 0
    assert process.wait() == 0
    assert "'sh' in box: returncode 0" in repr(process)


def test_pid_takes_signals_from_outside(box):
    """The pid is the process's on the machine: os.kill reaches it."""
    with box.popen(["sleep", "100"]) as process:
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(5) == -signal.SIGINT


@pytest.mark.parametrize(
    ("method", "number"), [("terminate", signal.SIGTERM), ("kill", signal.SIGKILL)], ids=["terminate", "kill"]
)
def test_terminate_and_kill(box, method, number):
    """terminate() and kill() send what they send in subprocess, and are nothing on a command that has ended."""
    process = box.popen(["sleep", "100"])
    getattr(process, method)()
    assert process.wait(5) == -number
    getattr(process, method)()


def test_send_signal(box):
    """Any signal reaches the command, and a number that is none raises as os.kill does."""
    script = "trap 'echo got' USR1; echo ready; while :; do sleep 0.01; done"
    with box.popen(["sh", "-c", script], stdout=PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "got\n"
        process.send_signal(0)
        with pytest.raises(OSError, match="Invalid argument"):
            process.send_signal(999)
        process.kill()
    assert process.returncode == -signal.SIGKILL


def test_a_service_is_not_pid_one(box):
    """SIGTERM ends a command that does not handle it, as pid 1 of a namespace it would ignore the signal."""
    process = box.popen(["sleep", "100"])
    assert process.pid_inside > 1
    process.terminate()
    assert process.wait(5) == -signal.SIGTERM


def test_wait_with_timeout(box):
    """wait() raises TimeoutExpired and leaves the command running."""
    process = box.popen(["sleep", "0.3"])
    with pytest.raises(subprocess.TimeoutExpired) as raised:
        process.wait(0.02)
    assert raised.value.cmd == ["sleep", "0.3"]
    assert process.poll() is None
    assert process.wait(5) == 0


def test_several_threads_may_wait(box):
    """All threads that wait for one process get its return code, and polling beside them does no harm."""
    process = box.popen(["sh", "-c", "sleep 0.2; exit 7"])
    codes = []
    threads = [threading.Thread(target=lambda: codes.append(process.wait(5))) for _ in range(5)]
    threads += [threading.Thread(target=lambda: codes.append(process.wait())) for _ in range(5)]
    for thread in threads:
        thread.start()
    while process.poll() is None:
        time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert codes == [7] * 10


def test_communicate(box):
    """communicate() feeds and reads as subprocess does."""
    process = box.popen(["sh", "-c", "cat; echo err >&2"], stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True)
    assert process.communicate("grün\n", timeout=5) == ("grün\n", "err\n")
    assert process.returncode == 0


def test_communicate_goes_on_after_a_timeout(box):
    """After TimeoutExpired, which carries the output so far, communicate() can be called again and nothing is lost."""
    process = box.popen(["sh", "-c", "echo one; sleep 0.4; echo two; cat"], stdin=PIPE, stdout=PIPE)
    with pytest.raises(subprocess.TimeoutExpired) as raised:
        process.communicate(b"three\n", timeout=0.1)
    assert raised.value.output == b"one\n"
    with pytest.raises(ValueError, match="after starting communication"):
        process.communicate(b"four\n")
    assert process.communicate() == (b"one\ntwo\nthree\n", None)


def test_communicate_keeps_what_was_written_before(box):
    """What was written to the stdin object before communicate() arrives first."""
    process = box.popen(["cat"], stdin=PIPE, stdout=PIPE)
    process.stdin.write(b"first ")
    assert process.communicate(b"second") == (b"first second", None)


def test_communicate_without_a_pipe_names_it(box):
    """Input for a command whose stdin is no pipe is an error, not lost silently."""
    with box.popen(["true"]) as process, pytest.raises(ValueError, match="stdin is no pipe"):
        process.communicate(b"lost")


def test_line_buffering(box):
    """bufsize=1 in text mode sends each line at once, bufsize=0 each write."""
    with box.popen(["cat"], stdin=PIPE, stdout=PIPE, text=True, bufsize=1) as process:
        process.stdin.write("line\n")
        assert process.stdout.readline() == "line\n"
        process.stdin.close()
    with box.popen(["cat"], stdin=PIPE, stdout=PIPE, bufsize=0) as process:
        process.stdin.write(b"raw")
        assert process.stdout.read(3) == b"raw"
        process.stdin.close()


def test_pipes_work_with_select(box):
    """The file objects have descriptors that select() and event loops take."""
    with box.popen(["sh", "-c", "sleep 0.1; echo x"], stdout=PIPE) as process:
        assert select.select([process.stdout], [], [], 5)[0] == [process.stdout]


def test_end_ends_the_whole_tree(box):
    """end() kills the command and what it has daemonized, and returns when all are dead."""
    script = "trap '' TERM; setsid sleep 100 & echo $!; (setsid sleep 101 & echo $!) ; echo go; sleep 102"
    process = box.popen(["sh", "-c", script], stdout=PIPE, text=True)
    lines = [process.stdout.readline() for _ in range(3)]
    assert lines[-1] == "go\n"
    inside = [int(line) for line in lines[:2]]
    before = time.monotonic()
    assert process.end() == -signal.SIGKILL
    assert time.monotonic() - before < 2
    for pid in inside:
        assert box.run(["kill", "-0", str(pid)], stderr=subprocess.DEVNULL).returncode != 0
    assert not alive(process.pid)
    assert process.end() == -signal.SIGKILL
    assert process.communicate() == ("", None)


def test_end_after_the_command_ended_takes_its_daemons(box):
    """What a command has left behind is ended by end() also when the command itself is long gone."""
    process = box.popen(["sh", "-c", "setsid sleep 100 >/dev/null 2>&1 & echo $!"], stdout=PIPE, text=True)
    daemon = process.stdout.readline().strip()
    assert process.wait(5) == 0
    assert box.run(["kill", "-0", daemon]).returncode == 0
    assert process.end() == 0
    assert box.run(["kill", "-0", daemon], stderr=subprocess.DEVNULL).returncode != 0


def test_leaving_a_with_block_by_an_exception_ends_the_command(box):
    """A failed assertion in the block does not wait for a service that never ends."""
    with pytest.raises(ZeroDivisionError), box.popen(["sleep", "100"]) as process:
        raise ZeroDivisionError
    assert process.returncode == -signal.SIGKILL


def test_closing_the_container_is_the_end_of_its_commands(box):
    """A command whose container was closed has died of SIGKILL."""
    process = box.popen(["sleep", "100"], stdout=PIPE)
    box.close()
    assert not alive(process.pid)
    assert process.wait(5) == -signal.SIGKILL
    assert process.communicate() == (b"", None)
    process.terminate()
    assert process.end() == -signal.SIGKILL


def test_closing_beside_other_threads_is_no_surprise():
    """Threads that wait or start commands while the container is closed learn that it was closed, not that it died."""
    unexpected = []

    def use(container):
        try:
            while (code := container.popen(["sleep", "100"]).wait()) == -signal.SIGKILL:
                pass
            unexpected.append(code)
        except PoorContainerError as error:
            unexpected.extend([] if "is closed" in str(error) else [str(error)])

    for turn in range(10):
        container = Container("box")
        threads = [threading.Thread(target=use, args=(container,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.002 * turn)
        container.close()
        for thread in threads:
            thread.join()
    assert unexpected == []


def test_a_killed_init_is_told(box):
    """When somebody kills the container's init, commands and new requests raise LabDied, and close() works."""
    process = box.popen(["sleep", "100"])
    os.kill(box.pid, signal.SIGKILL)
    with pytest.raises(LabDied, match="the container box has ended although nobody asked it to"):
        process.wait(5)
    with pytest.raises(LabDied):
        process.poll()
    with pytest.raises(LabDied, match="box"):
        box.run(["true"])
    assert process.end() == -signal.SIGKILL
    box.close()


def test_a_dropped_process_runs_on(box):
    """Nobody needs to hold the object: the command goes on, and no warning or descriptor is left."""
    gc.collect()
    before = descriptor_count()
    pid = box.popen(["sleep", "100"], stdin=PIPE, stdout=PIPE, stderr=PIPE).pid
    gc.collect()
    assert descriptor_count() == before
    assert alive(pid)


def test_a_process_keeps_its_container():
    """A container that only its process refers to lives on, and ends when the process is dropped too."""
    process = Container("kept").popen(["sleep", "100"])
    gc.collect()
    pid = process.pid
    assert alive(pid)
    assert process.poll() is None
    del process
    gc.collect()
    assert not alive(pid)


def answer(use):
    """Return what came of using something in a forked child."""
    try:
        use()
    except PoorContainerError as error:
        return b"refused;" if "forked child" in str(error) else str(error).encode()
    return b"used;"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_cannot_use_it(box):
    """In a child that a test forked, a process or container of the parent's raises; the parent's goes on working."""
    process = box.popen(["sh", "-c", "sleep 0.5; exit 5"])
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            for use in (process.poll, process.wait, process.end, process.communicate, lambda: box.run(["true"])):
                os.write(writer, answer(use))
            box.close()
            os._exit(0)
        finally:
            os._exit(1)  # never a second pytest
    os.close(writer)
    with os.fdopen(reader) as told:
        assert told.read() == "refused;" * 5
    assert os.waitpid(child, 0)[1] == 0
    assert process.wait(5) == 5
    assert box.run(["true"]).returncode == 0
