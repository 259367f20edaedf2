"""Limits as arguments, and where control groups can be made: on trees of plain files that stand for the kernel's."""

import errno
import math
import os

import pytest

from pytest_poorcontainer import Unavailable, UsageError
from pytest_poorcontainer.container import cgroups, limits
from pytest_poorcontainer.container.cgroups import Controller, Setting
from pytest_poorcontainer.container.limits import OWN_PROCESSES, Limits, Usage

ALL = ["memory", "pids", "cpu"]


def test_no_limits_are_none():
    """Without arguments there is nothing to keep."""
    assert Limits.parse() is None
    assert Limits.parse(memory=None, pids=None, cpu=None) is None


def test_equal_limits_are_equal():
    """However they were written: they may stand for each other, and be keys."""
    assert Limits.parse("64M", 5, 1) == Limits.parse(64 << 20, 5, 1.0)
    assert len({Limits.parse("1G"), Limits.parse("1024M"), Limits.parse("1G", 5)}) == 2


def test_limits_are_shown_as_people_write_them():
    """For reports, only those that there are."""
    assert str(Limits.parse("64M", 20, 0.5)) == "memory 64M, pids 20, cpu 0.5"
    assert str(Limits.parse(memory=(64 << 20) + 1)) == "memory 67108865"
    assert str(Limits.parse(cpu=2)) == "cpu 2"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"memory": "64MB"}, "memory is a number of bytes"),
        ({"memory": "4k"}, "memory='4k' is too little"),
        ({"memory": 1000}, "memory=1000 is too little"),
        ({"pids": 0}, "pids is how many processes"),
        ({"pids": 1.0}, "not 1.0"),
        ({"pids": True}, "not True"),
        ({"pids": "20"}, "not '20'"),
        ({"cpu": 0}, "cpu is a number of processors"),
        ({"cpu": -1}, "not -1"),
        ({"cpu": 0.001}, "0.01 or more"),
        ({"cpu": math.nan}, "not nan"),
        ({"cpu": math.inf}, "not inf"),
        ({"cpu": "0.5"}, "not '0.5'"),
        ({"cpu": True}, "not True"),
    ],
)
def test_wrong_limits_are_named(arguments, said):
    """Each with its name, what was expected, and what was given."""
    with pytest.raises(UsageError, match=said):
        Limits.parse(**arguments)


def test_what_is_written_to_the_kernel_s_files():
    """Memory without swap, room for our own processes, the share of each tenth of a second."""
    some = Limits.parse("64M", 20, 0.5)
    bytes_ = str(64 << 20)
    assert some.settings("memory", 2) == [Setting("memory.max", bytes_), Setting("memory.swap.max", "0", True)]
    assert some.settings("memory", 1)[0] == Setting("memory.limit_in_bytes", bytes_)
    assert some.settings("pids", 1) == some.settings("pids", 2) == [Setting("pids.max", str(20 + OWN_PROCESSES))]
    assert some.settings("cpu", 2) == [Setting("cpu.max", "50000 100000")]
    assert some.settings("cpu", 1) == [Setting("cpu.cfs_period_us", "100000"), Setting("cpu.cfs_quota_us", "50000")]


@pytest.mark.parametrize(
    ("usage", "said"),
    [
        (Usage(Limits(memory=64 << 20), oom_kills=0), ""),
        (Usage(Limits(memory=64 << 20), oom_kills=1), "the kernel killed a process of it: memory limit 64M"),
        (Usage(Limits(memory=64 << 20), oom_kills=3), "the kernel killed 3 processes of it: memory limit 64M"),
        (Usage(Limits(pids=5), refused=1), "the kernel refused once to start a process in it: limit pids=5"),
        (Usage(Limits(pids=5), refused=2), "the kernel refused 2 times to start a process in it: limit pids=5"),
        (Usage(Limits(cpu=0.5), throttled=3.5), ""),
    ],
)
def test_what_limits_did_is_told_in_words(usage, said):
    """Only what changed a test's course: to be slow is what a limit of the processor is for."""
    assert usage.news() == said


class FakeTree:
    """A stand-in for /proc/self and trees of control groups: plain directories with plain files in them."""

    def __init__(self, root, monkeypatch):
        """Begin with nothing mounted."""
        self.root = root
        self.proc = root / "proc"
        self.proc.mkdir()
        self.mounts = ["22 1 0:20 / /proc rw - proc proc rw"]
        self.own = []
        self.files = {}
        monkeypatch.setattr(cgroups, "_make_directory", self.make)

    def make(self, group):
        """Make a group with its files, as the kernel does."""
        group.mkdir()
        for name, text in self.files.items():
            (group / name).write_text(text)

    def two(self, own, offered="memory pids cpu io", root="/", **subtree):
        """Mount version 2: our group, what the top offers, what groups give to those below them ("/" is "top")."""
        top = self.root / "two tree"
        group = top / own.lstrip("/")
        group.mkdir(parents=True)
        for directory in [group, *group.parents]:
            if directory == self.root:
                break
            name = "top" if directory == top else directory.name
            (directory / "cgroup.controllers").write_text(offered)
            (directory / "cgroup.subtree_control").write_text(subtree.get(name, ""))
        self.own.append(f"0::{own if root == '/' else root + own}")
        self.mounts.append(
            f"40 22 0:30 {root} {str(top).replace(' ', chr(92) + '040')} rw shared:4 - cgroup2 cgroup2 rw"
        )
        return top

    def one(self, names, own, root="/"):
        """Mount a tree of version 1."""
        top = self.root / names
        (top / own.removeprefix(root).lstrip("/")).mkdir(parents=True)
        self.own.insert(0, f"{len(self.own) + 1}:{names}:{own}")
        self.mounts.append(f"41 22 0:31 {root} {top} rw - cgroup cgroup rw,{names}")
        return top

    def find(self, names=ALL):
        """Look where groups can be made."""
        (self.proc / "mountinfo").write_text("\n".join(self.mounts) + "\n")
        (self.proc / "cgroup").write_text("".join(f"{line}\n" for line in self.own))
        return cgroups.controllers(names, self.proc)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Return trees of plain files that stand for the kernel's; none of it was delegated to us."""
    monkeypatch.setattr(cgroups.os, "geteuid", lambda: 0)
    return FakeTree(tmp_path, monkeypatch)


def test_version_2_beside_our_own_group(tree):
    """A delegated scope of systemd's: the group above gives the controllers, so ours stand beside pytest's own."""
    top = tree.two("/user.slice/app.slice/run.scope", **{"app.slice": "memory pids cpu", "user.slice": "memory pids"})
    assert tree.find() == dict.fromkeys(ALL, Controller(2, top / "user.slice/app.slice"))


def test_version_2_further_up(tree):
    """The first ancestor that gives all that is needed, not the first that gives some of it."""
    top = tree.two("/a/b/c", b="memory", a="memory pids cpu")
    assert tree.find() == dict.fromkeys(ALL, Controller(2, top / "a"))
    assert tree.find(["memory"]) == {"memory": Controller(2, top / "a" / "b")}


def test_version_2_at_the_top(tree):
    """A machine without systemd, all processes in the group at the top, which may have both."""
    top = tree.two("/", top="memory pids cpu")
    assert tree.find() == dict.fromkeys(ALL, Controller(2, top))


def test_a_delegated_tree_is_switched_on(tree, monkeypatch):
    """Where nobody has told the tree of this user which controllers to give, we do."""
    top = tree.two("/mine/leaf")
    user = os.getuid() or 1000
    os.chown(top / "mine/leaf", user, -1)
    monkeypatch.setattr(cgroups.os, "geteuid", lambda: user)
    assert tree.find(["memory", "pids"])["memory"] == Controller(2, top / "mine/leaf")
    assert (top / "mine/leaf/cgroup.subtree_control").read_text() == "+memory +pids"


def test_the_machine_s_tree_is_not_switched_on(tree):
    """For root it is an error with the command that does it: what the machine's groups give is not ours to change."""
    top = tree.two("/service/leaf")
    with pytest.raises(
        Unavailable, match=r"no group from .*/service/leaf upwards gives the controllers memory, pids"
    ) as no:
        tree.find(["memory", "pids"])
    assert no.value.remedy.endswith(f"echo +memory +pids > {top}/service/cgroup.subtree_control")
    assert (top / "service/leaf/cgroup.subtree_control").read_text() == ""


def test_version_1_below_our_own_group(tree):
    """Each controller in its tree, two of them in one."""
    memory, both = tree.one("memory", "/job"), tree.one("cpu,cpuacct", "/")
    pids = tree.one("pids", "/job")
    assert tree.find() == {
        "memory": Controller(1, memory / "job"),
        "cpu": Controller(1, both),
        "pids": Controller(1, pids / "job"),
    }


def test_version_1_where_an_engine_shows_a_part_of_the_tree(tree):
    """The path of our group starts above what is mounted."""
    memory = tree.one("memory", "/docker/abc/job", root="/docker/abc")
    assert tree.find(["memory"]) == {"memory": Controller(1, memory / "job")}


def test_a_mixture_of_both(tree):
    """Hybrid: what version 2 has is taken there, the rest from version 1."""
    top = tree.two("/job", offered="pids", top="pids")
    memory = tree.one("memory", "/job")
    assert tree.find(["memory", "pids"]) == {"memory": Controller(1, memory / "job"), "pids": Controller(2, top)}


@pytest.mark.parametrize("own", ["/..", "/../other"])
def test_a_group_outside_of_what_is_mounted(tree, own):
    """In a cgroup namespace that we have not been moved into there is no place for ours."""
    tree.two("/x", top="memory")
    tree.own = [f"0::{own}"]
    with pytest.raises(Unavailable, match="no tree of control groups with the controller memory is mounted here"):
        tree.find(["memory"])


def test_nothing_mounted(tree):
    """As in most containers of engines: the reason names the controller."""
    with pytest.raises(Unavailable, match=r"cgroup_limits does not work here: no tree .* pids") as no:
        tree.find(["pids"])
    assert no.value.feature == "cgroup_limits"


def test_a_group_gets_its_limits(tree, tmp_path):
    """Each file that the kernel made is written; one that is optional and not there is passed over."""
    tree.files = {"memory.max": "max", "pids.max": "max"}
    some = Limits.parse("64M", 20)
    group = cgroups.make(tmp_path, "mine", {name: some.settings(name, 2) for name in ("memory", "pids")})
    assert (group / "memory.max").read_text().startswith(str(64 << 20))
    assert not (group / "memory.swap.max").exists()


def test_a_limit_that_this_kernel_does_not_have_is_an_error(tree, tmp_path, monkeypatch):
    """A file that is not there is not made: Unavailable names it, and the group is removed."""
    with pytest.raises(Unavailable, match=r"cannot write '1024' to .*/mine/memory.max: ENOENT"):
        cgroups.make(tmp_path, "mine", {"memory": [Setting("memory.max", "1024")]})
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.EACCES, "systemd-run --user"), (errno.EROFS, "or as root"), (errno.EAGAIN, "max.descendants")],
)
def test_a_group_that_cannot_be_made(tmp_path, monkeypatch, number, remedy):
    """Without delegation the remedy is delegation, else a look at the tree's own limits."""

    def refuse(*_args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(cgroups, "_make_directory", refuse)
    with pytest.raises(Unavailable, match=f"cannot make a control group in .*: {errno.errorcode[number]}") as no:
        cgroups.make(tmp_path, "mine", {})
    assert remedy in no.value.remedy


def test_half_of_what_is_needed_is_nothing(tree, tmp_path, monkeypatch):
    """When the second of two trees refuses, the group in the first is removed."""
    first, second = tmp_path / "one", tmp_path / "two"
    first.mkdir()
    second.write_text("no directory")
    tree.files = {}
    found = {"memory": Controller(1, first), "pids": Controller(1, second)}
    monkeypatch.setattr(Limits, "settings", lambda *_args: [])
    with pytest.raises(Unavailable, match="ENOTDIR"):
        limits._make(Limits(memory=1, pids=1), found, "mine")
    assert list(first.iterdir()) == []


def test_what_cannot_be_removed_is_returned(tmp_path):
    """A group with processes stays and is named; one that is gone is no error."""
    busy, gone = tmp_path / "busy", tmp_path / "gone"
    (busy / "child").mkdir(parents=True)
    assert cgroups.remove([busy, gone]) == [busy]


def test_orphans_are_groups_whose_makers_are_dead(tmp_path, monkeypatch):
    """Not ours, not of those that live, not of another pid namespace, nor what is called otherwise."""
    mine = limits._new_name()
    prefix = limits._prefix()
    reused = f"{prefix}{os.getpid()}-1-1"
    dead = f"{prefix}{1 << 30}-55-1"
    for name in (mine, reused, dead, f"poor-container-1-{1 << 30}-5-1", "other", f"{prefix}x-1-1"):
        (tmp_path / name).mkdir()
    assert sorted(path.name for path in limits._orphans(tmp_path)) == sorted([reused, dead])


def test_numbers_of_the_kernel_s_files(tmp_path):
    """One alone, one of a line, none: a file that is not there, or a key that it does not have."""
    file = tmp_path / "memory.events"
    file.write_text("low 0\noom 4\noom_kill 3\n")
    (tmp_path / "memory.current").write_text("4096\n")
    assert limits._number(tmp_path / "memory.current") == 4096
    assert limits._number(file, "oom_kill") == 3
    assert limits._number(file, "peak") is None
    assert limits._number(tmp_path / "memory.peak") is None
