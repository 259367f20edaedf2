"""What recording takes of the machine while nobody asks for frames, in counts: sockets, wake-ups, memory."""

import contextlib
import socket
import time
from pathlib import Path

import pytest
from talk import told

from pytest_poorcontainer import Network, eventually, machine
from pytest_poorcontainer.lab import Lab
from pytest_poorcontainer.traffic.recorder import Recorder

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["network"].works, reason=machine.fixtures_ready()["network"].reason
)

PER_SECOND = 10  # as often again the kernel's own timer for the ring runs (RING_RETIRE_MS of preload/recorder/ring.h)
SECONDS = 3
NETWORKS, FRAMES, BYTES = 60, 500, 256  # so many frames, of which so many bytes are kept, of each of three hosts


@pytest.fixture
def network():
    """A network whose lab has recorded before."""
    with Network() as network:
        network.host("first")
        Recorder.of(Lab.current()).ready()
        yield network


def recorders():
    """Return the recorders of our lab, as directories in /proc."""
    lab, found = Lab.current().pid, []
    for path in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            text = path.read_text()
            if text.startswith("Name:\tpcrecorder\n") and f"\nPPid:\t{lab}\n" in text:
                found.append(path.parent)
    return found


def status(process, word):
    """Return the sum of the numbers of what begins with a word in a process' status (proc_pid_status(5))."""
    lines = [line for line in (process / "status").read_text().splitlines() if word in line.partition(":")[0]]
    assert lines
    return sum(int(line.split()[1]) for line in lines)


def census():
    """Return how many recorders there are, and the threads, descriptors and packet sockets of the one."""
    (process,) = recorders()
    sockets = (process / "net" / "packet").read_text().splitlines()[1:]
    return status(process, "Threads"), len(list((process / "fd").iterdir())), len(sockets)


def test_fifty_hosts_are_recorded_by_the_socket_of_one(network):
    """A ring costs a grace period of the kernel: a LAN of 50 adds no packet socket, no thread and no descriptor."""
    before = census()
    nodes = network.lan(50)
    assert census() == before
    with nodes[49].socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
        mouth.sendto(b"x", (nodes[0].ip, 9))
    assert Recorder.of(Lab.current()).read([nodes[49].plugs[0][0]]).frames


def test_a_network_in_which_nothing_happens_wakes_nobody(network):
    """Its recorder is woken at most ten times a second, whether it has two hosts or twenty."""
    for count in (2, 18):
        network.lan([f"h{count}-{number}" for number in range(count)])
        (process,) = recorders()
        eventually(lambda process=process: rests(process, SECONDS), timeout=30)


def rests(process, seconds):
    """Assert that a process is hardly woken for so long; what was said when its hosts were made ends by itself."""
    before = status(process, "ctxt_switches")
    time.sleep(seconds)
    assert status(process, "ctxt_switches") - before <= PER_SECOND * seconds


def test_networks_that_come_and_go_leave_no_frames(network):
    """However many: the recorder's memory is that of the hosts that live, and of a few that have been closed."""
    (process,) = recorders()
    largest = 0
    for _ in range(NETWORKS):
        with Network() as one:
            nodes = one.lan(4)
            for node in nodes[1:]:
                told(node, "python3", "-c", FLOOD, nodes[0].ip)
        Recorder.of(Lab.current()).sweep()
        largest = max(largest, status(process, "RssAnon") << 10)
    assert largest <= NETWORKS * 3 * FRAMES * BYTES // 4


FLOOD = f"""
import socket, sys
mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range({FRAMES}):
    mouth.sendto(bytes({BYTES}), (sys.argv[1], 9))
"""
