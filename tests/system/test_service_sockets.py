"""The sockets of a container, as the kernel's tables have them."""

import contextlib
import os
import socket

import pytest

from pytest_poorcontainer import Container, LabError, Network, PoorContainerError, SocketInfo, machine
from pytest_poorcontainer.container import sockets

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)


def test_sockets_of_a_host():
    """TCP, UDP and unix sockets of both families are listed, each as one line; those of the other host are not."""
    with Network() as net, contextlib.ExitStack() as closing:
        a, b = net.pair()
        server = closing.enter_context(a.listen((a.ip, 80)))
        client = closing.enter_context(b.connect((a.ip, 80)))
        closing.enter_context(server.accept()[0])
        datagrams = closing.enter_context(a.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        datagrams.bind(("::1", 53))
        abstract = closing.enter_context(a.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        abstract.bind("\0hello")
        abstract.listen()
        found = a.open_sockets()
        assert [str(info) for info in found] == [
            f"tcp LISTEN {a.ip}:80",
            f"tcp ESTABLISHED {a.ip}:80 -> {b.ip}:{client.getsockname()[1]}",
            "udp UNCONNECTED [::1]:53",
            "unix LISTEN @hello",
        ]
        assert found[0] == SocketInfo(
            "tcp", "ipv4", "LISTEN", f"{a.ip}:80", "", os.fstat(server.fileno()).st_ino, a.ip, 80
        )
        assert [info.family for info in found] == ["ipv4", "ipv4", "ipv6", "unix"]
        assert [info.remote for info in b.open_sockets()] == [f"{a.ip}:80"]


def test_many_sockets():
    """A table that does not fit into one answer is read whole."""
    with Container("box") as box, contextlib.ExitStack() as closing:
        for number in range(1, 601):
            fd = box._handle.agent.socket(socket.AF_INET, socket.SOCK_STREAM)
            server = closing.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd))
            server.bind(("127.0.0.1", 1000 + number))
            server.listen()
        assert [info.port for info in box.open_sockets()] == list(range(1001, 1601))
        with sockets.SocketTable(box._handle) as table:
            assert [info.port for info in table.inet("tcp", 1300, listening=True)] == [1300]


def test_table_that_the_kernel_lacks(monkeypatch):
    """Without one of the tables the others are listed; who asks for that one alone gets an error with the remedy."""
    monkeypatch.setitem(sockets._PROTOCOLS, "udp", 201)  # a protocol that no module serves
    with Container("box") as box, sockets.SocketTable(box._handle) as table:
        assert table.all() == []
        with pytest.raises(LabError, match="modprobe tcp_diag udp_diag unix_diag"):
            table.inet("udp")


def test_closed_container():
    """A closed container has no sockets to list, and says so."""
    box = Container("box")
    box.close()
    with pytest.raises(PoorContainerError, match="box is closed"):
        box.open_sockets()
