"""What a process makes of its watcher's words, and of its silence; with a stand-in for agent and watcher."""

import errno
import gc
import signal
import socket
import struct
import subprocess
import threading

import pytest

from pytest_poorcontainer.container import process as process_module
from pytest_poorcontainer.container.process import Process
from pytest_poorcontainer.errors import LabDied, LabError, PoorContainerError
from pytest_poorcontainer.lab import protocol
from pytest_poorcontainer.lab.handle import Handle
from pytest_poorcontainer.lab.protocol import Field, Op


class StandInLab:
    """A lab that is only asked whether it is closed, and told of what is dropped."""

    def __init__(self):
        self.closed = self.dead = False
        self.ended = []
        self.dropped = []

    def foreign(self):
        """Say no: this is no forked child."""
        return False

    def check_fork(self, what):
        """Say nothing."""

    def end(self, ids):
        """Note it."""
        self.ended += ids

    def drop(self, id_):
        """Note it."""
        self.dropped.append(id_)


class StandIn:
    """A container whose agent and watchers are the test itself: it takes what was sent, and says what it likes."""

    def __init__(self):
        ours, self.agent = protocol.connected()
        pidfd, self.pidfd = protocol.connected()
        self.lab = StandInLab()
        self.handle = Handle(self.lab, "box", 7, ours.detach(), pidfd.detach())
        self.requests = []

    def take(self):
        """Receive an EXEC; return the watcher's end of the command's line."""
        request = protocol.receive(self.agent)
        self.requests.append(request)
        return protocol.socket_of(request.fds.pop(0))

    def answering(self, *words):
        """Answer the next EXEC with these messages in a thread; return it and a list with the watcher's end."""
        ends = []

        def answer():
            ends.append(self.take())
            for op, fields in words:
                say(ends[0], op, fields)

        thread = threading.Thread(target=answer)
        thread.start()
        return thread, ends

    def start(self, *words, **options):
        """Start a process whose watcher says STARTED and then these words; return it and the watcher's end."""
        thread, ends = self.answering((Op.STARTED, [(Field.PID, 12)]), *words)
        process = Process(self.handle, ["cmd"], **options)
        thread.join()
        return process, ends[0]

    def close(self):
        """Close all that was not closed in the test."""
        self.agent.close()
        self.pidfd.close()
        if self.handle is not None:
            self.handle.close()
        self.requests.clear()


def say(sock, op, fields=()):
    """Send a message as the watcher does: with credentials."""
    body = protocol.pack(fields)
    header = struct.pack("=HHHHII", 1, op, 0, 0, 0, len(body))
    sock.sendmsg([header, body])


def heard(sock):
    """Return the operations that the watcher was asked for until nobody asks any more."""
    sock.settimeout(5)
    found = []
    while (message := protocol.receive(sock)) is not None:
        found.append(Op(message.op))
    return found


@pytest.fixture
def box():
    """Return a stand-in container."""
    stand_in = StandIn()
    yield stand_in
    stand_in.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Make the patience of seconds one of milliseconds."""
    monkeypatch.setattr(process_module, "_PATIENCE_AT_START", 0.1)
    monkeypatch.setattr(process_module, "_PATIENCE_AT_END", 0.1)


EXITED = (Op.EXITED, [(Field.STATUS, 7 << 8)])


def test_the_request_carries_line_and_streams(box):
    """An EXEC has the command's line and its three streams beside it, in this order, and the fields of the command."""
    process, watcher = box.start(EXITED, cwd="/srv", stdout=subprocess.PIPE)
    request = box.requests[0]
    assert (request.op, len(request.fds)) == (Op.EXEC, 3)
    assert request.text(Field.CWD) == "/srv"
    assert (process.pid_inside, process.wait()) == (12, 7)
    watcher.close()
    process.close()


def test_silence_at_the_start_ends_in_an_error(box):
    """When the watcher says nothing the error says so, and the watcher is told to end the tree."""
    thread, ends = box.answering()
    with pytest.raises(LabError, match=r"cannot run cmd in box: ETIMEDOUT .* nothing was heard of it"):
        Process(box.handle, ["cmd"])
    thread.join()
    assert heard(ends[0]) == [Op.KILL_TREE]
    ends[0].close()


def test_an_interruption_at_the_start_ends_the_tree(box):
    """Ctrl-C between the request and its answer asks for the end of what may have been started."""
    thread, ends = box.answering()
    previous = signal.signal(signal.SIGALRM, lambda *_: signal.default_int_handler(0, None))
    signal.setitimer(signal.ITIMER_REAL, 0.03)
    try:
        with pytest.raises(KeyboardInterrupt):
            Process(box.handle, ["cmd"])
    finally:
        signal.signal(signal.SIGALRM, previous)
    thread.join()
    assert heard(ends[0]) == [Op.KILL_TREE]
    ends[0].close()


def test_the_watchers_refusal_is_an_exception(box):
    """A step that is neither exec nor chdir is our own affair: LabError with all its parts."""
    words = [(Field.STEP, "become the user"), (Field.OBJECT, "me"), (Field.ERRNO, errno.EPERM), (Field.REMEDY, "be")]
    thread, ends = box.answering((Op.ERROR, words))
    with pytest.raises(LabError, match=r"cannot become the user me: EPERM .*; be"):
        Process(box.handle, ["cmd"])
    thread.join()
    ends[0].close()


def test_the_agents_complaint_is_heard(box):
    """When the agent could not even make a watcher, what it says on its own line is the error."""

    def refuse():
        request = protocol.receive(box.agent)
        words = [(Field.STEP, "receive a request"), (Field.ERRNO, errno.EMFILE)]
        protocol.send(box.agent, Op.ERROR, protocol.pack(words), request=request.request)

    thread = threading.Thread(target=refuse)
    thread.start()
    with pytest.raises(LabError, match="cannot receive a request: EMFILE"):
        Process(box.handle, ["cmd"])
    thread.join()


def test_an_agent_that_ends_meanwhile_is_told(box):
    """An end of file instead of an answer means that the container has ended."""

    def die():
        box.take().close()
        box.agent.close()

    thread = threading.Thread(target=die)
    thread.start()
    with pytest.raises(LabDied, match="cannot run cmd; the container box has ended"):
        Process(box.handle, ["cmd"])
    thread.join()
    with pytest.raises(LabDied):
        Process(box.handle, ["cmd"])


def test_a_lost_watcher_is_told(box):
    """A watcher that ends without the status means that the container has ended; if we closed it, it was SIGKILL."""
    process, watcher = box.start()
    watcher.close()
    with pytest.raises(LabDied, match="cannot wait for cmd"):
        process.wait()
    assert process.returncode is None
    box.lab.closed = True
    assert process.poll() == -signal.SIGKILL
    process.close()


def test_end_waits_for_the_trees_death(box):
    """end() returns when the watcher has said that all is dead."""
    process, watcher = box.start()
    thread = threading.Thread(
        target=lambda: (protocol.receive(watcher), say(watcher, *EXITED), say(watcher, Op.TREE_DEAD))
    )
    thread.start()
    assert process.end() == 7
    thread.join()
    watcher.close()
    process.close()


def test_a_tree_that_does_not_end_is_an_error(box):
    """end() does not wait for ever: the error names the command and the remedy."""
    process, watcher = box.start()
    with pytest.raises(LabError, match=r"cannot end all that was started by cmd: ETIMEDOUT .*Closing the container"):
        process.end()
    say(watcher, Op.ERROR, [(Field.STEP, "end it"), (Field.REMEDY, "something keeps forking")])
    with pytest.raises(LabError, match="cannot end it; something keeps forking"):
        process.end()
    watcher.close()
    process.close()


def test_signals_go_through_the_watcher(box):
    """send_signal() names the signal to the watcher; to one that is gone it says nothing."""
    process, watcher = box.start()
    process.terminate()
    message = protocol.receive(watcher)
    assert (message.op, message.number(Field.SIGNAL)) == (Op.SIGNAL, signal.SIGTERM)
    say(watcher, *EXITED)
    watcher.close()
    process.kill()
    assert process.returncode == 7
    process.close()


def test_a_dropped_container_is_dropped_in_the_lab(box):
    """A handle is held by its processes; when the last is gone the lab is told, and not twice."""
    process, watcher = box.start(EXITED)
    box.handle = None
    gc.collect()
    assert box.lab.dropped == []
    process.close()
    del process
    gc.collect()
    assert box.lab.dropped == [7]
    watcher.close()


def test_closing_is_once(box):
    """close() ends the container in the lab once, also when several threads close it."""
    threads = [threading.Thread(target=box.handle.close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert box.lab.ended == [7]
    with pytest.raises(PoorContainerError, match="container box is closed"):
        box.handle.check()


def test_a_late_answer_is_passed_over(box):
    """The agent's answer to a request that nobody waits for any more does not become another's."""
    sockets = socket.socketpair()

    def answer():
        for number, sock in ((999, sockets[0]), (1, sockets[1])):
            protocol.send(box.agent, Op.OK, b"", [sock.fileno()], request=number)

    thread = threading.Thread(target=answer)
    thread.start()
    fd = box.handle.agent.socket(socket.AF_INET, socket.SOCK_STREAM)
    thread.join()
    with socket.socket(fileno=fd) as taken:
        assert taken.fileno() == fd
        sockets[0].send(b"to the right one")
        assert taken.recv(20) == b"to the right one"
    for sock in sockets:
        sock.close()


def test_a_socket_that_cannot_be_made_is_an_os_error(box):
    """The agent's errno comes back as socket(2) would have given it."""
    protocol.send(box.agent, Op.ERROR, protocol.pack([(Field.ERRNO, errno.EAFNOSUPPORT)]), request=1)
    with pytest.raises(OSError, match="Address family not supported") as raised:
        box.handle.agent.socket(99, 1)
    assert raised.value.errno == errno.EAFNOSUPPORT
    protocol.send(box.agent, Op.OK, b"", request=2)
    with pytest.raises(LabError, match="expected 1 descriptors, 0 came"):
        box.handle.agent.netns()
