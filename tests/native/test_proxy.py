"""The proxy of an exposed port, spoken to by bare messages: what it refuses, its limits, and that it lets go."""

import contextlib
import errno
import os
import signal
import socket
import struct
import time
from pathlib import Path

import pytest
from test_pclab import CREATE, EXEC, HEADER, OK, SOCKET, Lab, container, message, number, program  # noqa: F401 - fixture

from pytest_poorcontainer import machine

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)

EXPOSE, ERROR, ERRNO, PORT, ADDRESS = 36, 1, 3, 31, 32
HERE = socket.inet_aton("127.0.0.1")
INSIDE = 7000
LIMIT = 64  # descriptors
RELAYS = (LIMIT - 16) // 6  # what fits, see proxy.c
WAIT = 20  # seconds, at which a test fails
RESET_AT_CLOSE = struct.pack("=ii", 1, 0)


class Agent:
    """The line to a container's agent, and what it is asked for here."""

    def __init__(self, lab):
        """Have the lab make a container."""
        op, _, _, fds = lab.ask(CREATE, container("alone"))
        assert op == OK
        self.socket = socket.socket(fileno=fds.pop(0))
        self.socket.settimeout(WAIT)
        self.pidfd = fds.pop()

    def ask(self, op, fields=(), fds=()):
        """Send a request and return the answer's op, its descriptors and its bytes."""
        socket.send_fds(self.socket, [message(op, fields)], list(fds))
        data, got, _, _ = socket.recv_fds(self.socket, 4096, 4)
        return HEADER.unpack_from(data)[1], list(got), data

    def listen(self, port=INSIDE, backlog=64):
        """Return a listening socket of the container."""
        op, fds, _ = self.ask(SOCKET, [(26, number(socket.AF_INET)), (27, number(socket.SOCK_STREAM)), (28, number(0))])
        assert op == OK
        server = socket.socket(fileno=fds.pop())
        server.bind(("127.0.0.1", port))
        server.listen(backlog)
        server.settimeout(WAIT)
        return server

    def expose(self, port=INSIDE):
        """Expose a port and return the address that leads to it."""
        with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
            assert self.ask(EXPOSE, [(PORT, number(port)), (ADDRESS, HERE)], [listener.fileno()])[0] == OK
            return listener.getsockname()

    def close(self):
        """Let go of the container, which ends it."""
        self.socket.close()
        os.close(self.pidfd)


@pytest.fixture
def lab(program):  # noqa: F811
    """A lab whose processes may open few files."""
    lab = Lab("/bin/sh", "-c", f"ulimit -n {LIMIT}; exec {program}")
    yield lab
    lab.close()


@pytest.fixture
def agent(lab):
    """A container's agent."""
    agent = Agent(lab)
    yield agent
    agent.close()


def connect(address):
    """Return a connection to the proxy."""
    return socket.create_connection(address, timeout=WAIT)


def is_reset(connection):
    """Whether the connection ends by a reset, and not by an end of file."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        return True
    return False


def is_reset_at_once(address):
    """Whether a connection is reset, be it so early that connecting itself tells."""
    try:
        with connect(address) as client:
            return is_reset(client)
    except ConnectionResetError:
        return True


def stuff(connection):
    """Send until nothing more goes, since nobody reads, and return how many bytes went."""
    connection.settimeout(0.2)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < 1 << 30:
            sent += connection.send(bytes(1 << 20))
    assert sent < 1 << 30
    return sent


def refuses(address):
    """Wait until nobody listens at an address any more."""
    deadline = time.monotonic() + WAIT
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(address) == errno.ECONNREFUSED:
                return True
        assert time.monotonic() < deadline, "somebody still listens"
        time.sleep(0.005)


def children(pidfd):
    """Return the pids of the children of a process."""
    info = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    pid = next(line.split()[1] for line in info.splitlines() if line.startswith("Pid:"))
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def wake_ups(pid):
    """Return how often a process was woken, whether it had given up the processor itself or not (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


def rests(pid):
    """Wait until a process sleeps, which one that spins never does."""
    deadline = time.monotonic() + WAIT
    while True:
        before = wake_ups(pid)
        time.sleep(0.3)
        if wake_ups(pid) - before <= 3:
            return
        assert time.monotonic() < deadline, "the proxy does not come to rest"


def garbage():
    """Return requests that are none, by what is wrong with them."""
    port, here = (PORT, number(INSIDE)), (ADDRESS, HERE)
    return {
        "no fields": ([], 1),
        "no port": ([here], 1),
        "port 0": ([(PORT, number(0)), here], 1),
        "too large a port": ([(PORT, number(65536)), here], 1),
        "a port of two bytes": ([(PORT, b"\1\2"), here], 1),
        "no address": ([port], 1),
        "an address of five bytes": ([port, (ADDRESS, b"\x7f\0\0\1\0")], 1),
        "an address of no bytes": ([port, (ADDRESS, b"")], 1),
        "too many addresses": ([port, *[here] * 17], 1),
        "no socket": ([port, here], 0),
        "two sockets": ([port, here], 2),
    }


@pytest.mark.parametrize(("fields", "sockets"), garbage().values(), ids=garbage().keys())
def test_a_malformed_request_is_refused(agent, fields, sockets):
    """What makes no sense gets EINVAL, no process, and the agent lives; a good one then works."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        op, _, data = agent.ask(EXPOSE, fields, [listener.fileno()] * sockets)
    assert op == ERROR
    assert struct.pack("=III", ERRNO, 4, errno.EINVAL) in data
    assert children(agent.pidfd) == []
    with agent.listen() as server, connect(agent.expose()) as client, server.accept()[0] as served:
        client.sendall(b"x")
        assert served.recv(1) == b"x"


@pytest.mark.parametrize("what", ["connected", "file"])
def test_only_a_listening_socket_is_taken(agent, what):
    """A descriptor of something else is refused with EINVAL, since nobody can connect to it."""
    ours, theirs = socket.socketpair()
    with ours, theirs, Path(os.devnull).open() as null:
        fd = ours.fileno() if what == "connected" else null.fileno()
        op, _, data = agent.ask(EXPOSE, [(PORT, number(INSIDE)), (ADDRESS, HERE)], [fd])
    assert op == ERROR
    assert struct.pack("=III", ERRNO, 4, errno.EINVAL) in data


def test_connections_beyond_the_limit_wait_their_turn(agent):
    """At the limit on descriptors nothing is accepted and nothing spins; one that ends lets the next one in."""
    with agent.listen() as server:
        address = agent.expose()
        clients = [connect(address) for _ in range(RELAYS + 5)]
        served = [server.accept()[0] for _ in range(RELAYS)]
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()
        (proxy,) = children(agent.pidfd)
        rests(proxy)
        server.settimeout(WAIT)
        for client in clients:
            client.sendall(b"x")
        for place in range(5):
            served[place].close()
            clients[place].close()
            served.append(server.accept()[0])
        for connection in served[5:]:
            assert connection.recv(1) == b"x"
        for connection in (*clients, *served):
            connection.close()


def test_no_descriptor_leaks_whichever_way_a_connection_ends(agent):
    """Far more connections than descriptors come and go, by end of file, by reset, refused, with bytes under way."""
    server = agent.listen()
    address = agent.expose()
    nobody = agent.expose(INSIDE + 1)
    for turn in range(8 * LIMIT):
        with connect(address) as client, server.accept()[0] as served:
            ends = (client, served) if turn & 1 else (served, client)
            if turn & 2:
                ends[0].sendall(bytes(4096))
            if turn & 4:
                ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
            ends[0].close()
            assert is_reset(ends[1]) == bool(turn & 4)
        assert is_reset_at_once(nobody)
    server.close()


def test_what_a_broken_connection_left_is_nobody_s(agent):
    """A connection is reset while its bytes are held up in the proxy: the next one gets none of them."""
    with agent.listen() as server:
        address = agent.expose()
        for _ in range(3):
            with connect(address) as client, server.accept()[0] as served:
                assert stuff(served) > 0
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        with connect(address) as client, server.accept()[0] as served:
            client.sendall(b"mine")
            served.sendall(b"yours")
            assert (served.recv(100), client.recv(100)) == (b"mine", b"yours")


@pytest.fixture
def joined(agent):
    """A connection through the proxy: the client's end and the server's."""
    with agent.listen() as server, connect(agent.expose()) as client, server.accept()[0] as served:
        served.settimeout(WAIT)
        served.sendall(b"x")
        assert client.recv(1) == b"x"  # the proxy, too, has seen the server's answer
        yield client, served


@contextlib.contextmanager
def stopped(pid):
    """Have a process stand still for the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("sender", [0, 1], ids=["client", "server"])
def test_a_slow_reader_stops_the_sender(agent, joined, sender):
    """Who reads nothing lets the proxy take a bounded number of bytes; it sleeps then, and later hands out them all."""
    writer, reader = joined[sender], joined[1 - sender]
    sent = stuff(writer)
    (proxy,) = children(agent.pidfd)
    rests(proxy)
    writer.close()
    got = 0
    while part := reader.recv(1 << 20):
        got += len(part)
    assert got == sent


@pytest.mark.parametrize("sender", [0, 1], ids=["client", "server"])
def test_bytes_before_a_reset_are_delivered(agent, joined, sender):
    """Bytes and the reset behind them reach the proxy at once: the other side gets the bytes first."""
    first, second = joined[sender], joined[1 - sender]
    with stopped(int(children(agent.pidfd)[0])):
        first.sendall(b"last words")
        first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        first.close()
    assert second.recv(100) == b"last words"
    assert is_reset(second)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look at the descriptors of a container's process")
def test_it_holds_what_it_needs_and_no_more(agent):
    """Standard descriptors, the listener and an epoll are all that it has; none of the agent's, none of pytest's."""
    assert is_reset_at_once(agent.expose())  # so it has answered, and let go of where it did
    (proxy,) = children(agent.pidfd)
    links = sorted(path.readlink().name.partition(":")[0] for path in Path(f"/proc/{proxy}/fd").iterdir())
    assert links == ["anon_inode", "null", "null", "null", "socket"]


def test_it_ends_with_the_container(lab):
    """When nobody holds the agent's line any more, the container goes, and the address with it."""
    agent = Agent(lab)
    address = agent.expose()
    assert is_reset_at_once(address)  # nobody listens inside
    agent.close()
    assert refuses(address)


def test_it_is_a_child_of_the_init_whoever_served_the_request(agent):
    """Asked of a watcher that is between two commands, it is that watcher's sibling: no command's end is its end."""
    null = os.open(os.devnull, os.O_RDWR)
    first = agent.expose()
    for turn in range(3):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(WAIT)
        with ours:
            socket.send_fds(
                agent.socket,
                [message(EXEC, [(21, b"true"), (22, b"PATH=/usr/bin:/bin")])],
                [theirs.fileno(), null, null, null],
            )
            theirs.close()
            while ours.recv(4096):
                pass  # its end of file says that nothing of the command is left
        agent.expose(INSIDE + 1 + turn)
        names = [Path(f"/proc/{pid}/comm").read_text() for pid in children(agent.pidfd)]
        assert names.count("pc-expose\n") == 2 + turn
    os.close(null)
    with agent.listen() as server, connect(first) as client, server.accept()[0] as served:
        served.sendall(b"still here")
        assert client.recv(100) == b"still here"
