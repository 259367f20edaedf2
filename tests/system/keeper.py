"""A program that makes hosts and lets others enter them: ``keeper.py detach|hold [HOW MANY PAIRS]``.

Of each pair it publishes both hosts. A container that it does not publish must not outlive it.
"""

import json
import sys

from pytest_poorcontainer import Container, Network
from pytest_poorcontainer.container.keep import publish
from pytest_poorcontainer.lab import Lab

ANSWER = """
import socket
server = socket.create_server(("", 80))
print("ready", flush=True)
while True:
    server.accept()[0].sendall(b"hello")
"""


def main():
    """Make them, say what was made, and end: at once with "detach", else when stdin does."""
    network, other = Network(), Container("other")
    pids, hosts = [other.popen(["sleep", "4300"]).pid], []
    for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 else 1):
        pair = network.pair("primary", "replica")
        hosts += pair
        for host in pair:
            server = host.popen([sys.executable, "-c", ANSWER], stdout=-1)
            assert server.stdout.readline() == b"ready\n"
            pids.append(server.pid)
    names = publish(hosts, describe=lambda host: {"test": "test_it.py::test_it", "port": 80, "peer": "x"})
    if sys.argv[1] == "detach":
        publish(hosts, describe=lambda host: {"test": "test_it.py::test_it", "port": 80}, detach=True)
    said = {"names": [names[host] for host in hosts], "ips": [host.ip for host in hosts], "pids": pids}
    print(json.dumps(said | {"lab": None if sys.argv[1] == "detach" else Lab.current().pid}), flush=True)
    if sys.argv[1] == "hold":
        sys.stdin.read()


main()
