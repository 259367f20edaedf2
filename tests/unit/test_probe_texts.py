"""What is said of results: lines as tcptraceroute's, tables of ports, codes, memory, and netlink's words."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_poorcontainer import UsageError
from pytest_poorcontainer.probe import classic, nfnetlink, reverse
from pytest_poorcontainer.probe.codes import code_of
from pytest_poorcontainer.probe.facts import INITIAL_TTLS, Facts, Seen, distance_of
from pytest_poorcontainer.probe.hop import Hop, Hops
from pytest_poorcontainer.probe.matrix import Matrix
from pytest_poorcontainer.probe.memory import Memory
from pytest_poorcontainer.probe.parse import parse
from pytest_poorcontainer.probe.result import Place, ProbeResult
from pytest_poorcontainer.probe.verdict import STATES, judge


def hops(*addresses):
    """Return hops of these addresses, None for silence."""
    return Hops(
        Hop(ttl, [Seen(ttl, one, "exceeded", 0.001 * ttl, 60)] if one else []) for ttl, one in enumerate(addresses, 1)
    )


def result(**about):
    """Return a result, open behind one router unless it is said otherwise."""
    given_about = {"protocol": "tcp", "source": "10.0.0.1", "target": "10.0.9.9", "port": 80, "state": "open"}
    return ProbeResult(**{**given_about, "hops": hops("10.0.1.1"), "rtts": [0.002], **about})


def test_lines_are_tcptraceroutes():
    """Two digits of TTL, two blanks, times with three decimals, the state in brackets."""
    assert list(classic.lines(result(), {}, 1)) == [" 1  10.0.1.1  1.000 ms", " 2  10.0.9.9 [open]  2.000 ms"]
    named = {"10.0.1.1": "gw", "10.0.9.9": "db"}
    assert list(classic.lines(result(), named, 3)) == [
        " 1  gw (10.0.1.1)  1.000 ms  *  *",
        " 2  db (10.0.9.9) [open]  2.000 ms  *  *",
    ]


def test_silence_and_rejection_have_their_marks():
    """Stars for a silent hop, and for what is behind the last one; the code behind who rejected."""
    silent = result(state="filtered", hops=hops("10.0.1.1", None), rtts=[])
    assert list(classic.lines(silent, {}, 3)) == [" 1  10.0.1.1  1.000 ms  *  *", " 2  * * *", " 3  * * *"]
    rejected = result(state="rejected", code="admin", at=Place(1, "10.0.1.1"), final_mark="!X")
    assert list(classic.lines(rejected, {}, 1)) == [" 1  10.0.1.1  1.000 ms", " 2  10.0.1.1  2.000 ms !X"]


def test_every_state_has_an_exit_status():
    """Those of the manual: 0 to 3."""
    assert {state: classic.EXIT[state] for state in STATES} == {
        "open": 0,
        "reached": 0,
        "closed": 1,
        "filtered": 2,
        "loop": 2,
        "rejected": 3,
        "unreachable": 3,
    }


def test_results_compare_with_plain_things():
    """Lists of addresses, names and None; dicts of attributes; other results."""
    one = result(hops=hops("10.0.1.1", None))
    assert one.hops == ["10.0.1.1", None]
    assert one.hops == ["10.0.1.1", "*"]
    assert one.hops != ["10.0.1.1"]
    assert one.hops != ["10.0.1.1", "10.0.2.1"]
    assert one == {"state": "open", "port": 80}
    assert one != {"state": "open", "port": 81}
    assert one != {"no_such_attribute": None}
    assert one == result(hops=hops("10.0.1.1", None))
    assert one.found("id") is None


def test_a_result_explains_itself_in_one_line_and_in_several():
    """Verdict first, then the path; of many hops the first and the last."""
    assert repr(result()) == "<tcp 10.0.0.1 -> 10.0.9.9:80 is OPEN | 1 10.0.1.1 1.00 ms>"
    many = result(hops=hops(*[f"10.0.{n}.1" for n in range(1, 20)]))
    assert " | ... | " in repr(many)
    assert "  19 10.0.19.1" in str(many)
    six = result(source="fd00::1", target="fd00::9", hops=hops())
    assert repr(six) == "<tcp fd00::1 -> [fd00::9]:80 is OPEN | no router on the way>"


@pytest.mark.parametrize("version", [4, 6])
def test_every_code_has_a_name_and_a_mark(version):
    """Also those that nobody has assigned."""
    names = set()
    for number in range(256):
        code = code_of(version, number)
        assert code.mark.startswith("!")
        assert code.state in ("rejected", "unreachable")
        names.add(code.name)
    assert len(names) == 256


def test_distances_are_guessed_from_what_is_left_of_a_ttl():
    """One from a neighbour, whatever system it is."""
    for initial in INITIAL_TTLS:
        assert distance_of(initial) == 1
        assert distance_of(initial - 10) == 11


def test_a_syn_ack_counts_more_than_a_reset():
    """Somebody injects resets, and the server answers all the same: the port is open."""
    facts = Facts()
    facts.add(Seen(64, "10.0.9.9", "tcp", 0.1, 60, flags=0x14))
    facts.add(Seen(64, "10.0.9.9", "tcp", 0.2, 60, flags=0x12))
    assert judge(facts, 4, 2, "10.0.9.9").state == "open"


def test_matrices_compare_in_long_and_short_form():
    """Keys may leave out what there is but one of."""
    one = Matrix({("a", "b", 22): "closed", ("a", "b", 80): "open"})
    assert one == {22: "closed", 80: "open"}
    assert one == {("b", 22): "closed", ("a", "b", 80): "open"}
    assert one != {22: "closed"}
    assert one != {22: "closed", 80: "filtered"}
    assert one != {23: "closed"}
    assert "a -> b:80 open" in str(one)
    two = Matrix({("a", "b", 22): "closed", ("c", "b", 22): "open"})
    with pytest.raises(UsageError, match="no key of this matrix"):
        two.assert_equal({22: "closed"})


def test_routers_that_were_heard_before_are_called_limited():
    """Only at the same distance of the same target, and not those that never answered."""
    memory = Memory()
    assert memory.learn("a", "b", hops("10.0.1.1", "10.0.2.1", None)) == []
    later = hops("10.0.1.1", None, None)
    (found,) = memory.learn("a", "b", later)
    assert (found.what, found.ttl) == ("rate limited", 2)
    assert later[1].limited
    assert not later[2].limited
    assert "was 10.0.2.1" in str(later[1])
    assert memory.learn("a", "other", hops(None)) == []


def test_private_addresses_are_not_asked_about():
    """RFC 1918, RFC 4193, loopback and link-local ones; and names come within a bound of time."""
    private = ("10.1.2.3", "192.168.0.1", "172.16.0.1", "172.31.9.9", "127.0.0.1", "fd00::1", "fe80::1", "::1")
    assert all(map(reverse.is_private, private))
    assert not any(map(reverse.is_private, ("192.0.2.1", "172.32.0.1", "2001:db8::1")))
    assert isinstance(reverse.names_of(["127.0.0.1"], 5), dict)


def test_mpls_labels_are_read_from_an_extended_error():
    """The labels of RFC 4950 stand behind 128 bytes of quote (RFC 4884)."""
    quoted = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 7, 0, 1, 6, 0, b"\x0a\0\0\1", b"\x0a\0\0\2") + bytes(108)
    stack = struct.pack("!HBB", 12, 1, 1) + struct.pack("!II", 16001 << 12, 42 << 12 | 1 << 8)
    error = struct.pack("!BBHBBH", 11, 0, 0, 0, 32, 0) + quoted + struct.pack("!BBH", 0x20, 0, 0) + stack
    outer = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(error), 1, 0, 60, 1, 0, b"\x0a\0\7\1", b"\x0a\0\0\1")
    assert parse(outer + error, 0.0).labels == (16001, 42)
    assert parse(outer + error[:140], 0.0).labels == ()


@given(st.binary(max_size=300))
def test_netlink_garbage_is_read_without_an_exception(data):
    """Whatever a socket says, the readers end."""
    list(nfnetlink.events(data))
    list(nfnetlink.attributes(data))
    nfnetlink.refusal(data)
    nfnetlink.hook_of(data)
