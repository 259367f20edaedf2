"""pcrecorder itself: which frames it keeps, how many, and what it does with messages that make no sense."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import time
from pathlib import Path

import pytest

from pytest_poorcontainer import LabDied, LabError, Network, machine
from pytest_poorcontainer.lab import Lab, protocol
from pytest_poorcontainer.lab.protocol import Field, Op
from pytest_poorcontainer.network.recording import await_recorder
from pytest_poorcontainer.traffic.pcapng import Interface, blocks
from pytest_poorcontainer.traffic.recorder import SNAPLEN, Recorder, RecorderOp

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)
SIZE = 1 << 16
RECORD = 24


@pytest.fixture
def pair():
    """Two hosts, in whose lab nothing records yet."""
    with Network(record=False) as network:
        yield network.pair("a", "b")


@pytest.fixture
def recorder(pair):
    """A recorder of ours with small stores, that records already."""
    with contextlib.closing(Recorder(Lab.current(), SIZE)) as made:
        made.ready()
        yield made


def plug(host):
    """Return the index of the host's plug."""
    ((index, _),) = host.plugs
    return index


def send(sender, to, payloads):
    """Send datagrams from port 7000 to 7001, where somebody listens and does not read."""
    with (
        to.socket(socket.AF_INET, socket.SOCK_DGRAM) as there,
        sender.socket(socket.AF_INET, socket.SOCK_DGRAM) as here,
    ):
        there.bind((to.ip, 7001))
        here.bind((sender.ip, 7000))
        for payload in payloads:
            here.sendto(payload, (to.ip, 7001))


def datagrams(recording):
    """Return the payloads of the datagrams of :func:`send`, as far as they were recorded."""
    ports = struct.pack("!HH", 7000, 7001)
    return [
        frame.data[42:] for frame in recording.frames if frame.data[12:14] == b"\x08\0" and frame.data[34:38] == ports
    ]


def test_the_words_are_those_of_the_header():
    """The operations in Python and in recorder.h have the same numbers."""
    header = (Path(__file__).parents[2] / "preload/recorder/recorder.h").read_text()
    assert {name: int(value) for name, value in re.findall(r"RECORDER_(\w+) = (\d+), +/\*", header)} == {
        op.name: op.value for op in RecorderOp
    }


def test_a_frame_is_there_as_soon_as_it_was_sent(pair, recorder):
    """What a host has sent is read at once, without waiting for the kernel's block, and each frame once."""
    for number in range(20):
        payload = b"frame %d" % number
        send(pair.a, pair.b, [payload])
        began = time.monotonic()
        assert datagrams(recorder.read([plug(pair.a)]))[-1] == payload
        assert time.monotonic() - began < 5
    assert len(datagrams(recorder.read([plug(pair.a)]))) == 20


def test_frames_belong_to_who_sent_them(pair, recorder):
    """Each host's interface has what that host sends, with kernel times between those before and after."""
    before = time.time_ns()
    send(pair.a, pair.b, [b"from a"])
    send(pair.b, pair.a, [b"from b"])
    after = time.time_ns()
    assert datagrams(recorder.read([plug(pair.a)])) == [b"from a"]
    assert datagrams(recorder.read([plug(pair.b)])) == [b"from b"]
    both = recorder.read([plug(pair.a), plug(pair.b)])
    assert datagrams(both) == [b"from a", b"from b"]
    times = [frame.time for frame in both.frames if frame.data[42:46] == b"from"]
    assert before <= times[0] <= times[1] <= after
    assert all(frame.out for frame in both.frames)


def test_of_a_long_frame_the_first_bytes_are_kept(pair, recorder):
    """The snaplen bounds what is kept; how long the frame was is known."""
    send(pair.a, pair.b, [b"x" * 1400])
    (frame,) = [each for each in recorder.read([plug(pair.a)]).frames if b"xxx" in each.data]
    assert (len(frame.data), frame.length) == (SNAPLEN, 1442)


def test_only_what_is_not_older_than_asked_for_is_read(pair, recorder):
    """A time leaves out what came before."""
    send(pair.a, pair.b, [b"old"])
    since = time.time_ns()
    send(pair.a, pair.b, [b"new"])
    assert datagrams(recorder.read([plug(pair.a)], since)) == [b"new"]


def test_the_newest_frames_are_kept_within_the_bound(pair, recorder):
    """Of many frames a run without gaps up to the last one is kept, about as many as fit, over and over again."""
    for run in range(3):
        send(pair.a, pair.b, [b"%d %06d " % (run, number) * 8 for number in range(3000)])
        recording = recorder.read([plug(pair.a)])
        assert recording.lost == 0
        kept = [int(payload.split()[1]) for payload in datagrams(recording) if payload.startswith(b"%d " % run)]
        assert kept == list(range(kept[0], 3000))
        size = sum(RECORD + len(frame.data) + -len(frame.data) % 8 for frame in recording.frames)
        assert SIZE * 0.9 < size <= SIZE


def test_what_is_left_out_is_told(pair, recorder):
    """Whether frames are too many for the store or for who asks: up to when they are missing is known."""
    began = time.time_ns()
    send(pair.a, pair.b, [b"%d" % number for number in range(10)])
    index = plug(pair.a)
    assert recorder.read([index], began).gaps == {}
    few = recorder.read([index], began, most=3)
    assert datagrams(few) == [b"7", b"8", b"9"]
    sixth = next(frame for frame in recorder.read([index], began).frames if frame.data[42:] == b"6")
    assert few.gaps == {index: sixth.time}
    send(pair.a, pair.b, [b"y" * 200] * 3000)
    full = recorder.read([index], began)
    assert sixth.time < full.gaps[index] <= full.frames[0].time
    assert recorder.read([index], full.gaps[index] + 1).gaps == {}


def test_what_is_exported_is_what_is_read(pair, recorder, tmp_path):
    """The blocks of a pcapng file have the same frames of all interfaces, by time."""
    from scapy.utils import RawPcapNgReader

    for number in range(400):
        send(pair.a, pair.b, [b"a%d" % number * 30])
        send(pair.b, pair.a, [b"b%d" % number * 7])
    plugs = [plug(pair.b), plug(pair.a)]
    wanted = recorder.read(plugs).frames
    path = tmp_path / "x.pcapng"
    path.write_bytes(b"".join(blocks([Interface(index, "x", "") for index in plugs], [])) + recorder.export(plugs))
    with RawPcapNgReader(str(path)) as reader:
        found = [(data, (meta.tshigh << 32) + meta.tslow, meta.wirelen) for data, meta in reader]
    # Frames of the kernel's own, between the two, may have pushed the oldest ones of an interface out.
    since = max([frame.time for frame in wanted if frame.interface == index][10] for index in plugs)
    same = [(frame.data, frame.time, frame.length) for frame in wanted if frame.time >= since]
    assert [one for one in found if since <= one[1] <= wanted[-1].time] == same
    assert len(same) > 400
    assert recorder.export([4_000_000_000]) == b""
    assert b"a399" not in recorder.export(plugs, wanted[-1].time + 1)


def test_a_flood_of_one_host_leaves_the_frames_of_the_others(pair, recorder):
    """Each interface has a store of its own."""
    send(pair.b, pair.a, [b"quiet"])
    send(pair.a, pair.b, [b"loud" * 20] * 5000)
    assert b"quiet" in datagrams(recorder.read([plug(pair.b)]))


def test_all_stores_together_have_a_bound(pair):
    """Beyond it the host that has been silent for the longest time is forgotten, and the others are whole."""
    total = SIZE + SIZE // 2
    with contextlib.closing(Recorder(Lab.current(), SIZE, total=total)) as recorder:
        recorder.ready()
        for sender, receiver, word in (
            (pair.a, pair.b, b"first"),
            (pair.b, pair.a, b"then"),
            (pair.a, pair.b, b"again"),
        ):
            send(sender, receiver, [b"%s %05d" % (word * 20, number) for number in range(2000)])
            kept = recorder.read([plug(pair.a), plug(pair.b)])
            assert sum(RECORD + len(frame.data) for frame in kept.frames) <= total
            assert datagrams(kept)[-1].startswith(word * 20)
        assert not [payload for payload in datagrams(kept) if payload.startswith(b"then")]


def test_what_is_forgotten_is_gone(pair, recorder):
    """Forgetting an interface gives its frames up; it records what comes afterwards."""
    send(pair.a, pair.b, [b"one"])
    recorder.retire([plug(pair.a)])
    assert datagrams(recorder.read([plug(pair.a)])) == [b"one"]
    recorder.sweep()
    assert datagrams(recorder.read([plug(pair.a)])) == []
    send(pair.a, pair.b, [b"two"])
    assert datagrams(recorder.read([plug(pair.a)])) == [b"two"]


def test_tags_are_put_back(pair, recorder):
    """The kernel takes a VLAN tag out of a frame; what is read has it."""
    with pair.a.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("eth0", 0))
        sock.send(bytes.fromhex("ffffffffffff 020000000001 8100 0007 88b6") + b"tagged" * 10)
    (frame,) = [each for each in recorder.read([plug(pair.a)]).frames if b"tagged" in each.data]
    assert frame.data[12:24] == bytes.fromhex("8100 0007 88b6") + b"tagged"
    assert frame.length == 18 + 60


def test_interfaces_that_nobody_knows_have_no_frames(recorder):
    """Reading or forgetting what does not exist is no error."""
    assert recorder.read([4_000_000_000, 0]).frames == []
    recorder.retire([4_000_000_000])
    recorder.sweep()
    assert recorder.read([1]).frames == []


@pytest.mark.parametrize("op", [0, 63, 99, RecorderOp.TAP, RecorderOp.SYNC])
def test_a_request_that_makes_no_sense_is_an_error(recorder, op):
    """An unknown request, a capture without a socket or of an unknown number: an error, and the recorder goes on."""
    with pytest.raises(LabError):
        recorder._ask(op, [(Field.ID, 77)], "ask for nonsense")
    assert recorder.read([1]).lost == 0


def test_a_capture_of_a_socket_that_is_none_is_an_error(recorder):
    """A pipe is no packet socket."""
    read_end, write_end = os.pipe()
    try:
        with pytest.raises(LabError):
            recorder.tap(write_end, 0, 0, 1000)
    finally:
        os.close(read_end)
        os.close(write_end)


def test_bytes_that_are_no_message_leave_it_alive(recorder):
    """A datagram without a whole header, and a field that is longer than its message, get an error or nothing."""
    recorder._socket.send(b"\1")
    assert recorder._receive("see what it says").op == Op.ERROR
    protocol.send(recorder._socket, RecorderOp.READ, struct.pack("=II", 10, 1 << 30))
    answer = recorder._receive("read")
    assert answer.fds
    assert recorder.read([1]).lost == 0


def test_it_ends_when_nobody_listens(pair):
    """When pytest closes its end the recorder is gone at once; the lab and its hosts live on."""
    before = recorder_pids()  # a test before this one may have had others
    recorder = Recorder(Lab.current(), SIZE)
    recorder.ready()
    (pid,) = set(recorder_pids()) - set(before)
    recorder.close()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and not is_dead(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert is_dead(pid)
    assert pair.a.run(["true"]).returncode == 0
    with pytest.raises(LabDied):
        recorder.read([1])


def recorder_pids():
    """Return the recorders of this process's lab."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, name, rest = path.read_text().replace("(", ")").split(")")
            if name == "pcrecorder" and int(rest.split()[1]) == Lab.current().pid:
                found.append(int(pid))
    return found


def is_dead(pid):
    """Return whether the process is gone, or only waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_lab_that_is_killed_takes_its_recorder_along():
    """No recorder outlives its lab."""
    with Network() as network:
        network.pair()
        lab = Lab.current()
        await_recorder(lab)
        pids = recorder_pids()
        assert pids
        os.kill(lab.pid, 9)
        deadline = time.monotonic() + 5
        while not all(map(is_dead, pids)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert all(map(is_dead, pids))
    lab.close()
