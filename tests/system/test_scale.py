"""Many pairs, many commands, many failures: nothing grows. Counts only; times are in docs/benchmarks.md."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from descriptors import descriptor_count

from pytest_poorcontainer import LabError, Network, machine
from pytest_poorcontainer.lab.client import Lab

STEPS_AT_MOST = 200


@pytest.fixture(autouse=True)
def _able():
    ready = machine.fixtures_ready()["netns_pair"]
    if not ready.works:
        pytest.skip(f"{ready.reason}; {ready.remedy}")


def descendants(pid: int) -> list[int]:
    """Return all processes below ``pid`` (proc_pid_task(5), ``children``)."""
    found = [pid]
    for one in found:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += [int(child) for child in Path(f"/proc/{one}/task/{one}/children").read_text().split()]
    return found[1:]


def census() -> tuple[int, int]:
    """Return how many descriptors we have open, and how many processes live below our lab."""
    lab = Lab.current()
    count = descriptor_count()  # first: it collects what other tests of this process have dropped
    return count, len(descendants(lab.pid))


def settled(expected: tuple[int, int]) -> tuple[int, int]:
    """Return the census as soon as it is ``expected``: a watcher ends right after it has reported its command's end."""
    end = time.monotonic() + 5
    while census() != expected and time.monotonic() < end:
        time.sleep(0.01)
    return census()


@pytest.fixture
def network():
    """Return a network whose lab is warm: one pair has come and gone."""
    with Network() as net:
        net.pair("warm", "up").close()
        yield net


def test_a_hundred_pairs_one_after_the_other_leave_no_descriptor_and_no_process(network):
    """A closed pair has given back all descriptors, and all of its processes are dead."""
    before = census()
    for _ in range(100):
        with network.pair("primary", "replica") as pair, pair.a.listen((pair.a.ip, 80)):
            pair.b.connect((pair.a.name, 80)).close()
    assert census() == before


def test_thirty_pairs_at_once_have_two_inits_each_and_different_addresses(network):
    """Pairs live side by side in one lab: each costs two processes, and no two hosts share an address."""
    descriptors, processes = census()
    pairs = [network.pair(f"a{number}", f"b{number}") for number in range(30)]
    assert census()[1] == processes + 60
    hosts = [host for pair in pairs for host in pair]
    assert len({host.ip for host in hosts} | {host.ip6 for host in hosts}) == 120
    for pair in pairs:
        pair.close()
    assert census() == (descriptors, processes)


def test_two_hundred_commands_leave_no_process_and_no_descriptor(network):
    """A command that has ended has taken its watcher with it, captured output or not."""
    with network.pair("primary", "replica") as pair:
        for host in pair:
            host.run(["true"])  # after the first one, a host keeps a watcher for the next
        time.sleep(0.1)
        before = census()
        for number in range(200):
            host = pair.a if number % 2 else pair.b
            done = host.run(["true"], capture_output=number % 4 < 2)
            assert done.returncode == 0
        assert settled(before) == before


RETRANSMITTED = """
from pathlib import Path
names, values = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Tcp:")]
print(dict(zip(names, values))["RetransSegs"])
"""


@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_no_first_connect_of_a_fresh_pair_loses_a_packet(network, family):
    """A pair is handed over when it is usable: not one segment of its first connect has to be sent again."""
    again = 0
    for _ in range(60):
        with network.pair("primary", "replica") as pair:
            address = getattr(pair.a, family)
            if not address:
                pytest.skip("no IPv6 here")
            with pair.a.listen((address, 80)), pair.b.connect((address, 80)):
                done = pair.b.run([sys.executable, "-c", RETRANSMITTED], capture_output=True, text=True, check=True)
                again += int(done.stdout)
    assert again == 0


def test_a_set_up_that_fails_at_any_step_leaves_nothing_in_the_lab(monkeypatch):
    """Whichever step of a set-up fails, the error names it; the lab has no process more, and we no descriptor."""
    Lab.close_current()
    named = set()
    for step in range(1, STEPS_AT_MOST):
        monkeypatch.setenv("POOR_CONTAINER_FAIL_STEP", str(step))
        try:
            with Network(record=False) as net:
                before = census()
                try:
                    net.pair("primary", "replica").close()
                except LabError as error:
                    named.add(str(error))
                else:
                    break
                assert census() == before, named
        finally:
            Lab.close_current()
    else:
        pytest.fail(f"the set-up has more than {STEPS_AT_MOST} steps, or the failure was not asked for: {named}")
    assert len(named) > 5
    assert all("EIO" in name for name in named), named


LIMITED = """
import json
from pytest_poorcontainer import Network
made = 0
with Network() as net:
    for _ in range(60):
        with net.pair("primary", "replica") as pair, pair.a.listen((pair.a.ip, 80)):
            pair.b.connect((pair.a.ip, 80)).close()
            made += 1
print(json.dumps(made))
"""


def test_few_network_namespaces_allowed_are_enough_for_many_pairs_in_a_row():
    """Dead network namespaces count until the kernel has freed them: a pair waits for that instead of failing."""
    script = 'echo 12 > /proc/sys/user/max_net_namespaces && exec "$@"'
    argv = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", sys.executable, "-c", LIMITED]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "max_net_namespaces" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == 60


SPARING = """
import json, resource
from pytest_poorcontainer import Container
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
first = Container()
limit = first.run(["sh", "-c", "ulimit -n"], capture_output=True, text=True).stdout
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
more = [Container() for _ in range(30)]
print(json.dumps([int(limit), len(more)]))
"""


def test_the_lab_opens_more_files_than_a_command_may():
    """The soft limit is no limit of the lab's, which holds four files for each container; commands keep pytest's."""
    done = subprocess.run([sys.executable, "-c", SPARING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [64, 30]


CRAMPED = """
import json, resource
from pathlib import Path
from pytest_poorcontainer import LabError, Network
def open_fds():
    return len(list(Path("/proc/self/fd").iterdir()))
with Network() as net:
    net.pair("warm", "up").close()
    before = open_fds()
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 40, before + 40))
    pairs, error = [], None
    while error is None:
        try:
            pairs.append(net.pair(f"a{len(pairs)}", f"b{len(pairs)}"))
        except Exception as caught:
            error = caught
    for pair in pairs:
        pair.close()
    print(json.dumps([len(pairs), isinstance(error, (OSError, LabError)), str(error), open_fds() - before]))
    with net.pair("primary", "replica") as pair:
        assert pair.a.run(["true"]).returncode == 0
"""


def test_the_limit_of_open_files_is_a_clear_error_after_which_all_works_again():
    """Out of descriptors, a pair fails with EMFILE's name and leaves none behind; the earlier pairs can be closed."""
    done = subprocess.run([sys.executable, "-c", CRAMPED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made, right_kind, text, grown = json.loads(done.stdout)
    assert made > 1
    assert right_kind, text
    assert "EMFILE" in text or "Too many open files" in text
    assert grown == 0
