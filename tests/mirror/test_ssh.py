"""rsync over a real ssh: sshd in a host of ours, with keys of the test's own."""

import os
import shutil
import subprocess
import time

import pytest

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
MISSING = [name for name in ("ssh", "ssh-keygen", "rsync") if shutil.which(name) is None] + ["sshd"] * (SSHD is None)

pytestmark = [
    pytest.mark.skipif(
        bool(MISSING), reason=f"needs {', '.join(MISSING)}: sudo apt-get install openssh-server openssh-client rsync"
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="sshd becomes another user (setgroups(2)), which only root can"),
]


class Sshd:
    """An sshd in a host; ``source(path)`` is what a mirror says, ``command`` its ``ssh``."""

    def __init__(self, host, directory):
        self.host, self.directory = host, directory
        for name in ("host_key", "key", "other_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True)
        shutil.copy(directory / "key.pub", directory / "authorized")
        kind, key = (directory / "host_key.pub").read_text().split()[:2]
        self.known = directory / "known"
        self.known.write_text(f"{host.ip} {kind} {key}\n")
        (directory / "sshd_config").write_text(
            f"Port 22\nListenAddress {host.ip}\nHostKey {directory}/host_key\n"
            f"AuthorizedKeysFile {directory}/authorized\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nPidFile none\n"
            "PermitRootLogin prohibit-password\nUseDNS no\nPrintMotd no\nLogLevel VERBOSE\n"
        )
        host.mounts.bind(directory, directory)
        host.mounts.tmpfs("/run")
        host.run(["mkdir", "-p", "/run/sshd"], check=True)
        self.process = host.popen([SSHD, "-D", "-e", "-f", str(directory / "sshd_config")], stderr=-1)

    def source(self, path):
        """Return what a mirror has as its source."""
        return f"root@{self.host.ip}:{path}"

    def command(self):
        """Return the command for ssh: nothing of it comes from the user who runs the test."""
        return (
            f"ssh -F none -i {self.directory}/key -o IdentitiesOnly=yes -o BatchMode=yes "
            f"-o UserKnownHostsFile={self.known} -o StrictHostKeyChecking=yes"
        )


@pytest.fixture
def sshd(netns_pair, tmp_path):
    """Serve in the first host; both see the test's directory, where the keys are."""
    origin, edge = netns_pair
    edge.mounts.bind(tmp_path, tmp_path)
    server = Sshd(origin, tmp_path)
    deadline = time.monotonic() + 20
    while edge.run(["sh", "-c", f"{server.command()} root@{origin.ip} true"], capture_output=True).returncode:
        if server.process.poll() is not None or time.monotonic() > deadline:
            server.process.kill()
            pytest.fail(f"sshd does not let us in: {server.process.communicate()[1].decode()[-2000:]}")
        time.sleep(0.1)
    yield server
    server.process.kill()


@pytest.fixture
def source(tmp_path):
    """Return a directory with some files, names among them that a shell would take apart."""
    top = tmp_path / "with space and 'quote"
    for number in range(20):
        path = top / f"d{number % 3}/f {number}$HOME"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(1000 * number))
    (top / "large").write_bytes(os.urandom(3_000_000))
    return top


def tree(top):
    """Return the content of all files below a directory."""
    found = {path.relative_to(top): path.read_bytes() for path in top.rglob("*") if path.is_file()}
    return {path: data for path, data in found.items() if path.parts[0] != ".poor-mirror"}


def test_a_mirror_over_ssh(netns_pair, sshd, source, poor_mirror):
    """It equals its source, follows it, and finds nothing to do the third time."""
    _, edge = netns_pair
    m = poor_mirror(edge, sshd.source(source), ssh=sshd.command(), idle=20)
    result = m.sync()
    assert (result.state, result.reason, result.added) == ("ok", "", 21)
    assert tree(m.dest) == tree(source)
    (source / "d1/f 1$HOME").unlink()
    (source / "new").write_text("new")
    result = m.sync()
    assert (result.state, result.added, result.deleted) == ("ok", 1, 1)
    assert tree(m.dest) == tree(source)
    assert m.sync().fetched == 0


def test_ssh_refuses(netns_pair, sshd, source, poor_mirror):
    """A key that is not known there, a host that is not the one it was, a path that there is none of: each in words."""
    _, edge = netns_pair
    m = poor_mirror(edge, sshd.source(source), ssh=sshd.command(), idle=20)
    assert m.sync().reason == ""
    before = tree(m.dest)
    known, authorized = sshd.known.read_text(), (sshd.directory / "authorized").read_text()
    (sshd.directory / "authorized").write_text((sshd.directory / "other_key.pub").read_text())
    result = m.sync()
    assert (result.state, result.status) == ("failed", 9)
    assert "Permission denied" in result.reason
    (sshd.directory / "authorized").write_text(authorized)
    kind, key = (sshd.directory / "other_key.pub").read_text().split()[:2]
    sshd.known.write_text(f"{sshd.host.ip} {kind} {key}\n")
    result = m.sync()
    assert (result.state, result.status) == ("failed", 9)
    assert "Host key verification failed" in result.reason
    sshd.known.write_text(known)
    source.rename(source.with_name("elsewhere"))
    result = m.sync()
    assert (result.state, result.status) == ("failed", 6)
    assert "No such file or directory" in result.reason
    assert tree(m.dest) == before


def test_a_cut_under_ssh(netns_pair, sshd, source, poor_mirror):
    """Nothing is published of what was cut; when the cable is whole again the next run completes it."""
    _, edge = netns_pair
    (source / "large").write_bytes(os.urandom(8_000_000))
    m = poor_mirror(edge, sshd.source(source), ssh=sshd.command(), retries=0, idle=5)
    with m.syncing() as run:
        run.wait(phase="fetch")
        netns_pair.link.cut()
    assert (run.result.state, run.result.status) == ("failed", 6)
    assert not {path for path, data in tree(m.dest).items() if tree(source).get(path) != data}
    netns_pair.link.heal()
    assert m.sync().state == "ok"
    assert tree(m.dest) == tree(source)
