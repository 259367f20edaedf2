"""The same conversation meets the same fate: over and over, on other pairs, with other addresses and ports."""

import collections
import contextlib
import socket
import struct
import threading

import pytest
from wiring import Capture, answered, cells, datagrams, echoes, stream

from pytest_poorcontainer import Network, machine
from pytest_poorcontainer.network.addresses import has_ipv6

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
    seen = []
    for _ in range(3):
        with network.pair() as pair:
            meet(pair.a, pair.b)
            with pair.link.impair(loss="20%", seed=5):
                seen.append(answered(pair.a, pair.b, 60))
    assert 20 < len(seen[0]) < 55
    assert seen == [seen[0]] * 3


def test_a_stream_loses_the_same_segments(network):
    """Ten runs of 4 MB under 2 % loss: each part of the stream is lost as often, however often it is sent."""
    lost = []
    for _ in range(RUNS):
        with network.pair() as pair, pair.link.impair(loss="2%", seed=7):
            lost.append(lost_of_a_stream(pair.a, pair.b))
    assert 30 < len(lost[0]) < 100
    unlike = [{cell: (one.get(cell, 0), lost[0].get(cell, 0)) for cell in {*one, *lost[0]}} for one in lost]
    assert [{cell: times for cell, times in one.items() if times[0] != times[1]} for one in unlike] == [{}] * RUNS


def lost_of_a_stream(sender, receiver, size=4 << 20):
    """Send a stream; return how often each of its cells was lost, those that were at all."""
    sent, arrived = Capture(sender), Capture(receiver)
    stream(sender, receiver, size)
    return dict(sorted((cells(sent.frames(), sender.ip) - cells(arrived.frames(), sender.ip)).items()))


@contextlib.contextmanager
def dialogue(client, server, *, port=5000, address=None):
    """Connect two hosts, the server answering each request; yield the client's socket and where the server's is."""
    with server.listen((server.ip, port)) as listening, client.connect((address or server.ip, port)) as asking:
        accepted, _ = listening.accept()

        def answer():
            with accepted:
                while request := accepted.recv(4, socket.MSG_WAITALL):
                    accepted.sendall(request)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield asking
        finally:
            asking.shutdown(socket.SHUT_RDWR)
            thread.join()


def ask(client, count):
    """Send requests over TCP, each after the answer to the one before; the server says its number back."""
    for number in range(count):
        client.sendall(struct.pack("!I", number))
        assert client.recv(4, socket.MSG_WAITALL) == struct.pack("!I", number)


@contextlib.contextmanager
def losing(client, server):
    """Yield two dicts, of requests and answers, for how often each was lost by its place, filled in at the end."""
    captures = {host: Capture(host) for host in (client, server)}
    lost = ({}, {})
    yield lost
    # Each end knows the other's address where there is no translation, and its own in any case.
    frames = {host: capture.frames() for host, capture in captures.items()}
    for found, sender, receiver in ((lost[0], client, server), (lost[1], server, client)):
        sent = places(frames[sender], sender.ip, own=True)
        arrived = places(frames[receiver], receiver.ip, own=False)
        found.update(sorted((sent - arrived).items()))


def places(frames, ip, *, own):
    """Return how often data was seen at each place of the stream that a host sends (own) or gets, from its first on."""
    found, first = collections.Counter(), None
    for frame in frames:
        address = frame[26:30] if own else frame[30:34]
        if frame[12:14] != b"\x08\0" or frame[23] != socket.IPPROTO_TCP or address != socket.inet_aton(ip):
            continue
        transport = 14 + (frame[14] & 15) * 4
        size = struct.unpack_from("!H", frame, 16)[0] + 14 - transport - (frame[transport + 12] >> 4) * 4
        (sequence,) = struct.unpack_from("!I", frame, transport + 4)
        if frame[transport + 13] & 2:
            first = sequence + 1  # SYN
        elif size > 0:
            found[(sequence - first) & 0xFFFFFFFF] += 1
    return found


def test_requests_and_answers_are_lost_alike(network):
    """A dialogue over a connection that was there before: in each run the same requests and answers are lost."""
    seen = []
    for _ in range(3):
        with (
            network.pair() as pair,
            losing(*pair) as lost,
            dialogue(*pair) as client,
            pair.link.impair(loss="4%", seed=9),
        ):
            ask(client, 100)
        seen.append(lost)
    assert seen == [seen[0]] * 3
    assert len(seen[0][0]) > 0
    assert len(seen[0][1]) > 0


def meet(client, server):
    """Let all on the way know each other's hardware addresses: what waits for one may be overtaken meanwhile."""
    assert None not in echoes(client, server, 1, patience=10)


def all_kinds(client, server):
    """Let two hosts talk in all ways; return what was lost of it."""
    lost = {"datagrams": datagrams(client, server, 400), "back": datagrams(server, client, 400)}
    lost["echoes"] = answered(client, server, 60)
    with losing(client, server) as lost["dialogue"], dialogue(client, server) as asking:
        ask(asking, 60)
    lost["stream"] = lost_of_a_stream(client, server, 1 << 20)
    return lost


@pytest.mark.parametrize("where", ["near", "middle", "far", "between"])
def test_fates_are_the_same_beyond_routers_and_in_another_network(where):
    """Networks that are built one after the other have other addresses, and each conversation meets the same fate."""
    seen, addresses = [], set()
    for _ in range(3):
        with Network() as network:
            chain = network.chain(2)
            addresses.add(chain.server.ip)
            meet(chain.client, chain.server)
            links = dict(zip(("near", "middle", "far"), chain.links, strict=True))
            way = links[where] if where in links else network.between(chain.client, chain.server)
            with way.impair(loss="4%", seed=11):
                seen.append(all_kinds(chain.client, chain.server))
    assert len(addresses) == 3
    assert seen[1] == seen[0]
    assert seen[2] == seen[0]
    assert 340 < len(seen[0]["datagrams"]) < 400
    assert 40 < len(seen[0]["echoes"]) < 60
    assert seen[0]["dialogue"] != ({}, {})
    assert 10 < len(seen[0]["stream"]) < 60


def test_fates_are_the_same_behind_another_link_that_loses():
    """What one link has lost comes by the next for the first time when it is sent again, whatever passed before it."""
    seen = []
    for _ in range(3):
        with Network() as network:
            chain = network.chain(1)
            meet(chain.client, chain.server)
            with chain.links[0].impair(loss="5%", seed=1), chain.links[1].impair(loss="5%", seed=2):
                seen.append(all_kinds(chain.client, chain.server))
    assert seen[1] == seen[0]
    assert seen[2] == seen[0]
    assert 40 < len(seen[0]["stream"]) < 110


def test_fates_are_the_same_for_hosts_that_come_later():
    """A host that is joined to an impaired network beyond a router is known by its name as if it had been there."""
    seen = []
    for late in (False, True, True):
        with Network() as network:
            if not late:
                client, router, server = network.chain(1)
                link = client.cable
            else:
                client, router = network.host("client"), network.router("r1")
                link = network.link(client, router)
            with link.impair(loss="10%", seed=4):
                if late:
                    network.link("server", router)
                    server = network["server"]
                meet(server, router)
                seen.append(datagrams(client, server, 300))
    assert seen[1] == seen[2]
    assert 240 < len(seen[0]) < 300
    assert seen[1] == seen[0]


def test_fates_are_the_same_for_hosts_that_come_later_to_a_trunk():
    """The wires of all VLANs of an impaired trunk are told who has come."""
    seen = []
    for late in (False, True):
        with Network() as network:
            a, b = network.switch("a"), network.switch("b")
            trunk = network.link(a, b, vlans=[10, 20])
            network.link("client", a, vlan=20)
            if not late:
                network.link("server", b, vlan=20)
            with trunk.impair(loss="10%", seed=4):
                if late:
                    network.link("server", b, vlan=20)
                seen.append(datagrams(network["client"], network["server"], 300))
    assert seen[1] == seen[0]
    assert 240 < len(seen[0]) < 300


@pytest.mark.parametrize("where", [0, 1])
def test_fates_are_the_same_behind_a_router_that_translates(where):
    """A dialogue through masquerade, and one that is led in by a forwarded port, lose the same in each network."""
    seen = []
    for _ in range(3):
        with Network() as network:
            chain = network.chain(1)
            inside, router, outside = chain
            router.masquerade()
            router.forward_port(6000, inside)
            with chain.links[where].impair(loss="5%", seed=3):
                with losing(inside, outside) as out, dialogue(inside, outside) as asking:
                    ask(asking, 60)
                with (
                    losing(outside, inside) as led,
                    dialogue(outside, inside, port=6000, address=router.addresses[2]) as asking,
                ):
                    ask(asking, 60)
            seen.append((out, led))
    assert seen == [seen[0]] * 3
    assert all(lost != ({}, {}) for lost in seen[0])


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_addresses_that_interfaces_give_themselves_make_no_difference():
    """Datagrams from and to link-local addresses, which follow from hardware addresses, are lost alike."""
    seen = []
    for _ in range(3):
        with Network() as network:
            a, b = network.lan(2)
            with a.cable.impair(loss="10%", seed=6):
                seen.append(six(a, b, 200))
    assert seen == [seen[0]] * 3
    assert 150 < len(seen[0]) < 200


def six(sender, receiver, count):
    """Send numbered datagrams to a host's link-local address; return those that arrive."""
    with (
        receiver.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sink,
        sender.socket(socket.AF_INET6, socket.SOCK_DGRAM) as source,
    ):
        shown = receiver.run(
            ["ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "link"], capture_output=True, text=True
        )
        address = shown.stdout.split()[3].split("/")[0]
        sink.bind(("::", 7000))
        sink.settimeout(0.5)
        source.connect((address, 7000, 0, 100))  # eth0
        numbers = []
        # The first one alone: the kernel keeps few packets until a hardware address is known.
        for some in (range(1), range(1, count)):
            for number in some:
                source.send(struct.pack("!I", number))
            with contextlib.suppress(TimeoutError):
                while True:
                    numbers.append(struct.unpack("!I", sink.recv(16))[0])
        return numbers


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
