"""Probes that look into the hosts on the way: the place of a drop is certain, and the rule has a name."""

import shutil
from pathlib import Path

import pytest

from pytest_poorcontainer import Network, TcpProbe, machine

READY = machine.fixtures_ready()["tcp_probe"]
pytestmark = [
    pytest.mark.skipif(not READY.works, reason=READY.reason),
    pytest.mark.skipif(not shutil.which("nft"), reason="needs nftables"),
]
RULES = {
    "r2": [
        "add table inet fw",
        "add chain inet fw ways { type filter hook forward priority 0; }",
        "add rule inet fw ways tcp dport 83 counter drop",
        "add rule inet fw ways tcp dport 84 reject with icmpx admin-prohibited",
        "add rule inet fw ways tcp dport 85 reject with tcp reset",
        "add rule inet fw ways tcp sport 86 drop",
        "add chain inet fw deeper",
        "add rule inet fw deeper tcp dport 87 drop",
        "add rule inet fw ways jump deeper",
        "add chain inet fw early { type filter hook prerouting priority -300; }",
        "add rule inet fw early tcp dport 88 drop",
    ],
    "server": [
        "add table inet fw",
        "add chain inet fw door { type filter hook input priority 0; policy drop; }",
        "add rule inet fw door tcp dport { 80-92 } accept",
        "add rule inet fw door icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",
    ],
    "client": [
        "add table inet fw",
        "add chain inet fw leaving { type filter hook output priority 0; }",
        "add rule inet fw leaving tcp dport 90 drop",
    ],
}


def nft(host, lines):
    """Load rules in a host."""
    host.run(["nft", "-f", "-"], input="\n".join(lines) + "\n", text=True, check=True)


@pytest.fixture(scope="module")
def chain():
    """A chain of three routers with firewalls."""
    with Network() as network:
        made = network.chain(3)
        for host in made:
            nft(host, RULES.get(host.name, []))
        with made.server.listen((made.server.ip, 86)), made.server.listen((made.server.ip6, 86)):
            yield made


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("port", "state", "at", "rule"),
    [
        (
            83,
            "filtered",
            "r2",
            'dropped in r2, hook forward: table inet fw, chain ways, rule "tcp dport 83 counter drop"',
        ),
        (84, "rejected", "r2", 'rejected in r2, hook forward: table inet fw, chain ways, rule "tcp dport 84 reject'),
        (85, "rejected", "r2", 'rejected in r2, hook forward: table inet fw, chain ways, rule "tcp dport 85 reject'),
        (
            86,
            "filtered",
            "r2",
            'the answer is dropped in r2, hook forward: table inet fw, chain ways, rule "tcp sport 86',
        ),
        (87, "filtered", "r2", 'dropped in r2, hook forward: table inet fw, chain deeper, rule "tcp dport 87 drop"'),
        (88, "filtered", "r2", 'dropped in r2, hook prerouting: table inet fw, chain early, rule "tcp dport 88 drop"'),
        (90, "filtered", "client", 'dropped in client, hook output: table inet fw, chain leaving, rule "tcp dport 90'),
        (99, "filtered", "server", "dropped in server, hook input: table inet fw, chain door, by the chain's policy"),
    ],
)
def test_the_rule_has_a_name(chain, version, port, state, at, rule):
    """Host, hook, table, chain and the rule's own words are told, each time, over both families."""
    by_name = {host.name: host for host in chain}
    for _ in range(3):
        found = TcpProbe()(chain.client, (chain.server, port), version=version)
        assert found == {"state": state, "mode": "white-box", "sure": True}, found
        assert found.at == by_name[at]
        assert found.rule.startswith(rule), found
    getattr(TcpProbe().expect(chain.client, (chain.server, port), version=version), state)(at=by_name[at])


def test_a_failed_expectation_names_the_rule_and_where_the_syn_was_seen(chain):
    """What a person has to know stands in the message."""
    with pytest.raises(AssertionError) as caught:
        TcpProbe().expect(chain.client, (chain.server, 83)).open()
    text = str(caught.value)
    assert "expected open, is FILTERED at r2" in text
    assert 'rule "tcp dport 83 counter drop" (handle' in text
    assert "SYN seen: client:eth0> r1:eth0< r1:eth1> r2:eth0<" in text


def test_open_and_closed_ports_are_not_looked_into(chain):
    """Where the target answers, nothing is traced."""
    for port in (86, 91):
        found = TcpProbe()(chain.routers[2], (chain.server, port))
        assert found.mode == "raw"
        assert found.rule == ""


def test_nothing_is_left_in_the_hosts(chain):
    """The tables that trace are gone with the probe, and nothing listens any more."""
    before = [host.run(["nft", "list", "tables"], capture_output=True, text=True).stdout for host in chain]
    for port in (83, 84, 86):
        TcpProbe()(chain.client, (chain.server, port))
    after = [host.run(["nft", "list", "tables"], capture_output=True, text=True).stdout for host in chain]
    assert before == after
    assert all("poor" not in text for text in after)


def test_a_cut_cable_is_named():
    """The SYN leaves a router and arrives nowhere; the cable says why."""
    with Network() as network:
        chain = network.chain(2)
        assert TcpProbe()(chain.client, (chain.server, 80)).closed
        with chain.links[1].cut():
            found = TcpProbe()(chain.client, (chain.server, 80))
            assert found == {"state": "filtered", "mode": "white-box"}
            assert found.at == chain.routers[0]
            assert "the cable r1 -- r2 is cut" in found.why
        assert TcpProbe()(chain.client, (chain.server, 80)).closed


@pytest.mark.parametrize("version", [4, 6])
def test_a_host_that_is_not_there_is_told_without_a_wait(version):
    """The last router asks for it in vain, and its table of neighbours shows that."""
    with Network() as network:
        chain = network.chain(1)
        there = chain.server.ip if version == 4 else chain.server.ip6
        missing = there[: -len(there.split("." if version == 4 else ":")[-1])] + "77"
        found = TcpProbe()(chain.client, (missing, 80))
        assert found == {"state": "unreachable", "code": "host", "mode": "white-box"}, found
        assert found.at == chain.routers[0]
        assert found.seconds < 2  # the kernel itself takes three to say so


def test_hosts_whose_programs_have_no_privilege_are_looked_into_all_the_same():
    """What a host's commands may do is not what the test may."""
    with Network() as network:
        client, server = network.host("client", capabilities=[]), network.host("server", capabilities=[])
        router = network.router("r1", capabilities=["net_admin"])
        network.link(client, router)
        network.link(router, server)
        nft(router, RULES["r2"][:3])
        found = TcpProbe()(client, (server, 83))
        assert found == {"state": "filtered", "mode": "white-box"}
        assert found.at == router
        assert "tcp dport 83" in found.rule


def test_translated_connections_are_followed():
    """Behind a router that translates address and port, the rule that drops is found all the same."""
    with Network() as network:
        chain = network.chain(3)
        first, last = chain.routers[0], chain.routers[2]
        nft(
            first,
            [
                "add table ip nat",
                "add chain ip nat to { type nat hook prerouting priority -100; }",
                f"add rule ip nat to tcp dport 8000 dnat to {chain.server.ip}:80",
                "add chain ip nat from { type nat hook postrouting priority 100; }",
                'add rule ip nat from oifname "eth1" masquerade',
            ],
        )
        nft(
            last,
            [
                "add table inet fw",
                "add chain inet fw ways { type filter hook forward priority 0; }",
                "add rule inet fw ways tcp dport 80 drop",
            ],
        )
        found = TcpProbe()(chain.client, (chain.server, 8000))
        assert found.at == last, found
        assert 'rule "tcp dport 80 drop"' in found.rule


def test_without_the_nft_program_chain_and_handle_are_named():
    """The kernel tells these; the rule's words are nft's to print, and here the program is hidden."""
    with Network() as network:
        chain = network.chain(1)
        (router,) = chain.routers
        nft(router, RULES["r2"][:3])
        router.mounts.tmpfs(str(Path(shutil.which("nft")).resolve().parent))
        found = TcpProbe()(chain.client, (chain.server, 83))
        assert found.at == router
        assert found.rule == "dropped in r1, hook forward: table inet fw, chain ways, the rule of handle 2"
