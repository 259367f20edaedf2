"""Copy-on-write trees as the root of containers: what is the tree's, and what is the container's own."""
# ruff: noqa: F811 - a test's argument is the fixture of that name

import errno
import os
import signal

import pytest
from cow_trees import BACKENDS, described, make  # noqa: F401 - fixtures
from trees import copy_programs

from pytest_poorcontainer import Container, CowTree, LabError, Network, UsageError, machine
from pytest_poorcontainer.errors import PoorContainerError
from pytest_poorcontainer.lab import Lab

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)
PLACES = ("dev", "etc", "proc", "run", "sys", "tmp")


@pytest.fixture(params=[name for name in BACKENDS if name != "preload"])
def backend(request):
    """Return the name of each backend of which a tree can be a root."""
    return request.param


@pytest.fixture
def image(tmp_path):
    """Return a root file system of a few programs, with all places on which containers have mounts."""
    root = tmp_path / "image"
    for name in PLACES:
        (root / name).mkdir(parents=True)
    (root / "etc/issue").write_text("old\n")
    (root / "etc/hosts").write_text("of the image\n")
    (root / "etc/hostname").write_text("image\n")
    (root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")  # leads nowhere, as on Ubuntu
    return copy_programs(root, "sh", "ls", "cat", "rm", "hostname")


@pytest.fixture
def tree(make, image):
    """Return a tree of it."""
    return make(image)


def shell(container, script):
    """Run a script in a container and return what it prints."""
    done = container.run(["sh", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_a_container_changes_in_its_root_is_the_tree_s(tree, image):
    """Changed, new and removed files are changes of the tree, and nothing else is; the image stays as it is."""
    before = described(image)
    with Container("box", rootfs=tree) as box:
        shell(box, "echo new > /etc/issue; echo x > /added; rm $(command -v ls)")
        shell(box, "for place in /tmp /run /dev/shm; do echo own > $place/own; done")
        assert tree.read_text("etc/issue") == "new\n"
        changes = tree.diff()
        assert box.rootfs == f"tree of {image}, {tree.backend}"
    assert {path.rpartition("/")[2]: kind for path, kind in changes.items()} == {
        "issue": "modified",
        "added": "added",
        "ls": "deleted",
    }
    assert tree.diff() == changes
    assert described(image) == before


def test_its_names_are_its_own(tree):
    """Host name, hosts and resolver are the container's, over what the tree has, which keeps that."""
    with Container("box", rootfs=tree) as box, Container("other", rootfs=tree) as other:
        assert shell(box, "hostname; cat /etc/hostname").split() == ["box", "box"]
        assert shell(other, "cat /etc/hostname") == "other\n"
        assert "127.0.1.1\tother" in shell(other, "cat /etc/hosts")
        assert "no name server" in shell(box, "cat /etc/resolv.conf")
    assert tree.read_text("etc/hosts") == "of the image\n"
    assert tree.read_text("etc/hostname") == "image\n"
    assert tree.diff() == {}


def test_two_hosts_on_one_tree(tree):
    """Both see what one of them changes, each has its own names and network."""
    with Network() as network:
        first, second = network.pair("first", "second", rootfs=tree)
        shell(first, "echo shared > /shared")
        assert shell(second, "cat /shared; hostname").split() == ["shared", "second"]
        with second.listen((second.ip, 80)), first.connect((second.name, 80)):
            pass
    assert tree.diff() == {"shared": "added"}


def test_what_is_missing_for_a_container_is_made(make, image):
    """Directories that an image lacks are there then, empty, and are changes like any other."""
    for name in ("etc/issue", "etc/hosts", "etc/hostname", "etc/resolv.conf"):
        (image / name).unlink()
    for name in PLACES:
        (image / name).rmdir()
    tree = make(image)
    with Container("box", rootfs=tree) as box:
        assert shell(box, "cat /etc/hostname; echo /proc/1/comm; ls /dev/null").split() == [
            "box",
            "/proc/1/comm",
            "/dev/null",
        ]
    files = {f"etc/{name}": "added" for name in ("hosts", "hostname", "resolv.conf")}
    assert tree.diff() == {**dict.fromkeys(PLACES, "added"), **files}
    assert tree.read_text("etc/hosts") == ""
    assert [str(path) for path in tree.iterdir("dev")] == []


def test_a_tree_with_a_link_in_the_place_of_a_directory(make, image):
    """Nothing is followed: the error names the place, and the remedy works."""
    (image / "tmp").rmdir()
    (image / "tmp").symlink_to("/etc")
    tree = make(image)
    with pytest.raises(LabError, match=r"/tmp.*readonly=True") as caught:
        Container("box", rootfs=tree)
    assert caught.value.errno == errno.ENOTDIR
    with Container("box", rootfs=tree, readonly=True) as box:
        shell(box, "echo x > /tmp/x")
    assert tree.diff() == {}


def test_readonly_leaves_the_tree_alone(tree):
    """With readonly=True the container sees the tree, and can change nothing of it."""
    tree.run(["sh", "-c", "echo changed > etc/issue"], check=True)
    with Container("box", rootfs=tree, readonly=True) as box:
        assert shell(box, "cat /etc/issue") == "changed\n"
        assert "Read-only file system" in box.run(["sh", "-c", "echo x > /x"], capture_output=True, text=True).stderr
    assert tree.diff() == {"etc/issue": "modified"}


def test_no_reset_from_under_a_container(tree):
    """What would replace the root is refused, naming the container; once that is closed it works, for the next one."""
    with Container("box", rootfs=tree) as box:
        shell(box, "echo new > /etc/issue")
        tree.snapshot("new")
        for what in (tree.reset, tree.commit, tree.freeze, lambda: tree.restore("new"), lambda: CowTree(tree)):
            with pytest.raises(UsageError, match=r"the root of container box.*close that before"):
                what()
        assert shell(box, "cat /etc/issue; ls -d /proc/1").split() == ["new", "/proc/1"]
    tree.reset()
    assert tree.diff() == {}
    with Container("box", rootfs=tree) as box:
        assert shell(box, "cat /etc/issue") == "old\n"
    tree.restore("new")
    with Container("box", rootfs=tree) as box:
        assert shell(box, "cat /etc/issue") == "new\n"


def test_commit_what_a_container_has_done(tree, image):
    """An image is changed from inside, and what is wanted of that becomes the original's own."""
    with Container("box", rootfs=tree) as box:
        shell(box, "echo new > /etc/issue; echo x > /added")
    tree.commit(["etc/issue"])
    assert (image / "etc/issue").read_text() == "new\n"
    assert not (image / "added").exists()


def test_a_tree_on_which_others_stand(make, tree):
    """It must not change any more: it is refused, unless read-only; the tree on it is a root as any other."""
    with make(tree) as above:
        with pytest.raises(UsageError, match="make a tree on it, or take readonly=True"):
            Container("box", rootfs=tree)
        with Container("box", rootfs=tree, readonly=True) as box, Container("other", rootfs=above) as other:
            assert shell(box, "cat /etc/issue") == "old\n"
            shell(other, "echo new > /etc/issue")
        assert above.diff() == {"etc/issue": "modified"}


def test_the_tree_is_all_that_is_seen(tree):
    """No way up leads out of the root, and what is mounted for it is the container's own."""
    with Container("box", rootfs=tree) as box:
        assert shell(box, "ls -id /../../..").split()[0] == shell(box, "ls -id /").split()[0]
        seen = shell(box, "cat /proc/1/mountinfo")
        assert "/proc/lower" not in seen
        assert shell(box, "cat /proc/1/comm") == "pc-init\n"


def test_a_lab_that_was_killed(tree):
    """The tree goes on where it can: a copy in the next lab; an overlay says that it was the lab's."""
    with Container("box", rootfs=tree):
        os.kill(Lab.current().pid, signal.SIGKILL)
    if tree.backend == "overlay":
        with pytest.raises(PoorContainerError, match="has ended: make the tree anew"):
            Container("box", rootfs=tree)
    else:
        with Container("box", rootfs=tree) as box:
            assert shell(box, "cat /etc/issue") == "old\n"


def test_a_tree_without_a_path_cannot_be_a_root(image, tmp_path):
    """The error names the backends that can."""
    with (
        CowTree(image, backend="preload", temporary=tmp_path) as tree,
        pytest.raises(UsageError, match=r"backend preload cannot be the root.*backend='overlay' or 'copy'"),
    ):
        Container("box", rootfs=tree)
