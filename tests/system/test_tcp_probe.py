"""Probes in networks of ours: paths, expectations, tables, waits, and what they leave behind."""

import json
import os
import shutil
import socket
import struct
import threading
import time

import pytest

from pytest_poorcontainer import Network, TcpProbe, Unavailable, UsageError, machine

READY = machine.fixtures_ready()["tcp_probe"]
pytestmark = pytest.mark.skipif(not READY.works, reason=READY.reason)
needs_nft = pytest.mark.skipif(not shutil.which("nft"), reason="needs nftables")
PORT = 5432


@pytest.fixture(scope="module")
def chain():
    """A client, ten routers and a server that listens on PORT over both families."""
    with Network() as network:
        made = network.chain(10)
        with made.server.listen((made.server.ip, PORT)), made.server.listen((made.server.ip6, PORT)):
            yield made


@pytest.fixture
def tcp_probe():
    """Probes that know nothing yet."""
    return TcpProbe()


@pytest.mark.parametrize("version", [4, 6])
def test_a_path_is_the_routers_on_it(chain, tcp_probe, version):
    """An open and a closed port: state, hops, distance, and round trip times of each hop."""
    for port, state in ((PORT, "open"), (PORT + 1, "closed")):
        found = tcp_probe(chain.client, (chain.server, port), version=version)
        assert found == {"state": state, "hops": chain.routers, "distance": 11, "mode": "raw"}
        assert found.hops == [router.name for router in chain.routers]
        assert all(0 <= hop.rtt < 1 for hop in found.hops)
        assert found.rtt < 1


class Tap:
    """Counts TCP segments that come into a host for a port, or leave it from there."""

    def __init__(self, host, port):
        self.sock = host.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        self.sock.setblocking(False)
        self.port = port

    def flags(self):
        """Return the flags of the segments that came in since the last call."""
        found = []
        time.sleep(0.05)  # a reset that nobody waits for is under way
        while True:
            try:
                data, address = self.sock.recvfrom(2000)
            except BlockingIOError:
                return found
            start = 20 if data[0] >> 4 == 4 else 40
            protocol = data[9] if start == 20 else data[6]
            if address[2] == 0 and protocol == 6:
                (port,) = struct.unpack_from("!H", data, start + 2)
                if port == self.port:
                    found.append(data[start + 13])

    def close(self):
        """Close the socket."""
        self.sock.close()


@pytest.mark.parametrize("version", [4, 6])
def test_an_open_port_at_ten_hops_costs_few_packets(chain, tcp_probe, version):
    """At most 13 SYNs are sent; one arrives, and is taken back by one reset and no acknowledgement."""
    tap = Tap(chain.server, PORT)
    try:
        for _ in range(5):
            found = tcp_probe(chain.client, (chain.server, PORT), version=version)
            assert found.sent <= 13
            assert tap.flags() == [0x02, 0x04]
    finally:
        tap.close()


@pytest.mark.parametrize("mode", ["raw", "unprivileged"])
def test_the_servers_program_never_sees_a_connection(chain, tcp_probe, mode):
    """After many probes ``accept`` would still wait, and nothing is half open."""
    with chain.server.listen((chain.server.ip, 81)) as server:
        for _ in range(20):
            assert tcp_probe(chain.client, (chain.server, 81), mode=mode) == {"state": "open", "hops": chain.routers}
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()
    assert not [one for one in chain.server.open_sockets() if one.state == "SYN_RECV"]


def test_expectations_fail_with_path_and_verdict(chain, tcp_probe):
    """The message has what was expected, what is, and the hops."""
    tcp_probe.expect(chain.client, (chain.server, PORT)).open()
    tcp_probe.expect(chain.client, f"server:{PORT + 1}").closed()
    with pytest.raises(AssertionError) as caught:
        tcp_probe.expect(chain.client, (chain.server, PORT)).closed()
    text = str(caught.value)
    assert f"{chain.server.ip}:{PORT} expected closed, is OPEN" in text
    assert "1 r1" in text
    assert "10 r10" in text


def test_a_bare_assertion_explains_itself(chain, tcp_probe):
    """The repr has flow, verdict and path."""
    text = repr(tcp_probe(chain.client, (chain.server, PORT + 1)))
    assert f"-> {chain.server.ip}:{PORT + 1} is CLOSED" in text
    assert "r1 " in text


def test_paths_round_trips_and_translation_can_be_asserted(chain, tcp_probe):
    """Patterns of a path may name hosts, leave some open, and end with the target."""
    found = tcp_probe(chain.client, (chain.server, PORT))
    found.assert_path("r1", "*", *chain.routers[2:], chain.server)
    found.assert_rtt(max_ms=1000)
    found.assert_no_nat()
    with pytest.raises(AssertionError, match="expected the path r1, r3"):
        found.assert_path("r1", "r3")
    with pytest.raises(AssertionError, match=r"within 0\.0 ms"):
        found.assert_rtt(max_ms=0.0)
    with pytest.raises(UsageError, match="mda=True"):
        found.assert_single_path()


def test_a_result_is_json_and_a_capture(chain, tcp_probe, tmp_path):
    """``json`` is plain data, ``pcap`` a file that scapy reads back, ``packets`` the same packets."""
    found = tcp_probe(chain.client, (chain.server, PORT))
    data = json.loads(json.dumps(found.json()))
    assert data["state"] == "open"
    assert [hop["name"] for hop in data["hops"]] == [router.name for router in chain.routers]
    found.pcap(tmp_path / "probe.pcap")
    from scapy.utils import rdpcap

    read = rdpcap(str(tmp_path / "probe.pcap"))
    assert len(read) == len(found.exchange) == len(found.packets)
    assert [bytes(one) for one in read] == [bytes(one) for one in found.packets]
    assert "TCP" in found.packets[0].summary()


def test_classical_traces_show_the_same_path(chain, tcp_probe):
    """UDP, ICMP and TCP with ACK reach the target over the same routers, over both families."""
    for version in (4, 6):
        for target, options in (
            ((chain.server, 33434), {"kind": "udp"}),
            ((chain.server, None), {"kind": "icmp"}),
            ((chain.server, PORT), {"flags": "ack"}),
        ):
            found = tcp_probe(chain.client, target, version=version, **options)
            assert found == {"state": "reached", "hops": chain.routers}, found


def test_a_scapy_packet_says_what_is_sent(chain, tcp_probe):
    """Flags, type of service and ports of the packet are those of the probes; what cannot be asked is an error."""
    from scapy.layers.inet import ICMP, IP, TCP, UDP
    from scapy.layers.inet6 import IPv6

    found = tcp_probe(chain.client, (chain.server, None), probe=IP(tos=0x28) / TCP(dport=PORT, sport=4321, flags="A"))
    assert found == {"state": "reached", "hops": chain.routers, "port": PORT}
    assert {(one.tos, one.sport, int(one["TCP"].flags)) for one in found.packets if one.src == chain.client.ip} == {
        (0x28, 4321, 0x10)
    }
    assert tcp_probe(chain.client, (chain.server, None), probe=IP() / ICMP()).protocol == "icmp"
    assert tcp_probe(chain.client, (chain.server, 33434), probe=IP() / UDP()).protocol == "udp"
    for wrong, why in (
        (IPv6() / TCP(), "use the other layer"),
        (IP(dst="192.0.2.1") / TCP(), "leave it out"),
        (IP(), "neither TCP"),
        ("SYN", "begins with IP"),
    ):
        with pytest.raises(UsageError, match=why):
            tcp_probe(chain.client, (chain.server, PORT), probe=wrong)


def test_waiting_for_a_port_ends_when_it_opens(chain, tcp_probe):
    """A service that starts later is waited for; one that never comes is a TimeoutError that says what is there."""
    opened = []
    timer = threading.Timer(0.2, lambda: opened.append(chain.server.listen((chain.server.ip, 82))))
    timer.start()
    try:
        assert tcp_probe.wait_open(chain.client, (chain.server, 82), timeout=10).open
    finally:
        timer.join()
        opened[0].close()
    with pytest.raises(TimeoutError, match=r"expected open within 0\.1 s, is CLOSED"):
        tcp_probe.wait_open(chain.client, (chain.server, 83), timeout=0.1)


def test_a_matrix_compares_with_a_table(chain, tcp_probe):
    """States by source, target and port; keys may be shorter, and every difference is told."""
    client, server, router = chain.client, chain.server, chain.routers[4]
    found = tcp_probe.matrix([client, router], [server], ports=[22, PORT])
    found.assert_equal(
        {
            ("client", "server", 22): "closed",
            (client, server, PORT): "open",
            ("r5", server, 22): "closed",
            ("r5", "server", PORT): "open",
        }
    )
    assert tcp_probe.matrix([client], [server], ports=[22, PORT]) == {22: "closed", PORT: "open"}
    with pytest.raises(AssertionError) as caught:
        found.assert_equal({(client, server, 22): "open", (client, server, PORT): "open"})
    assert "client -> server:22 expected open, is CLOSED" in str(caught.value)
    assert str(caught.value).startswith("3 of 4 differ")
    with pytest.raises(UsageError, match="no key of this matrix"):
        found.assert_equal({("client", "nobody", 22): "open"})


def test_this_machine_is_a_source_too(tcp_probe):
    """None is the machine itself, with privilege or without."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for mode in ("auto", "unprivileged"):
            assert tcp_probe(None, ("127.0.0.1", port), mode=mode) == {"state": "open", "hops": [], "distance": 1}
    assert tcp_probe(None, ("127.0.0.1", port)).closed


def test_link_local_addresses_are_probed_by_their_interface(tcp_probe):
    """With the name of the interface, or its number."""
    with Network() as network:
        one, other = network.pair()
        shown = other.run(["cat", "/proc/net/if_inet6"], capture_output=True, text=True).stdout.split()
        digits = next(word for word in shown if word.startswith("fe80"))
        address = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))
        for zone in ("eth0", "100"):
            for mode in ("raw", "unprivileged"):
                found = tcp_probe(one, (f"{address}%{zone}", 80), mode=mode)
                assert found == {"state": "closed", "hops": []}, found


@needs_nft
def test_a_firewall_on_this_side_is_told(tcp_probe):
    """The kernel refuses to send: that is where it ends, and nothing is waited for."""
    with Network() as network:
        one, other = network.pair()
        one.run(["nft", "add table inet f; add chain inet f c { type filter hook output priority 0; }"], check=True)
        one.run(["nft", "add rule inet f c tcp dport 80 drop"], check=True)
        for mode in ("raw", "unprivileged"):
            found = tcp_probe(one, (other, 80), mode=mode)
            assert found.state == "filtered", found
            assert one in (found.candidates or [found.at]), found


def test_this_machine_does_not_probe_hosts_of_ours(chain, tcp_probe):
    """It has no cable to them, and their addresses may be somebody else's out there: an error says what to do."""
    with pytest.raises(UsageError, match="no cable to server"):
        tcp_probe(None, (chain.server, PORT))


@needs_nft
def test_a_router_that_died_is_where_it_ends(tcp_probe):
    """A host whose processes were all killed sees nothing, and the others tell who sent to it last."""
    with Network() as network:
        made = network.chain(2)
        assert tcp_probe(made.client, (made.server, 80)).closed
        made.routers[1].close()
        for _ in range(100):  # the kernel frees a network a little after the last process of it is gone
            found = tcp_probe(made.client, (made.server, 80))
            if found.state != "closed":
                break
        assert found.state in ("filtered", "unreachable"), found
        assert found.at == made.routers[0], found


def test_without_a_route_the_source_itself_says_so(tcp_probe):
    """Nothing is sent, and the source is where it ends."""
    with Network() as network:
        alone, _ = network.pair("alone", "other")
        found = tcp_probe(alone, ("192.0.2.1", 80))
        assert found == {"state": "unreachable", "code": "net", "sent": 0, "hops": []}
        assert found.at == "alone"
        tcp_probe.expect(alone, ("192.0.2.1", 80)).unreachable(code="net")


@pytest.mark.parametrize(
    ("target", "options", "why"),
    [
        (("server", 0), {}, "a port is a number"),
        (("server", 65536), {}, "a port is a number"),
        (("server", "80"), {}, "a port is a number"),
        (("nobody", 80), {}, "client cannot resolve 'nobody'"),
        ((None, 80), {}, "a target is a host"),
        ("server", {}, "expected a target"),
        (("server",), {}, "expected a target"),
        (("10.0.0.1", 80), {"version": 6}, "IPv6 was asked for"),
        (("server", 80), {"version": 5}, "version is 4, 6"),
        (("server", 80), {"first_ttl": 5, "max_ttl": 3}, "beyond the last"),
        (("server", 80), {"max_ttl": 64}, "max_ttl is a number from 1 to 63"),
        (("server", 80), {"queries": 0}, "queries is a number"),
        (("server", 80), {"flags": "syn,foo"}, "no TCP flag 'foo'"),
        (("server", 80), {"mode": "magic"}, "mode is one of"),
        (("server", 80), {"kind": "sctp"}, "kind is one of"),
        (("server", 80), {"interface": "eth9"}, "interface 'eth9'"),
        (("server", 80), {"source_address": "192.0.2.9"}, "address '192.0.2.9'"),
        (("server", 80), {"mda": 0.5}, "mda is a confidence"),
        (("server", 80), {"pmtu": True, "mode": "unprivileged"}, "need raw sockets"),
        (("server", 80), {"wiat": 1}, "no option wiat"),
        (("server", 80), {"wait": -1}, "wait is a time"),
        (("server", 80), {"patience": "long"}, "patience is a time"),
        (("server", 80), {"flags": 256}, "a number from 0 to 255"),
        (("fe80::1%eth9", 80), {}, "client has no interface 'eth9'"),
    ],
)
def test_bad_input_is_named(chain, tcp_probe, target, options, why):
    """Names, ports, TTL ranges, interfaces and options that are none are usage errors, before anything is sent."""
    with pytest.raises(UsageError, match=why):
        tcp_probe(chain.client, target, **options)


def test_a_source_port_that_is_taken_is_named(chain, tcp_probe):
    """The error has port and address."""
    with chain.client.listen((chain.client.ip, 4000)), pytest.raises(UsageError, match="port 4000"):
        tcp_probe(chain.client, (chain.server, PORT), source_port=4000)
    with pytest.raises(UsageError, match="not from 'client'"):
        tcp_probe("client", (chain.server, PORT))


@pytest.mark.skipif(os.geteuid() == 0, reason="only an ordinary user lacks CAP_NET_RAW")
def test_a_forced_mode_without_its_privilege_is_told(tcp_probe):
    """Raw sockets on the machine need CAP_NET_RAW, and so do flags other than SYN."""
    with pytest.raises(Unavailable, match="CAP_NET_RAW"):
        tcp_probe(None, ("127.0.0.1", 9), mode="raw")
    with pytest.raises(Unavailable, match="CAP_NET_RAW"):
        tcp_probe(None, ("127.0.0.1", 9), flags="ack")


def test_routers_with_the_kernels_limits_are_called_rate_limited():
    """Twenty probes in a row: each has the right verdict, and a router that falls silent is not called lost."""
    limits = {"net.ipv4.icmp_ratelimit": 1000, "net.ipv4.icmp_ratemask": 6168}  # as in every other namespace
    with Network() as network:
        network.host("client")
        for name in ("r1", "r2", "r3"):
            network.router(name, sysctls=limits)
        network.host("server")
        for a, b in (("client", "r1"), ("r1", "r2"), ("r2", "r3"), ("r3", "server")):
            network.link(a, b)
        client, server = network["client"], network["server"]
        tcp_probe = TcpProbe()
        limited = 0
        with server.listen((server.ip, 80)):
            for _ in range(20):
                found = tcp_probe(client, (server, 80))
                assert found == {"state": "open", "distance": 4}
                assert all(hop.address or hop.limited for hop in found.hops)
                if found.rate_limited:
                    limited += 1
                    assert "rate limited, not lost" in str(found.found("rate limited"))
        assert limited > 5
