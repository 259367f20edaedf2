"""The time of day of hosts: ahead, behind, jumping under a service, and right again."""

import ctypes.util
import gc
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pytest_poorcontainer import Container, LabError, Network, PoorContainerError, UsageError, eventually, machine
from pytest_poorcontainer.lab import events

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["chroot_env"].works, reason=machine.fixtures_ready()["chroot_env"].reason
)

NS = 1_000_000_000
TELL = "import time; print(time.time_ns(), time.monotonic_ns())"
PATIENCE = 60.0  # seconds


@pytest.fixture
def box():
    """A container."""
    with Container() as box:
        yield box


def told(container, argv=("python3", "-c", TELL), factor=1, **options):
    """Return the least and the most that a command's clock can be ahead of ours, in ns."""
    before = time.time_ns()
    said = container.run(argv, capture_output=True, text=True, check=True, timeout=PATIENCE, **options).stdout.split()
    return int(said[0]) * factor - time.time_ns(), int(said[0]) * factor + factor - 1 - before


def check_ahead(container, seconds, **options):
    """Assert how far a command's time of day is ahead."""
    low, high = told(container, **options)
    assert low <= seconds * NS <= high


def test_what_is_started_has_the_time_that_was_asked_for(box):
    """For date(1), Python, every user, children of children, and calls; and right again to the ns after the block."""
    early = box.call(os.getpid)
    clock = box.wall_clock()
    check_ahead(box, 0)
    with clock.offset("+1h") as offset:
        assert (clock.ahead, offset.seconds, offset.active) == (3600.0, 3600.0, True)
        check_ahead(box, 3600)
        check_ahead(box, 3600, user=12345)
        check_ahead(box, 3600, argv=["date", "+%s%N"])
        check_ahead(box, 3600, argv=["sh", "-c", "env date +%s; true"], factor=NS)
        before = time.time_ns()
        inside, pid = box.call(lambda: (time.time_ns(), os.getpid()))
        assert before + 3600 * NS <= inside <= time.time_ns() + 3600 * NS
        assert pid != early
    assert not offset.active
    check_ahead(box, 0)
    assert box.call(os.getpid) == pid
    with box.wall_clock().offset(-86400 * 365 * 60.0):
        assert box.run(["date", "+%Y"], capture_output=True).stdout < b"1980\n"
    assert box.wall_clock() is clock


def test_offsets_end_in_any_order_and_do_not_add_up(box):
    """The newest that has not ended counts; to end one twice is no error."""
    clock = box.wall_clock()
    first = clock.offset("-30s")
    second = clock.offset("1.5d")
    third = clock.offset(0)
    check_ahead(box, 0)
    third.end()
    check_ahead(box, 86400 * 1.5)
    first.heal()
    check_ahead(box, 86400 * 1.5)
    second.end()
    second.end()
    check_ahead(box, 0)
    assert clock.ahead == 0


def test_a_service_sees_its_clock_jump_and_come_back(box):
    """A program that runs is told the new time at once; its monotonic clock goes on."""
    clock = box.wall_clock()
    argv = ["python3", "-uc", f"import sys\nfor line in sys.stdin:\n    {TELL}"]
    with box.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as running:

        def ahead():
            before = time.time_ns(), time.monotonic_ns()
            running.stdin.write("\n")
            wall, monotonic = map(int, running.stdout.readline().split())
            assert before[1] <= monotonic <= time.monotonic_ns()
            return wall - time.time_ns(), wall - before[0]

        for seconds in (0, 3600, -7200.5, 0):
            with clock.offset(seconds):
                low, high = ahead()
                assert low <= seconds * NS <= high
            low, high = ahead()
            assert low <= 0 <= high
        running.stdin.close()
        assert running.wait(PATIENCE) == 0


WAITS = """\
import select, subprocess, threading, time
def lasts(wait):
    began = time.monotonic()
    wait()
    assert time.monotonic() - began > 0.09, wait
condition = threading.Condition()
condition.acquire()
lock = threading.Lock()
lock.acquire()
lasts(lambda: condition.wait(0.1))
lasts(lambda: threading.Event().wait(0.1))
lasts(lambda: lock.acquire(timeout=0.1))
lasts(lambda: time.sleep(0.1))
lasts(lambda: select.select([], [], [], 0.1))
lasts(lambda: subprocess.run(["sleep", "0.1"], check=True))
began = time.time()
lasts(lambda: time.sleep(0.1))
assert 0.09 < time.time() - began
"""


@pytest.mark.parametrize("by", ["+1h", "-1h"])
def test_waits_last_as_long_as_asked(box, by):
    """Sleeps, conditions, events, locks, children: neither at once nor an hour."""
    with box.wall_clock().offset(by):
        box.run(["python3", "-c", WAITS], check=True, timeout=PATIENCE)


def test_monotonic_clocks_and_the_time_of_day_go_wrong_each_by_itself(box):
    """``clock_offset()`` and ``wall_clock()`` compose."""
    began = time.monotonic_ns()
    with box.clock_offset(5000), box.wall_clock().offset("-1h"):
        check_ahead(box, -3600)
        said = box.run(["python3", "-c", TELL], capture_output=True, check=True).stdout.split()
        assert began + 5000 * NS <= int(said[1]) <= time.monotonic_ns() + 5000 * NS


def test_what_ran_before_keeps_the_machines_time(box):
    """Only what is started after ``wall_clock()`` has it; other containers have not."""
    argv = ["python3", "-uc", f"input(); {TELL}"]
    early = box.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with early, Container() as other, box.wall_clock().offset("+1h"):
        before = time.time_ns()
        said, _ = early.communicate("\n", timeout=PATIENCE)
        assert before <= int(said.split()[0]) <= time.time_ns()
        check_ahead(other, 0)
        assert "LD_PRELOAD" not in other.run(["env"], capture_output=True, text=True).stdout


def test_libraries_that_are_preloaded_already_stay(box):
    """Ours comes before those of the command's own LD_PRELOAD."""
    box.wall_clock()

    def preload(**env):
        out = box.run(["sh", "-c", "echo $LD_PRELOAD"], env=env, capture_output=True, text=True)
        assert out.stderr == ""
        return out.stdout.strip().split(":")

    (ours,) = preload()
    other = ctypes.util.find_library("m")
    assert preload(LD_PRELOAD=other) == [ours, other]
    assert preload(LD_PRELOAD="") == [ours]
    assert preload(LD_PRELOAD=None, OTHER="x") == [ours]


@pytest.mark.parametrize("readonly", [False, True])
def test_a_root_of_a_few_programs_has_it_too(readonly):
    """Nothing of this package is in such a root but what is put there."""
    with Container(rootfs=["date"], readonly=readonly) as box, box.wall_clock().offset("+1h"):
        check_ahead(box, 3600, argv=["date", "+%s%N"])


def loader():
    """Return the dynamic loader of this machine's programs."""
    from pytest_poorcontainer.rootfs import elf

    with Path(os.path.realpath(sys.executable)).open("rb") as file:
        return Path(elf.read(file).interpreter)


def test_a_root_that_cannot_load_it_is_an_error(tmp_path):
    """Without a dynamic loader, and with one but not the C library; commands run on as before."""
    (tmp_path / "true.c").write_text("int main(void) { return 0; }\n")
    done = subprocess.run(["cc", "-static", "-o", tmp_path / "true", tmp_path / "true.c"], check=False)
    if done.returncode:
        pytest.skip("this machine has no static C library")
    bare, half = tmp_path / "bare", tmp_path / "half"
    for root in (bare, half):
        root.mkdir()
        shutil.copy(tmp_path / "true", root / "true")
    inside = half / loader().relative_to("/")
    inside.parent.mkdir(parents=True)
    shutil.copy(loader(), inside)
    for root, message in ((bare, f"there is no {loader()} in it"), (half, "cannot load libpcclock.so there")):
        with Container(rootfs=root) as box:
            with pytest.raises(LabError, match=r"cannot give a wall clock to c.*" + message):
                box.wall_clock()
            assert box.run(["/true"]).returncode == 0


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("1 parsec", r"not '1 parsec': 'parsec' is no unit of it, they are ms, s, min, h, d"),
        ("1m", r"'m' is no unit of it"),
        ("+1H", r"'H' is no unit of it"),
        ("30", r"say of what, '30s' or '30h'"),
        ("", r"a text like '\+1h', '-30s'.*, not ''"),
        ("soon", r"not 'soon'"),
        ("--5s", r"not '--5s'"),
        ("1h30min", r"not '1h30min'"),
        (None, r"an offset is a number of seconds"),
        (True, r"not True"),
        (b"1h", r"not b'1h'"),
        (float("nan"), r"not nan: a century is the most"),
        (float("-inf"), r"a century is the most"),
        ("1000000d", r"a century is the most"),
        (10**30, r"a century is the most"),
    ],
)
def test_what_is_no_offset_is_refused(box, by, message):
    """Units that are not units, texts without one, and more than a century."""
    clock = box.wall_clock()
    with pytest.raises(UsageError, match=message):
        clock.offset(by)
    assert clock.ahead == 0


def test_the_clock_of_a_closed_container_is_an_error():
    """A fault that was left on ends with its container, nothing of it stays open, and no other can be made."""
    files = Path("/proc/self/fd")
    with Container() as box, Container() as never:
        box.run(["true"])
        gc.collect()  # descriptors of what ran before
        before = len(list(files.iterdir()))
        clock = box.wall_clock()
        offset = clock.offset("+1h")
        gc.collect()
        assert len(list(files.iterdir())) > before
        box.close()
        never.close()
        assert len(list(files.iterdir())) < before
    for wrong in (box.wall_clock, lambda: clock.offset("1s"), never.wall_clock):
        with pytest.raises(PoorContainerError, match="closed"):
            wrong()
    offset.end()
    assert clock.ahead == 0


def test_a_container_that_is_dropped_takes_its_clock_along():
    """An offset that was left on does not keep it."""
    gc.disable()  # a cycle would be found by it, some time
    try:
        box = Container()
        offset = box.wall_clock().offset("+1h")
        gc.collect()  # what commands of before have left
        init = Path(f"/proc/{box.pid}")
        assert init.exists()
        del box, offset
        eventually(lambda: not init.exists(), timeout=PATIENCE)
    finally:
        gc.enable()


def test_threads_share_one_clock(box):
    """Many ask for it and for offsets at once; when all have ended it is right."""
    clocks = []

    def work():
        clock = box.wall_clock()
        clocks.append(clock)
        for seconds in range(100):
            with clock.offset(seconds):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clocks == [clocks[0]] * 4
    check_ahead(box, 0)


def test_it_is_a_fault_of_timelines_and_reports():
    """A step may put a clock forward, the end of the timeline puts it right, and the report knows both."""
    if not machine.fixtures_ready()["network"].works:
        pytest.skip(machine.fixtures_ready()["network"].reason)
    with Network() as network:
        host, _ = network.lan(2)
        clock = host.wall_clock()
        began = time.time_ns()
        with network.faults.timeline([(0, lambda: clock.offset("-90s"))]):
            eventually(lambda: check_ahead(host, -90), timeout=PATIENCE)
        check_ahead(host, 0)
        assert [event.what for event in events.since(began)] == ["n1: wall clock -90 s", "n1: wall clock right again"]
