"""What is asked of an agent for a command, and what a container or a lab is asked for: all before anything starts."""

import os
import sys
from pathlib import Path

import pytest

from pytest_poorcontainer import Container, UsageError
from pytest_poorcontainer.container.container import default_hosts
from pytest_poorcontainer.container.request import arguments, pack_request
from pytest_poorcontainer.lab import idmap, launch, protocol
from pytest_poorcontainer.lab.client import Lab, Spec
from pytest_poorcontainer.lab.names import check_name
from pytest_poorcontainer.lab.protocol import Field


def environment(**options):
    """Return the environment that a request carries."""
    fields = protocol.unpack(pack_request([b"true"], options.get("env"), options.get("cwd"), options.get("user")))
    return dict(value.split(b"=", 1) for kind, value in fields if kind == Field.ENV)


def test_the_default_environment():
    """Without env= there are PATH, LANG and TMPDIR; HOME is the user's, which the agent knows."""
    assert environment() == {
        b"PATH": b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        b"LANG": b"C.UTF-8",
        b"TMPDIR": b"/tmp",
    }
    assert environment(env={}) == environment()


def test_the_environment_is_merged():
    """Names are added, overridden and, with None, removed; removing what is not there is fine."""
    merged = environment(env={"LANG": None, "NO": None, "A": Path("/b"), "TMPDIR": b"x"})
    assert merged == {b"PATH": environment()[b"PATH"], b"TMPDIR": b"x", b"A": b"/b"}


def test_all_parts_of_a_request():
    """Arguments, directory and user are in it, in the order of the arguments."""
    fields = protocol.unpack(pack_request([b"a", b"b"], None, Path("/srv"), 33))
    assert fields[:4] == [(Field.ARG, b"a"), (Field.ARG, b"b"), (Field.CWD, b"/srv"), (Field.USER, b"33")]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("ls", [b"ls"]),
        (b"ls", [b"ls"]),
        (Path("/bin/ls"), [b"/bin/ls"]),
        (["ls", b"-l", Path("/")], [b"ls", b"-l", b"/"]),
        (("gr\udcfcn",), [b"gr\xfcn"]),
        (iter(["a", "b"]), [b"a", b"b"]),
    ],
)
def test_arguments(argv, words):
    """Text, bytes and paths are words, in any iterable; a lone one is a program."""
    assert arguments(argv) == words


@pytest.mark.parametrize(
    ("argv", "error"), [([], UsageError), ((), UsageError), (["a\0b"], ValueError), ([1], TypeError), (None, TypeError)]
)
def test_bad_arguments(argv, error):
    """What is no argument list is refused at once."""
    with pytest.raises(error):
        arguments(argv)


@pytest.mark.parametrize("name", ["a", "A1", "db-1", "primary", "a.b.c", "x" * 63, "1a", "node1.example", "7.seven"])
def test_good_names(name):
    """Host names by RFC 1123 are accepted, also with a digit first."""
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-a",
        "a-",
        "a_b",
        "a b",
        "a..b",
        ".a",
        "a.",
        "x" * 64,
        "ä",
        "10.0.0.1",
        "7",
        "localhost",
        "a\n",
        "a\0",
        None,
        5,
        "x" * 40 + "." + "y" * 40,
    ],
)
def test_bad_names(name):
    """What is no host name is refused, and the message says what was expected."""
    with pytest.raises(UsageError, match=r"expected letters|is a str"):
        check_name(name)


def test_a_container_checks_its_arguments_first():
    """A bad name or network is refused before a lab is started for it."""
    with pytest.raises(UsageError, match="no host name"):
        Container("no name")
    with pytest.raises(UsageError, match="'none', 'host'"):
        Container("ok", network="bridge")


def test_hosts_of_a_container(monkeypatch):
    """/etc/hosts has localhost and the own name; with the machine's network, also what the machine knows."""
    assert default_hosts("db").splitlines()[-1] == "127.0.1.1\tdb"
    assert "::1\tlocalhost" in default_hosts("db")
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "10.0.0.9 registry\n\n")
    assert default_hosts("db", "host") == "10.0.0.9 registry\n127.0.1.1\tdb\n"


def test_a_spec_leaves_out_what_it_lacks():
    """A container without a link has no address fields, a host has all of them after its name."""
    assert [kind for kind, _ in Spec("a", "").fields()] == [Field.NAME, Field.HOSTS, Field.NETWORK]
    host = Spec("a", "", protocol.Network.OWN, "eth0", b"123456", b"\x0a\0\0\1\x18", b"\0" * 16 + b"\x40")
    assert [kind for kind, _ in host.fields()][3:] == [Field.INTERFACE, Field.MAC, Field.IP4, Field.IP6]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", None),
        ("other:1:2\n", None),
        ("me:100000:65536\n", (100000, 65536)),
        ("# me:1:2\nme:5:10\n1000:7:20\nme:9:15\n", (7, 20)),
        ("me:x:1\nme:1\nme::\nme:4:0\n", None),
        ("  me:1:2  \n", (1, 2)),
    ],
)
def test_id_ranges(tmp_path, text, found):
    """The largest range of this user's, by name or number, is taken; what is malformed is passed over."""
    file = tmp_path / "subuid"
    file.write_text(text)
    assert idmap._largest(file, {"me", "1000"}) == found


def test_id_ranges_of_a_machine_without_them(tmp_path):
    """Without the file there are none."""
    assert idmap._largest(tmp_path / "missing", {"me"}) is None


@pytest.fixture
def as_user(monkeypatch, tmp_path):
    """Make this look like an ordinary user's process; return a function that grants ranges."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getegid", lambda: 100)
    monkeypatch.setattr(idmap.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(idmap, "_user_name", lambda uid: "me")
    files = {"/etc/subuid": tmp_path / "subuid", "/etc/subgid": tmp_path / "subgid"}
    monkeypatch.setattr(idmap, "Path", lambda path: files[path])

    def grant(uids, gids):
        files["/etc/subuid"].write_text(uids)
        files["/etc/subgid"].write_text(gids)

    return grant


def test_options_for_id_ranges(as_user):
    """An ordinary user's own id becomes 0, and the ranges follow from 1."""
    as_user("me:100000:65536\n", "me:200000:1000\n")
    assert idmap.arguments() == ["--uid-map", "0 1000 1 1 100000 65536", "--gid-map", "0 100 1 1 200000 1000"]


def test_no_options_without_ranges(as_user, monkeypatch):
    """As root, without one of the ranges, or without the programs, nothing is asked for."""
    as_user("me:100000:65536\n", "other:200000:1000\n")
    assert idmap.arguments() == []
    as_user("me:100000:65536\n", "me:200000:1000\n")
    monkeypatch.setattr(idmap.shutil, "which", lambda name: None if name == "newgidmap" else name)
    assert idmap.arguments() == []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert idmap.arguments() == []


def test_what_containers_see(tmp_path, monkeypatch):
    """Real paths, each once, parents first, base read-write, the rest read-only; never what containers need empty."""
    base, root, prefix = tmp_path / "root" / "base", tmp_path / "root", tmp_path / "venv"
    for directory in (base, prefix):
        directory.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(prefix)
    monkeypatch.setattr(sys, "prefix", str(link))
    monkeypatch.setattr(sys, "base_prefix", str(prefix))
    monkeypatch.setattr(launch, "__file__", str(prefix / "package" / "container" / "launch.py"))
    (prefix / "package").mkdir()
    package = ["--bind-ro", str(prefix / "package")]
    expected = ["--bind-ro", str(root), "--bind-rw", str(base), "--bind-ro", str(prefix), *package]
    assert launch.bind_arguments(base, root) == expected
    assert launch.bind_arguments(None, tmp_path / "missing") == ["--bind-ro", str(prefix), *package]
    assert launch.bind_arguments(None, Path("/")) == ["--bind-ro", str(prefix), *package]
    assert launch.bind_arguments(Path("/tmp"), None) == ["--bind-ro", str(prefix), *package]
    assert launch.bind_arguments(root, root) == ["--bind-rw", str(root), "--bind-ro", str(prefix), *package]


def test_no_lab_no_end():
    """Ending a lab that was never started is nothing."""
    previous, Lab._current = Lab._current, None
    try:
        Lab.close_current()
    finally:
        Lab._current = previous
