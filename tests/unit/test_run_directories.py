"""What packages want to have in /run: tmpfiles.d(5) and RuntimeDirectory= as far as containers need them."""

import grp
import pwd

import pytest

from pytest_poorcontainer.lab import run_directories
from pytest_poorcontainer.lab.run_directories import RunDirectory, of_tmpfiles, of_unit

TMPFILES = {
    "d /run/named 0775 root root - -": [RunDirectory("named", 0o775)],
    "D! /run/a 01777 - - 10d": [RunDirectory("a", 0o1777)],
    "d /var/run/vsftpd/empty 0755 root root -": [RunDirectory("vsftpd/empty")],
    "d /run/plain": [RunDirectory("plain")],
    "d /run/x ~0700 no-such-user no-such-group": [RunDirectory("x", 0o700)],
    "d /run/x 0700 12 34": [RunDirectory("x", 0o700, 12, 34)],
    "d /run/slash/ 0755": [RunDirectory("slash")],
    "d /run/%u 0755 root root": [],
    "d /run/../etc 0755 root root": [],
    "d /run/systemd/seats 0755 root root -": [],
    "d /run/user 0755 root root -": [],
    "d /var/log/postgresql 1775 root postgres": [],
    "d /running 0755": [],
    "f /run/utmp 0664 root utmp": [],
    "# d /run/commented 0755": [],
    "d": [],
    "": [],
}

UNITS = {
    "[Service]\nRuntimeDirectory=redis\nRuntimeDirectoryMode=2755\n": [RunDirectory("redis", 0o2755)],
    "[Service]\nRuntimeDirectory=one two/three:link\n": [RunDirectory("one"), RunDirectory("two/three")],
    "[Service]\nRuntimeDirectory=systemd/netif\n": [],
    "[Service]\nRuntimeDirectory=%i\n": [],
    "[Service]\nExecStart=/bin/true\n": [],
    "[Unit]\nDescription=RuntimeDirectory=x\n": [],
    "RuntimeDirectory=x": [],
    "[Service]\nExecStart=/bin/sh -c \\\n 'a'\nRuntimeDirectory=late\n": [RunDirectory("late")],
}


@pytest.mark.parametrize(("line", "expected"), TMPFILES.items(), ids=TMPFILES.keys())
def test_lines_of_tmpfiles(line, expected):
    """Directories below /run are found with mode and owner; everything else is passed over."""
    assert list(of_tmpfiles(line)) == expected


@pytest.mark.parametrize(("unit", "expected"), UNITS.items(), ids=range(len(UNITS)))
def test_units(unit, expected):
    """RuntimeDirectory= is read with its mode; a unit that cannot be understood has none."""
    assert list(of_unit(unit)) == expected


def test_owners_are_looked_up():
    """Names become this machine's ids; a unit's group is its user's own when none is named."""
    user = pwd.getpwall()[-1]
    group = grp.getgrall()[-1]
    line = f"d /run/x 0755 {user.pw_name} {group.gr_name}"
    assert list(of_tmpfiles(line)) == [RunDirectory("x", 0o755, pwd.getpwnam(user.pw_name).pw_uid, group.gr_gid)]
    unit = f"[Service]\nUser={user.pw_name}\nRuntimeDirectory=x\n"
    assert [directory.gid for directory in of_unit(unit)] == [pwd.getpwnam(user.pw_name).pw_gid]


def test_of_one_name_the_last_directory_counts(tmp_path, monkeypatch):
    """A file in /etc replaces that of the same name in /usr/lib; parents come before what is in them."""
    low, high = tmp_path / "low", tmp_path / "high"
    for directory in (low, high):
        directory.mkdir()
    (low / "a.conf").write_text("d /run/replaced 0755\n")
    (high / "a.conf").write_text("d /run/deep/er 0700\nd /run/deep 0711\n")
    (low / "b.conf").symlink_to(tmp_path / "nowhere")
    (low / "c.service").write_text("[Service]\nRuntimeDirectory=deep unit\n")
    monkeypatch.setattr(run_directories, "_TMPFILES", (str(low), str(high)))
    monkeypatch.setattr(run_directories, "_UNITS", (str(low), str(tmp_path / "missing")))
    found = run_directories.run_directories()
    assert [directory.option() for directory in found] == ["711:0:0:deep", "700:0:0:deep/er", "755:0:0:unit"]
