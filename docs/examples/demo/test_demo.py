"""What happens to a primary and its replica when somebody trips over the cable.

Two hosts, each with a network stack, a file system and processes of its own, made for each test and gone after it.
The service runs in both; the test asks it questions over the hosts' own sockets. Run it with::

    pytest --poor-container docs/examples/demo -v
"""

import sys
import time
from pathlib import Path

import pytest

KV = Path(__file__).with_name("kv.py")
PORT = 7000

pytestmark = pytest.mark.poor_container(hosts=["primary", "replica"])


def ask(host, question):
    """Ask the service on ``host``, as a client on that host."""
    with host.connect((host.ip, PORT), timeout=5) as sock, sock.makefile("rw") as stream:
        stream.write(question + "\n")
        stream.flush()
        return stream.readline().rstrip("\n")


def until(host, question, wanted):
    """Ask again until the answer is the wanted one, for ten seconds; return the last answer."""
    deadline = time.monotonic() + 10
    while True:
        try:
            answer = ask(host, question)
        except ConnectionRefusedError:  # the service is still starting
            answer = "nothing: the service does not listen"
        if answer == wanted or time.monotonic() > deadline:
            return answer
        time.sleep(0.02)


@pytest.fixture
def services(netns_pair):
    """The service, started on both hosts: its processes by the names of the hosts."""
    return {
        host.name: host.popen([sys.executable, str(KV), host.name, peer.name])
        for host, peer in ((netns_pair.a, netns_pair.b), (netns_pair.b, netns_pair.a))
    }


@pytest.fixture
def pair(netns_pair, services):
    """Two hosts that run the service, the replica following the primary."""
    assert until(netns_pair.b, "ROLE", "replica in term 1") == "replica in term 1"
    return netns_pair


@pytest.fixture
def story(capsys, request):
    """Print a line of the story, with the time it happened at, to whoever watches with ``-v``."""
    start = None

    def tell(line):
        nonlocal start
        if request.config.get_verbosity() > 0:
            with capsys.disabled():
                start = start or time.monotonic()
                print(f"\n   {time.monotonic() - start:5.2f} s  {line}", end="", flush=True)

    yield tell
    tell("both hosts go, with all their processes\n")


def test_a_write_is_on_both_hosts(pair):
    """A write that the primary has confirmed can be read on the replica at once."""
    primary, replica = pair
    assert ask(primary, "SET colour blue") == "OK"
    assert ask(replica, "GET colour") == "blue"


def test_the_replica_takes_over_when_the_cable_is_cut(pair, story):
    """The replica leads while the cable is cut; the old one confirms nothing, and follows once it is mended."""
    primary, replica = pair
    assert ask(primary, "SET colour blue") == "OK"
    story(f"{primary.name} ({primary.ip}) and {replica.name} ({replica.ip}) are wired and agree: colour = blue")

    with pair.link.cut():
        story("the cable is cut: no packet passes, and neither host is told")
        assert ask(primary, "SET colour green") == "ERROR the replica does not answer"
        story("primary refuses a write, for nobody else would have it")
        assert until(replica, "ROLE", "primary in term 2") == "primary in term 2"
        story("replica has heard nothing for a second and leads in term 2")
        assert ask(replica, "SET colour red") == "OK"
        assert ask(primary, "ROLE") == "primary in term 1"
        story("replica takes a write: colour = red; there are two primaries now")

    assert until(primary, "ROLE", "replica in term 2") == "replica in term 2"
    story("the cable is whole again: the old primary hears of term 2 and steps down")
    assert until(primary, "GET colour", "red") == "red"
    assert ask(replica, "SET shape round") == "OK"
    assert ask(primary, "GET shape") == "round"
    story("it follows: colour = red there too; no confirmed write is lost\n")


def test_a_pulled_plug_moves_the_lead_back_and_forth(pair):
    """The lead goes to the replica with the first loss of the carrier, and back with the second."""
    primary, replica = pair
    with pair.link.unplug():
        assert until(replica, "ROLE", "primary in term 2") == "primary in term 2"
    assert until(primary, "ROLE", "replica in term 2") == "replica in term 2"
    with pair.link.unplug():
        assert until(primary, "ROLE", "primary in term 3") == "primary in term 3"
    assert until(replica, "ROLE", "replica in term 3") == "replica in term 3"


def test_the_primary_can_be_killed(pair, services):
    """A dead primary is no obstacle: the replica leads and writes alone."""
    services["primary"].kill()
    replica = pair.b
    assert until(replica, "ROLE", "primary in term 2") == "primary in term 2"
    assert ask(replica, "SET colour red") == "OK"
