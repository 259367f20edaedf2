"""BIND: a primary and a secondary server of a zone; what an update takes to reach the secondary, and a cut cable to.

Both hosts run Debian's named with Debian's /etc/bind/named.conf; only named.conf.local, which is there for that, has
the zone. The zone is changed as administrators do it, with ``nsupdate -l`` on the primary. Run it with::

    pytest --poor-container docs/examples/bind -v
"""

import pytest

from pytest_poorcontainer import eventually

pytestmark = [
    pytest.mark.debian("bind9", "bind9-dnsutils"),
    pytest.mark.poor_container(hosts=["ns1", "ns2"]),
]

# Below /var/lib/bind, where Debian has the zones that named itself writes.
PRIMARY = """\
zone "example.test" {{
    type primary;
    file "/var/lib/bind/db.example.test";
    update-policy local;
    notify-delay 0;
    allow-transfer {{ {secondary}; }};
}};
"""

# Zones that are copies are in /var/cache/bind. The two times have a lower limit of 5 minutes else.
SECONDARY = """\
zone "example.test" {{
    type secondary;
    file "db.example.test";
    primaries {{ {primary}; }};
    min-refresh-time 1;
    min-retry-time 1;
}};
"""

ZONE = """\
$TTL 1h
@    SOA  ns1 hostmaster 1 {timers} 1m
@    NS   ns1
@    NS   ns2
ns1  A    {primary}
ns2  A    {secondary}
www  A    192.0.2.1
"""


def write(host, path, text):
    host.run(["tee", path], input=text, text=True, capture_output=True, check=True)


def whom(host):
    """Return as whom to start named: as root, which becomes bind, or as bind where root may not.

    That is so where an ordinary user runs the tests, without a range in /etc/subuid: such a host has one id.
    """
    tried = host.run(["setpriv", "--reuid=bind", "--init-groups", "true"], capture_output=True)
    return "root" if tried.returncode == 0 else "bind"


def start_named(host):
    """Start named as its unit and /etc/default/named do, logging to us."""
    user = whom(host)
    if host.run(["test", "-r", "/etc/bind/rndc.key"], user=user).returncode:
        # The package made one for nobody but bind; an ordinary user who runs the tests has to make another.
        host.run(["rm", "-f", "/etc/bind/rndc.key"], check=True)
        host.run(["rndc-confgen", "-a", "-u", "bind"], user=user, capture_output=True, check=True)
    return host.start(["named", "-g", "-u", "bind"], user=user, ready="notify")


@pytest.fixture
def timers():
    """Refresh, retry and expire of the zone's SOA record: so long that nothing but a NOTIFY makes the secondary ask."""
    return "1h 10m 1w"


@pytest.fixture
def pair(netns_pair, give, timers):
    """Two name servers; the secondary has the zone."""
    primary, secondary = netns_pair
    addresses = {"primary": primary.ip, "secondary": secondary.ip}
    write(primary, "/etc/bind/named.conf.local", PRIMARY.format(**addresses))
    write(secondary, "/etc/bind/named.conf.local", SECONDARY.format(**addresses))
    write(primary, "/var/lib/bind/db.example.test", ZONE.format(timers=timers, **addresses))
    for host in netns_pair:
        give(host, "bind", "/var/lib/bind", "/var/cache/bind")
        start_named(host)
    eventually(lambda: answers(secondary, "192.0.2.1"), timeout=10)
    return netns_pair


def dig(host, *options):
    """Return what the name server of the host has to say about www.example.test."""
    argv = ["dig", f"@{host.ip}", "www.example.test", "A", "+norecurse", "+timeout=2", *options]
    return host.run(argv, capture_output=True, text=True, check=True).stdout


def answers(host, address):
    assert dig(host, "+short").split() == [address]


def fails(host):
    assert "status: SERVFAIL" in dig(host)


def update(host, address):
    """Change the address of www.example.test on the primary."""
    commands = f"update delete www.example.test A\nupdate add www.example.test 60 A {address}\nsend\n"
    host.run(["nsupdate", "-l"], input=commands, text=True, capture_output=True, check=True)


def test_an_update_is_on_the_secondary_at_once(pair):
    """The primary sends a NOTIFY, and the secondary asks for what is new: there is nothing to wait for."""
    primary, secondary = pair
    update(primary, "192.0.2.2")
    answers(primary, "192.0.2.2")
    eventually(lambda: answers(secondary, "192.0.2.2"), timeout=10)
    secondary.services[0].wait_log(r"notify from \S+: serial 2")


def test_a_stranger_gets_no_copy(pair):
    """The zone is transferred to the secondary alone: not even to the primary's own host."""
    primary, secondary = pair

    def transfer(host):
        argv = ["dig", f"@{primary.ip}", "example.test", "AXFR", "+onesoa"]
        return host.run(argv, capture_output=True, text=True, check=False).stdout

    assert "Transfer failed." in transfer(primary)
    assert "192.0.2.1" in transfer(secondary)


@pytest.mark.parametrize("timers", ["1s 1s 4s"])
def test_a_cut_cable_makes_the_zone_old_and_then_void(pair):
    """The secondary knows nothing of an update, fails when the zone expires, and has the update once it is mended."""
    primary, secondary = pair
    with pair.link.cut():
        update(primary, "192.0.2.2")
        answers(secondary, "192.0.2.1")
        eventually(lambda: fails(secondary), timeout=20)
        answers(primary, "192.0.2.2")
    eventually(lambda: answers(secondary, "192.0.2.2"), timeout=30)


def test_an_administrator_need_not_wait_when_the_cable_is_mended(pair):
    """A NOTIFY that was lost is repeated after seconds; ``rndc retransfer`` on the secondary fetches the zone now."""
    primary, secondary = pair
    with pair.link.cut():
        update(primary, "192.0.2.2")
        answers(secondary, "192.0.2.1")
    secondary.run(["rndc", "retransfer", "example.test"], check=True)
    eventually(lambda: answers(secondary, "192.0.2.2"), timeout=10)
