"""Links whose packets come late, twice, spoilt, in another order, or not at all; live, and with the fault's end."""

import contextlib
import errno
import os
import select
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from wiring import datagrams, echoes, stream

from pytest_poorcontainer import Network, PoorContainerError, UsageError, machine
from pytest_poorcontainer.lab import Lab
from pytest_poorcontainer.network.addresses import has_ipv6
from pytest_poorcontainer.network.describing import described
from pytest_poorcontainer.network.wire import WireDied, WireOverflow

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)


@pytest.fixture
def pair():
    """Two hosts of a network of their own."""
    with Network() as network:
        yield network.pair()


def may_prefer():
    """Return whether this process may give others a lower nice value."""
    effective = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> 23 & 1)


def carrier(link):
    """Return the wire of an impaired link."""
    return link._impairments.carrier


def kill(link, how=signal.SIGKILL):
    """Send the wire's process a signal; when it dies of it, return afterwards."""
    signal.pidfd_send_signal(carrier(link)._pidfd, how)
    deadline = time.monotonic() + 5
    while how == signal.SIGKILL and not carrier(link).dead:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def within(number, total, share):
    """Return whether a number of packets is what the share of the total makes, within 3 sigma."""
    return abs(number - total * share) <= 3 * (total * share * (1 - share)) ** 0.5


def settings_of(host):
    """Return what a host knows of its interface, addresses, routes and rules."""
    commands = ("ip -d link show eth0", "ip addr show eth0", "ip route", "ip -6 route", "ip rule", "tc qdisc")
    return [host.run(command.split(), capture_output=True, text=True).stdout for command in commands]


@pytest.mark.parametrize("precise", [False, True])
def test_a_delay_is_added_each_way(pair, precise):
    """20 ms are 40 there and back, and never less; afterwards nothing is left of it."""
    with pair.link.impair(delay="20ms", precise=precise):
        assert pair.link.medium == "wire"
        assert all(seconds >= 0.04 for seconds in echoes(pair.a, pair.b, 3))
    assert pair.link.medium == "veth"
    assert pair.link.impairment == {}
    assert min(echoes(pair.a, pair.b, 5)) < 0.04


@pytest.mark.skipif(not may_prefer(), reason="only who has CAP_SYS_NICE may prefer a process: run as root")
@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel does not group by sessions")
def test_a_wire_has_its_turn_before_others(pair):
    """Where processors are shared out by sessions, a wire's nice value would count in its own alone: both are set."""
    with pair.link.impair(delay="1ms"):
        lines = Path(f"/proc/self/fdinfo/{carrier(pair.link)._pidfd}").read_text().splitlines()
        pid = next(line.split()[1] for line in lines if line.startswith("Pid:"))
        assert Path(f"/proc/{pid}/autogroup").read_text().endswith("nice -10\n")
        assert os.getpriority(os.PRIO_PROCESS, int(pid)) == -10


@pytest.mark.parametrize("by", ["name", "host"])
def test_a_direction_is_who_sends(pair, by):
    """With a direction only what that host sends is concerned."""
    with pair.link.impair(loss=1, direction="b" if by == "name" else pair.b) as impaired:
        assert len(datagrams(pair.a, pair.b, 20)) == 20
        assert datagrams(pair.b, pair.a, 20) == []
        assert pair.link.impairment["b"].loss == 1
        assert "a" not in pair.link.impairment
        assert [one.lost for one in impaired.counts] == [20, 0]


@pytest.mark.parametrize("seed", range(3))
def test_loss_is_within_three_sigma_and_counted(pair, seed):
    """Of 5,000 packets at 2 % a plausible number is lost, and as many are missing as the wire counts."""
    with pair.link.impair(loss="2%", seed=seed) as impaired:
        arrived = datagrams(pair.a, pair.b, 5000)
        towards_b = impaired.counts[1]
    assert towards_b.packets == 5000
    assert len(arrived) == 5000 - towards_b.lost
    assert within(towards_b.lost, 5000, 0.02)


def test_loss_of_a_stream_is_counted_by_packets(pair):
    """A stream whose kernel hands over 64 KB at a time loses single packets, and arrives whole."""
    with pair.link.impair(loss="1%", seed=3) as impaired:
        stream(pair.a, pair.b, 16 << 20)
        towards_b = impaired.counts[1]
    assert towards_b.packets > (16 << 20) // 1448
    assert within(towards_b.lost, towards_b.packets, 0.01)


def test_duplicates_and_other_orders_arrive_as_counted(pair):
    """Packets that are counted as duplicated come twice, those that were reordered behind a later one."""
    with pair.link.impair(duplicate="5%", seed=2) as impaired:
        arrived = datagrams(pair.a, pair.b, 1000)
        assert len(arrived) == 1000 + impaired.counts[1].duplicated
        assert within(impaired.counts[1].duplicated, 1000, 0.05)
        assert arrived == sorted(arrived)
    with pair.link.impair(reorder="5%", seed=2) as impaired:
        arrived = datagrams(pair.a, pair.b, 1000)
        assert sorted(arrived) == list(range(1000))
        assert arrived != sorted(arrived)
        assert impaired.counts[1].reordered > 20


def test_corrupt_packets_fail_their_checksums(pair):
    """A corrupt packet is dropped by the receiver's own check; none arrives with wrong content."""

    def errors():
        text = pair.b.run(["cat", "/proc/net/snmp"], capture_output=True, text=True).stdout
        rows = [line.split() for line in text.splitlines() if line.startswith(("Udp:", "Ip:"))]
        found = {
            f"{one[0]}{name}": int(value)
            for one, two in zip(rows[::2], rows[1::2], strict=True)
            for name, value in zip(one[1:], two[1:], strict=True)
        }
        return sum(found[name] for name in ("Udp:InCsumErrors", "Ip:InHdrErrors", "Ip:InAddrErrors"))

    before = errors()
    with pair.link.impair(corrupt="10%", seed=5, direction="a") as impaired:
        arrived = datagrams(pair.a, pair.b, 1000)
        corrupted = impaired.counts[1].corrupted
    assert within(corrupted, 1000, 0.1)
    assert len(arrived) == 1000 - corrupted
    assert arrived == sorted(set(arrived))
    assert errors() > before
    with pair.link.impair(corrupt="2%", seed=5):
        stream(pair.a, pair.b, 4 << 20)


def test_a_rate_is_not_exceeded(pair):
    """4 MB at 100 Mbit/s take as long as frames of 1,514 bytes need, or longer, and no packet is an overflow."""
    size = 4 << 20
    with pair.link.impair(rate="100mbit", delay="1ms"):
        seconds = stream(pair.a, pair.b, size)
    assert seconds >= size * 1514 / 1448 * 8 / 100e6 * 0.97  # what came before the first byte was read is not in it


def test_ten_gigabits_are_no_burden(pair):
    """A rate above what can be does not keep a stream from arriving."""
    with pair.link.impair(rate="10gbit"):
        stream(pair.a, pair.b, 8 << 20)


def test_both_families_and_large_datagrams_pass(pair):
    """IPv6 and datagrams in fragments meet the same faults as others."""
    with pair.link.impair(delay="1ms", jitter="0.5ms"):
        numbers = datagrams(pair.a, pair.b, 50, size=8000)
        assert numbers == list(range(50))
        if has_ipv6():
            with pair.b.listen((pair.b.ip6, 7000)) as server, pair.a.connect((pair.b.ip6, 7000)) as client:
                accepted, _ = server.accept()
                with accepted:
                    client.sendall(b"six")
                    assert accepted.recv(3) == b"six"


def test_the_chatter_of_kernels_is_spared(pair):
    """Under total loss an address is still resolved, and the wire counts it apart."""
    with pair.link.impair(loss="100%") as impaired:
        assert datagrams(pair.a, pair.b, 3) == []
        assert pair.b.ip in pair.a.run(["cat", "/proc/net/arp"], capture_output=True, text=True).stdout
        assert sum(one.chatter for one in impaired.counts) >= 2
        assert impaired.counts[1].lost == 3


def test_an_impaired_link_is_described(pair):
    """In words, for reports: its state, what carries it, and what happens to whose packets."""
    with pair.link.impair(delay="20ms", loss="1%"):
        assert described(pair.link) == "up, wire, from a and b: delay 20ms loss 1%"
        with pair.link.impair(rate="10mbit", direction="b"), pair.link.cut():
            assert described(pair.link).startswith("cut, wire, from ")
            assert "from b: delay 20ms loss 1% rate 10mbit" in described(pair.link)


def test_layers_say_things_anew_for_their_time(pair):
    """An inner impairment adds to the outer one, or replaces what it says itself, and its end brings that back."""
    with pair.link.impair(delay="5ms", seed=3) as outer:
        with pair.link.impair(loss="100%", direction="a"):
            assert pair.link.impairment["a"].delay == 0.005
            assert pair.link.impairment["a"].loss == 1
            assert datagrams(pair.a, pair.b, 5) == []
        assert len(datagrams(pair.a, pair.b, 5)) == 5
        outer.change(delay="2ms")
        assert pair.link.impairment["b"].delay == 0.002
        with pair.link.impair(loss=1), pair.link.impair(loss=0):
            assert len(datagrams(pair.a, pair.b, 5)) == 5


def test_an_impairment_may_end_before_one_that_came_earlier(pair):
    """Each takes only itself away, in whatever order, and may end twice."""
    first = pair.link.impair(loss=1)
    second = pair.link.impair(delay="1ms")
    first.end()
    assert len(datagrams(pair.a, pair.b, 5)) == 5
    assert pair.link.medium == "wire"
    second.end()
    second.end()
    assert pair.link.medium == "veth"
    with pytest.raises(PoorContainerError, match="it has ended"):
        second.change(delay=1)


def test_cuts_and_unplugged_cables_compose_with_it(pair):
    """A link that is impaired can be cut and unplugged, and one that is cut or unplugged impaired."""
    with pair.link.impair(delay="1ms"):
        with pair.link.cut():
            assert datagrams(pair.a, pair.b, 3) == []
        assert len(datagrams(pair.a, pair.b, 3)) == 3
        with pair.link.unplug():
            assert pair.link.state == "unplugged"
        assert len(datagrams(pair.a, pair.b, 3)) == 3
    with pair.link.cut():
        with pair.link.impair(delay="1ms"):
            assert datagrams(pair.a, pair.b, 3) == []
        assert datagrams(pair.a, pair.b, 3) == []
    pair.link.unplug()
    impaired = pair.link.impair(delay="2ms")
    pair.link.plug()
    assert all(seconds >= 0.004 for seconds in echoes(pair.a, pair.b, 2))
    assert impaired.counts[0].canaries == 1
    impaired.end()
    assert len(datagrams(pair.a, pair.b, 3)) == 3


def test_a_connection_and_all_settings_outlive_it(pair):
    """A TCP connection goes on through an impairment's beginning and end, and the hosts are as they were."""
    before = [settings_of(host) for host in pair]
    with pair.b.listen((pair.b.ip, 7000)) as server, pair.a.connect((pair.b.ip, 7000)) as client:
        accepted, _ = server.accept()
        accepted.settimeout(10)
        with accepted:
            for _ in range(3):
                client.sendall(b"before")
                assert accepted.recv(6) == b"before"
                with pair.link.impair(delay="1ms"):
                    client.sendall(b"during")
                    assert accepted.recv(6) == b"during"
                    assert [settings_of(host) for host in pair] == before
    assert [settings_of(host) for host in pair] == before


def test_a_host_may_take_its_interface_down(pair):
    """What cannot be delivered since the receiver has no interface is lost as on a cable: no error of the wire."""
    with pair.link.impair(delay="1ms") as impaired:
        assert len(datagrams(pair.a, pair.b, 3)) == 3
        pair.b.run(["ip", "link", "set", "eth0", "down"], check=True)
        with pair.a.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
            source.connect((pair.b.ip, 9))
            for _ in range(10):
                source.send(b"x")
        pair.b.run(["ip", "link", "set", "eth0", "up"], check=True)
        deadline = time.monotonic() + 10
        while len(datagrams(pair.a, pair.b, 3)) < 3:
            assert time.monotonic() < deadline
        assert impaired.counts[1].refused == 0


def test_an_interface_that_comes_and_goes_is_no_error_of_the_wire(pair):
    """What is under way when it goes is lost as on a cable, also when it has come again by the time that one looks."""
    with pair.link.impair(delay="1ms") as impaired, pair.a.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
        assert len(datagrams(pair.a, pair.b, 3)) == 3
        source.connect((pair.b.ip, 9))
        with pair.b.iproute() as kernel:
            index = kernel.link_lookup(ifname="eth0")[0]
            for _ in range(40):
                kernel.link("set", index=index, state="down")
                for _ in range(10):
                    with contextlib.suppress(OSError):  # a has heard that its port 9 is closed
                        source.send(b"x")
                kernel.link("set", index=index, state="up")
        counts = impaired.counts[1]
        assert (counts.refused, counts.error) == (0, 0)
        assert counts.packets > 100


def test_a_tagged_frame_keeps_its_tag(pair):
    """A VLAN between the two hosts works through a wire."""
    for number, host in enumerate(pair, 1):
        added = host.run(
            ["ip", "link", "add", "link", "eth0", "name", "v5", "type", "vlan", "id", "5"],
            capture_output=True,
            text=True,
        )
        if "Unknown device type" in added.stderr or "not supported" in added.stderr:
            pytest.skip(f"this kernel has no VLAN interfaces (8021q): {added.stderr.strip()}")
        host.run(["ip", "addr", "add", f"172.31.9.{number}/24", "dev", "v5"], check=True)
        host.run(["ip", "link", "set", "v5", "up"], check=True)
    with (
        pair.link.impair(delay="1ms", loss="1%", seed=1),
        pair.b.socket(socket.AF_INET, socket.SOCK_STREAM) as server,
        pair.a.socket(socket.AF_INET, socket.SOCK_STREAM) as client,
    ):
        server.bind(("172.31.9.2", 7000))
        server.listen()
        client.settimeout(10)
        client.connect(("172.31.9.2", 7000))
        accepted, _ = server.accept()
        with accepted:
            client.sendall(b"x" * 300000)
            client.shutdown(socket.SHUT_WR)
            got = 0
            while data := accepted.recv(1 << 16):
                got += len(data)
            assert got == 300000


def test_a_killed_wire_is_a_dead_link_and_an_error(pair):
    """Nothing passes, the state says so, the block raises, and afterwards the link is whole."""
    impaired = pair.link.impair(delay="1ms")
    kill(pair.link)
    assert pair.link.state == "dead"
    assert datagrams(pair.a, pair.b, 3) == []
    with pytest.raises(WireDied):
        impaired.change(delay="2ms")
    with pytest.raises(WireDied):
        _ = impaired.counts
    with pytest.raises(WireDied, match="its process has ended"), impaired:
        pass
    assert pair.link.state == "up"
    assert len(datagrams(pair.a, pair.b, 3)) == 3


def test_a_killed_wire_that_nobody_noticed_is_an_error_at_the_end():
    """A pair whose wire has died cannot be closed without a word, and is closed."""
    with Network() as network:
        pair = network.pair()
        pair.link.impair(delay="1ms")
        kill(pair.link)
        with pytest.raises(WireDied):
            pair.close()
        assert pair.closed
        pair.close()


def test_packets_without_room_are_an_error(pair):
    """A wire that did not get to run loses packets, and the block that it was for raises, with the number."""
    impaired = pair.link.impair(loss=0)
    with (
        pair.b.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
        pair.a.socket(socket.AF_INET, socket.SOCK_DGRAM) as source,
    ):
        sink.bind((pair.b.ip, 0))
        source.connect(sink.getsockname())
        source.send(b"the hardware address is known from now on")
        assert sink.recv(100)
        kill(pair.link, signal.SIGSTOP)
        try:
            for _ in range(20_000):
                source.send(b"x")
        finally:
            kill(pair.link, signal.SIGCONT)
    with pytest.raises(WireOverflow, match="packets to b that no fault was to lose") as caught:
        impaired.end()
    assert caught.value.counts[1].overflow >= 20_000 - 16_500
    assert pair.link.medium == "veth"
    assert len(datagrams(pair.a, pair.b, 3)) == 3


def test_many_wires_take_less_memory_each():
    """The more links of a process are impaired, the smaller are the rings of further ones; all work."""
    with Network() as network, contextlib.ExitStack() as stack:
        pairs = [network.pair() for _ in range(10)]
        for pair in pairs:
            stack.enter_context(pair.link.impair(delay="1ms"))
        sizes = [_rings(pair.link) for pair in pairs]
        assert sizes[:8] == [sizes[0]] * 8
        assert sizes[9] <= sizes[0] / 2
        assert all(len(datagrams(pair.a, pair.b, 3)) == 3 for pair in pairs)


def _rings(link):
    """Return how much memory of packet sockets the wire's process has mapped."""
    lines = Path(f"/proc/self/fdinfo/{carrier(link)._pidfd}").read_text().splitlines()
    pid = next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))
    maps = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "socket:" in line]
    return sum(int(end, 16) - int(start, 16) for start, end in (words[0].split("-") for words in maps))


def test_no_process_is_left(pair):
    """A wire's process ends with its impairment, with its pair, and with its lab."""
    pidfds = []
    with pair.link.impair(delay="1ms"):
        pidfds.append(os.dup(carrier(pair.link)._pidfd))
    pair.link.impair(delay="1ms")
    pidfds.append(os.dup(carrier(pair.link)._pidfd))
    pair.close()
    with Network() as network:
        other = network.pair()
        other.link.impair(delay="1ms")
        pidfds.append(os.dup(carrier(other.link)._pidfd))
        Lab.close_current()
        deadline = time.monotonic() + 10
        for pidfd in pidfds:
            while _lives(pidfd):
                assert time.monotonic() < deadline
                time.sleep(0.001)
            os.close(pidfd)
        other.link._impairments.carrier.kill()
        other.link._impairments.carrier = None


def _lives(pidfd):
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_closed_link_cannot_be_impaired(pair):
    """It says that its hosts are closed."""
    pair.close()
    with pytest.raises(PoorContainerError, match=r"cannot impair .*: its hosts are closed"):
        pair.link.impair(delay=1)


def test_a_fault_may_end_while_its_network_does():
    """Whichever is first: neither thread sees an error, and every wire is ended."""
    for _ in range(5):
        network = Network()
        hosts = network.lan(2)
        faults = [hosts[0].cable.impair(delay="1ms"), network.between(*hosts).impair(loss="1%")]
        pidfd = os.dup(carrier(hosts[0].cable)._pidfd)
        with contextlib.closing(os.fdopen(pidfd)), ThreadPoolExecutor() as threads:
            ends = [threads.submit(fault.end) for fault in faults for _ in range(2)]
            network.close()
            assert [end.result() for end in ends] == [None] * 4
            assert select.select([pidfd], [], [], 5)[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs to know what"),
        ({"loss": "300%"}, "not '300%'"),
        ({"delay": "20"}, "say of what"),
        ({"jitter": "2ms"}, "more than the delay"),
        ({"delay": 1, "direction": "c"}, "'a' or 'b', not 'c'"),
        ({"delay": 1, "direction": 7}, "not 7"),
        ({"delay": 1, "seed": "x"}, "seed is an int"),
        ({"delay": 1, "precise": 1}, "precise is True or False"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_done(pair, arguments, message):
    """The message says what was expected, and the link stays as it was."""
    with pytest.raises(UsageError, match=message):
        pair.link.impair(**arguments)
    assert pair.link.medium == "veth"
    with pair.link.impair(delay="1ms"):
        with pytest.raises(UsageError, match=message):
            pair.link.impair(**arguments)
        assert pair.link.impairment["a"].delay == 0.001


def test_a_wire_that_cannot_start_leaves_the_link_as_it_was(pair, monkeypatch, tmp_path):
    """An error says what failed, and the kernel goes on to carry the frames."""
    (tmp_path / "pcwire").write_text("no program")
    (tmp_path / "pcwire").chmod(0o755)
    monkeypatch.setenv("POOR_CONTAINER_NATIVE", str(tmp_path))
    with pytest.raises(PoorContainerError, match="cannot execute pcwire") as caught:
        pair.link.impair(delay="1ms")
    assert caught.value.errno == errno.ENOEXEC
    assert pair.link.medium == "veth"
    assert len(datagrams(pair.a, pair.b, 3)) == 3
