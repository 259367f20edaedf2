"""Scenarios of wire_scenarios.py about which packets are lost: the same ones of the same conversation."""

import random
import struct

from wired import ADDRESS, HOSTS, MACS, OK, START, VALUE, ip4, rule, tcp, udp


def fates(wire):
    """The same conversation meets the same fate, whatever it is called and whatever is beside it."""
    wire.ask(START)
    seen = {}
    runs = {
        "first": {},
        "other seed": {"seed": 2},
        "other client port": {"client": 50123},
        "beside another": {"noise": 9999},
    }
    runs["other address"] = {"source": (10, 9, 9, 9)}
    for name, run in runs.items():
        source = run.get("source", (10, 0, 0, 1))
        known = [(VALUE, b"hosthost"), (ADDRESS, bytes(source)), (VALUE, b"elsehere"), (ADDRESS, bytes((10, 0, 0, 2)))]
        assert wire.ask(HOSTS, known)[0] == OK
        wire.set(rule(loss=0.1, seed=run.get("seed", 1)))
        frames = []
        for number in range(1000):
            frames.append(udp(number, client=run.get("client", 40000), source=source))
            if "noise" in run:
                frames += [udp(100000, port=run["noise"], source=source), MACS + b"\x08\x06" + bytes(28)]
        numbers = {struct.unpack("!I", frame[42:46])[0] for frame in wire.through(frames) if frame[12:14] == b"\x08\0"}
        seen[name] = sorted(set(range(1000)) - numbers)
    seen["counts"] = wire.counts()[1]
    return seen


def named(number):
    """Return what a wire is told of hosts and a subnet whose addresses have a counter in them, and those addresses."""
    server, subnet = bytes((10, 0, number, 2)), bytes((10, 0, number, 0))
    mac = b"\x02\0\x0a\0" + bytes((number, 1))
    known = [
        (VALUE, b"server.."),
        (ADDRESS, server),
        (VALUE, b"client.."),
        (ADDRESS, bytes((10, 0, number, 1))),
        (ADDRESS, mac),
        (VALUE, b"subnet.."),
        (ADDRESS, subnet + b"\x18"),
    ]
    return known, server, mac


def link_local(mac):
    """Return the address that an interface gives itself (RFC 4291, appendix A)."""
    return b"\xfe\x80" + bytes(6) + bytes((mac[0] ^ 2, mac[1], mac[2], 0xFF, 0xFE, *mac[3:]))


def strangers(number):
    """Yield frames of conversations whose addresses follow from a counter: what they are, and their bytes."""
    _, server, mac = named(number)
    client = bytes((10, 0, number, 1))
    six = (
        struct.pack("!IHBB", 6 << 28, 28, 17, 64) + link_local(mac) + bytes.fromhex("ff020000000000000000000000000077")
    )
    for place in range(200):
        count = struct.pack("!I", place)
        yield "known", ip4(17, struct.pack("!HHHH", 40000, 53, 12, 0) + count, source=client, target=server)
        # Neither of the two is known, but for their subnet.
        ends = {"source": bytes((10, 0, number, 77)), "target": bytes((10, 0, number, 255))}
        yield "in the subnet", ip4(17, struct.pack("!HHHH", 40000, 53, 12, 0) + count, **ends)
        yield "link-local", MACS + b"\x86\xdd" + six + struct.pack("!HHHH", 4000, 53, 28, 0) + count + bytes(16)
        yield "not IP", b"\xff" * 6 + mac + b"\x88\x47" + count + bytes(40)
        # What another host says of a packet that the client has sent, each of a conversation of its own.
        inner = ip4(17, struct.pack("!HHHH", 40000 + number, 2000 + place, 12, 0), source=client, target=server)[14:]
        yield "ICMP error", ip4(1, b"\x03\x03\0\0" + count + inner, source=bytes((10, 0, number, 9)), target=client)


def built_again(wire):
    """Each conversation loses the same packets though the addresses of all hosts, interfaces and subnets are others."""
    wire.ask(START)
    seen = []
    for number in (7, 200):
        assert wire.ask(HOSTS, named(number)[0])[0] == OK
        wire.set(rule(loss=0.2, seed=6))
        frames = list(strangers(number))
        if number == 200:
            frames = sorted(frames[:500], key=lambda one: one[0]) + frames[500:]  # in another order, each as it was
        out = set(wire.through([frame for _, frame in frames]))
        kinds = dict.fromkeys(kind for kind, _ in frames)
        mine = {kind: [frame for one, frame in frames if one == kind] for kind in kinds}
        seen.append({kind: [n for n, frame in enumerate(mine[kind]) if frame not in out] for kind in sorted(mine)})
    return {"first": seen[0], "second": seen[1]}


def resent(wire):
    """How often each segment of a stream is lost when only lost ones are sent again, and when others are as well."""
    wire.ask(START)
    seen, places = {}, range(100)
    for name, size in (("full", 1448), ("small", 100)):
        for how in ("what was lost", "all", "all, thrice at once", "all, at first in disorder"):
            wire.set(rule(loss=0.3, seed=5))
            wire.through([ip4(6, tcp(999, b"", flags=2))])
            times = {place: [] for place in places}
            for _ in range(8):
                due = [place for place in places if how != "what was lost" or not times[place] or not times[place][-1]]
                due = [place for place in due for _ in range(3 if "thrice" in how else 1)]
                if "disorder" in how and not times[0]:
                    random.Random(8).shuffle(due)
                frames = [
                    ip4(6, tcp(1000 + place * size, bytes(size)), identification=number)
                    for number, place in enumerate(due)
                ]
                arrived = {struct.unpack("!H", frame[18:20])[0] for frame in wire.through(frames)}
                for number, place in enumerate(due):
                    times[place].append(number in arrived)
            lost = [one.count(False) for one in times.values()]
            in_front = all(one == sorted(one) for one in times.values())
            seen[f"{name}, {how}"] = {"lost": lost, "only in front": in_front}
    return seen
