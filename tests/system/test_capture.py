"""``host.capture()``: what a test sees of the traffic of its hosts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP

from pytest_poorcontainer import Network, PoorContainerError, UsageError, machine
from pytest_poorcontainer.lab import Lab, events
from pytest_poorcontainer.traffic.recorder import Recorder

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)


@pytest.fixture(scope="module", params=[True, False], ids=["recorded", "not recorded"])
def pair(request):
    """Two hosts; captures need no recording."""
    with Network(record=request.param) as network:
        yield network.pair("a", "b")


def datagrams(sender, address, payloads):
    """Send datagrams from a host."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with sender.socket(family, socket.SOCK_DGRAM) as sock:
        for payload in payloads:
            sock.sendto(payload, address)


def test_a_capture_has_the_packets_of_its_block(pair):
    """All that the filter wants and that came in the block is there, in order, as scapy packets; no more."""
    a, b = pair
    with b.listen((b.ip, 5432)), b.listen((b.ip, 80)):
        with b.capture("tcp port 5432") as packets:
            a.connect((b.ip, 80)).close()
            a.connect((b.name, 5432)).close()
        a.connect((b.ip, 5432)).close()
    assert [str(packet[TCP].flags) for packet in packets][:3] == ["S", "SA", "A"]
    assert {packet[IP].src for packet in packets} == {a.ip, b.ip}
    assert packets.count() == len(packets) == len(packets.frames)
    assert packets.count("tcp[tcpflags] & tcp-syn != 0") == 2
    assert packets.count(lambda packet: packet[TCP].dport == 5432) == packets.count("dst host b")
    assert [packet.time for packet in packets] == sorted(packet.time for packet in packets)
    assert packets[-1].time == pytest.approx(time.time(), abs=60)
    assert [type(packet) for packet in packets[:2]] == [type(packets[0])] * 2
    assert packets.lost == 0


def test_packets_are_whole(pair):
    """A capture has all bytes, with a length of its own; the recorder has the first ones alone."""
    a, b = pair
    payload = bytes(range(256)) * 5
    with b.capture("udp port 99") as packets:
        datagrams(a, (b.ip, 99), [payload])
    assert bytes(packets[0][UDP].payload) == payload
    assert packets[0].wirelen == 42 + len(payload)


def test_expect_waits_for_a_packet(pair):
    """It returns the packet as soon as it has come, from another thread too."""
    a, b = pair
    with b.capture() as packets:
        later = threading.Timer(0.2, datagrams, (a, (b.ip6, 7), [b"late"]))
        later.start()
        packet = packets.expect("udp and host a", within=20)
        later.join()
    assert bytes(packet[UDP].payload) == b"late"
    assert packets.expect(lambda packet: UDP in packet) == packet


def test_expect_says_what_was_there_instead(pair):
    """What has not come is an AssertionError with what was asked for and the conversations that were seen."""
    a, b = pair
    with a.capture() as packets:
        with pytest.raises(ConnectionRefusedError):
            a.connect((b.ip, 81))
        with pytest.raises(AssertionError) as caught:
            packets.expect("tcp port 82", at_least=2, within=0.05)
    message = str(caught.value)
    assert "a: expected 2 of 'tcp port 82' within 0.05 s, got 0 among" in message
    assert "RST: refused" in message
    with pytest.raises(AssertionError, match="before the capture was over"):
        packets.expect("tcp port 82", within=60)


def test_a_capture_sees_what_the_host_sees(pair):
    """What a cut cable swallows is seen by who sends it, and not by who should have got it."""
    a, b = pair
    with b.listen((b.ip, 80)):
        a.connect((b.ip, 80)).close()  # what waits for b's hardware address would be sent when the cable heals
    with a.capture("udp port 5") as sent, b.capture("udp port 5") as received, pair.link.cut():
        datagrams(a, (b.ip, 5), [b"1", b"2", b"3"])
    assert (sent.count(), received.count()) == (3, 0)
    assert [frame.out for frame in sent.frames] == [True] * 3


def test_other_interfaces_are_asked_for_by_their_names(pair):
    """Usually lo is left out; by its name, or with "any", each frame of it is there once."""
    a, b = pair
    with a.capture("udp") as usual, a.capture("udp", interface="lo") as lo, a.capture("udp", interface="any") as every:
        datagrams(a, ("127.0.0.1", 9), [b"inside"])
        datagrams(a, (b.ip, 9), [b"outside"])
    assert [bytes(packet[UDP].payload) for packet in usual] == [b"outside"]
    assert [bytes(packet[UDP].payload) for packet in lo] == [b"inside"]
    assert [bytes(packet[UDP].payload) for packet in every] == [b"inside", b"outside"]


def test_all_protocols_are_there_without_a_filter(pair):
    """ARP and ICMP as well."""
    a, b = pair
    with a.capture() as packets, a.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        a.run(["ip", "neigh", "flush", "dev", "eth0"], check=True)
        sock.sendto(bytes(ICMP(type="echo-request", id=7, seq=1)), (b.ip, 0))
        packets.expect("icmp[icmptype] == icmp-echoreply")
    assert [packet for packet in packets if ARP in packet]
    assert packets.count(lambda packet: ICMP in packet and packet[ICMP].id == 7) == 2


def test_many_packets_are_all_there(pair):
    """A burst larger than a socket's buffer is captured by a process of its own, while the test sends."""
    a, b = pair
    with b.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, b.capture("udp port 4000") as packets:
        server.bind((b.ip, 4000))
        for start in range(0, 5000, 100):
            datagrams(a, (b.ip, 4000), [b"%d" % number for number in range(start, start + 100)])
            packets.count()
    assert [int(frame.data[42:]) for frame in packets.frames] == list(range(5000))


def test_what_did_not_fit_makes_a_capture_useless(pair):
    """Beyond its limit a capture is incomplete; every question to it says so, with the remedy."""
    a, b = pair
    with b.capture("udp", limit=4096) as packets:
        datagrams(a, (b.ip, 9), [b"x" * 1000] * 10)
    assert packets.lost > 0
    for ask in (packets.count, packets.expect, lambda: packets[0], lambda: list(packets)):
        with pytest.raises(PoorContainerError, match=f"incomplete: {packets.lost} frames were lost.*limit="):
            ask()
    assert "udp a:" in packets.ladder()


def test_a_capture_can_be_written(pair, tmp_path):
    """The file has the packets at their interface."""
    a, b = pair
    with a.capture("udp") as packets:
        datagrams(a, (b.ip, 9), [b"one", b"two"])
    packets.write(tmp_path / "x.pcapng")
    from scapy.utils import rdpcap

    assert [bytes(packet[UDP].payload) for packet in rdpcap(str(tmp_path / "x.pcapng"))] == [b"one", b"two"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filter": "port 99999"}, "port 99999 in a filter"),
        ({"limit": 0}, "limit is more than nothing"),
        ({"interface": "x" * 16}, "no name of an interface"),
        ({"interface": "nix0"}, "a has no interface 'nix0'"),
    ],
)
def test_what_cannot_be_captured_is_named(pair, arguments, message):
    """Filters, limits and interfaces that do not exist are errors before anything is captured."""
    with pytest.raises(UsageError, match=message), pair.a.capture(**arguments):
        pass


def test_a_host_whose_programs_may_not_capture_can_be_captured():
    """The packet socket is the test's, not one of the host's programs'."""
    with Network() as network:
        a, b = network.pair(capabilities=[])
        with a.capture("udp") as packets:
            datagrams(a, (b.ip, 9), [b"x"])
    assert packets.count() == 1


def test_a_capture_is_used_once(pair):
    """A second block is an error: a capture has begun and ended."""
    capture = pair.a.capture()
    with capture:
        pass
    with pytest.raises(PoorContainerError, match="make another one"), capture:
        pass


def test_a_lab_that_dies_ends_captures_with_a_reason():
    """What can be asked no more says that the recorder has ended; the packets that were read stay."""
    with Network() as network:
        a, b = network.pair()
        capture = a.capture("udp")
        packets = capture.__enter__()
        datagrams(a, (b.ip, 9), [b"x"])
        assert packets.count() == 1
        lab = Lab.current()
        os.kill(lab.pid, 9)
        assert lab._has_ended(5)
        with pytest.raises(PoorContainerError, match="has ended"):
            capture.__exit__(None, None, None)
        assert packets.count() == 1
    lab.close()


def test_captures_end_with_their_blocks(pair):
    """Two hundred captures, one after the other, need no more than one at a time; many at a time are refused."""
    for _ in range(200):
        with pair.a.capture("udp"):
            pass
    opened = [pair.a.capture() for _ in range(64)]
    for capture in opened:
        capture.__enter__()
    try:
        with pytest.raises(PoorContainerError, match="close captures that are over"), pair.a.capture():
            pass
    finally:
        for capture in opened:
            capture.__exit__(None, None, None)
    with pair.a.capture("udp") as packets:
        datagrams(pair.a, (pair.b.ip, 9), [b"x"])
    assert packets.count() == 1


def test_scapy_is_loaded_when_its_packets_are_asked_for():
    """Counting, expecting with a filter, and drawing do without; so does the recorder."""
    script = """
        import socket, sys
        from pytest_poorcontainer import Network
        with Network() as network:
            a, b = network.pair()
            with a.capture("udp") as packets, a.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"x", (b.ip, 9))
                print(packets.count("udp"), packets.frames[0].length, "udp" in packets.ladder())
            print("scapy" in sys.modules, packets[0].name, "scapy" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split("\n")[:2] == ["1 43 True", "False Ethernet True"]


@pytest.mark.parametrize("record", ["much", 100, "1k", -1, 1.5])
def test_what_cannot_be_recorded_is_named(record):
    """Of what is no size, and of too few bytes for a frame, nothing is made."""
    with pytest.raises(UsageError, match="record"):
        Network(record=record)


def test_pairs_share_one_recorder():
    """A lab has one recorder, whatever number of pairs, and it forgets closed ones."""
    with Network() as network:
        pairs = [network.pair() for _ in range(3)]
        lab = Lab.current()
        recorder = Recorder.find(lab)
        assert recorder is not None
        assert Recorder.of(lab) is recorder
        index = pairs[0].a.plugs[0][0]
        datagrams(pairs[0].a, (pairs[0].b.ip, 9), [b"x"])
        assert recorder.read([index]).frames
        pairs[0].close()
        kept = {frame.time for frame in recorder.read([index]).frames}
        assert kept
        recorder.sweep()
        # One of the host's last may be on its way still.
        assert not kept & {frame.time for frame in recorder.read([index]).frames}


def test_every_link_that_something_is_done_to_is_noted():
    """Cutting and healing, plugging and unplugging are events, with the clock of the frames."""
    began = time.time_ns()
    with Network() as network:
        pair = network.pair("left", "right")
        with pair.link.cut():
            pass
        with pair.link.unplug():
            pass
    done = [event for event in events.since(began) if event.what.startswith("left -- right")]
    assert [event.what.partition(": ")[2] for event in done] == ["cut", "heal", "unplug", "plug"]
    assert [event.time for event in done] == sorted(event.time for event in done)
