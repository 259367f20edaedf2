"""Frames become conversations, and what is odd about them is said in a word, and nothing else is."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6MLReport2, ICMPv6ND_NA, ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Ether
from sent import MS, ether, framed, tcp

from pytest_poorcontainer.traffic.conversations import conversations

HELLO = [
    tcp("a", "S", at=0, seq=100),
    tcp("b", "SA", at=1, seq=500, ack=101),
    tcp("a", "A", at=2, seq=101, ack=501),
    tcp("a", "PA", at=3, seq=101, ack=501, data=b"hello"),
    tcp("b", "A", at=4, seq=501, ack=106),
]
FIRST = {"src": "10.0.0.1", "dst": "10.0.0.2"}
BACK = {"src": "10.0.0.2", "dst": "10.0.0.1"}


def only(frames, **more):
    """Return the one conversation of these frames."""
    (found,) = conversations(sorted(frames, key=lambda frame: frame.time), **more)
    return found


def words(conversation):
    """Return what each step says."""
    return [f"{'>' if step.forward else '<'} {step.what}" for step in conversation.steps]


def test_a_connection_is_a_conversation():
    """Both ways are one conversation, who spoke first is its first end, and nothing of a handshake is odd."""
    found = only(HELLO)
    assert (found.protocol, found.first, found.second) == ("tcp", ("10.0.0.1", 40000), ("10.0.0.2", 80))
    assert words(found) == ["> SYN", "< SYN,ACK", "> ACK", "> 5 bytes", "< ACK"]
    assert found.oddities == []


def test_two_connections_are_two():
    """Another port of the client's is another conversation; so is the same one again after its end."""
    other = [tcp("a", "S", at=9, ports=(40001, 80))]
    assert len(conversations([*HELLO, *other])) == 2
    again = [tcp("b", "FA", at=5, seq=501, ack=106), tcp("a", "S", at=9, seq=9000)]
    assert len(conversations([*HELLO, *again])) == 2


def test_a_repeated_segment_is_a_retransmission():
    """Data that was sent before and comes again is odd."""
    found = only([*HELLO, tcp("a", "PA", at=300, seq=101, ack=501, data=b"hello")])
    assert [step.odd for step in found.steps] == ["", "", "", "", "", "retransmission"]


@pytest.mark.parametrize(
    "sacks", [(101, 106), (101, 106, 200, 300)], ids=["below the acknowledgment", "beside what is missing"]
)
def test_a_repetition_that_the_other_side_calls_needless_is_not_odd(sacks):
    """D-SACK (RFC 2883) says that the data had arrived: a veth shows many of these."""
    again = tcp("a", "PA", at=300, seq=101, ack=501, data=b"hello")
    receipt = tcp("b", "A", at=301, seq=501, ack=106, options=[("SAck", sacks)])
    assert only([*HELLO, again, receipt]).oddities == []


def test_a_selective_acknowledgment_of_something_else_excuses_nothing():
    """A block about later data does not say that the repetition was needless."""
    again = tcp("a", "PA", at=300, seq=101, ack=501, data=b"hello")
    receipt = tcp("b", "A", at=301, seq=501, ack=101, options=[("SAck", (200, 300))])
    assert only([*HELLO, again, receipt]).oddities == ["retransmission"]


def test_sequence_numbers_wrap():
    """Behind 2^32 comes 0, which is later and no repetition."""
    top = 2**32 - 3
    frames = [
        tcp("a", "PA", at=0, seq=top, ack=1, data=b"abcdef"),
        tcp("a", "PA", at=1, seq=3, ack=1, data=b"ghi"),
        tcp("b", "A", at=2, seq=1, ack=6),
    ]
    assert only(frames).oddities == []


def test_a_keep_alive_is_not_odd():
    """A probe that asks with what was received already is no retransmission."""
    assert (
        only([*HELLO, tcp("a", "A", at=9000, seq=105, ack=501), tcp("b", "A", at=9001, seq=501, ack=106)]).oddities
        == []
    )


def test_a_refused_connection_says_so():
    """A RST as the answer to a SYN is a refusal, later it is a reset."""
    assert only([tcp("a", "S", at=0, seq=1), tcp("b", "RA", at=1, ack=2)]).oddities == ["RST: refused"]
    assert only([*HELLO, tcp("b", "R", at=5, seq=501)]).oddities == ["RST"]


def test_a_full_receiver_says_so():
    """A window of 0 stops the other side."""
    assert only([*HELLO, tcp("b", "A", at=5, seq=501, ack=106, window=0)]).oddities == ["window 0: it takes no more"]


def test_silence_after_a_syn_says_so():
    """SYNs without any answer are counted; each but the first is a retransmission."""
    found = only([tcp("a", "S", at=at, seq=1) for at in (0, 1000, 3000)])
    assert found.odd == "no answer to 3 SYNs"
    assert [step.odd for step in found.steps] == ["", "retransmission", "retransmission"]


def test_of_what_is_older_than_the_record_nobody_says_that_it_was_not_answered():
    """The store of the other host began later than the question: the answer may have been lost from it."""
    question = [tcp("a", "S", at=5, seq=1)]
    assert only(question, known_since={"10.0.0.2": 5 * MS + 1}).odd == ""
    assert only(question, known_since={"10.0.0.2": 5 * MS}).odd == "no answer to 1 SYN"


def test_datagrams_without_an_answer_say_so():
    """One way only is odd for UDP between two; for many at once (multicast, broadcast) it is as it should be."""

    def datagram(target):
        return [framed(Ether() / IP(src="10.0.0.1", dst=target) / UDP(sport=5, dport=6) / b"x")]

    assert only(datagram("10.0.0.2")).odd == "no answer"
    assert only(datagram("224.0.0.5")).odd == ""
    assert only(datagram("10.0.0.255")).odd == ""
    answer = framed(ether("b", IP(**BACK) / UDP(sport=6, dport=5) / b"yes"), 1, 2)
    assert only([*datagram("10.0.0.2"), answer]).odd == ""


@pytest.mark.parametrize("inner", [UDP(sport=5, dport=6), TCP(sport=5, dport=6)])
def test_an_icmp_error_belongs_to_what_it_is_about(inner):
    """It is a step of that conversation, in the words of the error, and names who sent it."""
    question = ether("a", IP(**FIRST) / inner)
    error = ether("b", IP(**BACK) / ICMP(type=3, code=3) / bytes(question)[14:42])
    found = only([framed(question), framed(error, 1, 2)])
    assert words(found)[1] == "< port unreachable"
    assert found.steps[1].odd == "ICMP from 10.0.0.2"


def test_an_echo_without_a_reply_says_so():
    """Of several echoes those are odd that have no reply."""

    def ping(kind, seq):
        return ether("a" if kind else "b", IP(**(FIRST if kind else BACK)) / ICMP(type=kind, id=7, seq=seq))

    found = only([framed(ping(8, 1)), framed(ping(0, 1), 1, 2), framed(ping(8, 2), 2)])
    assert words(found) == ["> echo request 1", "< echo reply 1", "> echo request 2"]
    assert [step.odd for step in found.steps] == ["", "", "no answer"]


def test_an_address_that_nobody_has_says_so():
    """ARP and neighbour discovery without an answer name the address; with one they are nothing to tell."""
    asks = Ether() / ARP(op=1, psrc="10.0.0.1", pdst="10.0.0.9")
    assert only([framed(asks)]).odd == "no answer: nobody says that it has 10.0.0.9"
    assert only([framed(asks), framed(Ether() / ARP(op=2, psrc="10.0.0.9", pdst="10.0.0.1"), 1, 2)]).odd == ""
    solicits = Ether() / IPv6(src="fd00::1", dst="ff02::1:ff00:9") / ICMPv6ND_NS(tgt="fd00::9")
    assert only([framed(solicits)]).odd == "no answer: nobody says that it has fd00::9"
    tells = Ether() / IPv6(src="fd00::9", dst="fd00::1") / ICMPv6ND_NA(tgt="fd00::9")
    found = only([framed(solicits), framed(tells, 1, 2)])
    assert (found.odd, found.chatter) == ("", True)


def test_what_kernels_say_on_their_own_is_chatter():
    """Reports of multicast listeners are no conversation of a program's."""
    report = Ether() / IPv6(src="fe80::1", dst="ff02::16") / ICMPv6MLReport2()
    assert only([framed(report)]).chatter


def test_our_own_canaries_are_chatter():
    """A datagram by which a fault was proved is nothing that a test has sent."""
    canary = framed(ether("a", IP(**FIRST) / UDP(sport=5, dport=6) / b"poor-container canary12345678"))
    assert (only([canary]).chatter, only([canary]).odd) == (True, "")


def test_what_a_router_passes_on_is_the_same_packet():
    """Seen again at another interface it is a hop of its step, and no retransmission."""
    passed_on = [frame._replace(interface=3, time=frame.time + 1) for frame in HELLO]
    found = only([*HELLO, *passed_on])
    assert found.oddities == []
    assert [step.hops for step in found.steps] == [[3]] * 5


def test_conversations_are_in_the_order_in_which_they_began():
    """The first packet decides, whoever spoke last."""
    udp = framed(ether("a", IP(**FIRST) / UDP(sport=5, dport=6)), at=2)
    assert [each.protocol for each in conversations(sorted([*HELLO, udp], key=lambda frame: frame.time))] == [
        "tcp",
        "udp",
    ]
