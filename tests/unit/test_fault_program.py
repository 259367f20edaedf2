"""The programs of faults, run by an interpreter of classic BPF: which frames they drop, and which they leave alone."""

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_poorcontainer import UsageError
from pytest_poorcontainer.network.program import DROP, EVERYTHING, PASS_ON, TCP, UDP, Match, compiled

PASS = 0xFFFFFFFF


def run(program, frame):
    """Run a program over a frame as the kernel does; a load beyond its end is a return of 0 (no drop)."""
    accumulator = index = at = 0
    while True:
        code, yes, no, value = program[at]
        at += 1
        size = {0x20: 4, 0x28: 2, 0x30: 1, 0x48: 2}.get(code)
        if size:
            start = value + (index if code == 0x48 else 0)
            if start + size > len(frame):
                return 0
            accumulator = int.from_bytes(frame[start : start + size], "big")
        elif code == 0x80:
            accumulator = len(frame)
        elif code == 0xB1:
            index = 4 * (frame[value] & 15)
        elif code == 0x05:
            at += value
        elif code == 0x06:
            return value
        else:
            test = {
                0x15: accumulator == value,
                0x25: accumulator > value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[code]
            at += yes if test else no


def ether(kind, payload, *, group=False):
    """Return a frame."""
    return bytes((0xFF if group else 2, 0, 0, 0, 0, 1)) + bytes((2, 0, 0, 0, 0, 2)) + struct.pack(">H", kind) + payload


def packet(source, target, protocol=TCP, ports=(1000, 80), *, size=0, options=0, fragment=0, group=False):
    """Return a frame with an IP packet of either family."""
    a, b = ip_address(source).packed, ip_address(target).packed
    body = struct.pack(">HH", *ports) + bytes(16)
    if len(a) == 4:
        header = bytes((0x45 + options, 0, 0, 0, 0, 0)) + struct.pack(">H", fragment) + bytes((64, protocol, 0, 0))
        data = header + a + b + bytes(4 * options) + body
        return ether(0x0800, data.ljust(size, b"\0"), group=group)
    data = bytes((0x60, 0, 0, 0, 0, 20, protocol, 64)) + a + b + body
    return ether(0x86DD, data.ljust(size, b"\0"), group=group)


def discovery(kind):
    """Return a frame with an ICMPv6 message of this type."""
    return ether(0x86DD, bytes((0x60, 0, 0, 0, 0, 8, 58, 255)) + bytes(32) + bytes((kind, 0, 0, 0)))


ARP = ether(0x0806, bytes(28))


def addresses(*texts):
    """Return addresses as faults have them."""
    return frozenset(ip_address(text).packed for text in texts)


def dropped(match, frame):
    """Return whether a frame fits."""
    return run(compiled([match]), frame) == DROP


def test_no_fault_is_no_program():
    """Where nothing is to be dropped there is nothing to be asked."""
    assert compiled([]) is None


def test_everything_is_every_frame():
    """A cut drops also what is not IP, and whatever else is asked for beside it."""
    program = compiled([Match(addresses("10.0.0.1")), EVERYTHING])
    assert {run(program, frame) for frame in (ARP, discovery(135), packet("10.0.0.9", "10.0.0.8"))} == {DROP}


@pytest.mark.parametrize("frame", [ARP, *(discovery(kind) for kind in range(133, 138))])
def test_hosts_keep_knowing_each_others_hardware_addresses(frame):
    """ARP and neighbour discovery fit no match."""
    assert not dropped(Match(), frame)


@pytest.mark.parametrize("kind", [1, 128, 132, 138, 143])
def test_other_icmp_of_ipv6_is_dropped(kind):
    """Echoes and errors are packets like others."""
    assert dropped(Match(), discovery(kind))


@given(
    st.lists(st.ip_addresses(), min_size=1, max_size=40, unique=True),
    st.lists(st.ip_addresses(), min_size=1, max_size=40, unique=True),
    st.data(),
)
@settings(max_examples=150, deadline=None)
def test_exactly_the_packets_of_these_addresses_are_dropped(senders, receivers, data):
    """Any number of addresses of both families, in any order, as senders and as receivers."""
    family = data.draw(st.sampled_from([4, 6]))
    around = [one for one in (*senders, *receivers) if one.version == family]
    address = st.ip_addresses(v=family) if not around else st.one_of(st.sampled_from(around), st.ip_addresses(v=family))
    source, target = data.draw(address), data.draw(address)
    match = Match(frozenset(one.packed for one in senders), frozenset(one.packed for one in receivers))
    expected = source in senders and target in receivers
    assert dropped(match, packet(str(source), str(target))) == expected


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=50, unique=True),
    st.sampled_from(["10.9.8.0", "255.255.255.195", "fd00::fff0", "fd00::ffff:ffd0"]),
    st.integers(-3, 70),
)
@settings(max_examples=150, deadline=None)
def test_neighbours_are_told_apart_at_the_ends_of_their_runs(numbers, base, asked):
    """Addresses that follow each other, with gaps, also across a byte and up to the last there is."""
    first = ip_address(base)
    match = Match(frozenset((first + number).packed for number in numbers))
    try:
        source = first + asked
    except ValueError:
        return
    assert dropped(match, packet(str(source), str(first))) == (asked in numbers)


def test_half_of_a_switch_is_a_short_program():
    """What parting fifty hosts takes is the kernel's compiling of a hundred programs, so neighbours are one run."""
    half = [address for n in range(1, 26) for address in (f"10.0.7.{n}", f"fd00:7::{n:x}")]
    assert len(compiled([Match(addresses(*half))])) <= 26


@pytest.mark.parametrize("count", [100, 127, 128, 129, 300])
def test_jumps_that_are_too_far_for_a_conditional_one(count):
    """Programs of any length decide alike: jumps reach 255 instructions, or are made of two."""
    base = ip_address("10.0.0.0")
    match = Match(frozenset((base + 2 * n).packed for n in range(count)))
    found = [n for n in range(2 * count + 2) if dropped(match, packet(str(base + n), "10.9.9.9"))]
    assert found == list(range(0, 2 * count, 2))


@pytest.mark.parametrize(("source", "target"), [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")])
def test_ports_are_those_of_the_protocol_that_was_named(source, target):
    """To or from a port, TCP's or UDP's, behind IP options too; a later fragment has no port and passes."""
    assert dropped(Match(protocol=TCP, to_port=80), packet(source, target, TCP, (1, 80)))
    assert not dropped(Match(protocol=TCP, to_port=80), packet(source, target, TCP, (80, 1)))
    assert not dropped(Match(protocol=TCP, to_port=80), packet(source, target, UDP, (1, 80)))
    assert dropped(Match(protocol=UDP, from_port=53), packet(source, target, UDP, (53, 9)))
    assert dropped(Match(protocol=TCP), packet(source, target, TCP, (7, 7)))
    if ":" not in source:
        assert dropped(Match(protocol=TCP, to_port=80), packet(source, target, TCP, (1, 80), options=3))
        assert not dropped(Match(protocol=TCP, to_port=80), packet(source, target, TCP, (1, 80), fragment=185))


@pytest.mark.parametrize(("size", "expected"), [(1000, False), (1001, True)])
@pytest.mark.parametrize("addresses", [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")])
def test_a_narrow_way_lets_packets_of_just_its_size_pass(addresses, size, expected):
    """The Ethernet header does not count."""
    assert dropped(Match(longer=1000), packet(*addresses, size=size)) is expected


def test_packets_to_many_are_told_by_their_ethernet_address():
    """Multicast and broadcast of a sender, and nothing else of it."""
    match = Match(addresses("10.0.0.1"), to_group=True)
    assert dropped(match, packet("10.0.0.1", "224.0.0.5", group=True))
    assert not dropped(match, packet("10.0.0.1", "10.0.0.2"))
    assert not dropped(match, packet("10.0.0.9", "224.0.0.5", group=True))


def test_faults_at_one_place_add_up():
    """A program drops what any of its faults does."""
    program = compiled([Match(addresses("10.0.0.1")), Match(protocol=UDP, to_port=53), Match(longer=900)])
    frames = [
        packet("10.0.0.1", "10.0.0.2"),
        packet("10.0.0.3", "10.0.0.2", UDP, (9, 53)),
        packet("10.0.0.3", "10.0.0.2", size=901),
        packet("10.0.0.3", "10.0.0.2"),
    ]
    assert [run(program, frame) for frame in frames] == [DROP, DROP, DROP, PASS]
    assert run(compiled([Match(longer=900)], PASS_ON), frames[2]) == PASS_ON


def test_a_program_that_the_kernel_would_not_take_is_refused_in_words():
    """More than 4096 instructions: the error says what to do instead."""
    many = frozenset(bytes((10, 0, high, low)) for high in range(20) for low in range(0, 250, 2))
    with pytest.raises(UsageError, match="the kernel takes 4096: name fewer hosts"):
        compiled([Match(many, many)])
