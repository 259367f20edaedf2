"""What a wire between two veth pairs does to frames: run inside a network namespace of its own.

``unshare --net python wire_scenarios.py PROGRAM SCENARIO`` prints what the scenario saw as JSON.
"""

import contextlib
import json
import random
import select
import struct
import sys
import time

import wire_fates
from wired import (
    ADDRESS,
    AUXDATA,
    END,
    ENDS,
    ERRNO,
    FLAGS,
    HEADER,
    HOSTS,
    MACS,
    OK,
    PROVE,
    SET,
    SOL_PACKET,
    SOURCE,
    START,
    STEP,
    TARGET,
    VALUE,
    VNET,
    Wired,
    checksum,
    ip,
    ip4,
    ip6,
    rule,
    tcp,
    udp,
)

UDP_L4 = 5  # VIRTIO_NET_HDR_GSO_UDP_L4, Linux 6.2


def unchanged(wire):
    """Frames of all kinds come out as they went in."""
    wire.ask(START)
    junk = random.Random(3)
    frames = [udp(n) for n in range(20)]
    frames += [ip6(17, struct.pack("!HHHH", 4000, 53, 28, 0) + bytes(20)), MACS + b"\x08\x06" + bytes(28)]
    frames += [MACS + b"\x88\xb5" + b"some", ip4(2, bytes(8)), ip4(50, b"esp")]
    frames += [
        MACS + kind + junk.randbytes(junk.randrange(1500))
        for kind in (b"\x08\0", b"\x86\xdd", b"\x12\x34")
        for _ in range(300)
    ]
    frames += [
        frame[: junk.randrange(15, len(frame))]
        for frame in (udp(1), ip6(6, tcp(1, b"x" * 50)), ip4(6, tcp(1, b"x")))
        for _ in range(50)
    ]
    out = wire.through(frames)
    back = wire.through(frames, sender=wire.b, receiver=wire.a)
    return {"same": out == frames, "back": back == frames, "count": len(frames), "out": len(out)}


def faults(wire):
    """Duplicates come at once, a reordered one behind the next, a corrupt one has one bit wrong; chatter is spared."""
    wire.ask(START)
    frames, result = [udp(n) for n in range(2000)], {}
    for name in ("duplicate", "reorder", "corrupt", "loss"):
        before = wire.counts()[1]
        wire.set(rule(**{name: 0.05}, seed=4))
        out = wire.through(frames)
        after = wire.counts()[1]
        changed = {key: after[key] - before[key] for key in after if after[key] != before[key]}
        numbers = [struct.unpack("!I", frame[42:46])[0] for frame in out]
        wrong = [
            sum((x ^ y).bit_count() for x, y in zip(one, two, strict=True))
            for one, two in zip(out, frames, strict=False)
        ]
        result[name] = {"counts": changed, "numbers": numbers, "wrong bits": wrong if name == "corrupt" else []}
    wire.set(rule(loss=1.0, duplicate=1.0, corrupt=1.0, reorder=1.0))
    chatter = [
        MACS + b"\x08\x06" + bytes(28),
        ip6(58, bytes([135]) + bytes(23)),
        ip6(58, bytes([143]) + bytes(23)),
        ip4(2, bytes(8)),
    ]
    result["chatter"] = wire.through(chatter) == chatter
    result["all lost"] = wire.through(frames[:100]) == []
    return result


def spoilt6(wire):
    """Corrupt packets of IPv6 differ behind its header, which no checksum covers."""
    wire.ask(START)
    frames = [ip6(17, struct.pack("!HHHHI", 4000, 53, 12, 0, n)) for n in range(300)]
    wire.set(rule(corrupt=1.0, seed=4))
    places = [
        [place for place, (x, y) in enumerate(zip(one, two, strict=True)) if x != y]
        for one, two in zip(wire.through(frames), frames, strict=True)
    ]
    return {"places": [place for some in places for place in some], "corrupted": wire.counts()[1]["corrupted"]}


def segments_of(frame, transport, size):
    """Return [sequence number or UDP length, IP id, flags, data] of each segment, and whether the frame is right."""
    flags, kind, _, mss, start, offset = VNET.unpack_from(frame)
    frame = frame[VNET.size :]
    data = frame[transport + size :]
    found = []
    is_tcp, is_4 = size == 20, frame[12:14] == b"\x08\0"
    for at in range(0, len(data), mss or len(data)):
        part = data[at : at + (mss or len(data))]
        head = bytearray(frame[transport : transport + size])
        number = struct.unpack("!I", head[4:8])[0] + at if is_tcp else struct.unpack("!H", head[4:6])[0]
        found.append([number, struct.unpack("!H", frame[18:20])[0] if is_4 else 0, head[13] if is_tcp else 0, part])
    # What the kernel or the card does with the checksum that is left open, over all that this frame holds.
    addresses = frame[26:34] if is_4 else frame[22:54]
    length = len(frame) - transport
    pseudo = checksum(addresses + struct.pack("!HH", 6 if is_tcp else 17, length))
    open_sum = struct.unpack("!H", frame[transport + offset : transport + offset + 2])[0]
    right = flags == 1 and start == transport and open_sum == pseudo
    header_right = not is_4 or (
        checksum(frame[14:34]) == 0xFFFF and struct.unpack("!H", frame[16:18])[0] == len(frame) - 14
    )
    return found, right and header_right and (kind != 0) == (mss != 0)


def large(build, kind, data):
    """Return a frame of several segments of 1,000 bytes behind its virtio header, and where its transport header is.

    Some of its data is said to be with the headers, as in what a router has passed on.
    """
    udp4 = kind == UDP_L4
    head = struct.pack("!HHHH", 4000, 53, len(data) + 8, 0) if udp4 else tcp(1000, b"", flags=0x99)
    frame = bytearray(build(17 if udp4 else 6, head + data))
    transport = len(frame) - len(data) - len(head)
    offset = transport + (6 if udp4 else 16)
    addresses = frame[26:34] if build is ip4 else frame[22:54]
    partial = checksum(bytes(addresses) + struct.pack("!HH", 17 if udp4 else 6, len(data) + len(head)))
    frame[offset : offset + 2] = struct.pack("!H", partial)
    vnet = VNET.pack(1, kind, transport + len(head) + 1400, 1000, transport, offset - transport)
    return vnet + bytes(frame), transport


def gso(wire):
    """Large frames lose single packets, and what is left of them is well formed."""
    wire.ask(START)
    sender, receiver = wire.open("near0", vnet=True), wire.open("near1", vnet=True)
    result = {}
    data = random.Random(5).randbytes(40000)
    for name, build, kind in (("tcp4", ip4, 1), ("tcp6", ip6, 4), ("udp4", ip4, UDP_L4)):
        size = 8 if name == "udp4" else 20
        frame, transport = large(build, kind, data)
        for share in (0, 0.2):
            wire.set(rule(loss=share, seed=1))
            before = wire.counts()[1]
            sender.send(frame)
            wire.handled(before["packets"] + 40)
            found, right = [], []
            for part in wire.arrived(receiver, least=1):
                segments, correct = segments_of(part, transport, size)
                found += segments
                right.append(correct)
            after = wire.counts()[1]
            places = [data.find(part) // 1000 for *_, part in found]
            result[f"{name} {share}"] = {
                "frames": len(right),
                "right": all(right),
                "places": places,
                "numbers": [number for number, *_ in found],
                "ids": [number for _, number, *_ in found],
                "flags": [flags for _, _, flags, _ in found],
                "lost": after["lost"] - before["lost"],
                "refused": after["refused"],
                "intact": all(
                    data[place * 1000 : place * 1000 + 1000] == part
                    for place, (*_, part) in zip(places, found, strict=True)
                ),
            }
    return result


def overtaken(wire):
    """A packet of a large frame that is held back is overtaken by the next one, not by all the rest."""
    wire.ask(START)
    sender, receiver = wire.open("near0", vnet=True), wire.open("near1", vnet=True)
    data = random.Random(5).randbytes(40000)
    frame, transport = large(ip4, 1, data)
    wire.set(rule(reorder=0.1, seed=2))
    sender.send(frame)
    wire.handled(40)
    found = [segment for part in wire.arrived(receiver, least=1) for segment in segments_of(part, transport, 20)[0]]
    return {"places": [data.find(part) // 1000 for *_, part in found], "reordered": wire.counts()[1]["reordered"]}


def tagged(wire):
    """A VLAN tag, which kernels carry beside the frame, is on what comes out, also on a part of a large frame."""
    wire.ask(START)
    sender, receiver = wire.open("near0", vnet=True), wire.open("near1")
    receiver.setsockopt(SOL_PACKET, AUXDATA, 1)
    head, data = tcp(1000, b""), bytes(5000)
    large = ip4(6, head + data)
    partial = checksum(large[26:34] + struct.pack("!HH", 6, len(data) + len(head)))
    large = large[: 34 + 16] + struct.pack("!H", partial) + large[34 + 18 :]
    tag = b"\x81\0\x20\x05"
    plain = bytes(VNET.size) + MACS + tag + udp(1)[12:]
    result = {}
    for name, rules in (("none", []), ("delay", [rule(delay=1000)]), ("loss", [rule(loss=0.4, seed=3)])):
        wire.set(*rules)
        sender.send(plain)
        sender.send(VNET.pack(1, 1, 54 + 4, 1000, 34 + 4, 16) + MACS + tag + large[12:])
        seen = []
        while select.select([receiver], [], [], 0.3)[0]:
            frame, (aux,), *_ = receiver.recvmsg(1 << 17, 100)
            status, _, _, _, _, number, protocol = struct.unpack("=IIIHHHH", aux[2])
            seen.append([bool(status & 0x10), number, protocol, len(frame), frame[12:14].hex()])
        result[name] = seen
    return result


def later(wire):
    """Delays keep the order, silence loses what is under way, and the end sends all that is left at once."""
    wire.ask(START)
    result = {}
    wire.set(rule(delay=20_000_000, jitter=10_000_000, seed=1))
    out = wire.through([udp(n) for n in range(200)])
    result["in order"] = [struct.unpack("!I", frame[42:46])[0] for frame in out] == list(range(200))
    wire.set(rule(delay=3600 * 10**9))
    for n in range(5):
        wire.a.send(udp(n))
    wire.handled(205)
    wire.set(cut=2)
    result["cut"] = wire.counts()[1]["cut"]
    wire.a.send(udp(6))
    deadline = time.monotonic() + 10
    while wire.counts()[1]["cut"] < 6 and time.monotonic() < deadline:
        pass
    result["cut while silent"] = wire.counts()[1]["cut"]
    wire.set(rule(delay=3600 * 10**9, reorder=0.5, seed=3))
    for n in range(10):
        wire.a.send(udp(n))
    wire.handled(216)
    result["status"] = wire.close()
    result["sent at the end"] = sorted(struct.unpack("!I", frame[42:46])[0] for frame in wire.arrived())
    return result


def full(wire):
    """What does not fit into the memory for what is under way is counted as lost though nobody asked for it."""
    wire.ask(START)
    wire.set(rule(delay=3600 * 10**9))
    frame = udp(1, size=1400)
    for number in range(1, 60001):
        wire.a.send(frame)
        if number % 500 == 0:
            wire.handled(number)
    counts = wire.counts()[1]
    return {"overflow": counts["overflow"], "packets": counts["packets"]}


def behind(wire):
    """What fills the rings is taken out of them first, and sent in order; it is told when it is cut off."""
    wire.ask(START)
    seen = {}
    silence = [(ENDS, struct.pack("=I", 2)), (FLAGS, struct.pack("=I", 0))]
    for how, count in (("send", 7000), ("cut", 3000), ("end", 3000)):
        wire.set()
        before = wire.counts()[1]
        wire.came()
        with wire.stopped():
            for number in range(count):
                wire.a.send(udp(number, size=1300 if number % 4 == 0 else 40))
            if how == "cut":
                wire.tell(SET, silence)
        if how == "cut":
            assert wire.receive()[0] == OK
        elif how == "send":
            for number in range(count, count + 100):
                wire.a.send(udp(number))
        sent = count + 100 if how == "send" else count
        lost = wire.handled(before["packets"] + before["cut"] + sent) if how != "end" else wire.counts(END)[1]
        out = wire.came(sent - (lost["cut"] - before["cut"]))
        numbers = [struct.unpack("!I", frame[42:46])[0] for frame in wire.arrived()]
        seen[how] = {"out": out, "cut": lost["cut"] - before["cut"], "of": sent, "overflow": lost["overflow"]}
        seen[how]["in order"] = numbers == sorted(numbers) and len(numbers) > 50
    return {**seen, "status": wire.ends()}


def rated(wire):
    """A rate lets through what fits into its time and its queue, and counts the rest as overrun."""
    wire.ask(START)
    wire.set(rule(rate=8_000_000, queue=10_000))
    for number in range(100):
        wire.a.send(udp(number, size=958))
    counts = wire.handled(100)
    return {"overrun": counts["overrun"], "out": len(wire.arrived()), "overflow": counts["overflow"]}


def some(wire):
    """A rule for some addresses concerns no others, and the first of two that fit counts."""
    wire.ask(START)
    mine = bytes((10, 0, 0, 1))
    wire.set(
        rule(loss=1.0, flags=2), (SOURCE, mine), rule(loss=0, flags=4), (TARGET, bytes((10, 0, 0, 2))), rule(loss=1.0)
    )
    out = wire.through([udp(1), udp(2, source=(10, 0, 0, 9)), ip6(17, bytes(20)), udp(3)])
    return {"out": [struct.unpack("!I", frame[42:46])[0] for frame in out]}


def plugs(wire):
    """A plug that is down and up again is no end; a plug that is gone is one, also when nobody holds the control."""
    wire.ask(START)
    result = {"before": len(wire.through([udp(1)]))}
    ip("link", "set", "plug1", "down")
    wire.a.send(udp(2))
    result["down"] = wire.handled(2)["down"]
    ip("link", "set", "plug1", "up")
    deadline = time.monotonic() + 10
    while not wire.through([udp(3)]) and time.monotonic() < deadline:
        pass
    result["after"] = len(wire.through([udp(4)]))
    wire.control.close()
    result["alone"] = len(wire.through([udp(5)]))
    ip("link", "del", "near0")
    result["status"] = wire.ends()
    return result


def refused(wire):
    """Requests that make no sense are answered by errors, and the wire goes on."""
    wire.ask(START)
    answers = []
    for op, fields in (
        (99, []),
        (SET, [(VALUE, b"short")]),
        (SET, [rule(towards=2)]),
        (SET, [(SOURCE, bytes(4))]),
        (SET, [rule(), (SOURCE, bytes(5))]),
        (SET, [rule()] * 33),
        (HOSTS, [(ADDRESS, bytes(3))]),
        (HOSTS, [(STEP, b"")]),
        (HOSTS, [(ADDRESS, bytes(4) + b"\x21")]),
        *(
            (HOSTS, [(ADDRESS, struct.pack("!I", n)) for n in range(start, start + 2049)])
            for start in range(0, 8193, 2049)
        ),
        (PROVE, []),
    ):
        body = dict(wire.ask(op, fields)[1])
        answers.append(struct.unpack("=I", body[ERRNO])[0] if ERRNO in body else None)
    for junk in (b"x", b"\xff" * 100, HEADER.pack(1, SET, 0, 0, 1, 500) + b"abc", HEADER.pack(1, SET, 1, 0, 1, 5)):
        wire.control.send(junk)
        answers.append(struct.unpack("=I", dict(wire.receive()[1])[ERRNO])[0])
    wire.set()
    return {"answers": answers, "lives": len(wire.through([udp(1)]))}


def crowded(wire):
    """Too many rules are refused, and those that were there go on."""
    wire.ask(START)
    wire.set(rule(loss=1.0))
    body = dict(wire.ask(SET, [rule()] * 33)[1])
    kept = len(wire.through([udp(1)]))
    wire.set(*[rule()] * 32)
    return {"error": struct.unpack("=I", body[ERRNO])[0], "kept": kept, "after": len(wire.through([udp(1)]))}


def fuzz(wire):
    """Whatever comes, under all faults at once: the wire lives, and no packet is unaccounted for."""
    wire.ask(START)
    junk = random.Random(11)
    sender = wire.open("near0", vnet=True)
    wire.set(
        rule(loss=0.1, duplicate=0.2, reorder=0.2, corrupt=0.3, delay=1_000_000, jitter=500_000, rate=10**9, seed=1)
    )
    base = [
        ip4(6, tcp(1, junk.randbytes(3000))),
        ip6(6, tcp(5, junk.randbytes(3000))),
        ip4(17, bytes(2000)),
        ip6(0, bytes([58, 0]) + bytes(60)),
    ]
    sent = 0
    for _ in range(3000):
        frame = bytearray(junk.choice(base))
        for _ in range(junk.randrange(4)):
            frame[junk.randrange(12, min(len(frame), 80))] = junk.randrange(256)
        del frame[junk.randrange(15, len(frame) + 1) :]
        vnet = VNET.pack(
            junk.choice((0, 1, 2)),
            junk.choice((0, 1, 4, 5, 0x81)),
            junk.randrange(100),
            junk.randrange(1500),
            junk.randrange(80),
            junk.randrange(40),
        )
        for head in (vnet, bytes(VNET.size)):
            with contextlib.suppress(OSError):  # the kernel looks at it too
                sender.send(head + frame)
                sent += 1
        if sent % 100 == 0:
            wire.counts()
    wire.arrived(patience=0.5)
    counts = wire.counts()[1]
    return {"sent": sent, "counts": counts, "status": wire.close()}


def main():
    """Run one scenario."""
    program, scenario = sys.argv[1:]
    ip("link", "set", "lo", "up")
    wire = Wired(program)
    try:
        result = {**vars(wire_fates), **globals()}[scenario](wire)
        if wire.process.poll() is None and wire.control.fileno() >= 0:
            result["status"] = wire.close()
        print(json.dumps(result))
    finally:
        wire.process.kill()


if __name__ == "__main__":
    main()
