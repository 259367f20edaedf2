"""Limits of containers, kept by the kernel: what happens at them, who tells it, and that no control group is left."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from shells import NOBODY, ROOT, python_of_all

from pytest_poorcontainer import Container, LabDied, LabError, Unavailable, machine
from pytest_poorcontainer.container import cgroups
from pytest_poorcontainer.container.keep import publish
from pytest_poorcontainer.container.limits import OWN_PROCESSES, Limits
from pytest_poorcontainer.lab.client import Lab

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give control groups to another user")
MIB = 1 << 20
SOON = 5  # seconds, at which a test fails


@pytest.fixture(autouse=True)
def delegated():
    """Each test needs control groups in which this user may make others."""
    try:
        Limits.parse(memory="64M", pids=64, cpu=1).require()
    except Unavailable as why:
        pytest.skip(str(why))


def groups(pid=None):
    """Return the control groups that were made by a process, by this one unless another is named."""
    found = cgroups.controllers(["memory", "pids", "cpu"])
    pattern = f"poor-container-*-{pid or os.getpid()}-*-*"
    return sorted({group for controller in found.values() for group in controller.above.glob(pattern)})


def used(container):
    """Return what a container has used."""
    return Limits.used(container._handle)


def shell(container, script, **options):
    """Run a shell in it, and return what it said and how it ended."""
    return container.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, **options)


def test_who_takes_more_memory_is_killed_and_the_rest_lives_on():
    """The kernel kills the process that needs more than the limit, by SIGKILL; the container works afterwards."""
    with Container("small", memory="32M") as small:
        hungry = small.run([sys.executable, "-c", f"bytearray({64 * MIB})"], capture_output=True)
        assert hungry.returncode == -signal.SIGKILL
        assert small.run([sys.executable, "-c", f"bytearray({8 * MIB})"]).returncode == 0
        usage = used(small)
        assert (usage.limits.memory, usage.oom_kills) == (32 * MIB, 1)
        assert 8 * MIB < usage.memory_peak <= 32 * MIB
        assert usage.news() == "the kernel killed a process of it: memory limit 32M"


def test_a_limit_on_memory_holds_for_all_processes_together():
    """Ten processes of 10 MiB do not fit into 64 MiB, although each alone would."""
    script = "for i in 0 1 2 3 4 5 6 7 8 9; do head -c 10M /dev/zero | tail & done | wc -c; wait"
    with Container("small", memory="64M") as small:
        shell(small, script)
        assert used(small).oom_kills >= 1
    with Container("large", memory="512M") as large:
        assert shell(large, script).stdout.strip() == str(10 * 10 * MIB)
        assert used(large).oom_kills == 0


def test_files_in_private_directories_count_as_memory():
    """What a command writes to /tmp or /etc is memory of its container; removed, it is free again."""
    with Container("small", memory="32M") as small:
        assert shell(small, "head -c 16M /dev/zero > /tmp/file").returncode == 0
        assert 16 * MIB <= used(small).memory <= 32 * MIB
        assert shell(small, "rm /tmp/file; head -c 64M /dev/zero > /etc/file").returncode != 0
        assert used(small).oom_kills >= 1


def test_as_many_processes_as_were_asked_for_may_run():
    """With pids=8 a shell can have seven children at once, but not eleven; afterwards there is room again."""
    script = "trap 'kill 0' EXIT; i=0; while [ $i -lt {} ]; do sleep 30 & i=$((i+1)); done; echo enough"
    with Container("few", pids=8) as few:
        assert shell(few, script.format(7)).stdout == "enough\n"
        assert used(few).refused == 0
        assert shell(few, script.format(8 + OWN_PROCESSES)).stdout == ""
        usage = used(few)
        assert usage.refused >= 1
        assert "limit pids=8" in usage.news()
        assert shell(few, "echo alive").stdout == "alive\n"


def test_a_fork_bomb_stays_in_its_container():
    """It gets its processes and no more, a timeout ends it, and the container takes the next command."""
    forever = "import os\nwhile True:\n try: os.fork()\n except OSError: pass"
    with Container("bomb", pids=20, cpu=0.5) as bomb:
        with pytest.raises(subprocess.TimeoutExpired):
            bomb.run([sys.executable, "-c", forever], timeout=1)
        assert used(bomb).refused > 0
        assert used(bomb).processes <= OWN_PROCESSES
        assert bomb.run(["true"]).returncode == 0


def test_a_share_of_a_processor_is_all_that_it_gets():
    """Two busy processes with cpu=0.2 get a fifth of a processor together, whatever else would be idle."""
    busy = (
        "import os, time; os.fork(); end = time.monotonic() + 1\n"
        "while time.monotonic() < end: pass\n"
        "print(os.times().user)"
    )
    with Container("slow", cpu=0.2) as slow:
        done = slow.run([sys.executable, "-c", busy], capture_output=True, text=True, check=True)
        seconds = sum(map(float, done.stdout.split()))
        assert seconds <= 0.2 * 1.5 + 0.1
        assert used(slow).throttled > 0.2
        assert used(slow).news() == ""


def test_every_process_is_limited_and_none_can_leave():
    """The init, a command, what it daemonized: all in the group; its files are not to be seen in there."""
    with Container("small", memory="64M", pids=50, cpu=1) as small:
        daemon = "setsid sh -c 'echo here; exec sleep 100' > /tmp/out 2>&1 & until [ -s /tmp/out ]; do :; done"
        assert shell(small, daemon).returncode == 0
        inside = {int(pid) for group in groups() for pid in (group / "cgroup.procs").read_text().split()}
        assert small.pid in inside
        assert "pc-watcher" in {_name(pid) for pid in inside}
        assert {"sh", "sleep"} & {_name(pid) for pid in inside}
        found = shell(
            small, "find /sys /proc/1 -name cgroup.procs; mount -t cgroup none /mnt; mount -t cgroup2 none /mnt"
        )
        assert found.stdout == ""


def _name(pid):
    return Path(f"/proc/{pid}/comm").read_text().strip()


def test_groups_are_there_once_a_container_and_gone_when_it_is_closed():
    """close() returns when they are gone, also those of one that is dropped or that two threads close."""
    assert groups() == []
    first, second = Container("a", memory="64M"), Container("b", pids=9, cpu=1.5)
    assert len({group.name for group in groups()}) == 2
    handle = first._handle
    first.close()
    assert Limits.used(handle) is None
    assert len({group.name for group in groups()}) == 1
    closers = [threading.Thread(target=second.close) for _ in range(2)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join()
    third = Container("c", memory="64M")
    assert len(groups()) == 1
    del third
    assert groups() == []


def test_many_at_once_from_many_threads():
    """Each container has a group of its own, whoever makes it; all go."""
    made = []

    def make():
        made.extend(Container("c", memory="64M", pids=20) for _ in range(4))

    makers = [threading.Thread(target=make) for _ in range(4)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert len({group.name for group in groups()}) == len(made) == 16
    assert len({tuple(one.run(["cat", "/proc/self/cgroup"], capture_output=True).stdout) for one in made}) == 16
    made[0].close_with(*made[1:])
    assert groups() == []


def test_the_end_of_a_container_by_another_hand_can_be_explained():
    """What was used is known after the init's death until the container is closed; then the groups go."""
    with Container("small", memory="64M") as small:
        small.run([sys.executable, "-c", ""])
        os.kill(small.pid, signal.SIGKILL)
        deadline = time.monotonic() + SOON
        while not small._handle.has_ended():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        with pytest.raises(LabDied):
            small.run(["true"])
        assert used(small).memory_peak > 0
        assert len(groups()) == 1
    assert groups() == []


def test_a_limit_that_the_kernel_refuses_is_an_error_and_leaves_nothing():
    """A number beyond what the kernel takes: Unavailable names the file and the errno; nothing stays."""
    before = len(Lab.current()._live)
    with pytest.raises(Unavailable, match=r"cannot write .* to .*/cpu\..*: EINVAL.*controller cpu"):
        Container("greedy", memory="64M", cpu=1e11)
    assert groups() == []
    assert len(Lab.current()._live) == before


def test_a_lab_that_cannot_look_after_the_groups_leaves_none(monkeypatch):
    """When the lab refuses, the error says so, and the groups that were made are removed."""

    def refuse(*_args):
        raise LabError("limit", "container c", errno.EBUSY)

    with Container("c") as container:
        monkeypatch.setattr(type(container._handle.lab), "ask", refuse)
        with pytest.raises(LabError, match="EBUSY"):
            Limits.parse(memory="64M").apply(container._handle)
        assert groups() == []


OWNER = """
import os, sys, time
from pytest_poorcontainer import Container
from pytest_poorcontainer.lab.client import Lab
limited = [Container("a", memory="64M", pids=30), Container("b", cpu=1)]
commands = [one.popen(["sleep", "1000"]) for one in limited]
print(Lab.current().pid, flush=True)
sys.stdin.readline()
"""


def owner():
    """Start a process that has limited containers; return it and the pid of its lab."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    lab = int(process.stdout.readline())
    assert len(groups(process.pid)) == 3
    return process, lab


def gone_soon(pid):
    """Return whether a process's groups are gone within half a second, as everything else is."""
    deadline = time.monotonic() + 0.5
    while groups(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not groups(pid)


def close(process):
    """Reap a process."""
    process.stdin.close()
    process.stdout.close()
    process.wait(SOON)


def test_nothing_is_left_by_a_killed_pytest():
    """Kill -9 of the owner: its lab removes the groups before it ends."""
    process, _ = owner()
    process.kill()
    close(process)
    assert gone_soon(process.pid)


def test_nothing_is_left_by_a_killed_lab():
    """Kill -9 of the lab: its owner removes the groups, at the latest when it ends."""
    process, lab = owner()
    os.kill(lab, signal.SIGKILL)
    deadline = time.monotonic() + SOON
    while any((group / "cgroup.procs").read_text() for group in groups(process.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(groups(process.pid)) == 3, "nobody could remove them yet"
    close(process)
    assert groups(process.pid) == []


def test_the_next_limit_removes_what_a_killed_lab_left(monkeypatch):
    """In the process whose lab was killed, too."""
    first = Container("a", memory="64M")
    left = groups()
    os.kill(Lab.current().pid, signal.SIGKILL)
    deadline = time.monotonic() + SOON
    while Lab.current().pid == first._handle.lab.pid:
        assert time.monotonic() < deadline
    with Container("b", memory="64M"):
        assert len(groups()) == 1
        assert groups() != left
    first.close()
    assert groups() == []


def test_nothing_is_left_by_both_killed_at_once_after_the_next_use():
    """Kill -9 of both: whoever limits a container next, in another process, removes what they left."""
    process, lab = owner()
    bystander, _ = owner()
    os.kill(lab, signal.SIGKILL)
    process.kill()
    close(process)
    assert len(groups(process.pid)) == 3
    code = "from pytest_poorcontainer import Container\nContainer('c', memory='64M', pids=5, cpu=1).close()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert groups(process.pid) == []
    assert len(groups(bystander.pid)) == 3, "those of one that lives stay"
    close(bystander)
    assert groups(bystander.pid) == []


def test_a_forked_child_leaves_the_groups_alone():
    """The end of a child that inherited all this is not the end of its parent's groups."""
    code = f"""{OWNER.split("commands", maxsplit=1)[0]}
if os.fork() == 0:
    sys.exit(0)
os.wait()
from pytest_poorcontainer.container.limits import Limits
assert Limits.used(limited[0]._handle) is not None
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT)


def test_a_kept_container_keeps_its_limits_until_it_ends(monkeypatch, tmp_path):
    """Handed to its lab it is limited still when its maker has let go, and takes its groups along when it ends."""
    from pytest_poorcontainer.container import runtime_dir
    from pytest_poorcontainer.container.kept import end, kept

    Lab.close_current()
    monkeypatch.setenv(runtime_dir.ENVIRONMENT, str(tmp_path / "r"))
    with Container("kept", memory="64M") as keeping, Container("other", pids=5):
        publish([keeping], detach=True)
        assert len(groups()) == 1
        with Container("later", memory="64M"):
            assert len(groups()) == 2
        end(kept())
        assert gone_soon(os.getpid())


@as_root
def test_another_user_without_delegation_is_told():
    """Nobody may make groups beside root's: the error has the reason and the remedy."""
    done = run_as_nobody("")
    assert done.returncode != 0
    assert "Unavailable: cgroup_limits does not work here" in done.stderr
    assert "not delegated to this user; run under systemd-run" in done.stderr


@as_root
def test_another_user_with_delegation_has_limits(tmp_path):
    """In groups that root has given to nobody, its containers without root are limited as root's are."""
    above = {name: one.above for name, one in cgroups.controllers(["memory", "pids", "cpu"]).items()}
    given = [place / f"poor-container-test-{os.getpid()}" for place in dict.fromkeys(above.values())]
    for group in given:
        group.mkdir()
        for file in (group, group / "cgroup.procs", group / "tasks"):
            if file.exists():
                os.chown(file, NOBODY, NOBODY)
    try:
        done = run_as_nobody("".join(f"echo $$ > {group}/cgroup.procs\n" for group in given))
        assert (done.returncode, done.stdout) == (0, "-9 1 True\n"), done.stderr
        assert not [left for group in given for left in group.glob("poor-container-*")]
    finally:
        for group in given:
            group.rmdir()


def run_as_nobody(before):
    """Run a limited container as nobody, after a shell script that root runs."""
    python = python_of_all()
    if python is None:
        pytest.skip("no Python here that every user can start, or a checkout that not every user can read")
    code = f"""
from pytest_poorcontainer import Container
from pytest_poorcontainer.container.limits import Limits
with Container("c", memory="32M", pids=20, cpu=1) as one:
    done = one.run(["sh", "-c", "head -c 64M /dev/zero | tail"], capture_output=True)
    hungry = one.run([{python!r}, "-c", "bytearray({64 * MIB})"])
    usage = Limits.used(one._handle)
    print(hungry.returncode, min(usage.oom_kills, 1), usage.limits == Limits({32 * MIB}, 20, 1.0))
"""
    nobody = f"exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups"
    return subprocess.run(
        ["sh", "-ec", f'{before}{nobody} "$0" -c "$1"', python, code],
        cwd="/",
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "POOR_CONTAINER_NATIVE": os.environ.get("POOR_CONTAINER_NATIVE", ""),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
