"""``host.expose``: real servers in hosts, and clients in the test's own network or outside of pytest."""

import asyncio
import contextlib
import hashlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading

import pytest
from descriptors import descriptors

from pytest_poorcontainer import LabError, Network, PoorContainerError, UsageError, machine

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)

WAIT = 30  # seconds, at which a test fails
PORT = 5432
MANY = 500
BYTES = 100 << 20
PIECE = 1 << 20
RESET_AT_CLOSE = struct.pack("=ii", 1, 0)

# Servers that run as programs in a host; the word says that they listen.
ECHO = """
import asyncio
async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 5432, backlog=1024)
    print("listening", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
# Reads and writes at once, as much as the test does, and tells at last the checksum of what it read.
BOTH_WAYS = """
import hashlib, socket, threading
server = socket.create_server(("127.0.0.1", 5432))
print("listening", flush=True)
connection, _ = server.accept()
def write():
    for piece in range(100):
        connection.sendall(bytes([piece]) * (1 << 20))
    connection.shutdown(socket.SHUT_WR)
writer = threading.Thread(target=write)
writer.start()
checksum = hashlib.sha256()
while part := connection.recv(1 << 20):
    checksum.update(part)
writer.join()
print(checksum.hexdigest(), flush=True)
"""
HTTP = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"from " + self.client_address[0].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(("", 5432), Handler)
print("listening", flush=True)
server.serve_forever()
"""
CLIENT = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=30).read().decode())"


@pytest.fixture
def network():
    """A network of the test's own."""
    with Network() as network:
        yield network


@pytest.fixture
def pair(network):
    """Two hosts, joined."""
    return network.pair("primary", "replica")


@pytest.fixture
def host(pair):
    """A host."""
    return pair.a


@contextlib.contextmanager
def serving(host, code):
    """Have a program run in the host, which says that it listens."""
    with host.popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "listening\n"
        yield process
        process.kill()


def connect(address):
    """Return a connection to the address."""
    return socket.create_connection(address, timeout=WAIT)


def is_reset(address):
    """Whether a connection to the address is reset; this may be so soon that connecting itself tells."""
    try:
        with connect(address) as client:
            client.recv(1)
    except ConnectionResetError:
        return True
    return False


def is_refused(address):
    """Whether nobody listens at the address."""
    with socket.socket() as client:
        try:
            client.connect(address)
        except ConnectionRefusedError:
            return True
    return False


def test_a_client_outside_of_pytest_reaches_a_server(host):
    """A program that knows nothing of pytest fetches a page from a server in the host, which sees a local client."""
    with serving(host, HTTP):
        name, port = host.expose(PORT)
        assert name == "127.0.0.1"
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, f"http://{name}:{port}/"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "no_proxy": "*"},
        )
    assert done.stdout == "from 127.0.0.1\n"


def test_a_hundred_megabytes_each_way_at_once(host):
    """100 MB in both directions at the same time arrive as they were sent, and so do both ends of file."""
    expected, seen = hashlib.sha256(), hashlib.sha256()
    for piece in range(BYTES // PIECE):
        expected.update(bytes([piece]) * PIECE)
    with serving(host, BOTH_WAYS) as process, connect(host.expose(PORT)) as client:

        def write():
            for piece in range(BYTES // PIECE):
                client.sendall(bytes([255 - piece]) * PIECE)
            client.shutdown(socket.SHUT_WR)

        writer = threading.Thread(target=write)
        writer.start()
        while part := client.recv(PIECE):
            seen.update(part)
        writer.join()
        told = process.stdout.readline().strip()
    assert seen.hexdigest() == expected.hexdigest()
    sent = hashlib.sha256()
    for piece in range(BYTES // PIECE):
        sent.update(bytes([255 - piece]) * PIECE)
    assert told == sent.hexdigest()


def test_five_hundred_connections_at_once(host):
    """500 connections are open at the same time, and each gets its own bytes back."""

    async def talk(address):
        opened = [await asyncio.open_connection(*address) for _ in range(MANY)]
        for place, (_, writer) in enumerate(opened):
            writer.write(b"%d" % place * 1000)
            writer.write_eof()
        answers = [await reader.read() for reader, _ in opened]
        for _, writer in opened:
            writer.close()
            await writer.wait_closed()
        return answers

    with serving(host, ECHO):
        answers = asyncio.run(asyncio.wait_for(talk(host.expose(PORT)), WAIT))
    assert answers == [b"%d" % place * 1000 for place in range(MANY)]


@pytest.mark.parametrize("end", ["client", "server"])
def test_an_end_of_file_is_passed_on_and_the_other_direction_goes_on(host, end):
    """Who says that it sends no more can still read all that the other sends after that."""
    with host.listen(("127.0.0.1", PORT)) as server:
        client = connect(host.expose(PORT))
        served, _ = server.accept()
        first, second = (client, served) if end == "client" else (served, client)
        with first, second:
            first.settimeout(WAIT)
            second.settimeout(WAIT)
            first.sendall(b"question")
            first.shutdown(socket.SHUT_WR)
            assert second.recv(100) == b"question"
            assert second.recv(100) == b""
            second.sendall(b"answer")
            assert first.recv(100) == b"answer"
            second.close()
            assert first.recv(100) == b""


@pytest.mark.parametrize("end", ["client", "server"])
def test_a_reset_is_passed_on_as_a_reset(host, end):
    """A connection that one side breaks off does not end for the other as if all were well; sent bytes still arrive."""
    with host.listen(("127.0.0.1", PORT)) as server:
        client = connect(host.expose(PORT))
        served, _ = server.accept()
        first, second = (client, served) if end == "client" else (served, client)
        with first, second:
            second.settimeout(WAIT)
            second.sendall(b"hello")  # so that the proxy, too, has seen the server's answer
            assert first.recv(5) == b"hello"
            first.sendall(b"last words")
            first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
            first.close()
            assert second.recv(10) == b"last words"
            with pytest.raises(ConnectionResetError):
                second.recv(1)


def test_a_port_may_be_exposed_before_anybody_listens(host):
    """Without a server a connection is reset; the same address leads to the server once there is one."""
    address = host.expose(PORT)
    assert is_reset(address)
    with host.listen(("127.0.0.1", PORT)) as server, connect(address) as client, server.accept()[0] as served:
        served.sendall(b"here")
        assert client.recv(4) == b"here"
    assert is_reset(address)


def test_nobody_is_not_mistaken_for_an_answer(host):
    """TCP lets a socket reach itself when the kernel gives it the very port that it calls; that counts as nobody."""
    sysctl = "/proc/sys/net/ipv4/ip_local_port_range"
    if host.run(["sh", "-c", f"echo {PORT} {PORT} > {sysctl}"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip(f"{sysctl} cannot be written in a host here")
    address = host.expose(PORT)
    assert [is_reset(address) for _ in range(10)] == [True] * 10


WHERE = {
    "IPv4 loopback": lambda host: "127.0.0.1",
    "IPv6 loopback": lambda host: "::1",
    "own IPv4": lambda host: host.ip,
    "own IPv6": lambda host: host.ip6,
}


@pytest.mark.parametrize("where", WHERE.values(), ids=WHERE.keys())
def test_the_server_may_be_at_any_address_of_the_host(host, where):
    """A server that is bound to one address only, of either family, is found there."""
    with host.listen((where(host), PORT)) as server, connect(host.expose(PORT)) as client:
        served, peer = server.accept()
        with served:
            assert peer[0] == where(host)
            served.sendall(b"here")
            assert client.recv(4) == b"here"


def test_faults_do_not_reach_it(network, pair):
    """With the link cut, and unplugged, the port still answers: the way in is not the cable."""
    address = pair.a.expose(PORT)
    with pair.a.listen((pair.a.ip, PORT)) as server:
        for fault in (pair.link.cut, pair.link.unplug):
            fault()
            with connect(address) as client, server.accept()[0] as served:
                served.sendall(b"here")
                assert client.recv(4) == b"here"


def test_the_same_port_has_one_address(pair):
    """Asked again the address is the same; another port's, or another host's, is another one."""
    first = pair.a.expose(PORT)
    assert pair.a.expose(PORT) == first
    assert len({first, pair.a.expose(PORT + 1), pair.b.expose(PORT)}) == 3
    processes = pair.a.run(["sh", "-c", "cat /proc/[0-9]*/comm"], capture_output=True, text=True)
    assert processes.stdout.split().count("pc-expose") == 2


def test_nothing_runs_when_nothing_is_exposed(host):
    """A host of which no port is exposed has no process for it."""
    processes = host.run(["sh", "-c", "cat /proc/[0-9]*/comm"], capture_output=True, text=True)
    assert "pc-expose" not in processes.stdout


def test_the_address_is_the_test_s_own_inside_sockets_too(host):
    """In ``with host.sockets()`` the address is still one of the test's own network."""
    with host.sockets():
        address = host.expose(PORT)
    assert is_reset(address)


@pytest.mark.skipif(os.geteuid() != 0, reason="entering a network namespace takes root")
def test_the_address_is_the_test_s_own_inside_entered_too(host):
    """In ``with host.entered()`` the address is still one of the test's own network, and the thread stays inside."""
    with host.entered():
        address = host.expose(PORT)
        assert is_refused(address)
    assert is_reset(address)


def test_the_end_of_a_command_is_not_its_end(host):
    """Commands come, go and are killed with all that they started; what was exposed between them stays."""
    host.run(["true"])
    address = host.expose(PORT)
    with pytest.raises(subprocess.TimeoutExpired):
        host.run(["sh", "-c", "setsid sleep 1000 & sleep 1000"], timeout=0.1)
    with host.listen(("127.0.0.1", PORT)) as server, connect(address) as client, server.accept()[0] as served:
        served.sendall(b"here")
        assert client.recv(4) == b"here"


@pytest.mark.parametrize("port", [0, -1, 65536, 1.0, "80", None, True])
def test_what_is_no_port_is_refused(host, port):
    """Anything but a number from 1 to 65535 is an error that says so."""
    with pytest.raises(UsageError, match=r"from 1 to 65535, not"):
        host.expose(port)


def test_a_closed_host_has_no_address(host):
    """After close() the address refuses, open connections have ended, and asking is an error."""
    with host.listen(("127.0.0.1", PORT)), connect(host.expose(PORT)) as client:
        address = client.getpeername()
        host.close()
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
    assert is_refused(address)
    for port in (PORT, PORT + 1):
        with pytest.raises(PoorContainerError, match="primary is closed"):
            host.expose(port)


def test_a_killed_host_has_no_address(host):
    """When somebody kills the host's first process, the address refuses, and asking for another is an error."""
    address = host.expose(PORT)
    pidfd = os.pidfd_open(host.pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert select.select([pidfd], [], [], WAIT)[0]  # dead, with all that was in there
    finally:
        os.close(pidfd)
    assert is_refused(address)
    with pytest.raises(LabError, match="expose port 80 of primary"):
        host.expose(80)


def test_many_threads_get_one_address(host):
    """Threads that ask at the same time get the same address."""
    found = []
    threads = [threading.Thread(target=lambda: found.append(host.expose(PORT))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_no_descriptor_stays_in_the_test(host):
    """Exposing takes no descriptor of the test's process: the host has the only copy of the listener."""
    host.expose(1)
    before = descriptors()
    for port in range(2, 12):
        host.expose(port)
    assert descriptors() == before
