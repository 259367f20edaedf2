"""pcwire itself, between two veth pairs in a network namespace of its own: what it does to frames, to the bit."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sanitized import plain_or_sanitized

from pytest_poorcontainer import machine

pytestmark = [
    pytest.mark.skipif(
        not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
    ),
    pytest.mark.skipif(
        shutil.which("unshare") is None, reason="unshare(1) is not installed: apt-get install util-linux"
    ),
    pytest.mark.skipif(shutil.which("ip") is None, reason="ip(8) is not installed: apt-get install iproute2"),
]


@pytest.fixture(scope="module", params=["plain", "sanitized"])
def program(request):
    """The pcwire that everybody uses, and one with AddressSanitizer and UndefinedBehaviorSanitizer."""
    return plain_or_sanitized(request.param, "pcwire")


@pytest.fixture
def see(program):
    """A function that runs a scenario of wire_scenarios.py and returns what it saw; its wire ends in peace."""

    def run(scenario):
        space = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]
        command = [*space, sys.executable, str(Path(__file__).parent / "wire_scenarios.py"), program, scenario]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
        assert "ERROR" not in done.stderr
        seen = json.loads(done.stdout)
        assert seen.pop("status") == 0, done.stderr
        return seen

    return run


def test_frames_pass_unchanged(see):
    """Without faults what goes in comes out, in order and to the bit, also frames of no known kind and broken ones."""
    seen = see("unchanged")
    assert seen["same"]
    assert seen["back"]


def test_fates_follow_from_seed_and_conversation(see):
    """The same packets are lost whatever the address, the client's port and what is beside; a seed decides."""
    seen = see("fates")
    first = seen.pop("first")
    assert 60 < len(first) < 140
    assert seen.pop("other seed") != first
    assert seen.pop("counts")["lost"] >= 5 * 60
    assert seen == dict.fromkeys(("other client port", "beside another", "other address"), first)


def test_fates_do_not_follow_from_addresses_that_a_counter_gives(see):
    """With other subnets and hardware addresses the same packets are lost, of strangers and of ICMP errors too."""
    seen = see("built_again")
    assert seen["first"] == seen["second"]
    assert all(20 < len(lost) < 60 for lost in seen["first"].values()), seen["first"]
    assert len({tuple(lost) for lost in seen["first"].values()}) == 5


def test_segments_are_lost_as_often_whatever_is_sent_again_in_vain(see):
    """A segment is lost the first so and so many times, and never again: how many is the seed's alone, not of order."""
    seen = see("resent")
    assert all(one["only in front"] for one in seen.values())
    for size in ("full", "small"):
        counts = [one["lost"] for name, one in seen.items() if name.startswith(size)]
        assert counts == [counts[0]] * 4
        assert sum(times > 0 for times in counts[0]) in range(16, 45)
        assert max(counts[0]) > 1
    assert seen["full, all"]["lost"] != seen["small, all"]["lost"]


def test_each_fault_does_what_it_says(see):
    """Shares are kept within 3 sigma, counts agree with what arrives, and the kernels' chatter is spared."""
    seen = see("faults")
    for name in ("duplicate", "reorder", "corrupt", "loss"):
        assert seen[name]["counts"].pop("packets") == 2000
        ((_, number),) = seen[name]["counts"].items()
        assert abs(number - 100) < 3 * (2000 * 0.05 * 0.95) ** 0.5, name
        seen[name]["number"] = number
    numbers = seen["duplicate"]["numbers"]
    assert numbers == sorted(numbers)
    assert len(numbers) == 2000 + seen["duplicate"]["number"]
    numbers = seen["reorder"]["numbers"]
    assert sorted(numbers) == list(range(2000))
    assert sum(one < before for before, one in itertools.pairwise(numbers)) <= seen["reorder"]["number"]
    assert numbers != sorted(numbers)
    wrong = seen["corrupt"]["wrong bits"]
    assert wrong.count(1) == seen["corrupt"]["number"]
    assert set(wrong) == {0, 1}
    assert len(seen["loss"]["numbers"]) == 2000 - seen["loss"]["number"]
    assert seen["chatter"]
    assert seen["all lost"]


def test_what_is_spoilt_is_found_out(see):
    """The header of IPv6 has no checksum: of its packets one bit behind that is wrong, in each."""
    seen = see("spoilt6")
    assert seen["corrupted"] == len(seen["places"]) == 300
    assert 14 + 40 <= min(seen["places"]) < max(seen["places"]) < 14 + 40 + 12


def test_loss_takes_packets_out_of_large_frames(see):
    """Of what the sender left unsegmented single packets are lost; the rest has right numbers, flags and checksums."""
    seen = see("gso")
    for name, one in seen.items():
        assert one["right"], name
        assert one["intact"], name
        assert one["refused"] == 0, name
        assert len(one["places"]) == 40 - one["lost"], name
        assert one["places"] == sorted(one["places"]), name
        if name.startswith("tcp"):
            assert one["numbers"] == [1000 + 1000 * place for place in one["places"]], name
    for kind in ("tcp4", "tcp6", "udp4"):
        whole, some = seen[f"{kind} 0"], seen[f"{kind} 0.2"]
        assert (whole["frames"], whole["lost"]) == (1, 0)
        assert 0 < some["lost"] < 20
        assert some["frames"] > 1
    flags = dict(zip(seen["tcp4 0.2"]["places"], seen["tcp4 0.2"]["flags"], strict=True))
    ends = {place: bits & 9 for place, bits in flags.items()}
    last_run = max(ends)
    assert {bits for place, bits in ends.items() if place < last_run - 20} == {0}
    assert {bits & 0x80 for place, bits in flags.items() if place > 30} == {0}


def test_a_packet_that_is_held_back_is_overtaken_by_one(see):
    """Of a large frame too, a reordered packet comes one place later, not behind all the rest."""
    seen = see("overtaken")
    places = seen["places"]
    assert sorted(places) == list(range(40))
    assert 0 < sum(one < before for before, one in itertools.pairwise(places)) <= seen["reordered"] < 12
    assert all(abs(place - index) <= 3 for index, place in enumerate(places))


def test_frames_keep_their_vlan_tags(see):
    """The tag that the kernel carries beside a frame is on what comes out, also on the parts of a large one."""
    seen = see("tagged")
    for name, frames in seen.items():
        assert {tuple(frame[:3]) for frame in frames} == {(True, 0x2005, 0x8100)}, name
        assert {frame[4] for frame in frames} == {"0800"}, name
    lengths = {name: [frame[3] for frame in frames] for name, frames in seen.items()}
    assert lengths["none"] == lengths["delay"] == [82, 54 + 5000]
    assert len(lengths["loss"]) > 1
    assert sum(length - 54 for length in lengths["loss"] if length > 82) in (1000, 2000, 3000, 4000)


def test_delayed_packets_keep_their_order_and_are_not_forgotten(see):
    """Jitter reorders nothing, silence loses what is under way, and the end sends what is left."""
    seen = see("later")
    assert seen["in order"]
    assert (seen["cut"], seen["cut while silent"]) == (5, 6)
    assert seen["sent at the end"] == list(range(10))


def test_what_there_is_no_room_for_is_counted(see):
    """64 MiB may be under way; what is more is an overflow."""
    seen = see("full")
    assert seen["packets"] == 60000
    assert 60000 - (64 << 20) // 1400 < seen["overflow"] < 60000 - (64 << 20) // 1600


def test_a_wire_that_is_behind_empties_its_rings_before_they_are_full(see):
    """What waits is sent in order, frames of all sizes, lost only when it is cut, and not forgotten at the end."""
    seen = see("behind")
    assert {how: one["in order"] for how, one in seen.items()} == {"send": True, "cut": True, "end": True}
    assert {one["overflow"] for one in seen.values()} == {0}
    assert all(one["out"] + one["cut"] == one["of"] for one in seen.values())
    assert (seen["send"]["cut"], seen["end"]["cut"]) == (0, 0)
    assert seen["cut"]["cut"] > 0


def test_a_rate_drops_what_its_queue_does_not_hold(see):
    """Frames of 1,000 bytes at 8 Mbit/s with room for 10,000 bytes: some ten pass, and none of it is an error."""
    seen = see("rated")
    assert seen["out"] + seen["overrun"] == 100
    assert 11 <= seen["out"] <= 60
    assert seen["overflow"] == 0


def test_rules_concern_those_that_they_name(see):
    """The first rule whose senders and receivers fit counts, and a rule without either fits all."""
    assert see("some") == {"out": [2]}


def test_a_plug_may_go_down_and_end_the_wire_when_it_goes(see):
    """Unplugged and plugged in again it passes frames; it outlives its owner, and ends with its plug."""
    seen = see("plugs")
    assert (seen["before"], seen["down"], seen["after"], seen["alone"]) == (1, 1, 1, 1)


def test_requests_that_make_no_sense_are_answered(see):
    """Each is an error, with the reason, and the wire goes on."""
    seen = see("refused")
    assert [number is None for number in seen["answers"]].count(True) == 3  # so many hosts there is room for
    assert seen["answers"].count(28) == 2  # ENOSPC: more hosts, more rules
    assert seen["answers"][-4:] == [71] * 4  # EPROTO
    assert seen["lives"] == 1


def test_too_many_rules_are_refused_and_the_old_ones_go_on(see):
    """28 is ENOSPC; all was to be lost before, and is afterwards."""
    assert see("crowded") == {"error": 28, "kept": 0, "after": 1}


def test_no_frame_harms_it(see):
    """Thousands of broken frames under all faults at once: it lives, and loses none for want of room."""
    seen = see("fuzz")
    assert seen["sent"] > 1000
    assert seen["counts"]["packets"] > 1000
    assert seen["counts"]["overflow"] == 0
