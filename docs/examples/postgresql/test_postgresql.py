"""PostgreSQL: a primary, a standby that streams from it, and what a promotion means for both.

Both hosts get the cluster that Debian's package makes when it is installed, "main", with its files at Debian's places:
/etc/postgresql/<version>/main and /var/lib/postgresql/<version>/main. Run it with::

    pytest --poor-container docs/examples/postgresql -v
"""

import pathlib
import re
import signal

import pytest

from pytest_poorcontainer import eventually

pytestmark = [pytest.mark.debian("postgresql"), pytest.mark.poor_container(hosts=["primary", "standby"])]

# What an administrator puts into conf.d for streaming replication, beside what Debian has set.
REPLICATION = """
listen_addresses = '*'
wal_log_hints = on                # so that pg_rewind(1) can make a standby of an old primary
wal_keep_size = '64MB'            # what a standby missed while it was away
wal_retrieve_retry_interval = 200 # milliseconds, between two attempts to reach the primary
wal_receiver_timeout = '5s'       # without a word from the primary: connect anew
"""
ACCESS = "host all,replication replicator samenet scram-sha-256\n"


class Cluster:
    """The cluster "main" on one host."""

    def __init__(self, host):
        """Make it, as the installation of the package does. The machine's own, if it has one, is out of sight then."""
        self.host = host
        self.programs = max(pathlib.Path("/usr/lib/postgresql").iterdir(), key=lambda path: int(path.name)) / "bin"
        version = self.programs.parent.name
        self.data, self.etc = f"/var/lib/postgresql/{version}/main", f"/etc/postgresql/{version}/main"
        self.run(["pg_createcluster", version, "main"])
        self.write(f"{self.etc}/conf.d/replication.conf", REPLICATION)
        self.write(f"{self.etc}/pg_hba.conf", ACCESS)
        self.service = None

    def run(self, argv):
        """Run a command as the database's administrator; return what it prints."""
        done = self.host.run(argv, user="postgres", capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout.strip()

    def write(self, file, text):
        """Append to a file of the configuration."""
        argv = ["tee", "-a", file]
        self.host.run(argv, user="postgres", input=text, text=True, capture_output=True, check=True)

    def start(self):
        """Start it; return when it answers. SIGINT is its "fast" shutdown, which asks no client to leave first."""
        argv = [str(self.programs / "postgres"), "-D", self.data, "-c", f"config_file={self.etc}/postgresql.conf"]
        ready = re.compile("database system is ready to accept (read-only )?connections")
        how = {"user": "postgres", "ready": ready, "timeout": 30, "stop_signal": signal.SIGINT, "stop_timeout": 30}
        self.service = self.host.start(argv, name="postgresql", **how)

    def sql(self, statement):
        """Return what psql(1) prints for a statement, bare."""
        return self.run(["psql", "-XAtqc", statement])

    def follow(self, other):
        """Become a standby of the other: with a copy of its data, and its address in primary_conninfo."""
        self.run(["rm", "-rf", self.data])
        self.run(["pg_basebackup", "-d", self.source(other), "-D", self.data, "-R", "-c", "fast"])

    def rewind(self, other):
        """Become a standby of the other: take back what was done since the two parted (pg_rewind(1))."""
        other.sql("CHECKPOINT")  # its control file, where pg_rewind looks, may not have the new timeline yet
        argv = ["-D", self.data, "--config-file", f"{self.etc}/postgresql.conf"]
        self.run([str(self.programs / "pg_rewind"), *argv, "-R", "--source-server", self.source(other, "postgres")])

    def source(self, other, database="replication"):
        """Return how to connect to the other."""
        return f"host={other.host.ip} user=replicator password=secret dbname={database}"


@pytest.fixture
def clusters(netns_pair, give):
    """A primary with the table "t", and a standby that streams from it."""
    for host in netns_pair:
        host.run(["sh", "-c", "rm -rf /var/lib/postgresql/* /etc/postgresql/* /var/log/postgresql/*"], check=True)
        give(host, "postgres", "/etc/postgresql", "/var/lib/postgresql", "/var/log/postgresql")
    primary, standby = map(Cluster, netns_pair)
    primary.start()
    primary.sql("CREATE ROLE replicator LOGIN REPLICATION SUPERUSER PASSWORD 'secret'")  # a superuser for pg_rewind
    primary.sql("CREATE TABLE t (colour text)")
    standby.follow(primary)
    standby.start()
    eventually(lambda: streams_to(primary, standby), timeout=30)
    return primary, standby


def streams_to(primary, standby):
    assert primary.sql("SELECT client_addr, state FROM pg_stat_replication") == f"{standby.host.ip}|streaming"


def holds(cluster, *colours):
    assert cluster.sql("SELECT colour FROM t ORDER BY colour").split() == list(colours)


def test_rows_stream_to_the_standby(clusters):
    """What is committed on the primary is soon seen on the standby, which takes no writes itself."""
    primary, standby = clusters
    primary.sql("INSERT INTO t VALUES ('blue')")
    eventually(lambda: holds(standby, "blue"), timeout=30)
    with pytest.raises(AssertionError, match="cannot execute INSERT in a read-only transaction"):
        standby.sql("INSERT INTO t VALUES ('red')")


def test_the_standby_catches_up_when_the_cable_is_mended(netns_pair, clusters):
    """Rows that were written while the cable was cut come later; none is lost."""
    primary, standby = clusters
    with netns_pair.link.cut():
        primary.sql("INSERT INTO t VALUES ('blue')")
        holds(standby)
    eventually(lambda: holds(standby, "blue"), timeout=30)


def test_a_promoted_standby_leads_and_the_old_primary_follows(netns_pair, clusters):
    """While the cable is cut both write, the standby after its promotion; pg_rewind makes the old primary follow."""
    primary, standby = clusters
    primary.sql("INSERT INTO t VALUES ('blue')")
    eventually(lambda: holds(standby, "blue"), timeout=30)
    with netns_pair.link.cut():
        standby.sql("SELECT pg_promote()")
        standby.sql("INSERT INTO t VALUES ('red')")
        primary.sql("INSERT INTO t VALUES ('lost')")  # nobody has told it: it goes on alone
        holds(standby, "blue", "red")
        holds(primary, "blue", "lost")

    primary.service.stop()
    primary.rewind(standby)
    primary.start()
    eventually(lambda: holds(primary, "blue", "red"), timeout=30)
    standby.sql("INSERT INTO t VALUES ('white')")
    eventually(lambda: holds(primary, "blue", "red", "white"), timeout=30)
