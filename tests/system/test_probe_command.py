"""``poor-tcptraceroute`` from the shell: output as tcptraceroute's, exit statuses, privilege, and what it loads."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from pytest_poorcontainer import Network, machine

READY = machine.fixtures_ready()["tcp_probe"]
pytestmark = pytest.mark.skipif(not READY.works, reason=READY.reason)
COMMAND = [sys.executable, "-m", "pytest_poorcontainer.cli.tcptraceroute"]
WITHOUT = ("setpriv", "--inh-caps=-net_raw", "--bounding-set=-net_raw")
LINE = re.compile(r"^ ?\d+  (\S+)( \[(open|closed|reached)\])?  \d+\.\d{3} ms(  \d+\.\d{3} ms)*( ![A-Za-z])?$")
HEAVY = ("scapy", "asyncio", "pyroute2", "rich", "pytest", "json", "threading", "pytest_poorcontainer.network")


@pytest.fixture(scope="module")
def chain():
    """A chain of three routers; port 80 is open, and r2 drops 83 and rejects 84."""
    with Network() as network:
        made = network.chain(3)
        # Its errors about closed ports (-U) are not to depend on what other tests have asked (icmp(7)).
        made.server.run(["sh", "-c", "echo 0 >/proc/sys/net/ipv4/icmp_ratemask"], check=True)
        if shutil.which("nft"):
            rules = """
                add table inet fw
                add chain inet fw ways { type filter hook forward priority 0; }
                add rule inet fw ways tcp dport 83 drop
                add rule inet fw ways tcp dport 84 reject with icmpx admin-prohibited
            """
            made.routers[1].run(["nft", "-f", "-"], input=rules, text=True, check=True)
        with made.server.listen((made.server.ip, 80)), made.server.listen((made.server.ip6, 80)):
            yield made


def trace(chain, *arguments, prefix=()):
    """Run the command in the client."""
    return chain.client.run([*prefix, *COMMAND, *map(str, arguments)], capture_output=True, text=True)


def test_the_output_is_that_of_tcptraceroute(chain):
    """A line for each hop with three times, the target's state in brackets; what is traced goes to standard error."""
    done = trace(chain, "-n", chain.server.ip, 80)
    assert done.returncode == 0, done
    lines = done.stdout.splitlines()
    assert [LINE.match(line)[1] for line in lines] == [
        *(router.addresses[0] for router in chain.routers),
        chain.server.ip,
    ]
    assert "[open]" in lines[-1]
    assert all(line.count(" ms") == 3 for line in lines)
    assert f"Tracing the path to {chain.server.ip} on TCP port 80 (http), 30 hops max" in done.stderr


@pytest.mark.skipif(not shutil.which("nft"), reason="needs nftables")
def test_a_filtered_port_ends_with_one_line_of_stars(chain):
    """The hops that answer have their three times too; where it ends is told on standard error."""
    done = trace(chain, "-n", chain.server.ip, 83)
    *hops, last = done.stdout.splitlines()
    assert [line.count(" ms") for line in hops] == [3, 3]
    assert last == " 3  * * *"
    assert f"is FILTERED at {chain.routers[1].addresses[0]} or" in done.stderr


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("prefix", [(), WITHOUT], ids=["raw", "unprivileged"])
def test_states_are_exit_statuses(chain, version, prefix):
    """0 open, 1 closed, 2 filtered, 3 rejected or unreachable; with CAP_NET_RAW, and without."""
    target = chain.server.ip if version == 4 else chain.server.ip6
    ports = {80: 0, 81: 1} | ({83: 2, 84: 3} if shutil.which("nft") else {})
    for port, status in ports.items():
        done = trace(chain, "-n", "-q1", "--explain", target, port, prefix=prefix)
        assert done.returncode == status, done
        assert ("(unprivileged:" if prefix else "(raw:") in done.stdout
    if shutil.which("nft"):
        assert "REJECTED (admin) at" in done.stdout
        assert "!X" in done.stdout
        assert "Destination not reached" in done.stderr


def test_udp_icmp_and_ack_reach_the_target(chain):
    """The classical traces end with the target, and with status 0."""
    for option in ("-U", "-I", "-A"):
        done = trace(chain, "-n", "-q1", option, chain.server.ip)
        assert done.returncode == 0, done
        assert "[reached]" in done.stdout.splitlines()[-1]
        assert len(done.stdout.splitlines()) == 4


def test_options_change_what_is_sent(chain):
    """First and last TTL, queries, length, type of service, source port and address are obeyed."""
    done = trace(chain, "-n", "-f", 2, "-q", 2, "-l", 600, "-t", 16, "-p", 5555, "-s", chain.client.ip, chain.server.ip)
    assert done.returncode == 0, done
    assert [line[:2] for line in done.stdout.splitlines()] == [" 2", " 3", " 4"]
    assert all(line.count(" ms") == 2 for line in done.stdout.splitlines())


def test_json_and_pcap_are_for_programs(chain, tmp_path):
    """One object with state, hops and times; a file with the packets."""
    done = trace(chain, "--json", "--pcap", "/tmp/probe.pcap", "--mda", "--pmtu", chain.server.ip, 80)
    assert done.returncode == 0, done
    told = json.loads(done.stdout)
    assert told["state"] == "open"
    assert len(told["hops"]) == 3
    assert told["mtu"]["bytes"] == 1500
    assert told["graph"]["sure"]
    from scapy.utils import rdpcap

    (tmp_path / "probe.pcap").write_bytes(chain.client.read_bytes("/tmp/probe.pcap"))
    assert len(rdpcap(str(tmp_path / "probe.pcap"))) > 8
    assert trace(chain, "--dot", chain.server.ip, 80).stdout.startswith("digraph ways {")


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (["no.such.invalid"], 4, "cannot resolve 'no.such.invalid'"),
        (["10.0.0.1", "0"], 4, "a port is a number"),
        (["10.0.0.1", "65536"], 4, "a port is a number"),
        (["10.0.0.1", "no-such-service"], 4, "neither a port nor a tcp service"),
        (["-f", "9", "-m", "3", "10.0.0.1"], 4, "beyond the last"),
        (["-q", "0", "10.0.0.1"], 4, "queries is a number"),
        (["-i", "eth77", "127.0.0.1"], 4, "interface 'eth77'"),
        (["-s", "192.0.2.9", "127.0.0.1"], 4, "address '192.0.2.9'"),
        (["--flags", "syn,foo", "127.0.0.1"], 4, "no TCP flag 'foo'"),
        (["--confidence", "0.5", "127.0.0.1"], 4, "mda is a confidence"),
        (["--no-such-option", "127.0.0.1"], 4, "unrecognized arguments"),
        ([], 4, "required: host"),
    ],
)
def test_wrong_usage_is_named_and_ends_with_4(chain, arguments, status, why):
    """One line says what is wrong with which value."""
    done = trace(chain, *arguments)
    assert done.returncode == status, done
    assert why in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["-A"], ["--mode", "raw"], ["--flags", "fin"], ["--pmtu"], ["--mda"]])
def test_what_needs_privilege_ends_with_5(chain, arguments):
    """Without CAP_NET_RAW: which privilege is missing, and what works without."""
    done = trace(chain, *arguments, chain.server.ip, 80, prefix=WITHOUT)
    assert done.returncode == 5, done
    assert "CAP_NET_RAW" in done.stderr


def test_help_teaches():
    """Examples, marks and exit statuses are in it."""
    text = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True).stdout
    for word in ("examples:", "!X administratively", "exit status: 0 the port is open", "--explain", "--pmtu"):
        assert word in text


def test_a_plain_trace_loads_nothing_heavy():
    """No scapy, asyncio, pyroute2, threads or JSON, and of ours neither hosts nor the lab."""
    code = """
import sys
from pytest_poorcontainer.cli.tcptraceroute import main
status = main(["-n", "-q1", "127.0.0.1", "9"])
print(*sorted(sys.modules), file=sys.stderr)
sys.exit(status)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done
    loaded = set(done.stderr.split())
    assert not [name for name in HEAVY if name in loaded]
