"""The words between pytest and the lab, without a lab: packing, sending, receiving, and what can be wrong."""

import contextlib
import errno
import os
import re
import resource
import signal
import socket
import struct
from pathlib import Path

import pytest
from descriptors import descriptor_count, descriptors

from pytest_poorcontainer.errors import LabError
from pytest_poorcontainer.lab import forks, protocol
from pytest_poorcontainer.lab.protocol import Field, Op

HEADER_FILE = Path(__file__).resolve().parents[2] / "preload" / "lab" / "protocol.h"
SCALARS = {"VERSION", "INLINE_MAX", "BODY_MAX", "FDS_MAX", "FLAG_BODY_IN_FD"}


def words_of_c():
    """Return every enumerator of protocol.h with its value, without the prefix PC_."""
    text = re.sub(r"/\*.*?\*/", "", HEADER_FILE.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = {}
    for body in re.findall(r"enum\s*\w*\s*\{(.*?)\}", text, flags=re.DOTALL):
        following = 0
        for item in filter(None, (item.strip() for item in body.split(","))):
            name, _, value = (part.strip() for part in item.partition("="))
            following = eval(value) if value else following
            found[name.removeprefix("PC_")] = following
            following += 1
    return found


def words_of_python():
    """Return the same from the Python side."""
    return {
        **{name: getattr(protocol, name) for name in SCALARS},
        **{op.name: op.value for op in Op},
        **{f"F_{field.name}": field.value for field in Field},
        **{f"NETWORK_{network.name}": network.value for network in protocol.Network},
        **{f"MOUNT_{kind.name}": kind.value for kind in protocol.Mount},
        **{f"FLAG_{flag.name}": flag.value for flag in protocol.MountFlag},
        **{keep.name: keep.value for keep in protocol.Keep},
        **{f"FILE_{kind.name}": kind.value for kind in protocol.File},
    }


@pytest.fixture
def line():
    """Return two joined sockets."""
    ours, theirs = protocol.connected()
    yield ours, theirs
    ours.close()
    theirs.close()


@contextlib.contextmanager
def spare_descriptors(count):
    """Let this process open so many more descriptors, and no others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(descriptors())
    fillers = [os.open(os.devnull, os.O_RDONLY)]
    while fillers[-1] < highest:
        fillers.append(os.dup(fillers[0]))  # no hole is left below
    resource.setrlimit(resource.RLIMIT_NOFILE, (fillers[-1] + 1 + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for filler in fillers:
            os.close(filler)


def test_both_sides_say_the_same():
    """Every number of protocol.h has the same name and value in Python, and the other way round."""
    assert words_of_c() == words_of_python()
    assert len(words_of_c()) > 50


def test_fields_come_back_as_they_were_packed():
    """Integers, text and bytes survive packing; text is in the file system's encoding."""
    body = protocol.pack(
        [(Field.ID, 7), (Field.NAME, "grün"), (Field.ARG, b""), (Field.ARG, b"\xff\0"), (Field.ID, 2**32 - 1)]
    )
    fields = protocol.unpack(body)
    assert fields[1:4] == [(Field.NAME, "grün".encode()), (Field.ARG, b""), (Field.ARG, b"\xff\0")]
    assert protocol.numbers(fields, Field.ID) == [7, 2**32 - 1]


def test_fields_have_no_padding():
    """The form is that of struct pc_field: type and length in 32 bits, then the value at once."""
    assert protocol.pack([(Field.CWD, "abc")]) == struct.pack("=II", 23, 3) + b"abc"
    assert protocol.pack([(Field.ID, 5)]) == struct.pack("=III", 10, 4, 5)


@pytest.mark.parametrize("body", [b"\1", b"\1\0\0\0\5\0\0", b"\1\0\0\0\5\0\0\0four", b"\1\0\0\0\xff\xff\xff\xff"])
def test_a_malformed_body_is_refused(body):
    """Fields that do not fill their body exactly raise EPROTO instead of being half understood."""
    with pytest.raises(LabError, match=r"EPROTO.*make build"):
        protocol.unpack(body)


def test_a_message_with_descriptors(line):
    """Descriptors arrive beside the message, close-on-exec, and belong to the receiver."""
    ours, theirs = line
    reader, writer = os.pipe()
    protocol.send(ours, Op.EXEC, protocol.pack([(Field.ARG, "ls")]), [writer], request=9)
    os.close(writer)
    message = protocol.receive(theirs)
    assert (message.op, message.request, message.text(Field.ARG)) == (Op.EXEC, 9, "ls")
    (fd,) = message.fds
    assert not os.get_inheritable(fd)
    os.write(fd, b"through")
    assert os.read(reader, 10) == b"through"
    del message
    assert os.read(reader, 10) == b"", "the descriptor that nobody took is closed with its message"
    os.close(reader)


@pytest.mark.parametrize("size", [protocol.INLINE_MAX - 8, protocol.INLINE_MAX - 7, 1_000_000, protocol.BODY_MAX - 8])
def test_large_bodies_go_through_memory(line, size):
    """Whatever the size, a body arrives whole, together with the descriptors of its message."""
    ours, theirs = line
    before = descriptors()
    value = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    protocol.send(ours, Op.EXEC, protocol.pack([(Field.ARG, value)]), [0], request=1)
    message = protocol.receive(theirs)
    assert message.fields == [(Field.ARG, value)]
    assert len(message.fds) == 1
    del message
    assert descriptors() == before


def test_a_body_beyond_the_limit_is_refused(line):
    """What is larger than BODY_MAX raises E2BIG, and nothing is sent."""
    ours, theirs = line
    with pytest.raises(OSError, match="Argument list too long"):
        protocol.send(ours, Op.EXEC, b"x" * (protocol.BODY_MAX + 1))
    with pytest.raises(BlockingIOError):
        protocol.receive(theirs, wait=False)


def test_end_of_file_is_none(line):
    """When the other side has closed, receive() returns None, as often as it is asked."""
    ours, theirs = line
    theirs.close()
    assert protocol.receive(ours) is None
    assert protocol.peek(ours) is None
    assert protocol.receive(ours, wait=False) is None


def test_what_was_said_before_the_end_is_heard(line):
    """A side that ends with something of ours unread has still said what it said: ECONNRESET does not hide it."""
    ours, theirs = line
    protocol.send(ours, Op.SIGNAL, b"")
    protocol.send(theirs, Op.EXITED, protocol.pack([(Field.STATUS, 9)]))
    theirs.close()
    assert protocol.receive(ours).number(Field.STATUS) == 9
    assert protocol.receive(ours) is None


def test_peek_leaves_the_message(line):
    """peek() tells what a message says and leaves it, with its descriptors, for receive()."""
    ours, theirs = line
    before = descriptor_count()
    protocol.send(ours, Op.OK, protocol.pack([(Field.ID, 4)]), [0, 1])
    assert protocol.numbers(protocol.peek(theirs), Field.ID) == [4]
    assert descriptor_count() == before
    assert len(protocol.receive(theirs).fds) == 2


def test_sending_to_nobody_raises_and_kills_nobody(line):
    """EPIPE is an exception also where a test has given SIGPIPE its deadly default back."""
    ours, theirs = line
    theirs.close()
    previous = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        with pytest.raises(BrokenPipeError):
            protocol.send(ours, Op.END)
    finally:
        signal.signal(signal.SIGPIPE, previous)


@pytest.mark.parametrize(("sent", "room"), [(3, 0), (3, 2), (1, 0)])
def test_descriptors_that_could_not_be_received_are_told(line, sent, room):
    """At the limit of open files receive() names EMFILE and the remedy, and closes those that did come."""
    ours, theirs = line
    before = descriptors()
    protocol.send(ours, Op.OK, protocol.pack([(Field.ID, 4)]), [0] * sent)
    with spare_descriptors(room), pytest.raises(protocol.OutOfDescriptors, match=r"EMFILE.*ulimit -n"):
        protocol.receive(theirs)
    assert descriptors() == before


def test_a_lost_body_is_told(line):
    """The same when it is the body's descriptor that is lost."""
    ours, theirs = line
    protocol.send(ours, Op.EXEC, protocol.pack([(Field.ARG, b"x" * 50_000)]))
    with spare_descriptors(0), pytest.raises(protocol.OutOfDescriptors):
        protocol.receive(theirs)


def raw(version=1, op=0, flags=0, fds=0, request=0, length=0, body=b""):
    """Return a datagram with any header."""
    return struct.pack("=HHHHII", version, op, flags, fds, request, length) + body


@pytest.mark.parametrize(
    ("datagram", "cause"),
    [
        (raw(version=2), "version 2, expected 1"),
        (raw()[:15], "wrong size"),
        (raw(length=5), "0 bytes, its header says 5"),
        (raw(body=b"\1\0\0\0\0\0\0\0"), "8 bytes, its header says 0"),
        (raw(length=3, body=b"abc"), "cut short"),
        (raw(length=40_000, body=b"x" * 40_000), "wrong size"),
    ],
)
def test_a_message_that_makes_no_sense_is_refused(line, datagram, cause):
    """A header that does not fit what follows, or another version, raises EPROTO and says what was wrong."""
    ours, theirs = line
    ours.send(datagram)
    with pytest.raises(LabError, match=f"EPROTO.*{cause}"):
        protocol.receive(theirs)


def test_a_body_longer_than_its_memory_is_refused(line):
    """A length that the memory does not have, or nobody may ask for, is refused, and the descriptor closed."""
    ours, theirs = line
    before = descriptors()
    memory = os.memfd_create("short")
    os.write(memory, b"1234")
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("=i", memory))]
    for length, cause in ((8, "4 bytes, its header says 8"), (protocol.BODY_MAX + 1, "longer than")):
        ours.sendmsg([raw(flags=protocol.FLAG_BODY_IN_FD, fds=1, length=length)], rights)
        with pytest.raises(LabError, match=cause):
            protocol.receive(theirs)
    os.close(memory)
    assert descriptors() == before


def test_credentials_are_taken_out(line):
    """A socket that asks for credentials learns whose pid they carry, as it sees that process."""
    ours, theirs = line
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    protocol.send(ours, Op.STARTED, b"", [0])
    message = protocol.receive(theirs)
    assert (message.pid, len(message.fds)) == (os.getpid(), 1)


def test_an_error_says_all_its_parts():
    """An ERROR message becomes an exception with step, object, errno and remedy."""
    fields = protocol.unpack(
        protocol.pack([(Field.STEP, "mount overlay"), (Field.OBJECT, "/etc"), (Field.ERRNO, 1), (Field.REMEDY, "try")])
    )
    error = protocol.Message(Op.ERROR, 0, fields, []).error()
    assert (error.operation, error.object, error.errno, error.remedy) == ("mount overlay", "/etc", errno.EPERM, "try")
    assert str(error) == "cannot mount overlay /etc: EPERM (Operation not permitted); try"


def test_waits_are_limited(line):
    """After limit_waits() a receive gives up by itself."""
    ours, _ = line
    protocol.limit_waits(ours, 1)
    with pytest.raises(BlockingIOError):
        protocol.receive(ours)


def test_a_default_timeout_is_not_ours():
    """socket.setdefaulttimeout() in a test does not reach our sockets."""
    socket.setdefaulttimeout(0.01)
    try:
        ours, theirs = protocol.connected()
        taken = protocol.socket_of(os.dup(ours.fileno()))
    finally:
        socket.setdefaulttimeout(None)
    assert [sock.gettimeout() for sock in (ours, theirs, taken)] == [None, None, None]
    for sock in (ours, theirs, taken):
        sock.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_guarded_descriptors_are_null_in_a_forked_child(line):
    """A forked child finds /dev/null at the numbers of our lines, an unguarded one untouched, and a new generation."""
    ours, theirs = line
    forks.guard(ours.fileno())
    before = forks.generation()
    child = os.fork()
    if child == 0:
        try:
            null = Path(f"/proc/self/fd/{ours.fileno()}").readlink() == Path("/dev/null")
            kept = Path(f"/proc/self/fd/{theirs.fileno()}").readlink().name.startswith("socket:")
            os._exit(0 if null and kept and forks.generation() == before + 1 else 1)
        finally:
            os._exit(2)  # never a second pytest
    assert os.waitpid(child, 0)[1] == 0
    forks.expose(ours.fileno())
    assert forks.generation() == before
