"""A suite that writes everywhere as its containers' root changes nothing of the machine."""

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from trees import copy_programs

from pytest_poorcontainer import machine

ROOT = Path(__file__).parents[2]
WATCHED = ("/etc", "/var", "/run", str(ROOT))
OWN = {".git", ".venv", ".pytest_cache", "__pycache__", "build", ".mypy_cache", ".ruff_cache", ".hypothesis"}
READ_MOST = 1 << 20

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)

SUITE = '''
import pytest

EVERYWHERE = """
for d in / /etc /etc/ssl /var /var/lib /var/log /var/tmp /run /run/lock /usr /usr/local /srv /opt /home /root /boot \\
         /dev /sys /proc {root}; do
    echo ruined > $d/poor-container-was-here 2>/dev/null
done
for f in /etc/passwd /etc/hosts /etc/fstab /etc/mtab /etc/resolv.conf /var/lib/dpkg/status /usr/bin/env \\
         {root}/README.md; do
    echo ruined >> $f; chmod 777 $f; chown 1:1 $f; touch -d 2001-01-01 $f; mv $f $f.moved
done 2>/dev/null
mkdir -p /var/spool/new /etc/new /run/new
rm -rf /etc/* /var/* /run/* /srv/* /opt/* /home/* /root/* /usr/* {root}/* 2>/dev/null
mount -t tmpfs none /mnt 2>/dev/null; umount -a 2>/dev/null; hostname ruined 2>/dev/null
true
"""

def ruin(container):
    container.run(["sh", "-c", EVERYWHERE], timeout=50)

def test_pair(netns_pair):
    for host in netns_pair:
        ruin(host)

def test_environment(chroot_env):
    chroot_env.write("/etc/x/y", "text")
    ruin(chroot_env)

@pytest.mark.poor_container(rootfs={tree!r})
def test_directory(chroot_env):
    done = chroot_env.run(["sh", "-c", "echo x > /file && rm -rf /kept && rm -rf --no-preserve-root /"])
    assert done.returncode == 1 # what the kernel shows cannot be removed
    assert not chroot_env.exists("/kept")

@pytest.mark.poor_container(network="host")
def test_with_the_machine_s_network(chroot_env):
    ruin(chroot_env)

def test_mounts(unshared_mounts, tmp_path):
    (tmp_path / "conf").mkdir()
    unshared_mounts.tmpfs("/var/lib/app", size="1M")
    unshared_mounts.bind(tmp_path / "conf", "/etc/app", readonly=True)
    unshared_mounts.bind(tmp_path / "conf", "/usr/local/nowhere/app")
    unshared_mounts.overlay("/usr/local")
    ruin(unshared_mounts)
'''


def look(path):
    """Return what can be told of a file without changing it: its status, and its content if it is not large."""
    info = os.lstat(path)
    told = [stat.filemode(info.st_mode), info.st_uid, info.st_gid, info.st_size, info.st_mtime_ns, info.st_ctime_ns]
    if stat.S_ISLNK(info.st_mode):
        return [*told, str(Path(path).readlink())]
    if stat.S_ISDIR(info.st_mode) or not stat.S_ISREG(info.st_mode) or info.st_size > READ_MOST:
        return told
    try:
        return [*told, hashlib.sha256(Path(path).read_bytes()).hexdigest()]
    except PermissionError:
        return told


def snapshot():
    """Return what there is below the watched directories, and the mount table."""
    seen = {"mounts": Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()}
    for top in WATCHED:
        for directory, names, files in os.walk(top):
            names[:] = [name for name in names if name not in OWN]
            for name in (*names, *files):
                path = f"{directory}/{name}"
                try:
                    seen[path] = look(path)
                except FileNotFoundError:
                    continue
    return seen


def changed(before, after):
    """Return the names that differ."""
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_nothing_of_the_machine_has_changed(tmp_path):
    """The mount table, /etc, /var, /run and the checkout are byte for byte what they were."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "kept").mkdir()
    copy_programs(tree, "sh", "rm")
    as_it_was = sorted(str(path) for path in tree.rglob("*"))
    suite = tmp_path / "test_ruin.py"
    suite.write_text(SUITE.replace("{root}", str(ROOT)).replace("{tree!r}", repr(str(tree))))
    first = snapshot()
    before = snapshot()
    restless = changed(first, before)  # what changes although we do nothing
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        "--poor-container",
        "--poor-container-require",
    ]
    done = subprocess.run(
        [*command, f"--rootdir={tmp_path}", f"--basetemp={tmp_path / 'base'}", str(suite)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "5 passed" in done.stdout, done.stdout + done.stderr
    assert changed(before, snapshot()) - restless == set()
    assert sorted(str(path) for path in tree.rglob("*")) == as_it_was
