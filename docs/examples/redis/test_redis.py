"""Redis: a primary, a replica, and the Sentinels that make the replica lead when the cable between them is cut.

Both hosts run Debian's redis-server with Debian's /etc/redis/redis.conf. Of three Sentinels two must agree that the
primary is gone: one watches from the primary's side of the cable, two from the replica's. Run it with::

    pytest --poor-container docs/examples/redis -v
"""

import pytest

from pytest_poorcontainer import eventually

pytestmark = [
    pytest.mark.debian("redis-server", "redis-sentinel"),
    pytest.mark.poor_container(hosts=["primary", "replica"]),
]

PORT, SENTINEL, SECOND_SENTINEL = "6379", "26379", "26380"

# Debian's files are for root and redis alone. Where an ordinary user runs the tests, these lines of theirs will do.
UNREADABLE = {
    "redis.conf": "bind 127.0.0.1 -::1\ndir /var/lib/redis\npidfile /run/redis/redis-server.pid\n",
    "sentinel.conf": "protected-mode no\nport 26379\ndir /var/lib/redis\npidfile /run/sentinel/redis-sentinel.pid\n",
}

# What an administrator sets so that the primary does not write alone, and a new replica need not wait for 5 s.
REPLICATION = {
    "protected-mode": "no",  # there is no password
    "min-replicas-to-write": "1",
    "min-replicas-max-lag": "3",
    "repl-diskless-sync-delay": "0",
}


def ask(host, *words, port=PORT):
    """Return what redis-cli on the host gets for an answer."""
    done = host.run(["redis-cli", "-p", port, *words], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr  # Sentinel closes the connections of a Redis that changes its role
    return done.stdout.strip()


def configure(host, name):
    """See to it that the host has Debian's configuration file, or what stands for it."""
    shell = f"test -e /etc/redis/{name} || cat > /etc/redis/{name}"
    host.run(["sh", "-c", shell], user="redis", input=UNREADABLE[name], text=True, check=True)


def start_redis(host, *options):
    """Start redis-server as its unit does, logging to us."""
    argv = ["redis-server", "/etc/redis/redis.conf", "--supervised", "systemd", "--daemonize", "no", "--logfile", ""]
    settings = [word for name, value in REPLICATION.items() for word in (f"--{name}", value)]
    argv += ["--bind", "127.0.0.1", host.ip, *settings, *options]
    return host.start(argv, name="redis", user="redis", ready="notify")


def start_sentinel(host, primary, port):
    """Start a Sentinel with a copy of Debian's file, and have it watch the primary."""
    file = f"/etc/redis/sentinel-{port}.conf"
    host.run(["cp", "/etc/redis/sentinel.conf", file], user="redis", check=True)
    argv = ["redis-sentinel", file, "--port", port, "--supervised", "systemd", "--daemonize", "no", "--logfile", ""]
    host.start(argv, name=f"sentinel-{port}", user="redis", ready="notify")
    # Debian's file watches a Redis on 127.0.0.1. Faster than in earnest, so that a test takes seconds.
    ask(host, "sentinel", "remove", "mymaster", port=port)
    ask(host, "sentinel", "monitor", "mymaster", primary.ip, PORT, "2", port=port)
    for name, value in (("down-after-milliseconds", "2000"), ("failover-timeout", "5000")):
        ask(host, "sentinel", "set", "mymaster", name, value, port=port)
    ask(host, "sentinel", "debug", "publish-period", "200", "info-period", "500", "tilt-trigger", "20000", port=port)


@pytest.fixture
def pair(netns_pair, give):
    """Two hosts with a Redis each, the replica in step with the primary."""
    for host in netns_pair:
        give(host, "redis", "/etc/redis", "/var/lib/redis", "/var/log/redis")
        host.run(["rm", "-f", "/var/lib/redis/dump.rdb"], check=True)  # the machine's own data, if it has any
        configure(host, "redis.conf")
        configure(host, "sentinel.conf")
    primary, replica = netns_pair
    start_redis(primary)
    start_redis(replica, "--replicaof", primary.ip, PORT)
    eventually(lambda: writes(primary, "blue"), timeout=30)
    return netns_pair


@pytest.fixture
def sentinels(pair):
    """Three Sentinels that know the replica and each other."""
    primary, replica = pair
    three = [(primary, SENTINEL), (replica, SENTINEL), (replica, SECOND_SENTINEL)]
    for host, port in three:
        start_sentinel(host, primary, port)
    for host, port in three:
        eventually(lambda host=host, port=port: knows_all(host, port), timeout=30)


def writes(host, colour):
    assert ask(host, "set", "colour", colour) == "OK"


def holds(host, colour):
    assert ask(host, "get", "colour") == colour


def refuses_to_write_alone(host):
    assert ask(host, "set", "colour", "green").startswith("NOREPLICAS")


def is_a(role, host):
    assert ask(host, "role").startswith(role)


def knows_all(host, port):
    words = ask(host, "sentinel", "master", "mymaster", port=port).splitlines()  # names and values, some of them empty
    state = dict(zip(words[::2], words[1::2], strict=True))
    assert (state["num-slaves"], state["num-other-sentinels"], state["flags"]) == ("1", "2", "master")


def believes_in(leader, host):
    assert ask(host, "sentinel", "get-master-addr-by-name", "mymaster", port=SENTINEL).split() == [leader.ip, PORT]


def test_a_write_reaches_the_replica(pair):
    """What was written to the primary can soon be read on the replica, which itself takes no write."""
    primary, replica = pair
    writes(primary, "red")
    eventually(lambda: holds(replica, "red"), timeout=30)
    assert ask(replica, "set", "colour", "green").startswith("READONLY")


def test_sentinels_promote_the_replica_when_the_cable_is_cut(pair, sentinels):
    """The two beyond the cut elect the replica; the old primary takes no write, and follows after the mending."""
    primary, replica = pair
    with pair.link.cut():
        eventually(lambda: is_a("master", replica), timeout=30)
        eventually(lambda: believes_in(replica, replica), timeout=30)
        eventually(lambda: refuses_to_write_alone(primary), timeout=30)
        believes_in(primary, primary)  # the Sentinel on this side is one of three, which is no majority
        ask(replica, "config", "set", "min-replicas-to-write", "0")  # the administrator lets the new one write alone
        writes(replica, "red")

    eventually(lambda: believes_in(replica, primary), timeout=30)
    eventually(lambda: is_a("slave", primary), timeout=30)
    eventually(lambda: holds(primary, "red"), timeout=30)
