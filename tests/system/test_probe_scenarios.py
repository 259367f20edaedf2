"""Each scenario of tests/scenarios/*.toml: a topology, what its nodes do, and what probes must find, 20 times."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from pathlib import Path

import pytest

from pytest_poorcontainer import TcpProbe, machine

SCENARIOS = Path(__file__).parents[1] / "scenarios"
sys.path.insert(0, str(SCENARIOS))

from topology import Topology  # noqa: E402 - it stands beside the scenarios

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

READY = machine.fixtures_ready()["tcp_probe"]
pytestmark = [
    pytest.mark.skipif(not READY.works, reason=READY.reason),
    pytest.mark.skipif(not (shutil.which("ip") and shutil.which("nft")), reason="needs iproute2 and nftables"),
]
REPEAT = int(os.environ.get("POOR_CONTAINER_REPEAT", "0"))
"""How often each probe is repeated; 0: 20 times what answers, once what is silent and therefore takes 0.25 s."""
SILENT = {"filtered", "loop"}
NAMES = sorted(path.stem for path in SCENARIOS.glob("*.toml"))


def scenario(name):
    """Return a scenario's table."""
    return tomllib.loads((SCENARIOS / f"{name}.toml").read_text())


@pytest.fixture(scope="module", params=NAMES)
def built(request):
    """A scenario, and its nodes."""
    table = scenario(request.param)
    with contextlib.ExitStack() as stack:
        topology = Topology(table["links"], table.get("setup"), table.get("limited", ()), table.get("mtus"))
        stack.enter_context(topology)
        for port in table.get("listen", []):
            server = topology.nodes["server"]
            for address in server.addresses:
                stack.enter_context(server.listen((address, port)))
        yield table, topology


def described(probe, version, mode):
    """Return what a failure is to say about the probe."""
    return f"IPv{version}, {mode}, port {probe['port']}"


def check(result, probe, nodes, where):
    """Assert that a result is what the scenario says."""
    said = f"{where}: {result}"
    assert result.state == probe["state"], said
    assert result.code == probe.get("code", result.code), said
    if "hops" in probe:
        assert result.hops == [nodes[name] if name else None for name in probe["hops"]], said
    if "one_of" in probe:
        assert any(result.hops == [nodes[name] for name in path] for path in probe["one_of"]), said
    if "starts" in probe:
        assert result.hops[: len(probe["starts"])] == [nodes[name] for name in probe["starts"]], said
    if "at" in probe:
        places = result.candidates or [result.at]
        assert any(place == nodes[probe["at"]] for place in places), said
    if "chain" in probe and result.mode == "white-box":
        assert f"chain {probe['chain']}, rule" in result.rule, said
        assert len(places) == 1, said
    if "auto" in where and probe["state"] == "filtered":
        assert result.mode == "white-box", said
    assert result.distance == probe.get("distance", result.distance), said
    for what in probe.get("findings", []):
        assert result.found(what), said


def test_each_probe_finds_what_the_scenario_says(built):
    """State, code, hops, place and findings are right each time, over both families, with and without privilege."""
    table, topology = built
    nodes = topology.nodes
    for probe in table["probe"]:
        for version in probe.get("versions", [4, 6]):
            target = table.get(f"target{version}", nodes["server"])
            for mode in probe.get("modes", ["raw", "unprivileged", "auto"]):
                tcp_probe = TcpProbe()
                for node in nodes.values():
                    tcp_probe.know(node)
                times = probe.get("repeat") or REPEAT or (1 if probe["state"] in SILENT else 20)
                for number in range(times):
                    asked = {"version": version, "mode": mode, "ecn": probe.get("ecn", False)}
                    result = tcp_probe(nodes["client"], (target, probe["port"]), **asked)
                    check(result, probe, nodes, f"{described(probe, version, mode)}, repetition {number}")
