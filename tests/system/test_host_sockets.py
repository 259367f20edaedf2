"""The test's own process acting inside a host: borrowed sockets, a thread inside, and pyroute2."""

import asyncio
import os
import socket
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pytest_poorcontainer import Network, Unavailable, machine

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)


@pytest.fixture
def pair():
    """Two hosts of a network of their own."""
    with Network() as network:
        yield network.pair("primary", "replica")


class Hello(BaseHTTPRequestHandler):
    """Answers with the address of who asks."""

    def do_GET(self):
        """Answer."""
        body = self.client_address[0].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Say nothing on stderr."""


def test_python_libraries_live_in_a_host(pair):
    """An HTTP server of the standard library in one host serves a client of the standard library in the other."""
    primary, replica = pair
    with primary.sockets():
        server = HTTPServer(("primary", 80), Hello)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    with replica.sockets(), urllib.request.urlopen("http://primary/", timeout=5) as answer:
        assert answer.read().decode() == replica.ip
    thread.join()
    server.server_close()


def test_only_this_thread_is_in_the_host(pair):
    """Another thread makes the machine's own sockets meanwhile, and so does this one afterwards."""
    found = {}

    def look(name):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("", 0))
            found[name] = _is_in(probe, pair.a)

    with pair.a.sockets():
        thread = threading.Thread(target=look, args=("other",))
        thread.start()
        thread.join()
        look("this")
    look("after")
    assert found == {"other": False, "this": True, "after": False}


def _is_in(probe, host):
    """Whether a UDP socket belongs to the host: the host's table (proc(5)) has its port."""
    port = f":{probe.getsockname()[1]:04X} "
    return port in host.run(["cat", "/proc/net/udp"], capture_output=True, text=True).stdout


def test_blocks_nest_and_the_innermost_counts(pair):
    """Inside another host's block a socket is the inner host's, and after it the outer's again."""
    primary, replica = pair
    with primary.sockets():
        with replica.sockets(), socket.create_server((replica.ip, 0)):
            pass
        with socket.create_server((primary.ip, 0)):
            pass


def test_asyncio_in_a_host(pair):
    """An event loop that runs in the block has its connections in the host, and its own pipes outside."""
    primary, replica = pair

    async def talk():
        server = await asyncio.start_server(lambda _, writer: writer.close(), primary.ip, 80)
        async with server:
            with replica.sockets():
                reader, writer = await asyncio.open_connection(primary.ip, 80)
            assert writer.get_extra_info("sockname")[0] == replica.ip
            assert await reader.read() == b""
            writer.close()

    with primary.sockets():
        asyncio.run(talk())


def test_unknown_names_never_reach_the_machine_s_resolver(pair):
    """A name that no joined host has does not exist in the block, whatever the machine's resolver knows."""
    with pair.a.sockets(), pytest.raises(socket.gaierror, match="no name of the hosts joined to primary"):
        socket.create_connection((socket.gethostname() + ".example.org", 80))


def test_everything_is_put_back(pair):
    """After the block, also one that ends with an error, the standard library is as it was."""
    before = socket.socket.__init__, socket.getaddrinfo
    with pytest.raises(ZeroDivisionError), pair.a.sockets():
        raise ZeroDivisionError
    assert (socket.socket.__init__, socket.getaddrinfo) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="entering a network namespace takes root")
def test_this_thread_enters_and_returns(pair):
    """As root the thread itself is in the host's network for the block, and only for it."""
    home = Path("/proc/thread-self/ns/net").readlink()
    with pair.b.listen((pair.b.ip, 80)), pair.a.entered():
        assert Path("/proc/thread-self/ns/net").readlink() != home
        with socket.create_connection((pair.b.ip, 80), timeout=5) as connection:
            assert connection.getsockname()[0] == pair.a.ip
    assert Path("/proc/thread-self/ns/net").readlink() == home


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter")
def test_without_the_privilege_entering_names_what_works(pair):
    """Without root the error says why, and which two ways there are instead."""
    with pytest.raises(Unavailable, match=r"CAP_SYS_ADMIN.*sockets\(\).*run\(\)"), pair.a.entered():
        raise AssertionError("never here")


def test_iproute_acts_on_the_host_from_any_thread(pair):
    """pyroute2 sees the host's links, also from a thread that never was in it, and may change them."""
    names = []
    with pair.a.iproute() as ipr:
        names += [link.get("ifname") for link in ipr.get_links()]
        ipr.link("set", index=100, mtu=1400)
    assert names == ["lo", "eth0"]
    assert pair.a.run(["cat", "/sys/class/net/eth0/mtu"], capture_output=True, text=True).stdout == "1400\n"


def test_link_local_addresses_work(pair):
    """The link-local address of IPv6 is usable at once as well, since nothing detects duplicates."""
    text = pair.a.run(["ip", "-6", "-o", "addr", "show", "scope", "link"], capture_output=True, text=True).stdout
    address = text.split("inet6 ")[1].split("/")[0]
    with pair.a.listen((pair.a.ip6, 80)):
        pass
    with pair.a.listen((address, 81)) as server, pair.b.connect((address, 81), timeout=0.9):
        connection, came_from = server.accept()
        connection.close()
        assert came_from[0].startswith("fe80::")
