"""The ladder diagram: who said what when, beside what was done to them."""

from __future__ import annotations

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from sent import MS, NAMES, ether, framed, tcp

from pytest_poorcontainer.lab import events
from pytest_poorcontainer.lab.events import Event
from pytest_poorcontainer.traffic.conversations import conversations
from pytest_poorcontainer.traffic.ladder import headline, ladder, latest, rungs

REFUSED = conversations([tcp("a", "S", at=1000, seq=1), tcp("b", "RA", at=1001, ack=2)])


def test_a_refused_connection_in_a_picture():
    """Names for addresses, seconds since zero, an arrow for each way, the word on what is odd behind it."""
    assert ladder(REFUSED[0], NAMES, zero=0) == [
        "tcp a:40000 -- b:80, 2 packets: RST: refused",
        "           s  a:40000                               b:80",
        "    1.000000  |-- SYN -------------------------------->|",
        "    1.001000  |<---------------------------- RST,ACK --|  RST: refused",
    ]


def test_what_was_done_stands_between_the_packets():
    """Events of the time of a conversation, or just before, have lines of their own; others have none."""
    done = [
        Event(-1, "long ago"),
        Event(500 * MS, "a -- b: cut"),
        Event(1000 * MS + 1, "b: db started"),
        Event(9000 * MS, "x"),
    ]
    lines = ladder(REFUSED[0], NAMES, 0, done)[2:]
    assert [line.split("|")[1].strip(" .<>-") for line in lines] == ["a -- b: cut", "SYN", "b: db started", "RST,ACK"]


def test_a_long_exchange_of_data_is_summed_up():
    """Of plain data the first and the last lines are shown, and a sum for the rest; what is odd stays."""
    frames = [tcp("a", "PA", at=n, seq=1 + 100 * n, ack=1, data=b"x" * 100) for n in range(100)]
    frames.insert(50, tcp("a", "PA", at=49, seq=1, ack=1, data=b"x" * 100, number=7))
    frames.append(tcp("b", "A", at=100, seq=1, ack=10001))
    (found,) = conversations(frames)
    shown = rungs(found, NAMES, 0)
    assert len(shown) == 4 + 1 + 1 + 1 + 10
    assert [rung.odd for rung in shown if rung.odd] == ["retransmission"]
    assert "46 more: 4600 bytes there, 0 bytes back" in [rung.text for rung in shown]


def test_who_is_blamed_has_a_name():
    """The address in a word on what is odd is that of a host."""
    question = ether("a", IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=5, dport=6))
    from scapy.layers.inet import ICMP

    error = ether("b", IP(src="10.0.0.2", dst="10.0.0.1") / ICMP(type=3, code=3) / bytes(question)[14:42])
    (found,) = conversations([framed(question), framed(error, 1, 2)])
    assert headline(found, NAMES) == "udp a:5 -- b:6, 2 packets: ICMP from b"
    assert ladder(found, NAMES, 0)[-1].endswith("|<------------------- port unreachable --|  ICMP from b")


def test_a_control_character_does_not_reach_the_terminal():
    """What is cleaned is every line, also the events."""
    lines = ladder(REFUSED[0], NAMES, 0, [Event(1000 * MS, "\x1b[2J")], lambda text: text.replace("\x1b", "?"))
    assert not any("\x1b" in line for line in lines)


def test_the_odd_conversations_are_shown_first():
    """Of many the odd ones are kept, then the latest; what kernels say on their own only when it is odd."""
    ok = [
        frame
        for port in range(1, 9)
        for frame in (tcp("a", "S", at=port, seq=1, ports=(port, 80)), tcp("b", "SA", at=port, ack=2, ports=(port, 80)))
    ]
    silent = [tcp("a", "S", at=0, ports=(99, 80))]
    arp = [framed(Ether() / ARP(op=1, psrc="10.0.0.1", pdst="10.0.0.9"), 3)]
    found = conversations(sorted([*ok, *silent, *arp], key=lambda frame: frame.time))
    assert [each.first[1] for each in latest(found, 4)] == [99, 0, 7, 8]
    answered = [*arp, framed(Ether() / ARP(op=2, psrc="10.0.0.9", pdst="10.0.0.1"), 4, 2)]
    assert latest(conversations(answered), 4) == []


def test_a_link_local_address_is_that_of_who_sends_from_it():
    """An address that no host is known by has the name of the host whose interface has sent its packets."""
    from scapy.layers.inet6 import IPv6

    there = framed(Ether() / IPv6(src="fe80::1", dst="fe80::2") / UDP(sport=5, dport=6), 0, 1)
    back = framed(Ether() / IPv6(src="fe80::2", dst="fe80::1") / UDP(sport=6, dport=5), 1, 2)
    assert headline(conversations([there, back])[0], NAMES) == "udp a:5 -- b:6, 2 packets"
    assert headline(conversations([there])[0], NAMES) == "udp a:5 -- [fe80::2]:6, 1 packet: no answer"


def test_an_ipv6_address_and_its_port_are_told_apart():
    """A bare address of IPv6 stands in brackets before a port."""
    assert NAMES.end(("fd00::9", 80)) == "[fd00::9]:80"
    assert NAMES.end(("fd00::1", 80)) == "a:80"
    assert NAMES.end(("fd00::9", 0)) == "fd00::9"


def test_events_are_those_since_a_time(monkeypatch):
    """Each note has the clock of the frames, whatever a test makes of it; what is older than asked for is left out."""
    monkeypatch.setattr("time.time_ns", lambda: 0)
    events.note("one")
    (one,) = [event for event in events.since(0) if event.what == "one"][-1:]
    events.note("two")
    assert [event.what for event in events.since(one.time)][-2:] == ["one", "two"]
    assert one.time > 10**18
    assert "one" not in [event.what for event in events.since(one.time + 1)]
