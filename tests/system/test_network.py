"""Two hosts and a cable, on the real thing: addresses, names, faults, and what two hosts keep from each other."""

import errno
import shutil
import socket
import threading

import pytest
from talk import peer, told

from pytest_poorcontainer import Network, PoorContainerError, UsageError, machine

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["netns_pair"].works, reason=machine.fixtures_ready()["netns_pair"].reason
)

STALLED = 0.9  # seconds; a lost first packet is repeated after one


@pytest.fixture
def pair():
    """Two hosts of a network of their own."""
    with Network() as network:
        yield network.pair("primary", "replica")


def interface(host):
    """Return what ip(8) says of the host's interface, the flags apart."""
    words = told(host, "ip", "-o", "link", "show", "eth0").split()
    return set(words[2].strip("<>").split(",")), words[0], words[words.index("link/ether") + 1]


def test_a_pair_talks_over_both_families_at_once(pair):
    """A first connection over IPv4, IPv6 and a name succeeds, and comes from the other host's address."""
    primary, replica = pair
    with primary.listen((primary.ip, 80)) as server, replica.connect(("primary", 80)):
        assert peer(server) == replica.ip
    with primary.listen((primary.ip6, 80)) as server, replica.connect((primary.ip6, 80)):
        assert peer(server) == replica.ip6
    assert primary.addresses == [primary.ip, primary.ip6]


def test_a_name_falls_back_to_the_other_family(pair):
    """A name whose IPv4 address refuses is tried at its IPv6 address."""
    primary, replica = pair
    with primary.listen((primary.ip6, 80)) as server, replica.connect(("primary", 80)):
        assert peer(server) == replica.ip6


def test_names_resolve_inside_the_hosts(pair):
    """Programs in a host find both names, by the host's own /etc/hosts."""
    primary, replica = pair
    assert told(replica, "getent", "ahostsv4", "primary").split()[0] == primary.ip
    assert told(primary, "getent", "hosts", "replica").split()[0] in replica.addresses
    assert told(primary, "hostname") == "primary\n"


def test_addresses_are_used_once_in_a_lab():
    """No two hosts that live at one time have an address in common."""
    with Network() as network:
        hosts = [host for _ in range(5) for host in network.pair()]
        addresses = [address for host in hosts for address in host.addresses]
        assert len(set(addresses)) == len(addresses) == 20


def test_a_cut_is_silence_with_the_carrier_on(pair):
    """While the cable is cut a connection hangs, though the interface is as before; afterwards it works at once."""
    primary, replica = pair
    with primary.listen(("", 80)):
        replica.connect(("primary", 80)).close()
        before = interface(replica)
        with pair.link.cut() as link:
            assert link.state == "cut"
            with pytest.raises(TimeoutError):
                replica.connect((primary.ip, 80), timeout=0.1)
            with pytest.raises(TimeoutError):
                replica.connect((primary.ip6, 80), timeout=0.1)
            assert interface(replica) == before
        assert pair.link.state == "up"
        replica.connect((primary.ip, 80), timeout=STALLED).close()


def test_a_connection_outlives_a_cut_and_an_unplugged_cable(pair):
    """What was connected before a fault is connected after it, and what was sent meanwhile arrives."""
    primary, replica = pair
    with primary.listen(("", 80)) as server, replica.connect(("primary", 80)) as client, server.accept()[0] as accepted:
        for fault in (pair.link.cut, pair.link.unplug):
            with fault():
                client.sendall(b"sent into the dark")
            accepted.settimeout(5)
            assert accepted.recv(100) == b"sent into the dark"


def test_a_connect_that_began_in_the_dark_succeeds_when_the_cut_heals(pair):
    """The address resolution that was lost in the cut does not cost the second until it is repeated."""
    primary, replica = pair
    with primary.listen(("", 80)):
        pair.link.cut()
        results = []
        thread = threading.Thread(target=lambda: results.append(replica.connect((primary.ip, 80), timeout=5)))
        thread.start()
        thread.join(0.05)
        assert results == []
        pair.link.heal()
        thread.join(STALLED)
        assert len(results) == 1
        results[0].close()


def test_an_unplugged_cable_is_loss_of_carrier_and_of_nothing_else(pair):
    """Both interfaces stay up and lose their carrier; index, MAC, addresses and routes stay."""
    for host in pair:
        told(host, "ip", "route", "add", "192.0.2.0/24", "via", pair.a.ip if host is pair.b else pair.b.ip)
    before = [(interface(host), told(host, "ip", "route"), told(host, "ip", "-o", "addr")) for host in pair]
    with pair.link.unplug() as link:
        assert link.state == "unplugged"
        for host, ((_, index, mac), _routes, addresses) in zip(pair, before, strict=True):
            flags, *rest = interface(host)
            assert "UP" in flags
            assert "NO-CARRIER" in flags
            assert "LOWER_UP" not in flags
            assert rest == [index, mac]
            assert told(host, "ip", "-o", "addr") == addresses
    assert [(interface(host), told(host, "ip", "route"), told(host, "ip", "-o", "addr")) for host in pair] == before


def test_faults_are_idempotent_and_compose(pair):
    """Cutting twice is one cut, and a cable that is cut and unplugged works again when both are undone."""
    primary, replica = pair
    link = pair.link
    with primary.listen(("", 80)):
        for action in (link.cut, link.cut, link.unplug, link.unplug, link.heal, link.heal):
            action()
        assert link.state == "unplugged"
        link.plug()
        link.plug()
        assert link.state == "up"
        replica.connect(("primary", 80), timeout=STALLED).close()


def test_a_host_cannot_undo_a_cut(pair):
    """Root in a host that flushes rules, qdiscs and its interface's state does not get through a cut."""
    primary, replica = pair
    with primary.listen(("", 80)), pair.link.cut():
        for argv in (["tc", "qdisc", "del", "dev", "eth0", "clsact"], ["nft", "flush", "ruleset"]):
            if shutil.which(argv[0]):
                replica.run(argv, capture_output=True)
        told(replica, "ip", "link", "set", "eth0", "down")
        told(replica, "ip", "link", "set", "eth0", "up")
        with pytest.raises(TimeoutError):
            replica.connect((primary.ip, 80), timeout=0.2)


def test_no_first_connect_stalls():
    """A hundred fresh pairs connect at once, none of them a second later because a first packet was lost."""
    with Network() as network:
        for _ in range(100):
            with network.pair() as pair, pair.a.listen(("", 80)):
                pair.b.connect((pair.a.ip, 80), timeout=STALLED).close()


def test_a_closed_pair_says_so(pair):
    """Whoever uses a closed host or its cable is told what is closed."""
    pair.close()
    pair.close()
    assert pair.closed
    with pytest.raises(PoorContainerError, match="primary is closed"):
        pair.a.socket()
    with pytest.raises(PoorContainerError, match="hosts are closed"):
        pair.link.cut()


def test_a_fault_that_outlives_its_pair_ends_quietly(pair):
    """A pair may be closed inside the block of a fault."""
    with pair.link.cut():
        pair.close()


@pytest.mark.parametrize("names", [("a", "a"), ("a", "A"), ("", "b"), ("a b", "b"), ("x" * 65, "b"), ("10.0.0.1", "b")])
def test_bad_names_are_refused_before_anything_is_made(names):
    """A name that is no host name, or is there twice, is a usage error that shows it."""
    with Network() as network, pytest.raises(UsageError, match=r"host name|same name"):
        network.pair(*names)


@pytest.mark.parametrize("address", [("b", 0), ("b", 65536), ("b", "80"), ("b", True), ("nobody", 80), "b:80", (1, 80)])
def test_bad_addresses_are_refused(pair, address):
    """A port out of range, an unknown name, and what is no address are usage errors."""
    with pytest.raises(UsageError):
        pair.a.connect(address)


def test_errors_of_the_kernel_come_as_they_are(pair):
    """Refused, in use, no such family: the errors of ordinary sockets."""
    primary, replica = pair
    with pytest.raises(ConnectionRefusedError):
        replica.connect((primary.ip, 9))
    with primary.listen((primary.ip, 80)), pytest.raises(OSError, match="in use") as caught:
        primary.listen((primary.ip, 80))
    assert caught.value.errno == errno.EADDRINUSE
    with pytest.raises(OSError, match="not supported"):
        primary.socket(12345)


def test_two_services_of_one_port_live_side_by_side(pair):
    """Each host has all ports for itself, and the machine keeps its own."""
    with pair.a.listen(("", 8080)), pair.b.listen(("", 8080)), socket.create_server(("127.0.0.1", 0)) as own:
        port = own.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            pair.a.connect(("127.0.0.1", port))


def test_a_network_closes_its_pairs():
    """When the block ends, so do all pairs, and the network makes no more."""
    with Network() as network:
        pairs = [network.pair() for _ in range(3)]
    assert all(pair.closed for pair in pairs)
    with pytest.raises(PoorContainerError, match="network is closed"):
        network.pair()
