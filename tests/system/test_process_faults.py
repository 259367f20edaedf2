"""Hosts and services that hang or crash, faults over time, and a nemesis that can be had again."""

import contextlib
import functools
import re
import threading
import time
from pathlib import Path

import pytest
from talk import told

from pytest_poorcontainer import Container, LabError, Network, PoorContainerError, UsageError, eventually, machine
from pytest_poorcontainer.lab import events
from pytest_poorcontainer.report.evidence import HostFacts, NetworkFacts
from pytest_poorcontainer.report.traffic import listen

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["network"].works, reason=machine.fixtures_ready()["network"].reason
)

SERVER = ["python3", "-m", "http.server", "80"]


@pytest.fixture
def network():
    """A network of its own."""
    with Network() as network:
        yield network


@pytest.fixture
def host(network):
    """A host with a web server."""
    host, _ = network.lan(2)
    host.start(SERVER, ready=80)
    return host


def state(pid):
    """Return a process's state as a letter, "" when it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def answers(client, server):
    """Return whether a web server answers; its host's kernel takes the connection anyhow."""
    with client.connect((server.ip, 80)) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        connection.settimeout(0.2)
        try:
            return bool(connection.recv(1))
        except TimeoutError:
            return False


def test_a_frozen_host_accepts_and_says_nothing(network, host):
    """Its processes are stopped, those of others run; thawed it answers, also what it was asked before."""
    other = network["n2"]
    (service,) = host.services
    sleeper = host.popen(["sleep", "1000"])
    with host.freeze() as frozen:
        assert frozen.active
        with host.freeze():
            pass
        assert [state(pid) for pid in (*service.pids, sleeper.pid)] == ["T", "T"]
        assert not answers(other, host)
        assert other.run(["true"]).returncode == 0
    assert answers(other, host)
    assert service.state == "ready"
    host.freeze()
    host.thaw()
    host.thaw()
    assert answers(other, host)
    sleeper.kill()
    sleeper.wait()


def test_what_was_stopped_before_a_freeze_stays_stopped_after_it(host):
    """Only those go on that the freeze has stopped."""
    sleeper = host.popen(["sleep", "1000"])
    sleeper.send_signal(19)  # SIGSTOP
    eventually(lambda: is_state(sleeper.pid, "T"), timeout=5)
    with host.freeze():
        assert state(sleeper.pid) == "T"
    assert state(sleeper.pid) == "T"
    assert state(host.services[0].pid) != "T"
    sleeper.kill()
    sleeper.wait()


def is_state(pid, letter):
    """Assert that a process is in this state."""
    assert state(pid) == letter


def test_a_service_alone_may_be_frozen_or_killed(network, host):
    """The other processes of the host go on, and a killed service can be started again."""
    (service,) = host.services
    sleeper = host.popen(["sleep", "1000"])
    with service.freeze():
        assert state(service.pid) == "T"
        assert state(sleeper.pid) != "T"
    assert service.kill() == 1
    assert service.state == "killed by SIGKILL"
    assert service.kill() == 0
    assert state(sleeper.pid) not in ("T", "Z", "")
    service.restart()
    assert answers(network["n2"], host)
    sleeper.kill()
    sleeper.wait()


def test_everything_in_a_host_may_be_killed_and_the_host_goes_on(host):
    """Services, commands, and what they left behind die; the host runs commands as before."""
    sleeper = host.popen(["sh", "-c", "sleep 1000 & setsid sleep 1000 & wait"])
    eventually(lambda: has_started(host), timeout=60)
    assert host.kill() >= 4
    eventually(lambda: was_killed(host.services[0]), timeout=60)
    assert sleeper.wait() == -9
    assert host.run(["true"]).returncode == 0
    assert host.kill() == 0
    host.services[0].restart()


def was_killed(service):
    """Assert that a service's end has been told."""
    assert service.state == "killed by SIGKILL"


def has_started(host):
    """Assert that both sleepers run."""
    assert host.run(["pgrep", "-c", "sleep"], capture_output=True).stdout == b"2\n"


def test_containers_alone_hang_and_crash_too():
    """Freeze and kill are of every container."""
    with Container() as box:
        sleeper = box.popen(["sleep", "1000"])
        with box.freeze():
            assert state(sleeper.pid) == "T"
        assert box.kill() == 1
        assert sleeper.wait() == -9


def test_a_frozen_host_may_be_closed(network, host):
    """Its end does not wait for who is stopped."""
    host.freeze()
    pid = host.pid
    network.close()
    assert state(pid) == ""


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda network, host: host.freeze(), "container .* is closed"),
        (lambda network, host: host.kill(), "container .* is closed"),
        (lambda network, host: network.faults.timeline([(0, host.freeze)]), "begin a timeline in .* it is closed"),
        (lambda network, host: network.faults.nemesis(seed=1), "begin a nemesis in .* it is closed"),
        (lambda network, host: network.partition.halves(), r"put in force \(partition .* its hosts are closed"),
        (lambda network, host: network.between("a", "b").cut(), r"put in force \(between .* its hosts are closed"),
    ],
)
def test_faults_of_what_is_closed_are_refused(fault, message):
    """They say so at once; above all they touch no process that has got a dead one's number."""
    with Network() as network:
        host, _ = network.lan(["a", "b"])
    with pytest.raises(PoorContainerError, match=message):
        fault(network, host)


def test_a_timeline_does_things_at_their_times(network, host):
    """Each step is done, in order, not before its time; what is in force at the end of the block is undone."""
    link = host.cable
    seen = []
    with network.faults.timeline(
        [(0.05, link.cut), (0.1, lambda: seen.append(link.state)), (0.15, link.heal), (0.2, network.partition.halves)]
    ) as timeline:
        timeline.wait(20)
        assert not timeline.running
    assert seen == ["cut"]
    times = [at for at, _ in timeline.done]
    assert times == sorted(times)
    assert all(at >= planned for at, planned in zip(times, (0.05, 0.1, 0.15, 0.2), strict=True))
    assert link.state == "up"
    assert answers(network["n2"], host)


def test_a_timeline_ends_with_its_block(network, host):
    """Steps that are still to come are not done."""
    with network.faults.timeline([(0, host.cable.cut), (1000, host.cable.unplug)]) as timeline:
        eventually(lambda: is_cut(host), timeout=5)
        with pytest.raises(TimeoutError, match=r"has steps to come after 0.01 s"):
            timeline.wait(0.01)
    assert not timeline.running
    assert host.cable.state == "up"


def is_cut(host):
    """Assert that the host's cable is cut."""
    assert host.cable.state == "cut"


def test_a_step_that_fails_is_told_at_the_end(network, host):
    """The error of a fault comes out of the block, and no step after it is done."""
    done = []
    timeline = network.faults.timeline([(0, lambda: network.partition("n1", "nobody")), (0.01, lambda: done.append(1))])
    with pytest.raises(UsageError, match="there is no host 'nobody'"), timeline:
        timeline._thread.join(20)
    assert not done
    assert host.cable.state == "up"


def test_a_fault_that_cannot_be_undone_keeps_no_other_from_it(network, host):
    """Those before and between are undone nevertheless, and each error is told."""

    class Stubborn:
        def __init__(self, word):
            self.word = word

        def __exit__(self, *_):
            raise OSError(self.word)

    impair = functools.partial(host.cable.impair, delay="1ms")
    steps = [(0, host.cable.cut), (0, lambda: Stubborn("first")), (0, impair), (0, lambda: Stubborn("last"))]
    timeline = network.faults.timeline(steps)
    timeline.wait(20)
    assert (host.cable.state, host.cable.medium) == ("cut", "wire")
    with pytest.raises(OSError, match="first") as caught:
        timeline.end()
    assert str(caught.value.__context__) == "last"
    assert (host.cable.state, host.cable.medium) == ("up", "veth")
    timeline.end()


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([5], r"a step of a timeline is \(seconds, function\), not 5"),
        ([(-1, print)], r"seconds from the start, function\), not \(-1"),
        ([(0, "cut")], r"not .0, 'cut'"),
        ([(2, print), (1, print)], "a timeline goes forward: 1 s comes after 2 s"),
    ],
)
def test_what_is_no_timeline_is_refused(network, steps, message):
    """Times that go back, and what cannot be called."""
    with pytest.raises(UsageError, match=message):
        network.faults.timeline(steps)


def test_a_nemesis_of_one_seed_makes_one_plan(network, capsys):
    """The same seed draws the same faults, another one others; it is printed, and what was done is what was planned."""
    nodes = network.lan(4)
    quick = {"every": (0.0, 0.02), "last": (0.01, 0.03)}
    with network.faults.nemesis(seed=7, **quick) as first:
        eventually(lambda: has_done(first, 6), timeout=20)
    assert "nemesis: seed=7 among n1, n2, n3, n4" in capsys.readouterr().out
    assert first.log == first.plan(len(first.log))
    with network.faults.nemesis(seed=7, **quick) as again, network.faults.nemesis(seed=8, **quick) as other:
        assert again.plan(50) == first.plan(50)
        assert other.plan(50) != first.plan(50)
    with network.faults.nemesis() as drawn:
        assert f"seed={drawn.seed} " in capsys.readouterr().out
    for node in nodes:
        with node.listen(("", 80)):
            nodes[0].connect((node.ip, 80), timeout=0.9).close()


def test_a_seed_makes_the_same_trouble_in_another_network(capsys):
    """The faults come about in the same order among hosts of the same names, as the report's timeline has them."""

    def trouble(seed):
        with Network() as network:
            network.lan(4)
            began = time.time_ns()
            with network.faults.nemesis(seed=seed, every=(0, 0.01), last=(0, 0.02)) as nemesis:
                eventually(lambda: has_done(nemesis, 25), timeout=30)
            first, *noted = [event.what for event in events.since(began)]
        printed = re.search(r"nemesis: seed=(\d+) among n1, n2, n3, n4", capsys.readouterr().out)
        assert first == printed[0]
        return int(printed[1]), nemesis.plan(100), nemesis.log[:25], noted[:40]

    drawn = trouble(None)
    assert trouble(drawn[0]) == drawn
    assert len(drawn[3]) == 40


@pytest.mark.parametrize("seed", range(5))
def test_a_nemesis_whose_block_is_left_by_an_error_undoes_all(network, seed):
    """Whatever was in force: the error comes through, hosts answer, cables are up, without rules and without a wire."""
    nodes = network.lan(4)
    for node in nodes:
        node.start(SERVER, ready=80)
    before = [told(node, "ip", "-d", "addr", "show", "eth0") for node in nodes]

    def fails():
        with network.faults.nemesis(seed=seed, every=(0, 0), last=(0.0, 0.05)) as nemesis:
            eventually(lambda: has_done(nemesis, 3 + seed), timeout=20)
            raise ZeroDivisionError("the test's own")

    with pytest.raises(ZeroDivisionError, match="the test's own"):
        fails()
    assert [(link.state, link.medium, link.rules(0), link.rules(1)) for link in network.links] == [
        ("up", "veth", [], [])
    ] * 4
    for server in nodes:
        for client in nodes:
            with client.connect((server.ip, 80), timeout=5) as connection:
                connection.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
                assert connection.recv(100).startswith(b"HTTP/1.0 200")
    assert [told(node, "ip", "-d", "addr", "show", "eth0") for node in nodes] == before


def has_done(nemesis, count):
    """Assert that so many faults were drawn."""
    assert len(nemesis.log) >= count


def test_every_kind_of_nemesis_works_and_is_undone(network):
    """Each by itself, among four hosts."""
    from pytest_poorcontainer.network.faults import NEMESES

    nodes = network.lan(4)
    with nodes[3].listen(("", 80)):
        for kind in NEMESES:
            with network.faults.nemesis(seed=1, kinds=[kind], every=(0, 0), last=(0, 0)) as nemesis:
                eventually(lambda nemesis=nemesis: has_done(nemesis, 2), timeout=20)
            nodes[0].connect((nodes[3].ip, 80), timeout=0.9).close()


@pytest.mark.parametrize("kind", ["slow", "flaky"])
def test_packets_meet_their_fates_by_the_seed_of_the_nemesis(network, kind):
    """Another seed is another loss, and the report has it."""
    nodes = network.lan(2)
    began = time.time_ns()
    with network.faults.nemesis(seed=77, kinds=[kind], every=(0, 0), last=(20, 20)):
        eventually(lambda: is_impaired(nodes), timeout=5)
        (carrier,) = (one for node in nodes if (one := node.cable.impairments().carrier) is not None)
        assert {treatment.seed for treatment in carrier._treatments} == {77}
    noted = [event.what for event in events.since(began)]
    assert "nemesis: seed=77 among n1, n2" in noted


def is_impaired(nodes):
    """Assert that the cable of one of the hosts is impaired."""
    assert "wire" in [node.cable.medium for node in nodes]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kinds": ["halfs"]}, r"kinds= names what a nemesis does, of halves, .*not .'halfs'"),
        ({"kinds": []}, "kinds= names what"),
        ({"hosts": ["n1"]}, "needs at least two hosts, and there are 1"),
        ({"kinds": ["halves", "bridge"]}, "'bridge' needs at least 3 hosts, and there are 2"),
        ({"kinds": ["ring"]}, "'ring' needs at least 4 hosts, and there are 2"),
        ({"hosts": ["n1", "nobody"]}, "there is no host 'nobody'"),
        ({"every": (2, 1)}, "every= is the shortest and the longest time"),
    ],
)
def test_what_is_no_nemesis_is_refused(network, given, message):
    """Kinds, hosts and times that are none."""
    network.lan(2)
    with pytest.raises(UsageError, match=message):
        network.faults.nemesis(**given)


def test_a_nemesis_ends_with_its_network():
    """One that is left on is over when the network is, and its thread too."""
    before = threading.active_count()
    with Network() as network:
        network.lan(3)
        network.faults.nemesis(seed=3, every=(0, 0), last=(0, 0.01))
    assert threading.active_count() == before
    with pytest.raises(PoorContainerError, match="closed"):
        network.lan(1)


def test_faults_are_noted_for_the_report(network, host):
    """What was done and when, in the clock of the frames."""
    began = time.time_ns()
    with host.cable.cut(), network.partition("n1", "n2"):
        pass
    network.between("n1", "n2").reset()
    with host.freeze():
        pass
    noted = [event.what for event in events.since(began)]
    assert noted == [
        "n1 -- s1: cut",
        "partition n1 | n2",
        "partition n1 | n2: over",
        "n1 -- s1: heal",
        "between n1 and n2: 0 connections reset",
        "n1: frozen",
        "n1: thawed",
    ]


def test_impairments_and_clocks_are_noted_with_their_change_and_their_end(network, host):
    """Of a cable, between two hosts, and a clock: what was asked for, and what it was afterwards."""
    began = time.time_ns()
    with host.cable.impair(delay="1ms", seed=7) as impaired:
        impaired.change(delay="2ms")
    impaired.end()
    with network.between("n1", "n2").impair(loss="1%") as impairing:
        impairing.change(loss="2%")
    impairing.end()
    with host.clock_offset(60):
        pass
    assert [event.what for event in events.since(began)] == [
        "n1 -- s1: <Impaired delay=0.001, seed=7>",
        "n1 -- s1: <Impaired delay=0.002, seed=7>",
        "n1 -- s1: <Impaired delay=0.002, seed=7>: over",
        "between n1 and n2: <Impaired loss=0.01>",
        "between n1 and n2: <Impaired loss=0.02>",
        "between n1 and n2: <Impaired loss=0.02>: over",
        "n1: monotonic clocks of what is started +60 s",
        "n1: monotonic clocks of what is started +0 s",
    ]


def test_faults_between_switches_are_in_the_report(network):
    """Their cable has no host at its ends; a cable of another network is not in it."""
    left, right = network.switch("left"), network.switch("right")
    trunk = network.link(left, right)
    began = time.time_ns()
    with trunk.cut():
        pass
    host = HostFacts("a", "full", "", (), (), (), ())
    traffic = listen([NetworkFacts((host,), ((str(trunk), trunk.state),))], began)
    assert [event.what for event in traffic.events] == ["left -- right: cut", "left -- right: heal"]
    assert listen([NetworkFacts((host,), ())], began) is None


CLOCKS = "import time; print(time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), time.time())"


def clocks(container, **options):
    """Return what the clocks of a command are ahead of ours, in seconds: monotonic, since boot, of the day."""
    own = time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), time.time()
    said = container.run(["python3", "-c", CLOCKS], capture_output=True, text=True, check=True, **options).stdout
    return [round(float(word) - mine, -1) for word, mine in zip(said.split(), own, strict=True)]


def test_clocks_of_a_block_are_ahead_or_behind():
    """Monotonic clocks of what is started in the block, for every user; outside of it all is as before."""
    with Container() as box:
        assert clocks(box) == [0, 0, 0]
        with box.clock_offset(3600):
            assert clocks(box) == [3600, 3600, 0]
            assert clocks(box, user=12345) == [3600, 3600, 0]
            with box.clock_offset(-10.5):
                assert clocks(box) == [-10, -10, 0]
            service = box.start(["python3", "-uc", f"{CLOCKS}; input()"])
            service.wait_log(r"\d")
        assert float(service.log.split()[0]) > time.monotonic() + 3000
        assert clocks(box) == [0, 0, 0]
        assert box.run(["true"]).returncode == 0


def test_clocks_that_cannot_be_are_refused():
    """What is no number, and a clock that would be before the machine's start."""
    with Container() as box:
        for wrong in ("1h", True, float("nan"), 1e10):
            with pytest.raises(UsageError, match="takes a number of seconds"), box.clock_offset(wrong):
                pass
        with box.clock_offset(-86400 * 365 * 50), pytest.raises(LabError, match="before the machine's start"):
            box.run(["true"])
        with box.clock_offset(5), pytest.raises(FileNotFoundError):
            box.run(["no-such-program"])
        assert clocks(box) == [0, 0, 0]
