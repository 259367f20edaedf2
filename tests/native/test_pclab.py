"""pclab itself, spoken to by bare messages: what it refuses, what it survives, and what it leaves."""

import contextlib
import errno
import fcntl
import os
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest
from sanitized import plain_or_sanitized

from pytest_poorcontainer import machine

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)

HEADER = struct.Struct("=HHHHII")
FIELD = struct.Struct("=II")
OK, ERROR, STARTED = 0, 1, 2
CREATE, END, MOUNT, FABRIC, NETLINK, EXEC, SOCKET = 16, 17, 19, 29, 30, 32, 33
STEP, OBJECT, ERRNO, PID, ID, NAME, HOSTS, NETWORK = 1, 2, 3, 5, 10, 11, 12, 13
INTERFACE, MAC, IP4, LINK_NUMBER, ARG, FAMILY, TYPE, SETTING = 14, 15, 16, 18, 21, 26, 27, 44
STEPS_MOST = 200  # more than a set-up has


def number(value):
    """Return a number as a field's value."""
    return struct.pack("=I", value)


def message(op, fields=(), request=1, version=1, length=None):
    """Return a whole message; ``length`` lies about the fields' size."""
    body = b"".join(FIELD.pack(kind, len(value)) + value for kind, value in fields)
    return HEADER.pack(version, op, 0, 0, request, len(body) if length is None else length) + body


def container(name, *, host=0):
    """Return the fields of a container that may be one of a pair."""
    return [
        (NAME, name.encode()),
        (HOSTS, b"127.0.0.1 localhost\n"),
        (NETWORK, number(0)),
        (INTERFACE, b"eth0"),
        (MAC, bytes([2, 0, 0, 0, 0, host + 1])),
        (IP4, bytes([10, 0, 0, host + 1, 24])),
    ]


PAIR = [*container("a"), *container("b", host=1), (LINK_NUMBER, number(1))]


class Lab:
    """A pclab of our own, and the line to it."""

    def __init__(self, program, *options):
        """Start it as pytest would."""
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(20)
        read_end, self.lifeline = os.pipe()
        own = os.pidfd_open(os.getpid())
        null = os.open("/dev/null", os.O_RDWR)
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100) for fd in (theirs.fileno(), read_end, own)]
        actions = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]
        actions += [(os.POSIX_SPAWN_DUP2, fd, 3 + place) for place, fd in enumerate(high)]
        launcher = os.posix_spawn(program, ["pclab", *options], os.environ, file_actions=actions, setsid=True)
        os.waitpid(launcher, 0)
        for fd in (read_end, own, null, *high):
            os.close(fd)
        theirs.close()
        op, _, fields, _ = self.receive()
        assert op == STARTED, fields
        self.pid = struct.unpack("=I", fields[PID])[0]

    def receive(self):
        """Return the next answer's op, request, fields and descriptors; op None at the end of file."""
        data, fds, _, _ = socket.recv_fds(self.socket, 65536, 16)
        if not data:
            return None, 0, {}, []
        _, op, _, _, request, _ = HEADER.unpack_from(data)
        fields, at = {}, HEADER.size
        while at < len(data):
            kind, length = FIELD.unpack_from(data, at)
            fields[kind] = data[at + FIELD.size : at + FIELD.size + length]
            at += FIELD.size + length
        return op, request, fields, list(fds)

    def ask(self, *args, **kwargs):
        """Send a message and return the answer."""
        self.socket.send(message(*args, **kwargs))
        return self.receive()

    def children(self):
        """Return the pids of the lab's children that live."""
        text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        states = {pid: _state(pid) for pid in text.split()}
        return [pid for pid, state in states.items() if state not in ("Z", "")]

    def close(self):
        """End it by its lifeline, and wait until it is dead."""
        pidfd = os.pidfd_open(self.pid)
        os.close(self.lifeline)
        self.socket.close()
        deadline = time.monotonic() + 5
        while _state(self.pid) not in ("Z", ""):
            assert time.monotonic() < deadline, "the lab outlives its lifeline"
            time.sleep(0.005)
        os.close(pidfd)


def _state(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


@pytest.fixture(scope="module", params=["plain", "sanitized"])
def program(request):
    """The pclab that everybody uses, and one with AddressSanitizer and UndefinedBehaviorSanitizer."""
    return plain_or_sanitized(request.param, "pclab")


@pytest.fixture
def lab(program):
    """A lab that is ended after the test."""
    lab = Lab(program)
    yield lab
    lab.close()


GARBAGE = {
    "shorter than a header": b"x",
    "of another version": message(CREATE, PAIR, version=7),
    "longer than it says": message(CREATE, PAIR, length=3),
    "shorter than it says": message(CREATE, PAIR, length=4000),
    "a field that ends outside": message(CREATE)[:-4] + number(8) + FIELD.pack(NAME, 4_000_000_000),
    "a body that is not there": HEADER.pack(1, CREATE, 1, 1, 1, 100),
    "no fields": message(CREATE),
    "fields of no container": message(CREATE, PAIR[1:]),
    "half a pair": message(CREATE, [*container("a"), (LINK_NUMBER, number(1))]),
    "more containers than one answer tells of": message(CREATE, [field for _ in range(31) for field in container("a")]),
    "a link of three": message(CREATE, [*container("a"), *container("b"), *container("c"), (LINK_NUMBER, number(1))]),
    "an endless name": message(CREATE, [(NAME, b"x" * 5000), (HOSTS, b"")]),
    "a short address": message(CREATE, [*container("a")[:-1], (IP4, b"\x0a")]),
    "a field of another request": message(CREATE, [*container("a"), (ARG, b"true")]),
    "a socket that there is not": message(FABRIC, [(FAMILY, number(12345)), (TYPE, number(1))]),
    "networks of nobody": message(NETLINK, [(10, number(77))]),
    "networks of no ids": message(NETLINK),
    "a setting that is none": message(CREATE, [*container("a"), (SETTING, b"ipv4/ip_forward")]),
    "a setting that there is not": message(CREATE, [*container("a"), (SETTING, b"ipv4/no_such=1")]),
    "a setting of somewhere else": message(CREATE, [*container("a"), (SETTING, b"x" * 200 + b"=1")]),
    "too many settings": message(CREATE, [*container("a"), *[(SETTING, b"-ipv4/no_such=1")] * 25]),
    "an unknown request": message(12345),
    "a request of a later version": message(MOUNT),
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_answered_by_an_error_and_hurts_nothing(lab, data):
    """Whatever is no request gets an error that names a step, and the next good request works."""
    lab.socket.send(data)
    op, _, fields, fds = lab.receive()
    assert op == ERROR
    assert fields[STEP]
    assert not fds
    op, request, _, fds = lab.ask(CREATE, PAIR, request=42)
    assert (op, request, len(fds)) == (OK, 42, 4)
    for fd in fds:
        os.close(fd)


def test_every_step_of_a_set_up_may_fail_and_leaves_nothing(program):
    """Each step in turn fails with a made-up EIO: it is named, nothing stays, and there is a last step."""
    seen = set()
    for step in range(1, STEPS_MOST):
        lab = Lab(program, "--fail-step", str(step))
        op, _, fields, fds = lab.ask(CREATE, PAIR)
        if op == ERROR:
            assert struct.unpack("=I", fields[ERRNO])[0] == errno.EIO
            seen.add((fields[STEP], fields[OBJECT]))
            assert lab.children() == []
        for fd in fds:
            os.close(fd)
        lab.close()
        if op == OK:
            break
    assert op == OK
    assert len(seen) == step - 1 >= 20


def test_a_container_ends_when_nobody_holds_its_line(lab):
    """The last copy of an agent's socket is closed: its container goes, without a word to the lab."""
    _, _, _, fds = lab.ask(CREATE, container("alone"))
    assert len(lab.children()) == 1
    for fd in fds:
        os.close(fd)
    deadline = time.monotonic() + 5
    while lab.children():
        assert time.monotonic() < deadline, "the container outlives its line"
        time.sleep(0.002)
    assert lab.ask(END, [(ID, number(1))])[0] == OK


def test_containers_are_ended_in_any_number(lab):
    """Seventy containers in one END are all dead when it answers; unknown ids, and ids twice, are no error."""
    lines = []
    for _ in range(70):
        op, _, _fields, fds = lab.ask(CREATE, container("many"))
        assert op == OK
        lines += fds
    assert len(lab.children()) == 70
    assert lab.ask(END, [(ID, number(id_)) for id_ in [*range(1, 90), *range(1, 90)]])[0] == OK
    assert lab.children() == []
    for fd in lines:
        os.close(fd)


def test_an_agent_survives_garbage(lab):
    """An agent answers nonsense with an error, and then makes a socket."""
    _, _, _, fds = lab.ask(CREATE, container("alone"))
    agent = socket.socket(fileno=os.dup(fds[0]))
    agent.settimeout(20)
    for data in (b"?", message(SOCKET, version=9), message(9999)):
        agent.send(data)
        assert HEADER.unpack_from(agent.recv(4096))[1] == ERROR
    agent.send(message(EXEC, [(ARG, b"true")]))  # without descriptors there is nowhere to answer
    agent.send(message(SOCKET, [(26, number(2)), (27, number(1)), (28, number(0))], request=5))
    data, made, _, _ = socket.recv_fds(agent, 4096, 4)
    assert HEADER.unpack_from(data)[1] == OK
    for fd in (*fds, *made):
        os.close(fd)
    agent.close()


def test_started_by_hand_it_says_what_it_is(program):
    """A person who runs pclab reads one line and gets exit status 64 (EX_USAGE of sysexits.h)."""
    done = subprocess.run([program], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 64
    assert "pytest starts it" in done.stderr
