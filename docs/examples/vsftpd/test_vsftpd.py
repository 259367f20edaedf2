"""vsftpd: uploads and downloads, with connections for the data in either direction, and over a cable that is cut.

It runs with Debian's /etc/vsftpd.conf, which lets the users of the machine in, and what an administrator adds so that
they may write. Run it with::

    pytest --poor-container docs/examples/vsftpd -v
"""

import ftplib
import io

import pytest

from pytest_poorcontainer import eventually

pytestmark = [
    pytest.mark.debian("vsftpd"),
    pytest.mark.poor_container(hosts=["server", "client"]),
]

LOCAL_USERS = """
write_enable=YES
"""

# Without a second id there is no user to become: vsftpd stays who it is, and takes guests only (vsftpd.conf(5)).
GUESTS = """
run_as_launching_user=YES
local_enable=NO
anonymous_enable=YES
anon_root=/srv/ftp
write_enable=YES
anon_upload_enable=YES
anon_umask=022
"""

ANSWER = b"All human beings are born free and equal in dignity and rights.\n" * 1000


def may_become(host, user):
    """Return whether root may become that user there: not if an ordinary user's lab has one id, for want of a range."""
    return host.run(["setpriv", f"--reuid={user}", "--init-groups", "true"], capture_output=True).returncode == 0


def start_vsftpd(server, settings):
    """Start vsftpd as its unit does, with settings after Debian's."""
    text = {"input": settings, "text": True, "capture_output": True, "check": True}
    server.run(["tee", "-a", "/etc/vsftpd.conf"], **text)
    return server.start(["vsftpd", "/etc/vsftpd.conf"], ready=21)


@pytest.fixture
def account(netns_pair):
    """Somebody who may log in to the running server: name, password, and the directory on the server."""
    server = netns_pair.a
    if may_become(server, "ftp"):
        server.run(["useradd", "--create-home", "--shell", "/bin/bash", "courier"], check=True)
        server.run(["chpasswd"], input="courier:secret\n", text=True, check=True)
        start_vsftpd(server, LOCAL_USERS)
        return "courier", "secret", "/home/courier"
    server.run(["mkdir", "-p", "/srv/ftp/incoming"], check=True)
    start_vsftpd(server, GUESTS)
    return "anonymous", "courier@example.test", "/srv/ftp/incoming"


@pytest.fixture
def stranger(netns_pair, account):
    """A client on the other host that has not logged in; whatever it opens is the host's, in this thread."""
    server, client = netns_pair
    with client.sockets(), ftplib.FTP(server.name, timeout=10) as ftp:  # noqa: S321 - it is what is tested
        yield ftp


@pytest.fixture
def ftp(stranger, account):
    """The client, logged in, and in a directory where it may write."""
    name, password, directory = account
    stranger.login(name, password)
    stranger.cwd(directory)
    return stranger


def read(ftp, name):
    """Return what RETR fetches."""
    got = io.BytesIO()
    ftp.retrbinary(f"RETR {name}", got.write)
    return got.getvalue()


@pytest.mark.parametrize("passive", [True, False], ids=["passive", "active"])
def test_what_was_uploaded_can_be_downloaded(netns_pair, account, ftp, passive):
    """A file comes back as it was sent, and is on the server; the client or the server connects for the data."""
    ftp.set_pasv(passive)
    assert ftp.storbinary("STOR rights.txt", io.BytesIO(ANSWER)) == "226 Transfer complete."
    assert read(ftp, "rights.txt") == ANSWER
    assert "rights.txt" in ftp.nlst()
    stored = netns_pair.a.run(["cat", f"{account[2]}/rights.txt"], capture_output=True, check=True).stdout
    assert stored == ANSWER


def test_an_upload_outlives_a_cut_of_the_cable(netns_pair, account, ftp):
    """Nothing arrives while the cable is cut, and what was sent meanwhile arrives when it is mended."""
    path = f"{account[2]}/rights.txt"

    def arrived(size):
        found = netns_pair.a.run(["stat", "-c", "%s", path], capture_output=True, check=True).stdout
        assert int(found) == size

    half = len(ANSWER) // 2
    with ftp.transfercmd("STOR rights.txt") as data:
        data.sendall(ANSWER[:half])
        eventually(lambda: arrived(half))
        with netns_pair.link.cut():
            data.sendall(ANSWER[half:])
            with pytest.raises(AssertionError):
                eventually(lambda: arrived(len(ANSWER)), timeout=0.5)
            arrived(half)
    assert ftp.voidresp() == "226 Transfer complete."
    assert read(ftp, "rights.txt") == ANSWER


def test_strangers_are_refused(stranger):
    """Nobody is let in without the right password, and guests only where they are expected."""
    with pytest.raises(ftplib.error_perm, match=r"^530 "):
        stranger.login("courier", "guessed")
