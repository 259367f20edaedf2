"""Pairs that are built ahead: who takes one gets what a fresh one would be, and nothing is left of the others."""

import contextlib
import gc
import os
import signal
import threading
import time
from _socket import AF_UNIX, SOCK_STREAM
from pathlib import Path

import pytest
from talk import peer, told

from pytest_poorcontainer import LabDied, Network, PoorContainerError, machine
from pytest_poorcontainer.lab.client import Lab
from pytest_poorcontainer.network import prefetch

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)


@pytest.fixture
def network():
    """A network whose lab has nothing else in it."""
    Lab.close_current()
    with Network() as made:
        yield made


def inits(lab):
    """Return the processes that are children of the lab, but for its recorder: one for each container."""
    children = told_of(f"/proc/{lab.pid}/task/{lab.pid}/children").split()
    return [pid for pid in children if "pcrecorder" not in told_of(f"/proc/{pid}/cmdline")]


def told_of(process):
    """Return what a file of a process says, "" when that has ended."""
    try:
        return Path(process).read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def eventually_inits(lab, count):
    """Wait until the lab has so many containers."""
    deadline = time.monotonic() + 10
    while len(inits(lab)) != count:
        assert time.monotonic() < deadline, f"{len(inits(lab))} containers, not {count}"
        time.sleep(0.002)


def test_who_takes_one_gets_it_and_no_other_is_built(network):
    """A prefetched pair is handed over under the names that it was built for, and works at once."""
    network.prefetch("primary", "replica")
    lab = Lab.current()
    eventually_inits(lab, 2)
    before = inits(lab)
    primary, replica = network.pair("primary", "replica")
    assert inits(lab) == before
    assert network.prefetched == 0
    with primary.listen((primary.ip, 80)) as server, replica.connect(("primary", 80)):
        assert peer(server) == replica.ip
    assert told(replica, "hostname") == "replica\n"


def test_another_name_is_given_when_it_is_taken(network):
    """Whatever a pair was built as, its taker's names stand in hostname, /etc/hostname and /etc/hosts."""
    network.prefetch("first", "second")
    with network.pair("left", "right") as pair:
        for host, other in (pair, reversed(list(pair))):
            assert told(host, "hostname") == told(host, "cat", "/etc/hostname") == f"{host.name}\n"
            table = told(host, "cat", "/etc/hosts")
            assert f"{other.ip}\t{other.name}" in table
            assert "first" not in table
            assert "second" not in table
        assert [host.name for host in pair] == ["left", "right"]
        with pair.a.listen((pair.a.ip6, 80)) as server, pair.b.connect((pair.a.ip6, 80)):
            assert peer(server) == pair.b.ip6
        with pair.link.cut(), pytest.raises(TimeoutError):
            pair.b.connect((pair.a.ip, 80), timeout=0.1)


def test_the_pair_of_the_right_names_is_taken_first(network):
    """Of two that wait, the one that needs no new names is taken, though it is the younger."""
    network.prefetch("a", "b")
    network.prefetch("c", "d")
    lab = Lab.current()
    eventually_inits(lab, 4)
    first = inits(lab)[:2]
    taken = network.pair("c", "d")
    assert {str(host.pid) for host in taken}.isdisjoint(first)
    assert network.prefetched == 1


def test_the_stock_is_bounded(network):
    """However often it is asked for, no more than STOCK_MAX pairs are built ahead."""
    for _ in range(10):
        network.prefetch()
    assert network.prefetched == prefetch.STOCK_MAX
    eventually_inits(Lab.current(), 2 * prefetch.STOCK_MAX)


def test_other_requests_need_not_wait_for_what_is_being_built(network):
    """Containers are ended and links cut while a pair is being built, whichever is answered first."""
    pair = network.pair()
    network.prefetch()
    pair.link.cut()
    pair.link.heal()
    pair.close()
    with network.pair() as next_one:
        assert told(next_one.a, "hostname") == "a\n"


def test_closing_ends_what_nobody_took(network):
    """A network that is closed takes its stock with it, also one that is still being built."""
    lab = Lab.current()
    network.prefetch()
    network.prefetch()
    network.close()
    assert inits(lab) == []
    network.prefetch()
    assert network.prefetched == 0
    with pytest.raises(PoorContainerError, match="closed"):
        network.pair()


def test_a_stock_keeps_no_lab_alive(network, tmp_path):
    """Who needs a lab that shows other directories gets one, though pairs wait in the present one, and end with it."""
    network.prefetch()
    before = Lab.current()
    eventually_inits(before, 2)
    with Network(basetemp=tmp_path) as other, other.pair() as pair:
        assert told(pair.a, "ls", "-d", str(tmp_path)) == f"{tmp_path}\n"
        assert not before.alive()
        with network.pair("x", "y") as late:
            assert told(late.a, "hostname") == "x\n"


def test_a_network_that_is_forgotten_leaves_no_stock(network):
    """Pairs that were ordered by a network which nobody refers to any more end when they are built."""
    keeper = network.pair()
    other = Network()
    other.prefetch()
    del other
    lab = Lab.current()
    deadline = time.monotonic() + 10
    while len(inits(lab)) != 2:
        gc.collect()  # which comes by itself only when enough is made
        os.close(lab.fabric_socket(AF_UNIX, SOCK_STREAM))  # any request reads what else has come
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert not keeper.closed


@pytest.mark.parametrize("victim", [0, 1])
def test_a_host_that_died_waiting_is_not_handed_over(network, victim):
    """When something killed one of a prefetched pair, its taker gets another pair, and nothing of the first is left."""
    network.prefetch()
    lab = Lab.current()
    eventually_inits(lab, 2)
    ((_, ahead),) = network._stock._waiting
    lab.await_order(ahead.order)
    os.kill(ahead.order.handles[victim].pid(), signal.SIGKILL)
    eventually_inits(lab, 1)
    with network.pair() as pair:
        assert told(pair.a, "hostname") == "a\n"
        assert told(pair.b, "hostname") == "b\n"
        assert len(inits(lab)) == 2


def test_a_killed_lab_takes_its_stock_along(network):
    """After its lab was killed a network builds in a new one, and does not offer what has died."""
    network.prefetch()
    lab = Lab.current()
    os.kill(lab.pid, signal.SIGKILL)
    while lab.alive():
        time.sleep(0.002)
    with network.pair() as pair:
        assert told(pair.a, "hostname") == "a\n"
    assert network.prefetched == 0


def test_a_failure_is_told_to_who_takes_it(network, monkeypatch):
    """What cannot be built ahead costs nothing; its taker builds anew, and then gets the error of that."""
    monkeypatch.setenv("POOR_CONTAINER_FAIL_STEP", "3")
    network.prefetch()
    with pytest.raises(PoorContainerError, match="this failure was asked for"):
        network.pair()
    assert inits(Lab.current()) == []
    Lab.close_current()


# Where the exception strikes in a finalizer Python itself only tells of it; the container ends all the same.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_while_waiting_loses_nothing(network):
    """A signal that raises while a pair is awaited leaves no container behind, and the next pair is a good one."""

    def interrupt(*_):
        raise TimeoutError("time is up")

    before = signal.signal(signal.SIGUSR1, interrupt)  # not SIGALRM, which is pytest-timeout's
    try:
        for turn in range(40):
            network.prefetch()
            timer = threading.Timer(turn / 10000, os.kill, (os.getpid(), signal.SIGUSR1))
            with contextlib.suppress(TimeoutError):
                timer.start()
                network.pair().close()
                time.sleep(0.02)
            with contextlib.suppress(TimeoutError):
                timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    with network.pair() as pair:
        assert told(pair.a, "hostname") == "a\n"
    network._stock.close()
    deadline = time.monotonic() + 10
    while inits(Lab.current()):
        network.pair().close()
        assert time.monotonic() < deadline, "an interrupted pair lives on"


def test_several_threads_share_one_stock(network):
    """Pairs asked for and taken by four threads at once all work, and all end."""
    failures = []

    def use():
        try:
            for _ in range(10):
                network.prefetch()
                with network.pair("x", "y") as pair, pair.a.listen((pair.a.ip, 80)), pair.b.connect(("x", 80)):
                    pass
        except (OSError, PoorContainerError, LabDied) as error:
            failures.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    network._stock.close()
    assert inits(Lab.current()) == []
