"""Commands in a container, in the manner of subprocess.run; on the real lab."""

import asyncio
import errno
import os
import resource
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from descriptors import descriptors

from pytest_poorcontainer import Container, LabError, PoorContainerError, UsageError, machine
from pytest_poorcontainer.container.service_tree import children_of, state_of

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)
MANY = 50_000_000


@pytest.fixture(scope="module")
def box():
    """Return one container for all the tests here: none of them changes it."""
    with Container("box") as container:
        yield container


def running(token):
    """Return the pids of processes with this word among their arguments, as the machine's /proc has them."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if token.encode() in arguments:
                found.append(int(entry.name))
    return found


def wait_until_running(token, count):
    """Wait until so many processes have the word among their arguments."""
    deadline = time.monotonic() + 10
    while len(running(token)) < count:
        assert time.monotonic() < deadline, f"{running(token)} have {token}, expected {count}"
        time.sleep(0.01)


@pytest.mark.parametrize("code", [0, 1, 42, 137, 255])
def test_exit_status_is_the_return_code(box, code):
    """What a command gives to exit() is what run() returns, also 137, which shells use for SIGKILL."""
    assert box.run(["sh", "-c", f"exit {code}"]).returncode == code


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGSEGV", "SIGUSR1"])
def test_a_signal_death_is_a_negative_return_code(box, name):
    """A command that a signal ended has the negated number as its return code."""
    assert box.run(["sh", "-c", f"kill -{name[3:]} $$"]).returncode == -getattr(signal, name)


def test_result_is_subprocess_own_class(box):
    """The result has the arguments as given and both outputs."""
    done = box.run(["sh", "-c", "echo out; echo err >&2"], capture_output=True)
    assert type(done) is subprocess.CompletedProcess
    assert done.args == ["sh", "-c", "echo out; echo err >&2"]
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


def test_output_that_is_no_pipe_is_none(box):
    """Outputs that were not asked for are None, as in subprocess."""
    done = box.run(["sh", "-c", "echo heard"], stdout=subprocess.PIPE)
    assert (done.stdout, done.stderr) == (b"heard\n", None)
    assert box.run(["true"]).stdout is None


def test_check_raises_with_outputs(box):
    """check=True raises CalledProcessError, which carries code, arguments and outputs."""
    with pytest.raises(subprocess.CalledProcessError) as raised:
        box.run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=True, capture_output=True, text=True)
    assert raised.value.returncode == 3
    assert raised.value.cmd[0] == "sh"
    assert (raised.value.stdout, raised.value.stderr) == ("out\n", "err\n")


@pytest.mark.parametrize(
    ("argv", "number", "filename"),
    [
        (["no-such-program"], errno.ENOENT, "no-such-program"),
        (["/no/such/program"], errno.ENOENT, "/no/such/program"),
        (["/etc/passwd"], errno.EACCES, "/etc/passwd"),
        (["/etc"], errno.EACCES, "/etc"),
        (["/etc/passwd/deeper"], errno.ENOTDIR, "/etc/passwd/deeper"),
    ],
)
def test_what_cannot_be_executed_raises_as_in_subprocess(box, argv, number, filename):
    """A program that is not there, or is none, raises the OSError that subprocess raises, naming it."""
    with pytest.raises(OSError, match=os.strerror(number)) as ours:
        box.run(argv)
    with pytest.raises(OSError, match=os.strerror(number)) as theirs:
        subprocess.run(argv, check=False, env={"PATH": "/usr/bin:/bin"})  # some PATH has what may not be read
    assert type(ours.value) is type(theirs.value)
    assert (ours.value.errno, ours.value.filename) == (number, filename)


@pytest.mark.parametrize(
    ("cwd", "number"), [("/no/such", errno.ENOENT), ("/etc/passwd", errno.ENOTDIR), (b"/no/such", errno.ENOENT)]
)
def test_a_bad_cwd_raises_with_its_name(box, cwd, number):
    """A working directory that is none raises the OSError that subprocess raises, naming the directory."""
    with pytest.raises(OSError, match=os.strerror(number)) as raised:
        box.run(["true"], cwd=cwd)
    assert (raised.value.errno, raised.value.filename) == (number, os.fsdecode(cwd))


def test_a_script_without_interpreter_is_an_exec_format_error(box):
    """A file with the execute bit but no format of a program raises OSError ENOEXEC, as in subprocess."""
    box.run(["sh", "-c", "echo true > /tmp/plain; chmod 755 /tmp/plain"], check=True)
    with pytest.raises(OSError, match="Exec format error"):
        box.run(["/tmp/plain"])


def test_too_long_arguments_raise_e2big(box):
    """Arguments that the kernel or the protocol refuses raise OSError E2BIG, as in subprocess."""
    for size in (3 << 20, 9 << 20):
        with pytest.raises(OSError, match="Argument list too long") as raised:
            box.run(["true", "x" * size])
        assert raised.value.errno == errno.E2BIG


def test_long_argument_lists_arrive_whole(box):
    """A request larger than one datagram goes another way, and arrives unchanged."""
    words = [f"{number}" * 10 for number in range(5_000)]
    done = box.run(["printf", "%s\n", *words], capture_output=True, text=True)
    assert done.stdout.split() == words


def test_bad_arguments_are_named(box):
    """Empty argument lists, zero bytes, wrong types and contradictions raise at once, and nothing is started."""
    with pytest.raises(UsageError, match="argument list is empty"):
        box.run([])
    with pytest.raises(ValueError, match="null byte"):
        box.run(["echo", "a\0b"])
    with pytest.raises(ValueError, match="illegal environment variable name"):
        box.run(["true"], env={"A=B": "c"})
    with pytest.raises(TypeError):
        box.run(["echo", 1])
    with pytest.raises(TypeError, match="user is a name or a number"):
        box.run(["true"], user=1.5)
    with pytest.raises(UsageError, match="user is a name or a number"):
        box.run(["true"], user=-1)
    with pytest.raises(ValueError, match="may not be used with capture_output"):
        box.run(["true"], capture_output=True, stdout=subprocess.PIPE)
    with pytest.raises(ValueError, match="stdin and input"):
        box.run(["true"], input=b"x", stdin=subprocess.PIPE)
    with pytest.raises(ValueError, match="STDOUT can only be used for stderr"):
        box.run(["true"], stdout=subprocess.STDOUT)
    with pytest.raises(subprocess.SubprocessError, match="disambiguate"):
        box.run(["true"], text=True, universal_newlines=False)


def test_a_string_is_a_program(box):
    """A plain string, bytes or path names a program without arguments, as in subprocess."""
    assert box.run("true").returncode == 0
    assert box.run(b"false").returncode == 1
    assert box.run(Path("/bin/true")).returncode == 0


def test_unknown_user_is_named(box):
    """A user that the container does not have is named in the error."""
    with pytest.raises(LabError, match="no-such-user"):
        box.run(["true"], user="no-such-user")


def test_user_by_name_and_number(box):
    """A command runs as the user that was asked for, with that user's home."""
    done = box.run(["sh", "-c", "id -u; echo $HOME"], user="daemon", capture_output=True, text=True)
    assert done.stdout.split() == ["1", "/usr/sbin"]
    assert box.run(["id", "-u"], user=1, capture_output=True, text=True).stdout == "1\n"
    assert box.run(["id", "-u"], user=0, capture_output=True, text=True).stdout == "0\n"


def test_environment_is_the_containers(box, monkeypatch):
    """Commands see PATH, LANG, HOME, TMPDIR and what env= adds, never pytest's own variables."""
    monkeypatch.setenv("SECRET_OF_PYTEST", "x")
    done = box.run(["/usr/bin/env"], env={"EXTRA": "yes", b"RAW": b"\xff"}, capture_output=True)
    names = dict(line.split(b"=", 1) for line in done.stdout.splitlines())
    assert names == {
        b"PATH": b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        b"LANG": b"C.UTF-8",
        b"HOME": b"/root",
        b"TMPDIR": b"/tmp",
        b"EXTRA": b"yes",
        b"RAW": b"\xff",
    }


def test_environment_can_be_changed_and_removed(box):
    """env= overrides the defaults, and None removes a name."""
    done = box.run(["/usr/bin/env"], env={"LANG": "C", "TMPDIR": None, "HOME": "/srv"}, capture_output=True, text=True)
    assert sorted(done.stdout.split()) == [
        "HOME=/srv",
        "LANG=C",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ]


def test_program_is_searched_in_the_commands_path(box):
    """PATH in env= decides where the program is looked for, inside the container."""
    box.run(["sh", "-c", "mkdir -p /tmp/bin; printf '#!/bin/sh\\necho mine' > /tmp/bin/mine; chmod 755 /tmp/bin/mine"])
    assert box.run(["mine"], env={"PATH": "/nowhere:/tmp/bin:/bin"}, capture_output=True).stdout == b"mine\n"
    with pytest.raises(FileNotFoundError):
        box.run(["mine"])


def test_cwd(box):
    """A command starts in cwd, a directory of the container's; without one it is the private home."""
    assert box.run(["pwd"], cwd="/usr/bin", capture_output=True, text=True).stdout == "/usr/bin\n"
    assert box.run(["pwd"], capture_output=True, text=True).stdout == "/root\n"
    assert box.run(["pwd"], user="nobody", capture_output=True, text=True).stdout == "/\n"


def test_stdin_is_empty_unless_given(box):
    """A command that reads its stdin gets an end of file, not the terminal."""
    assert box.run(["cat"], capture_output=True).stdout == b""


def test_streams_may_be_files_and_descriptors(box, tmp_path):
    """stdin, stdout and stderr take file objects, descriptors, DEVNULL and STDOUT."""
    source, sink = tmp_path / "source", tmp_path / "sink"
    source.write_bytes(b"carried\n")
    with source.open("rb") as given, sink.open("wb") as taken:
        box.run(["sh", "-c", "cat; echo err >&2"], stdin=given, stdout=taken, stderr=subprocess.STDOUT, check=True)
        box.run(["echo", "unheard"], stdout=subprocess.DEVNULL, check=True)
        box.run(["echo", "by number"], stdout=taken.fileno(), check=True)
    assert sink.read_bytes() == b"carried\nerr\nby number\n"


def test_output_goes_where_pytests_goes(box, capfd):
    """Without an argument stdout and stderr are pytest's own, so that capturing sees them."""
    box.run(["sh", "-c", "echo out; echo err >&2"], check=True)
    assert capfd.readouterr() == ("out\n", "err\n")


def test_a_closed_descriptor_is_the_callers_error(box):
    """A descriptor that is not open raises OSError EBADF, as in subprocess, and the container goes on working."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        box.run(["true"], stdout=987)
    assert box.run(["true"]).returncode == 0


def test_fifty_megabytes_both_ways(box):
    """Input and output of any size pass at once without a deadlock."""
    data = os.urandom(1 << 20) * (MANY >> 20)
    done = box.run(["tee", "/dev/stderr"], input=data, capture_output=True)
    assert done.stdout == data
    assert done.stderr == data


def test_input_that_is_not_read_is_no_error(box):
    """A command that ends without having read its input is none of our concern, as in subprocess."""
    assert box.run(["true"], input=b"x" * 10_000_000).returncode == 0


def test_text(box):
    """text=True decodes as UTF-8, with universal newlines; encoding and errors are obeyed."""
    assert box.run(["printf", "gr\\303\\274n\\r\\nb\\rc"], capture_output=True, text=True).stdout == "grün\nb\nc"
    assert box.run(["cat"], input="grün", capture_output=True, text=True).stdout == "grün"
    assert box.run(["cat"], input="grün", capture_output=True, encoding="latin-1").stdout == "grün"
    assert box.run(["printf", "\\377"], capture_output=True, text=True, errors="replace").stdout == "\ufffd"
    assert box.run(["echo"], capture_output=True, universal_newlines=True).stdout == "\n"
    with pytest.raises(UnicodeDecodeError):
        box.run(["printf", "\\377"], capture_output=True, text=True)
    with pytest.raises(TypeError):
        box.run(["cat"], input="text without text=True")


def test_timeout_ends_all_that_was_started(box):
    """A timeout ends the command and also what called setsid or daemonized, before it raises."""
    token = f"timeout-{os.getpid()}"
    script = (
        f"echo started; setsid sh -c 'sleep 100; :' {token} & "
        f"(setsid sh -c 'sleep 100; :' {token} &) ; sh -c 'trap \"\" TERM HUP INT; sleep 100; :' {token}"
    )
    before = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired) as raised:
        box.run(["sh", "-c", script], timeout=0.5, capture_output=True, text=True)
    assert 0.4 < time.monotonic() - before < 4
    assert running(token) == []
    assert raised.value.output == b"started\n", "bytes, as subprocess documents, whatever text says"
    assert raised.value.timeout == 0.5
    assert raised.value.cmd[0] == "sh"


def test_timeout_without_pipes(box):
    """A timeout works when there is nothing to read."""
    with pytest.raises(subprocess.TimeoutExpired) as raised:
        box.run(["sleep", "100"], timeout=0.05)
    assert raised.value.output is None


def test_ctrl_c_ends_all_that_was_started(box):
    """KeyboardInterrupt during run() ends the command with all that it started, and goes on its way."""
    token = f"interrupt-{os.getpid()}"

    def interrupt():
        wait_until_running(token, 2)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            box.run(["sh", "-c", f"setsid sh -c 'sleep 100; :' {token} & sh -c 'sleep 100; :' {token}"])
    finally:
        signal.signal(signal.SIGINT, previous)
        thread.join()
    assert running(token) == []


def test_many_threads_at_once(box):
    """Twenty threads may run twenty commands each in one container, and each gets its own answer."""

    def work(number):
        for turn in range(20):
            done = box.run(["sh", "-c", f"echo {number}.{turn}; exit {number}"], capture_output=True, text=True)
            assert (done.returncode, done.stdout) == (number, f"{number}.{turn}\n")
        return number

    with ThreadPoolExecutor(20) as pool:
        assert sorted(pool.map(work, range(20))) == list(range(20))


def test_inside_a_running_event_loop(box):
    """run() works in a coroutine, and in the threads of a loop, and leaves the loop's own children alone."""

    async def work():
        child = await asyncio.create_subprocess_exec("sleep", "0.05")
        direct = box.run(["echo", "direct"], capture_output=True, text=True).stdout
        beside = await asyncio.gather(*(asyncio.to_thread(box.run, ["true"]) for _ in range(5)))
        return direct, [done.returncode for done in beside], await child.wait()

    assert asyncio.run(work()) == ("direct\n", [0] * 5, 0)


def test_a_closed_container_says_so():
    """A closed container raises an error that names it; closing twice is fine."""
    container = Container("gone")
    container.close()
    container.close()
    with pytest.raises(PoorContainerError, match="container gone is closed"):
        container.run(["true"])
    with pytest.raises(PoorContainerError, match="container gone is closed"):
        container.popen(["true"])


def test_no_descriptor_is_left(box):
    """Two hundred commands of all kinds leave no descriptor open here, and no zombie."""

    def some():
        box.run(["true"])
        box.run(["true"], capture_output=True)
        box.run(["cat"], input=b"x", capture_output=True)
        with pytest.raises(FileNotFoundError):
            box.run(["no-such-program"], capture_output=True)
        with pytest.raises(subprocess.TimeoutExpired):
            box.run(["sleep", "9"], timeout=0.001, capture_output=True)

    def zombies():
        """Return those of this process, in which other tests may have left one, or a child that lives."""
        return {pid for pid in children_of(os.getpid()) if state_of(pid) == "Z"}

    some()
    before, dead = descriptors(), zombies()
    for _ in range(40):
        some()
    assert descriptors() == before
    assert zombies() <= dead


def test_no_descriptor_left_to_be_had_is_named(box):
    """At the limit of open files the error names EMFILE and the remedy, wherever it is hit, and later commands work."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(descriptors())
    fillers = [os.open(os.devnull, os.O_RDONLY)]
    while fillers[-1] < highest:
        fillers.append(os.dup(fillers[0]))  # no hole is left below
    for spare in range(6):
        held = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (fillers[-1] + 1 + spare, hard))
        try:
            with pytest.raises(LabError, match=r"EMFILE.*ulimit -n"):
                held.extend(box.popen(["true"], stdout=subprocess.PIPE) for _ in range(9))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for filler in fillers:
        os.close(filler)
    assert box.run(["true"]).returncode == 0
