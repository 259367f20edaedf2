"""The life of the lab, and who may use it; on the real one, each in a Python process of its own."""

import ast
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from pytest_poorcontainer import machine

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)

PRELUDE = """
import gc, os, signal, subprocess, sys, threading, time
from pathlib import Path
from pytest_poorcontainer import Container, LabDied, LabError, PoorContainerError, UsageError
from pytest_poorcontainer.lab.client import Lab, Spec

def children(parent):
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, ppid = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if int(ppid) == parent and state != "Z":
                found.append(int(entry.name))
    return found

def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

def fds():
    return len(list(Path("/proc/self/fd").iterdir()))
"""


def alive(pid):
    """Return whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_dead(*pids):
    """Wait until none of the processes is alive; fail after the half second that is promised."""
    deadline = time.monotonic() + 0.5
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, [pid for pid in pids if alive(pid)]
        time.sleep(0.005)


def start(code, **options):
    """Start a Python process that runs the code, after the prelude."""
    code = PRELUDE + textwrap.dedent(code)
    return subprocess.Popen([sys.executable, "-W", "error", "-c", code], stdout=subprocess.PIPE, text=True, **options)


def script(code, **options):
    """Run the code in a Python process of its own; return what its last line of output says, as a Python value."""
    process = start(code, stderr=subprocess.PIPE, **options)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    return ast.literal_eval(out.splitlines()[-1])


def test_one_lab_a_process():
    """All containers of a process are in one lab, which is no child of it, so that os.wait() in a test is not stuck."""
    assert script("""
        first, second = Container("a"), Container("b")
        lab = Lab.current()
        try:
            os.wait()
        except ChildProcessError:
            alone = True
        print((sorted(children(lab.pid)) == sorted([first.pid, second.pid]), alone, first.level, lab is Lab.current()))
    """) == (True, True, "namespaces", True)


def test_close_current_returns_when_all_is_dead():
    """close_current() ends the lab with all that is in it before it returns; a second one has nothing to do."""
    assert script("""
        before = fds()
        box = Container()
        pids = [Lab.current().pid, box.pid, box.popen(["sleep", "100"]).pid, box.popen(["setsid", "sleep", "9"]).pid]
        Lab.close_current()
        left = [pid for pid in pids if alive(pid)]
        try:
            box.run(["true"])
        except PoorContainerError as error:
            told = str(error)
        box.close()
        Lab.close_current()
        print((left, told, fds() - before))
    """) == ([], "container c has ended with its lab, which was closed", 0)


def test_nothing_is_left_at_exit():
    """A process that ends without closing anything leaves nothing, and prints no warning."""
    pids = script("""
        box = Container()
        print([Lab.current().pid, box.pid, box.popen(["sleep", "100"]).pid])
    """)
    assert not any(alive(pid) for pid in pids)


def test_a_killed_lab_is_told_and_replaced():
    """When somebody kills the lab its containers say so, and the next container gets a new lab."""
    assert script("""
        box = Container("old")
        process = box.popen(["sleep", "100"])
        lab = Lab.current()
        os.kill(lab.pid, signal.SIGKILL)
        told = []
        for use in (process.wait, lambda: box.run(["true"])):
            try:
                use()
            except LabDied as error:
                told.append("container old has ended" in str(error))
        try:
            lab.create([Spec("more", "")])
        except LabDied as error:
            told.append("although nobody asked it to" in str(error))
        box.close()
        with Container("new") as other:
            print((told, other.run(["true"]).returncode, Lab.current() is not lab))
    """) == ([True, True, True], 0, True)


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_nothing_is_left_when_the_process_is_gone(end):
    """os._exit and SIGKILL leave nothing either, also of what called setsid and double-forked."""
    process = start(f"""
        box = Container()
        process = box.popen(["sh", "-c", "(setsid sleep 100 &) ; echo go; sleep 100"], stdout=subprocess.PIPE)
        process.stdout.readline()
        print([Lab.current().pid, box.pid, process.pid], flush=True)
        {end}
    """)
    pids = ast.literal_eval(process.communicate()[0])
    wait_until_dead(*pids)


def test_a_forked_child_that_lives_on_does_not_hold_the_lab():
    """A child that was forked without exec and outlives its parent keeps nothing alive."""
    process = start("""
        box = Container()
        box.popen(["sleep", "100"])
        child = os.fork()
        if child == 0:
            os.close(1)
            time.sleep(100)
        print([child, Lab.current().pid, box.pid], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    child, *pids = ast.literal_eval(process.communicate()[0])
    try:
        wait_until_dead(*pids)
        assert alive(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_has_no_line_to_the_lab():
    """The child's copies of our descriptors lead to /dev/null, and closing them or ending does the parent no harm."""
    assert script("""
        box = Container()
        lab = Lab.current()
        process = box.popen(["sleep", "100"])
        from pytest_poorcontainer import Network
        pair = Network().pair()
        pair.link.impair(delay="1ms")
        pair.a.popen(["sleep", "100"])
        pair.a.freeze()
        child = os.fork()
        if child == 0:
            targets = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.exists()]
            line = any(target.startswith("socket:") or "pidfd" in target for target in targets)
            del box, process
            gc.collect()
            lab.close()
            os._exit(1 if line else 0)
        status = os.waitpid(child, 0)[1]
        print((status, box.run(["true"]).returncode, process.poll()))
    """) == (0, 0, None)


def test_a_forked_child_may_have_a_lab_of_its_own():
    """A test in a forked child (pytest-forked, multiprocessing) makes containers in a lab that dies with the child."""
    assert script("""
        box = Container()
        child = os.fork()
        if child == 0:
            with Container("inner") as inner:
                os._exit(inner.run(["sh", "-c", "exit 7"]).returncode)
        print((os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), box.run(["true"]).returncode))
    """) == (7, 0)


def test_a_worker_watches_its_controller():
    """In an xdist worker the death of the controller ends the containers although the worker lives on."""
    worker = PRELUDE + textwrap.dedent("""
        box = Container()
        print([os.getpid(), Lab.current().pid, box.pid], flush=True)
        time.sleep(100)
    """)
    process = start(f"""
        os.environ["PYTEST_XDIST_WORKER"] = "gw0"
        worker = subprocess.Popen([sys.executable, "-c", {worker!r}], stdout=subprocess.PIPE, text=True)
        print(worker.stdout.readline(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    worker_pid, *pids = ast.literal_eval(process.communicate()[0].strip())
    try:
        wait_until_dead(*pids)
        assert alive(worker_pid)
    finally:
        os.kill(worker_pid, signal.SIGKILL)


def test_every_failing_step_of_a_set_up_is_named_and_undone():
    """Whichever step of a container's set-up fails, the error names it, and no process or descriptor is left."""
    result = script("""
        steps, leftovers = [], []
        for number in range(1, 200):
            os.environ["POOR_CONTAINER_FAIL_STEP"] = str(number)
            lab = Lab()
            before = fds()
            try:
                lab.create([Spec("first", ""), Spec("second", "")])
            except LabError as error:
                steps.append((error.operation, error.object, error.errno, error.remedy))
                leftovers += children(lab.pid)
                leftovers += [fds() - before] if fds() != before else []
                lab.close()
            else:
                lab.close()
                break
        print((steps, leftovers, number))
    """)
    steps, leftovers, number = result
    assert leftovers == []
    assert 20 < number < 199
    assert len(set(steps)) > 15
    for operation, thing, error, remedy in steps:
        assert operation
        assert thing
        assert (error, "asked for" in remedy) == (5, True)


def test_a_dropped_container_is_ended():
    """A container that nobody refers to any more is ended, alone or in a cycle, in whatever thread that happens."""
    assert script("""
        lab = Lab.current()
        before = fds()
        Container("dropped").popen(["sleep", "100"])
        gc.collect()
        direct = children(lab.pid)
        def cycle():
            ring = [Container(f"c{number}") for number in range(5)]
            ring.append(ring)
        threads = [threading.Thread(target=cycle) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        gc.collect()
        print((direct, children(lab.pid), lab.busy(), fds() - before))
    """) == ([], [], False, 0)


def test_no_descriptor_left_for_a_container():
    """When this process may open no more files, the error says so, and the container is not left behind."""
    assert script("""
        import resource
        lab = Lab.current()
        Container("warm").close()
        fillers = [os.dup(0) for _ in range(50)]  # no hole is left below
        free = fillers[-1] + 1
        told = []
        for spare in (0, 1, 2):
            resource.setrlimit(resource.RLIMIT_NOFILE, (free + spare, 4096))
            try:
                Container("refused").close()
                told.append("made")
            except LabError as error:
                told.append("EMFILE" in str(error) and "ulimit -n" in str(error))
            resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 4096))
            told.append(children(lab.pid))
        with Container("works") as box:
            told.append(box.run(["true"]).returncode)
        print(told)
    """) == [True, [], True, [], "made", [], 0]


def test_an_interrupted_creation_leaves_nothing():
    """An exception of a signal handler's (Ctrl-C, pytest-timeout) in the middle of a creation leaves no container."""
    assert script("""
        def strike(*_):
            raise TimeoutError("the test's time is up")
        # One that strikes inside a finalizer is reported and ignored by Python itself.
        sys.unraisablehook = lambda it: it.exc_type is TimeoutError or sys.__unraisablehook__(it)
        signal.signal(signal.SIGALRM, strike)
        lab = Lab.current()
        struck = 0
        for turn in range(60):
            box = None
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.0001 * (turn + 1))
                    box = Container("struck")
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except TimeoutError:
                struck += 1
            if box is not None:
                box.close()
        del box
        gc.collect()
        Container("after").close()
        print((struck > 5, children(lab.pid)))
    """) == (True, [])


def test_network_none_and_host():
    """Without a network a container has lo alone; with the host's it has the machine's interfaces."""
    assert script("""
        names = lambda box: sorted(line.split(":")[0].strip() for line in
            box.run(["cat", "/proc/net/dev"], capture_output=True, text=True).stdout.splitlines()[2:])
        mine = sorted(line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:])
        with Container("a") as alone, Container("b", network="host") as shared:
            hosts = alone.run(["cat", "/etc/hosts"], capture_output=True, text=True).stdout
            same = Path("/etc/hosts").read_text().rstrip() in shared.run(
                ["cat", "/etc/hosts"], capture_output=True, text=True).stdout
            named = "127.0.1.1\\ta" in hosts
            print(("lo" in names(alone), names(shared) == mine, len(names(alone)) <= len(mine), named, same))
    """) == (True, True, True, True, True)


def test_basetemp_and_rootdir_are_visible(tmp_path):
    """The basetemp of pytest is there read-write, its rootdir read-only, at the same paths."""
    base, root = tmp_path / "base", tmp_path / "root"
    base.mkdir()
    root.mkdir()
    (root / "file").write_text("of the project\n")
    assert script(
        f"""
        base, root = Path({str(base)!r}), Path({str(root)!r})
        Lab.current(base, root)
        with Container() as box:
            read = box.run(["cat", root / "file"], capture_output=True, text=True).stdout
            wrote = box.run(["sh", "-c", f"echo made > {{base}}/new"]).returncode
            refused = box.run(["touch", root / "new"], stderr=subprocess.DEVNULL).returncode
            print((read, wrote, refused))
    """
    ) == ("of the project\n", 0, 1)
    assert (base / "new").read_text() == "made\n"
    assert os.listdir(root) == ["file"]  # noqa: PTH208 - names


def test_another_basetemp_needs_an_idle_lab(tmp_path):
    """A directory that the lab does not show is refused while containers live, else a new lab shows it."""
    assert script(
        f"""
        base = Path({str(tmp_path)!r})
        box, first = Container(), Lab.current()
        try:
            Lab.current(base)
        except UsageError as error:
            told = "close the containers of the first" in str(error)
        box.close()
        second = Lab.current(base)
        print((told, second is first, alive(first.pid), Lab.current() is second))
    """
    ) == (True, False, False, True)


def test_a_tree_that_is_mounted_in_it_keeps_a_lab(tmp_path):
    """A tree on overlay would end with the lab as a container does; closed or forgotten, it is in nobody's way."""
    (tmp_path / "source").mkdir()
    assert script(
        f"""
        from pytest_poorcontainer import CowTree
        base = Path({str(tmp_path)!r})
        told = []
        for end in ("close", "forget"):
            tree, first = CowTree(base / "source", backend="overlay"), Lab.current()
            try:
                Lab.current(base / end)
            except UsageError:
                told.append((first.alive(), Lab.serves(None, None), Lab.serves(base / end, None)))
            if end == "close":
                tree.close()
            del tree
            gc.collect()
            (base / end).mkdir()
            told.append(Lab.current(base / end) is first)
            Lab.close_current()
        print(told)
    """
    ) == [(True, True, False), False, (True, True, False), False]


def test_odd_circumstances_do_no_harm():
    """Replaced sockets, a default timeout, a deadly SIGPIPE, an ignored SIGCHLD, a stopped clock: all works."""
    assert script("""
        import socket
        def forbidden(*_, **__):
            raise RuntimeError("no sockets in here")
        socket.socket = socket.socketpair = forbidden
        socket.setdefaulttimeout(0.000001)
        time.monotonic = lambda: 1.0
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        with Container() as box:
            try:
                box.run(["sleep", "9"], timeout=0.05)
            except subprocess.TimeoutExpired:
                print((box.run(["sleep", "0.1"]).returncode, box.run(["cat"], input=b"x", capture_output=True).stdout))
    """) == (0, b"x")


def test_closed_standard_streams_do_no_harm(tmp_path):
    """A process without descriptors 0 to 2 can make containers: the lab's own land where they belong."""
    result = tmp_path / "result"
    process = start(f"""
        os.closerange(0, 10)
        with Container() as box:
            done = box.run(["cat"], input=b"x", capture_output=True)
        Path({str(result)!r}).write_text(repr(done.stdout))
        os._exit(0)
    """)
    process.communicate()
    assert result.read_text() == "b'x'"


def test_a_missing_program_is_named(tmp_path):
    """Without the compiled lab the error says how to build it; one that says nothing, or cannot run, is named."""
    missing, silent, refused = tmp_path / "missing", tmp_path / "silent", tmp_path / "refused"
    for directory in (missing, silent, refused):
        directory.mkdir()
    (silent / "pclab").symlink_to("/bin/true")
    (refused / "pclab").write_text("no program")
    told = script(f"""
        told = []
        for directory in ({str(missing)!r}, {str(silent)!r}, {str(refused)!r}):
            os.environ["POOR_CONTAINER_NATIVE"] = directory
            before = fds()
            try:
                Container()
            except PoorContainerError as error:
                told.append((type(error).__name__, str(error), fds() - before))
        print(told)
    """)
    assert [(kind, left) for kind, _, left in told] == [("PoorContainerError", 0), ("LabDied", 0), ("LabError", 0)]
    assert "make build" in told[0][1]
    assert "without a word (exit status 0)" in told[1][1]
    assert "EACCES" in told[2][1]


def test_ctrl_c_does_not_reach_the_lab():
    """SIGINT to pytest's process group, as the terminal sends it, leaves the lab to pytest."""
    process = start(
        """
        signal.signal(signal.SIGINT, lambda *_: None)
        with Container() as box:
            sleeper = box.popen(["sleep", "100"])
            os.killpg(0, signal.SIGINT)
            time.sleep(0.1)
            print((box.run(["true"]).returncode, sleeper.poll()))
        """,
        start_new_session=True,
    )
    assert ast.literal_eval(process.communicate()[0]) == (0, None)
    assert process.returncode == 0
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
