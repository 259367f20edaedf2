"""vsftpd behind a router that translates addresses: what its administrator has to tell it, and what happens if not.

FTP names addresses and ports in its conversation, which a router does not see. Run it with::

    pytest --poor-container docs/examples/nat -v
"""

import ftplib
import io

import pytest

pytestmark = pytest.mark.debian("vsftpd")

DATA_PORT = 40000

# Guests may read, in passive mode at one port that the router forwards.
SETTINGS = f"""
anonymous_enable=YES
anon_root=/srv/ftp
pasv_min_port={DATA_PORT}
pasv_max_port={DATA_PORT}
"""

# Without a second id there is no user to become: vsftpd stays who it is (vsftpd.conf(5)).
ALONE = """
run_as_launching_user=YES
local_enable=NO
"""

ANSWER = b"All human beings are born free and equal in dignity and rights.\n" * 1000


@pytest.fixture
def site(network):
    """A server in a LAN behind a router, and a client in the world outside: router, server, client."""
    inside, outside = network.lan(["server"], switch="office"), network.lan(["client"], switch="world")
    router = network.router("router")
    network.link(router, inside.switch)
    network.link(router, outside.switch)
    router.masquerade(outside.switch)
    router.forward_port(21, inside[0])
    router.forward_port(DATA_PORT, inside[0])
    return router, inside[0], outside[0]


def start_vsftpd(server, settings):
    """Start vsftpd as its unit does, with settings after Debian's."""
    server.write_bytes("/srv/ftp/answer.txt", ANSWER)
    if server.run(["setpriv", "--reuid=ftp", "--init-groups", "true"], capture_output=True).returncode != 0:
        settings += ALONE
    text = {"input": settings, "text": True, "capture_output": True, "check": True}
    server.run(["tee", "-a", "/etc/vsftpd.conf"], **text)
    return server.start(["vsftpd", "/etc/vsftpd.conf"], ready=21)


def download(client, router, *, passive=True):
    """Fetch the file from the outside, at the address that is known there: the router's."""
    with client.sockets(), ftplib.FTP(timeout=3) as ftp:  # noqa: S321 - it is what is tested
        ftp.connect(router.addresses[2])
        # What ftplib does by default: connect to whom the control connection is with.
        ftp.trust_server_pasv_ipv4_address = True
        ftp.login()
        ftp.set_pasv(passive)
        found = io.BytesIO()
        ftp.retrbinary("RETR answer.txt", found.write)
        return found.getvalue()


def test_a_server_that_knows_its_outer_address_is_read_from_outside(site):
    """It is told the router's address, and its data port is forwarded: then passive transfers work."""
    router, server, client = site
    start_vsftpd(server, f"{SETTINGS}listen=YES\nlisten_ipv6=NO\npasv_address={router.addresses[2]}\n")
    assert download(client, router) == ANSWER


def test_a_server_that_does_not_know_it_sends_clients_astray(site):
    """It names its inner address, to which there is no way from outside; the transfer fails, the login does not."""
    router, server, client = site
    start_vsftpd(server, f"{SETTINGS}listen=YES\nlisten_ipv6=NO\n")
    with pytest.raises(OSError, match=r"unreachable|timed out"):
        download(client, router)


def test_the_server_calls_back_through_the_router(site):
    """In active mode the server connects to the client, who sees the router's address."""
    router, server, client = site
    start_vsftpd(server, f"{SETTINGS}listen=YES\nlisten_ipv6=NO\n")
    assert download(client, router, passive=False) == ANSWER


def test_a_refused_data_port_fails_at_once(network, site):
    """A firewall on the way that lets the control connection through and refuses the data: an error, not a hang."""
    router, server, client = site
    start_vsftpd(server, f"{SETTINGS}listen=YES\nlisten_ipv6=NO\npasv_address={router.addresses[2]}\n")
    with network.between(client, router).reject(DATA_PORT), pytest.raises(ConnectionRefusedError):
        download(client, router)
    assert download(client, router) == ANSWER
