"""PostgreSQL on prepared data: a primary and its replica, made once, and every test begins with both running.

initdb, a schema, its rows and a base backup take seconds, and are done once for all tests and all workers. Each test
has a private copy-on-write tree of them for each host, so that it may do what it wants to the data. Run it with::

    pytest --poor-container docs/examples/prepared -v
"""

import pathlib
import re
import signal

import pytest

from pytest_poorcontainer import eventually

pytestmark = [pytest.mark.debian("postgresql"), pytest.mark.poor_container(hosts=["primary", "replica"])]

PLACE = "/var/lib/postgresql"
CONFIGURATION = """
listen_addresses = '*'
wal_retrieve_retry_interval = 100 # milliseconds, between two attempts of the replica to reach the primary
"""
ACCESS = "host all,replication postgres samenet trust\n"
FOLLOW = "primary_conninfo = 'host=primary user=postgres'\n"
SCHEMA = "CREATE TABLE t (colour text); INSERT INTO t SELECT 'colour ' || n FROM generate_series(1, 10000) AS n"


def programs():
    """Return the directory of the newest PostgreSQL's programs."""
    return max(pathlib.Path("/usr/lib/postgresql").iterdir(), key=lambda path: int(path.name)) / "bin"


def build(tree):
    """Make both clusters, in an empty directory that is seen as PLACE; it is called once."""

    def run(*argv, **options):
        done = tree.run(list(argv), user="postgres", capture_output=True, text=True, timeout=60, **options)
        assert done.returncode == 0, f"{argv}: {done.stderr}"

    bin_ = programs()
    tree.run(["chown", "postgres:", "."], capture_output=True)  # fails where all users share one id, and is not needed
    run(bin_ / "initdb", "--no-sync", "--auth=trust", "primary")
    run("tee", "-a", "primary/postgresql.conf", input=CONFIGURATION)
    run("tee", "-a", "primary/pg_hba.conf", input=ACCESS)
    # Nobody but us is to reach it: the machine's network is not for listening on.
    quietly = "-c listen_addresses='' -c fsync=off"
    run(bin_ / "pg_ctl", "start", "-w", "-D", "primary", "-o", quietly, "-l", "/dev/null")
    run("psql", "-Xqc", SCHEMA)
    run(bin_ / "pg_basebackup", "-D", "replica", "-R", "--no-sync", "-c", "fast")
    run("tee", "-a", "replica/postgresql.auto.conf", input=FOLLOW)
    run(bin_ / "pg_ctl", "stop", "-w", "-D", "primary", "-m", "fast")


class Cluster:
    """A cluster that runs on a host, on a tree of its own."""

    def __init__(self, host, tree):
        self.host, self.tree = host, tree
        host.mount(tree, PLACE)
        argv = [programs() / "postgres", "-D", f"{PLACE}/{host.name}"]
        ready = re.compile("database system is ready to accept (read-only )?connections")
        self.service = host.start(argv, name="postgresql", user="postgres", ready=ready, stop_signal=signal.SIGINT)

    def sql(self, statement):
        """Return what psql(1) prints for a statement, bare."""
        argv = ["psql", "-XAtqc", statement]
        done = self.host.run(argv, user="postgres", capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def clusters(netns_pair, prepared):
    """A primary with 10,000 rows, and its replica, as they were prepared."""
    return [Cluster(host, prepared("postgresql", build, place=PLACE)) for host in netns_pair]


def rows(cluster):
    return int(cluster.sql("SELECT count(*) FROM t"))


def test_both_have_the_rows(clusters):
    """The replica has what the primary had when both were prepared."""
    assert [rows(cluster) for cluster in clusters] == [10000, 10000]


def test_what_one_test_deletes(clusters):
    """A test may empty the table; the replica follows."""
    primary, replica = clusters
    primary.sql("TRUNCATE t")
    eventually(lambda: rows(replica) == 0, timeout=10)


def test_the_next_one_has_again(clusters):
    """No test sees what another one has done."""
    primary, replica = clusters
    assert rows(primary) == 10000
    primary.sql("INSERT INTO t VALUES ('blue')")
    eventually(lambda: rows(replica) == 10001, timeout=10)
