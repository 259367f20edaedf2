"""keepalived: two routers that share one address, and who has it when the cable between them is unplugged or cut.

Debian ships /etc/keepalived/keepalived.conf to nobody: the administrator writes it, here as for two routers joined by
one cable. Run it with::

    pytest --poor-container docs/examples/keepalived -v
"""

import contextlib
import errno
import re
import select

import pytest

from pytest_poorcontainer import eventually

pytestmark = [
    pytest.mark.debian("keepalived"),
    pytest.mark.poor_container(hosts=["first", "second"]),
]

PORT = 80

# Five words a second (version 3 of VRRP, RFC 5798, may), so that a take-over needs 0.6 s and not 3.
CONFIGURATION = """\
global_defs {{
    vrrp_version 3
}}

vrrp_instance door {{
    state {state}
    interface eth0
    virtual_router_id 51
    priority {priority}
    advert_int 0.2
    {more}
    virtual_ipaddress {{
        {address}
    }}
}}
"""


def start_keepalived(host, address, state, priority, more=""):
    """Start keepalived as its unit does, logging to us."""
    text = CONFIGURATION.format(address=address, state=state, priority=priority, more=more)
    host.run(["tee", "/etc/keepalived/keepalived.conf"], input=text, text=True, capture_output=True, check=True)
    # That it is ready it tells a parent that is systemd, and nobody else: "notify" would wait in vain.
    return host.start(
        ["keepalived", "--dont-fork", "--log-console", "--log-detail"], ready=re.compile("Startup complete")
    )


def has(host, address):
    """Return whether the host has the address: only then may a socket of it be bound there."""
    with host.socket() as sock:
        try:
            sock.bind((address, 0))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            return False
        return True


@pytest.fixture
def address(netns_pair):
    """The address that the two share, beside their own."""
    return netns_pair.a.ip.rpartition(".")[0] + ".100"


@pytest.fixture
def owners(netns_pair, address):
    """``owners()`` names the hosts that have the shared address now."""
    return lambda: [host.name for host in netns_pair if has(host, address)]


@pytest.fixture
def pair(netns_pair, address, owners):
    """Two routers; the first has the address.

    When the carrier is lost a router gives up its address. If both are on the two ends of one cable both would, and
    nobody had it, so the second has ``dont_track_primary``: keepalived.conf(5) names this very case.
    """
    first, second = netns_pair
    start_keepalived(first, address, "MASTER", 150)
    start_keepalived(second, address, "BACKUP", 100, "dont_track_primary")
    eventually(lambda: only(owners, "first"))
    return netns_pair


def only(owners, *names):
    assert owners() == list(names)


@pytest.fixture
def answers(pair, address):
    """``answers(client)`` names the host that a client on a host reaches at the shared address."""
    with contextlib.ExitStack() as stack:
        servers = {stack.enter_context(host.listen(("", PORT))): host.name for host in pair}

        def answers(client):
            with client.connect((address, PORT), timeout=2):
                ready, _, _ = select.select(list(servers), [], [], 2)
                ready[0].accept()[0].close()
                return servers[ready[0]]

        yield answers


def test_the_address_moves_when_the_cable_is_unplugged(pair, owners, answers):
    """The first notices the lost carrier and gives the address up, the second takes it; plugged in, it moves back."""
    first, second = pair
    assert answers(second) == "first"
    with pair.link.unplug():
        first.services[0].wait_log("Entering FAULT STATE")
        eventually(lambda: only(owners, "second"), timeout=10)
        assert answers(second) == "second"
    eventually(lambda: only(owners, "first"), timeout=10)
    assert answers(second) == "first"
    assert answers(first) == "first"


def test_a_cut_cable_gives_two_owners_until_it_is_mended(pair, owners, answers):
    """Neither is told that a switch between them died: both have the address, until the second hears the first."""
    first, second = pair
    with pair.link.cut():
        eventually(lambda: only(owners, "first", "second"), timeout=10)
        assert (answers(first), answers(second)) == ("first", "second")
    eventually(lambda: only(owners, "first"), timeout=10)
    assert answers(second) == "first"


def test_the_address_moves_when_the_daemon_is_stopped_and_back_when_it_returns(pair, owners, answers):
    """A keepalived that is stopped says so, and the second takes over; clients on the first find it over the cable."""
    first, second = pair
    assert first.services[0].stop() == 0
    eventually(lambda: only(owners, "second"), timeout=10)
    assert (answers(first), answers(second)) == ("second", "second")
    first.services[0].restart()
    eventually(lambda: only(owners, "first"), timeout=10)
    assert answers(second) == "first"
