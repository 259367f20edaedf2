"""Traffic over a link whose faults are tested: numbered datagrams, echoes, streams, and what arrives of them."""

import collections
import contextlib
import itertools
import socket
import struct
import threading
import time

CELL = 1448  # of a full TCP segment at an MTU of 1500, with timestamps
EVERYTHING, RCVBUFFORCE = 3, 33  # ETH_P_ALL: also what is sent; SO_RCVBUFFORCE


def datagrams(sender, receiver, count, *, size=64):
    """Send numbered datagrams; return the numbers in the order in which they arrive, until none comes for 0.3 s."""
    with (
        receiver.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
        sender.socket(socket.AF_INET, socket.SOCK_DGRAM) as source,
    ):
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sink.bind((receiver.ip, 0))
        sink.settimeout(0.3)
        source.connect(sink.getsockname())
        numbers = []

        def take():
            with contextlib.suppress(TimeoutError):
                while True:
                    numbers.append(struct.unpack_from("!I", sink.recv(65536))[0])

        # The first one alone: the kernel keeps few packets until a hardware address is known. Then not more at a time
        # than a socket's buffer holds on any machine.
        for start, end in itertools.pairwise((0, *range(1, count, 200), count)):
            for number in range(start, end):
                source.send(struct.pack("!I", number).ljust(size, b"."))
            sink.settimeout(0.05 if end < count else 0.3)
            take()
        return numbers


def _checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def echoes(asker, asked, count, *, patience=0.3):
    """Send ICMP echo requests, one after the other; return the seconds until each answer, None without."""
    times = []
    with asker.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as pinger:
        pinger.connect((asked.ip, 0))
        for number in range(count):
            begin = time.monotonic()
            pinger.send(_request(number))
            times.append(_answer(pinger, number, begin, patience))
    return times


def answered(asker, asked, count):
    """Send ICMP echo requests, one behind the other; return which were answered, when for 0.5 s no answer has come."""
    found = []
    with asker.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as pinger:
        pinger.connect((asked.ip, 0))
        for number in range(count):
            pinger.send(_request(number))
        pinger.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while data := pinger.recv(2048):
                found += [struct.unpack_from("!H", data, 26)[0]] if data[20] == 0 else []
    return found


def _request(number):
    request = struct.pack("!BBHHH8x", 8, 0, 0, 7777, number)
    return request[:2] + struct.pack("!H", _checksum(request)) + request[4:]


def _answer(pinger, number, begin, patience):
    while (left := begin + patience - time.monotonic()) > 0:
        pinger.settimeout(left)
        with contextlib.suppress(TimeoutError):
            data = pinger.recv(2048)
            if data[20] == 0 and data[26:28] == struct.pack("!H", number):
                return time.monotonic() - begin
    return None


def stream(sender, receiver, size):
    """Send so many bytes over one new TCP connection; return the seconds from the first to the last one that came."""
    with receiver.listen((receiver.ip, 5000)) as server, sender.connect((receiver.ip, 5000)) as source:
        sink, _ = server.accept()

        def send():
            source.sendall(b"x" * size)
            source.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=send)
        with sink:
            sink.settimeout(60)
            thread.start()
            got, begin = len(sink.recv(1)), time.monotonic()
            while data := sink.recv(1 << 20):
                got += len(data)
            seconds = time.monotonic() - begin
        thread.join()
    assert got == size
    return seconds


class Capture:
    """What arrives at a host's eth0 and what it sends there, headers only."""

    def __init__(self, host):
        """Begin."""
        self.socket = host.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        for option in (socket.SO_RCVBUF, RCVBUFFORCE):
            with contextlib.suppress(PermissionError):
                self.socket.setsockopt(socket.SOL_SOCKET, option, 64 << 20)
        self.socket.bind(("eth0", EVERYTHING))
        self.socket.setblocking(False)

    def frames(self):
        """Return the first bytes of each frame since the beginning, and end."""
        found = []
        with self.socket, contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.socket.recv(128))
        return found


def cells(frames, source):
    """Return how often each cell of the newest TCP stream from an address began in one of the frames."""
    first, found = None, collections.Counter()
    for frame in frames:
        if frame[12:14] != b"\x08\0" or frame[23] != socket.IPPROTO_TCP or frame[26:30] != socket.inet_aton(source):
            continue
        transport = 14 + (frame[14] & 15) * 4
        (total,), (sequence,) = struct.unpack_from("!H", frame, 16), struct.unpack_from("!I", frame, transport + 4)
        size = total + 14 - transport - (frame[transport + 12] >> 4) * 4
        if frame[transport + 13] & 2:  # SYN
            first = sequence + 1
        elif first is not None and size > 0:
            at = (sequence - first) & 0xFFFFFFFF
            found.update(range(-(-at // CELL), -(-(at + size) // CELL)))
    return found
