"""FRR: routers that find their ways by OSPF, around a cable that is unplugged, and two that are told theirs by BGP.

Debian's frr starts no daemon by itself (/etc/frr/daemons): the administrator writes which ones, and their files in
/etc/frr. Here each host runs what its unit would run for it. Run it with::

    pytest --poor-container docs/examples/frr -v
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_poorcontainer import eventually

pytestmark = pytest.mark.debian("frr")

BIN = "/usr/lib/frr"
PRELOAD = "/opt/without_sys_admin.so"

# Neighbours that are silent for a second are given up, and ways are computed at once: so that a test takes seconds.
OSPF = """\
{interfaces}
router ospf
 ospf router-id {router}
 timers throttle spf 0 50 1000
 network 0.0.0.0/0 area 0
"""
OSPF_INTERFACE = """\
interface {name}
 ip ospf dead-interval minimal hello-multiplier 4
 ip ospf network point-to-point
"""

BGP = """\
router bgp {own}
 bgp router-id {router}
 no bgp ebgp-requires-policy
 neighbor {peer} remote-as {other}
 neighbor {peer} timers 1 3
 neighbor {peer} timers connect 1
 address-family ipv4 unicast
  network {subnet}
 exit-address-family
"""


@pytest.fixture(scope="module")
def preload(tmp_path_factory):
    """The library that makes FRR do without CAP_SYS_ADMIN, which no host has: the bytes of it."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler: FRR asks for a capability that no host has (without_sys_admin.c)")
    library = tmp_path_factory.mktemp("frr") / "without_sys_admin.so"
    source = Path(__file__).with_name("without_sys_admin.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)  # noqa: S607
    return library.read_bytes()


def start_frr(router, preload, give, **files):
    """Start zebra and the daemons that there is a configuration for, as /etc/frr/daemons would have it."""
    if router.run(["setpriv", "--reuid=frr", "--init-groups", "true"], capture_output=True).returncode != 0:
        pytest.skip("FRR becomes the user frr, and there is nobody to become here: /etc/subuid has no range for us")
    give(router, "frr", "/etc/frr", "/run/frr")
    router.write_bytes(PRELOAD, preload)
    for daemon, text in {"zebra": "", **files}.items():
        router.run(["tee", f"/etc/frr/{daemon}.conf"], input=text, text=True, capture_output=True, check=True)
        router.start(
            [f"{BIN}/{daemon}", "-f", f"/etc/frr/{daemon}.conf", "-A", "127.0.0.1", "--log", "stdout"],
            name=daemon,
            env={"LD_PRELOAD": PRELOAD},
            ready=re.compile(rf"{daemon} \S+ starting", re.IGNORECASE),
        )


def routes(host):
    """Return the kernel's table of a host, as ip(8) shows it."""
    return host.run(["ip", "route"], capture_output=True, text=True, check=True).stdout


def way(host, target):
    """Return by which interface a host reaches an address."""
    said = host.run(["ip", "route", "get", target], capture_output=True, text=True)
    found = re.search(r" dev (\S+)", said.stdout)
    return found[1] if found else None


def reaches(client, server):
    try:
        client.connect((server.ip, 80), timeout=1).close()
    except OSError as error:  # not yet: eventually() waits for what is asserted
        raise AssertionError(f"{client.name} does not reach {server.name}: {error}") from None


@pytest.fixture
def triangle(network, preload, give):
    """Three routers, each joined to the other two, and a host behind the first and the last."""
    network.compute_routes = False  # it is FRR that finds them
    r1, r2, r3 = (network.router(name) for name in ("r1", "r2", "r3"))
    for a, b in ((r1, r2), (r2, r3), (r1, r3)):
        network.link(a, b)
    for name, router in (("client", r1), ("server", r3)):
        network.link(name, router)
        told = network[name].run(["ip", "route", "add", "default", "via", gateway(network[name])], capture_output=True)
        assert told.returncode == 0, told.stderr
    for number, router in enumerate((r1, r2, r3), 1):
        interfaces = "".join(OSPF_INTERFACE.format(name=f"eth{n}") for n in range(2))
        start_frr(router, preload, give, ospfd=OSPF.format(interfaces=interfaces, router=f"192.0.2.{number}"))
    return network


def gateway(host):
    """Return the address of the router at the other end of a host's cable."""
    first, _, last = host.ip.rpartition(".")
    return f"{first}.{2 if last == '1' else 1}"


def test_ospf_finds_a_way_around_an_unplugged_cable(triangle):
    """The direct way is taken while it is there; unplugged, packets go by the third router, and then back again."""
    client, server, r1 = triangle["client"], triangle["server"], triangle["r1"]
    direct = triangle.between("r1", "r3").link
    with server.listen(("", 80)):
        eventually(lambda: reaches(client, server), timeout=60)
        eventually(lambda: takes(r1, server, "eth1"), timeout=30)
        with direct.unplug():
            eventually(lambda: takes(r1, server, "eth0"), timeout=30)
            eventually(lambda: reaches(client, server), timeout=30)
        eventually(lambda: takes(r1, server, "eth1"), timeout=60)
        reaches(client, server)


def takes(router, target, interface):
    assert way(router, target.ip) == interface


def test_ospf_notices_a_dead_switch_by_the_silence(triangle):
    """A cable that is cut keeps its carrier: the silent neighbour is given up, and the other way is taken."""
    client, server, r1 = triangle["client"], triangle["server"], triangle["r1"]
    with server.listen(("", 80)):
        eventually(lambda: takes(r1, server, "eth1"), timeout=60)
        with triangle.between("r1", "r3").link.cut():
            eventually(lambda: takes(r1, server, "eth0"), timeout=30)
            eventually(lambda: reaches(client, server), timeout=30)


def test_bgp_tells_two_systems_of_each_others_subnets(network, preload, give):
    """Each announces its LAN over the cable between them, and withdraws it when the cable is unplugged."""
    network.compute_routes = False
    sites = {}
    for name, number in (("east", 65001), ("west", 65002)):
        lan = network.lan([f"{name}-host"], switch=f"{name}-lan")
        router = network.router(name)
        network.link(router, lan.switch)
        lan[0].run(["ip", "route", "add", "default", "via", router.ip], check=True)
        sites[name] = (number, router, lan[0])
    cable = network.link("east", "west")
    addresses = {name: router.addresses[2] for name, (_, router, _) in sites.items()}
    for name, other in (("east", "west"), ("west", "east")):
        number, router, host = sites[name]
        subnet = f"{host.ip.rpartition('.')[0]}.0/24"
        text = BGP.format(
            own=number, other=sites[other][0], peer=addresses[other], router=addresses[name], subnet=subnet
        )
        start_frr(router, preload, give, bgpd=text)
    (_, east, near), (_, west, far) = sites["east"], sites["west"]
    with far.listen(("", 80)):
        eventually(lambda: reaches(near, far), timeout=60)
        assert f"via {addresses['west']} dev eth1 proto bgp" in routes(east)
        with cable.unplug():
            eventually(lambda: has_no_way(east, far), timeout=30)
        eventually(lambda: reaches(near, far), timeout=60)
    assert "proto bgp" in routes(west)


def has_no_way(router, host):
    assert way(router, host.ip) is None
