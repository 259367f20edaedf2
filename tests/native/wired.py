"""A wire between two veth pairs, spoken to by bare messages, and frames to send through it.

Frames are written to the far end of one pair and read from that of the other, so what is tested is the program and
nothing else of ours.
"""

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import time

HEADER, FIELD = struct.Struct("=HHHHII"), struct.Struct("=II")
OK, ERROR, STARTED = 0, 1, 2
HOSTS, START, SET, COUNT, PROVE, END = range(64, 70)
STEP, ERRNO, ENDS, ADDRESS, SOURCE, TARGET, FLAGS, VALUE = 1, 3, 20, 32, 34, 35, 38, 43
COUNTED = ["packets", "lost", "duplicated", "reordered", "corrupted", "overrun", "overflow", "refused", "down", "cut"]
COUNTED += ["chatter", "canaries", "error"]
ALL = (1 << 64) - 1
IGNORE_OUTGOING, VNET_HDR, AUXDATA, SOL_PACKET = 23, 15, 8, 263
STATISTICS, STATISTICS_OF = 6, struct.Struct("=II")
VNET = struct.Struct("=BBHHHH")
MACS = b"\x02\0\0\0\0\x02" + b"\x02\0\0\0\0\x01"


def ip(*arguments):
    """Run the ip command."""
    subprocess.run(["ip", *arguments], check=True)


def checksum(data, start=0):
    """Return the internet checksum (RFC 1071), not complemented."""
    data += b"\0" * (len(data) % 2)
    total = start + sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def ip4(protocol, payload, source=(10, 0, 0, 1), target=(10, 0, 0, 2), identification=7):
    """Return an Ethernet frame with an IPv4 packet."""
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), identification, 0, 64, protocol, 0, bytes(source), bytes(target)
    )
    head = head[:10] + struct.pack("!H", checksum(head) ^ 0xFFFF) + head[12:]
    return MACS + b"\x08\0" + head + payload


def ip6(protocol, payload):
    """Return an Ethernet frame with an IPv6 packet."""
    head = struct.pack("!IHBB16s16s", 6 << 28, len(payload), protocol, 64, bytes(15) + b"\x01", bytes(15) + b"\x02")
    return MACS + b"\x86\xdd" + head + payload


def udp(number, *, port=53, size=40, client=40000, source=(10, 0, 0, 1)):
    """Return a frame with a UDP datagram that carries a number."""
    data = struct.pack("!I", number).ljust(size, b".")
    return ip4(17, struct.pack("!HHHH", client, port, 8 + size, 0) + data, source=source)


def tcp(sequence, data, flags=0x18, client=40000):
    """Return the bytes of a TCP segment, its checksum left open."""
    return struct.pack("!HHIIBBHHH", client, 80, sequence & 0xFFFFFFFF, 1, 0x50, flags, 1000, 0, 0) + data


def rule(towards=1, *, flags=0, seed=0, queue=1 << 30, **what):
    """Return a rule's field; shares are of 1, times in ns."""
    shares = [min(ALL, int(what.get(name, 0) * 2**64)) for name in ("loss", "duplicate", "reorder", "corrupt")]
    numbers = (towards, *shares, what.get("delay", 0), what.get("jitter", 0), what.get("rate", 0), queue, seed, flags)
    return (VALUE, struct.pack("=11Q", *numbers))


class Wired:
    """The wire, and a socket at the far end of each of its plugs."""

    def __init__(self, program):
        """Make two pairs, and the wire between their plugs."""
        for near, plug in (("near0", "plug0"), ("near1", "plug1")):
            ip("link", "add", near, "type", "veth", "peer", "name", plug)
            for name in (near, plug):
                subprocess.run(["sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1"], check=False)
                ip("link", "set", name, "up")
        ours, theirs = (
            socket.socket(fileno=fcntl.fcntl(one.detach(), fcntl.F_DUPFD_CLOEXEC, 10))
            for one in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        )
        self.control = ours
        self.control.settimeout(10)
        os.dup2(theirs.fileno(), 3, inheritable=True)
        plugs = [str(socket.if_nametoindex(name)) for name in ("plug0", "plug1")]
        self.process = subprocess.Popen([program, *plugs], pass_fds=[3])
        os.close(3)
        theirs.close()
        self.a, self.b = self.open("near0"), self.open("near1")
        self.request = 0
        assert self.receive()[0] == STARTED

    def open(self, name, *, vnet=False):
        """Return a socket that sends and receives frames at an interface."""
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        made.setsockopt(SOL_PACKET, IGNORE_OUTGOING, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
        if vnet:
            made.setsockopt(SOL_PACKET, VNET_HDR, 1)
        made.bind((name, 3))
        return made

    def receive(self):
        """Return an answer's op and fields."""
        data = self.control.recv(65536)
        if not data:
            return None, []
        fields, at = [], HEADER.size
        while at < len(data):
            kind, length = FIELD.unpack_from(data, at)
            fields.append((kind, data[at + FIELD.size : at + FIELD.size + length]))
            at += FIELD.size + length
        return HEADER.unpack_from(data)[1], fields

    def ask(self, op, fields=(), fds=()):
        """Make a request and return the answer."""
        self.tell(op, fields, fds)
        return self.receive()

    def tell(self, op, fields=(), fds=()):
        """Make a request."""
        body = b"".join(FIELD.pack(kind, len(value)) + value for kind, value in fields)
        self.request += 1
        head = HEADER.pack(1, op, 0, len(fds), self.request, len(body))
        socket.send_fds(self.control, [head + body], fds)

    def set(self, *rules, cut=0, forget=1):
        """Put rules in force."""
        answer = self.ask(SET, [(ENDS, struct.pack("=I", cut)), (FLAGS, struct.pack("=I", forget)), *rules])
        assert answer[0] == OK, answer

    def counts(self, op=COUNT):
        """Return what is counted, towards end 0 and towards end 1."""
        kind, fields = self.ask(op)
        assert kind == OK, fields
        return [dict(zip(COUNTED, struct.unpack("=13Q", value), strict=True)) for _, value in fields]

    def handled(self, number, towards=1):
        """Wait until so many packets have arrived at the wire since it began."""
        deadline = time.monotonic() + 20
        while True:
            counts = self.counts()[towards]
            if counts["packets"] + counts["chatter"] + counts["cut"] + counts["overflow"] >= number:
                return counts
            assert time.monotonic() < deadline, counts

    @contextlib.contextmanager
    def stopped(self):
        """Let the wire do nothing for a while, as a machine that is busy with others does."""
        os.kill(self.process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)
        yield
        os.kill(self.process.pid, signal.SIGCONT)

    def came(self, least=0):
        """Return how many frames have come since this was last asked, also those that no buffer had room for."""
        deadline = time.monotonic() + 10
        found = 0
        while True:
            found += STATISTICS_OF.unpack(self.b.getsockopt(SOL_PACKET, STATISTICS, STATISTICS_OF.size))[0]
            if found >= least or time.monotonic() > deadline:
                return found

    def arrived(self, at=None, patience=0.3, least=0):
        """Return the frames that come, until none comes for a while (longer while fewer are there than must come)."""
        at = at or self.b
        frames = []
        while select.select([at], [], [], patience if len(frames) >= least else 10)[0]:
            with contextlib.suppress(OSError):  # ENETDOWN, once, when the interface went down
                frames.append(at.recv(1 << 17))
        return frames

    def through(self, frames, *, sender=None, receiver=None):
        """Send frames, not faster than sockets hold them; return what comes out."""
        out = []
        for start in range(0, len(frames), 500):
            for frame in frames[start : start + 500]:
                (sender or self.a).send(frame)
            out += self.arrived(receiver, 0.15)
        return out

    def ends(self):
        """Return the program's exit status, when it has ended."""
        return self.process.wait(20)

    def close(self):
        """End the wire as its owner does."""
        if self.process.poll() is None:
            assert self.counts(END)
        return self.ends()
