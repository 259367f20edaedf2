"""The same conversation meets the same fate: over and over, on other pairs, with other addresses and ports."""

import socket
import struct
import threading

import pytest
from wiring import Capture, cells, datagrams, echoes, stream

from pytest_poorcontainer import Network, machine

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)

RUNS = 10


@pytest.fixture
def network():
    """A network whose pairs all have other addresses than those before."""
    with Network() as network:
        yield network


def test_datagrams_are_lost_alike(network):
    """Ten runs, five pairs: exactly the same of 1,000 datagrams arrive, and others with another seed."""
    arrived = []
    for _ in range(RUNS // 2):
        with network.pair() as pair:
            for seed in (7, 7):
                with pair.link.impair(loss="5%", seed=seed):
                    arrived.append(datagrams(pair.a, pair.b, 1000))
    assert all(numbers == arrived[0] for numbers in arrived)
    assert 900 < len(arrived[0]) < 1000
    with network.pair() as pair, pair.link.impair(loss="5%", seed=8):
        assert datagrams(pair.a, pair.b, 1000) != arrived[0]


def test_echoes_are_lost_alike(network):
    """Of 60 ICMP echoes under 20 % loss each way the same ones are answered in each run."""
    answered = []
    for _ in range(3):
        with network.pair() as pair, pair.link.impair(loss="20%", seed=5):
            answered.append([seconds is not None for seconds in echoes(pair.a, pair.b, 60, patience=0.05)])
    assert answered[0].count(False) > 5
    assert answered == [answered[0]] * 3


def test_a_stream_loses_the_same_segments(network):
    """Ten runs of 4 MB under 2 % loss: the same parts of the stream were sent more often than they arrived."""
    lost = []
    for _ in range(RUNS):
        with network.pair() as pair:
            sent, arrived = Capture(pair.a), Capture(pair.b)
            with pair.link.impair(loss="2%", seed=7):
                stream(pair.a, pair.b, 4 << 20)
            lost.append(sorted(cells(sent.frames(), pair.a.ip) - cells(arrived.frames(), pair.a.ip)))
    assert 30 < len(lost[0]) < 100
    assert lost == [lost[0]] * RUNS


def ask(client, count):
    """Send requests over TCP, each after the answer to the one before; the server says its number back."""
    for number in range(count):
        client.sendall(struct.pack("!I", number))
        assert client.recv(4, socket.MSG_WAITALL) == struct.pack("!I", number)


def test_requests_and_answers_are_lost_alike(network):
    """A dialogue over a connection that was there before: as many packets each way, and as many lost, in each run."""
    seen = []
    for _ in range(3):
        with (
            network.pair() as pair,
            pair.b.listen((pair.b.ip, 5000)) as server,
            pair.a.connect((pair.b.ip, 5000)) as client,
        ):
            accepted, _ = server.accept()

            def answer(accepted=accepted):
                with accepted:
                    while request := accepted.recv(4, socket.MSG_WAITALL):
                        accepted.sendall(request)

            thread = threading.Thread(target=answer)
            thread.start()
            captures = [Capture(host) for host in pair]
            with pair.link.impair(loss="4%", seed=9):
                ask(client, 100)
            client.shutdown(socket.SHUT_RDWR)
            thread.join()
            seen.append(
                [
                    _requests(capture.frames(), host)
                    for capture, host in zip(captures, reversed(list(pair)), strict=True)
                ]
            )
    assert seen == [seen[0]] * 3


def _requests(frames, sender):
    """Return how often data arrived at each place of the sender's stream, by its distance from the first."""
    places = []
    for frame in frames:
        if frame[12:14] != b"\x08\0" or frame[23] != socket.IPPROTO_TCP or frame[26:30] != socket.inet_aton(sender.ip):
            continue
        transport = 14 + (frame[14] & 15) * 4
        size = struct.unpack_from("!H", frame, 16)[0] + 14 - transport - (frame[transport + 12] >> 4) * 4
        if size > 0:
            places.append(struct.unpack_from("!I", frame, transport + 4)[0])
    return sorted({(place - places[0]) & 0xFFFFFFFF for place in places})


def test_other_traffic_beside_it_changes_nothing(network):
    """A conversation's fate is its own: echoes and other datagrams beside it, and their absence, make no difference."""
    arrived = []
    for beside in (False, True):
        with network.pair() as pair, pair.link.impair(loss="5%", seed=7):
            stop = threading.Event()

            def chat(pair=pair, stop=stop):
                while not stop.is_set():
                    echoes(pair.a, pair.b, 5, patience=0.01)

            thread = threading.Thread(target=chat) if beside else None
            if thread is not None:
                thread.start()
            try:
                arrived.append(datagrams(pair.a, pair.b, 1000))
            finally:
                stop.set()
                if thread is not None:
                    thread.join()
    assert arrived[0] == arrived[1]
