"""The ways to a source: proxies, IPv6, rsync over ssh; and credentials that stand in a netrc."""

import contextlib
import os
import shutil
import socket

import pytest
from proxies import NAME, proxy

over = pytest.mark.parametrize("kind", ["nginx", "ftp", "ftp-list", "rsync"])
with_passwords = pytest.mark.parametrize("kind", ["nginx", "ftp", "rsync"])
ME = ("me", "secret")

FAKE_SSH = """#!/bin/sh
# Stands for ssh: notes what it was called with, and runs the command here instead of on HOST.
printf '%s\\n' "$*" >>"$0.called"
if [ -e "$0.refuses" ]; then cat "$0.refuses" >&2; exit 255; fi
while :; do
    case $1 in
    -l|-p|-o) shift 2 ;;
    -*) shift ;;
    *) break ;;
    esac
done
shift
exec sh -c "$*"
"""


@pytest.fixture
def place(make_place):
    """``place(kind, ...)`` serves until the test ends."""
    with contextlib.ExitStack() as stack:

        def make(kind, **options):
            if kind == "rsync" and shutil.which("rsync") is None:
                pytest.skip("needs rsync: sudo apt-get install rsync")
            return stack.enter_context(make_place(kind, **options))

        yield make


def renamed(place):
    """Return the URL with a name that the proxy alone can resolve."""
    return place.url.replace("127.0.0.1", NAME)


def copied(place, **options):
    """Copy, change the source, and copy again: each time the mirror has to equal it."""
    place.fill()
    place.put("large", os.urandom(1_536_000))
    result = place.sync(**options)
    assert (result.state, result.reason) == ("ok", "")
    assert place.tree() == place.tree(place.source)
    (place.source / "d1/f1.bin").unlink()
    place.put("d0/f0.bin", b"another", age=10)
    result = place.sync(**options)
    assert (result.state, result.added, result.changed, result.deleted) == ("ok", 0, 1, 1)
    assert place.tree() == place.tree(place.source)


@over
def test_a_source_behind_a_proxy(place, kind):
    """Everything goes through it, the data connections of FTP included."""
    found = place(kind)
    with proxy() as there:
        copied(found, source=renamed(found), proxy=f"http://127.0.0.1:{there.port}")
        assert {method for method, _ in there.seen} <= ({"GET", "HEAD"} if kind == "nginx" else {"CONNECT"})
        assert all(NAME in target for _, target in there.seen)


@over
def test_the_environment_may_name_the_proxy(place, kind, monkeypatch):
    """As for curl and rsync: http_proxy, ftp_proxy, RSYNC_PROXY."""
    found = place(kind)
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with proxy() as there:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{there.port}")
        monkeypatch.setenv("ftp_proxy", f"http://127.0.0.1:{there.port}")
        monkeypatch.setenv("RSYNC_PROXY", f"127.0.0.1:{there.port}")
        copied(found, source=renamed(found))
        assert there.seen


@over
def test_a_proxy_with_a_password(place, kind):
    """Without it the run is refused, and the mirror stays as it was; it is in no log."""
    found = place(kind)
    found.fill(3)
    with proxy(password=("us", "hunter2")) as there:
        url = renamed(found)
        assert found.sync(source=url, proxy=f"http://us:hunter2@127.0.0.1:{there.port}").state == "ok"
        before = found.tree()
        assert before == found.tree(found.source)
        result = found.sync(source=url, proxy=f"http://us:wrong-one@127.0.0.1:{there.port}")
        assert (result.state, result.status) == ("failed", 9)
        assert "407" in result.reason
        assert found.tree() == before
        assert not {word for word in ("hunter2", "wrong-one") if word in found.log() + result.reason}


@over
def test_a_proxy_that_is_not_there(place, kind):
    """Nothing can be reached, and nothing is deleted."""
    found = place(kind)
    found.fill(3)
    assert found.sync().state == "ok"
    before = found.tree()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    result = found.sync(source=renamed(found), proxy=f"http://127.0.0.1:{port}", retries=0)
    assert (result.state, result.status) == ("failed", 6)
    assert found.tree() == before


@over
def test_a_source_on_ipv6(place, kind):
    """An address in brackets is a host as any other; one that `ip` rules out is not asked."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError as error:
        pytest.skip(f"needs IPv6 on loopback: {error}")
    found = place(kind, address="::1")
    copied(found, ip=6)
    before = found.tree()
    result = found.sync(ip=4)
    assert (result.state, result.status) == ("failed", 2)
    assert "ip = 4" in result.reason
    assert found.tree() == before


@with_passwords
def test_credentials_from_a_netrc(place, kind, tmp_path):
    """The file has them, by host; they are in no log. Without a line for the host the source refuses us."""
    found = place(kind, password=ME)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine other.test login you password nothing\nmachine 127.0.0.1 login me password secret\n")
    copied(found, netrc=str(netrc))
    before = found.tree()
    netrc.write_text("machine other.test login you password nothing\n")
    result = found.sync(netrc=str(netrc), retries=0)
    assert (result.state, result.status) == ("failed", 9)
    assert found.tree() == before
    assert "secret" not in found.log() + result.reason


@with_passwords
def test_a_netrc_that_cannot_be_read(place, kind, tmp_path):
    """It is named, and nothing is asked without it."""
    found = place(kind)
    found.fill(3)
    result = found.sync(netrc=str(tmp_path / "nowhere"))
    assert (result.state, result.status) == ("failed", 2)
    assert str(tmp_path / "nowhere") in result.reason


@pytest.fixture
def ssh(tmp_path):
    """Return the path of a program that stands for ssh, and runs the command on this machine."""
    if shutil.which("rsync") is None:
        pytest.skip("needs rsync: sudo apt-get install rsync")
    path = tmp_path / "fake-ssh"
    path.write_text(FAKE_SSH)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("directory", ["plain", "with space and 'quote"])
def test_rsync_over_ssh(place, ssh, directory, tmp_path):
    """HOST:PATH is a path on that host; the command for ssh may have options."""
    found = place("file")
    there = tmp_path / directory
    found.source.rename(there)
    found.source = there
    copied(found, source=f"admin@{NAME}:{there}", ssh=f"{ssh} -p 2222")
    called = ssh.with_name("fake-ssh.called").read_text().splitlines()
    assert all(line.startswith(f"-p 2222 -l admin {NAME} rsync --server --sender") for line in called)


def test_ssh_by_rsyncs_own_variable(place, ssh, monkeypatch):
    """RSYNC_RSH counts where `ssh` is not set."""
    found = place("file")
    monkeypatch.setenv("RSYNC_RSH", str(ssh))
    copied(found, source=f"{NAME}:{found.source}/")
    assert ssh.with_name("fake-ssh.called").exists()


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("admin@origin.test: Permission denied (publickey,password).", 9),
        ("ssh: connect to host: Connection refused", 6),
    ],
)
def test_ssh_that_fails(place, ssh, said, status):
    """What it says is the reason; a key that is refused is no lost connection. Nothing is deleted."""
    found = place("file")
    found.fill(3)
    source = f"{NAME}:{found.source}"
    assert found.sync(source=source, ssh=str(ssh)).state == "ok"
    before = found.tree()
    ssh.with_name("fake-ssh.refuses").write_text(f"{said}\n")
    result = found.sync(source=source, ssh=str(ssh), retries=0)
    assert (result.state, result.status) == ("failed", status)
    assert found.tree() == before


@pytest.mark.parametrize("host", ["[::1]", "admin@[fe80::1]"])
def test_an_ipv6_host_of_ssh(place, ssh, host):
    """Brackets tell where the address ends."""
    found = place("file")
    copied(found, source=f"{host}:{found.source}", ssh=str(ssh))
