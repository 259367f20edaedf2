"""Three nodes, each with a Redis and a Sentinel, under a nemesis: partitions, frozen hosts, slow and lossy ways.

Whatever it does, when it is over there is one leader again, all Sentinels agree who, and what is written to it reaches
the others. The seed is printed, and makes the same trouble again. Run it with::

    pytest --poor-container docs/examples/nemesis -v
"""

import pytest

from pytest_poorcontainer import eventually

pytestmark = pytest.mark.debian("redis-server", "redis-sentinel")

REDIS, SENTINEL = "6379", "26379"

REDIS_CONF = """\
protected-mode no
dir /var/lib/redis
save ""
repl-diskless-sync-delay 0
min-replicas-to-write 1
min-replicas-max-lag 3
"""

# Faster than in earnest, so that a test takes seconds.
SENTINEL_CONF = """\
protected-mode no
port 26379
dir /var/lib/redis
sentinel monitor mymaster {leader} 6379 2
sentinel down-after-milliseconds mymaster 1000
sentinel failover-timeout mymaster 3000
"""


def ask(host, *words, port=REDIS):
    """Return what redis-cli on the host gets for an answer, in lines; none from a server that is not there."""
    argv = ["timeout", "5", "redis-cli", "-p", port, *words]
    return host.run(argv, capture_output=True, text=True).stdout.split("\n")[:-1]


@pytest.fixture
def nodes(network, give):
    """Three hosts on a switch; the first leads, the others follow, and each has a Sentinel that knows the others."""
    nodes = network.lan(3)
    for node in nodes:
        give(node, "redis", "/etc/redis", "/var/lib/redis")
        node.run(["rm", "-f", "/var/lib/redis/dump.rdb"], check=True)
        for name, text in (("redis", REDIS_CONF), ("sentinel", SENTINEL_CONF.format(leader=nodes[0].ip))):
            file = f"/etc/redis/{name}-test.conf"
            node.run(["tee", file], user="redis", input=text, text=True, capture_output=True, check=True)
            more = [] if name == "sentinel" or node is nodes[0] else ["--replicaof", nodes[0].ip, REDIS]
            argv = [f"redis-{'server' if name == 'redis' else name}", file, *more]
            node.start(argv, name=name, user="redis", ready=int(REDIS if name == "redis" else SENTINEL))
        ask(node, "sentinel", "debug", "publish-period", "200", "info-period", "500", port=SENTINEL)
    eventually(lambda: is_settled(nodes), timeout=60)
    return nodes


def leader_of(node):
    """Return the address of the leader that a node's Sentinel believes in."""
    return (ask(node, "sentinel", "get-master-addr-by-name", "mymaster", port=SENTINEL) or [""])[0]


def is_settled(nodes):
    """Every Sentinel knows the other two, all name one leader, that one leads, and the others follow it."""
    leaders = {leader_of(node) for node in nodes}
    assert len(leaders) == 1
    for node in nodes:
        words = ask(node, "sentinel", "master", "mymaster", port=SENTINEL)
        state = dict(zip(words[::2], words[1::2], strict=False))
        assert (state.get("num-other-sentinels"), state.get("flags")) == ("2", "master")
    roles = {node.ip: ask(node, "role") for node in nodes}
    (leader,) = leaders
    assert roles[leader][0] == "master"
    for address, role in roles.items():
        if address != leader:
            assert role[:2] == ["slave", leader]
            assert "connected" in role


def writes(nodes, value):
    """A write to the leader is taken, and read from all three."""
    leader = next(node for node in nodes if node.ip == leader_of(node))
    assert ask(leader, "set", "colour", value) == ["OK"]
    for node in nodes:
        eventually(lambda node=node: holds(node, value), timeout=30)


def holds(node, value):
    assert ask(node, "get", "colour") == [value]


def test_a_majority_elects_while_the_leader_is_alone(network, nodes):
    """The two that hear each other elect one of them; the old leader takes no write, and follows when it hears them."""
    writes(nodes, "red")
    old = nodes[0]
    with network.partition.isolate(old):
        eventually(lambda: has_another_leader(nodes[1:], old), timeout=60)
        eventually(lambda: takes_no_write(old), timeout=30)
    eventually(lambda: is_settled(nodes), timeout=60)
    writes(nodes, "blue")


def has_another_leader(others, old):
    leaders = {leader_of(node) for node in others}
    assert len(leaders) == 1
    assert leaders < {node.ip for node in others}
    assert old.ip not in leaders


def takes_no_write(node):
    assert ask(node, "set", "colour", "green")[0].startswith("NOREPLICAS")


@pytest.mark.parametrize("seed", [3, 11])
def test_three_nodes_agree_again_after_a_nemesis(network, nodes, seed):
    """Eight faults one after the other, then quiet: one leader, known to all, whose writes reach all."""
    with network.faults.nemesis(seed=seed, every=(0.3, 1.0), last=(0.5, 2.5)) as nemesis:
        eventually(lambda: has_done(nemesis, 8), timeout=60)
    assert nemesis.log[:8] == nemesis.plan(8)
    eventually(lambda: is_settled(nodes), timeout=120)
    writes(nodes, f"seed {seed}")


def has_done(nemesis, faults):
    assert len(nemesis.log) > faults
