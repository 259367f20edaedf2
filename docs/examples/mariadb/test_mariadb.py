"""MariaDB: a primary, a replica that follows its binary log, and what becomes of both when the cable is cut.

Both hosts run Debian's mariadb-server with /etc/mysql as it comes, and one more file in mariadb.conf.d. Run it with::

    pytest --poor-container docs/examples/mariadb -v
"""

import signal

import pytest

from pytest_poorcontainer import eventually

pytestmark = [
    pytest.mark.debian("mariadb-server"),
    pytest.mark.poor_container(hosts=["primary", "replica"]),
]

# What an administrator adds for replication. Debian's files, read before this one, listen on 127.0.0.1 alone.
REPLICATION = """
[mysqld]
bind-address = *
server-id = {number}
log-bin
gtid-strict-mode
slave-net-timeout = 4   # seconds without a word from the primary after which to connect anew
"""
INSTALL = ["mariadb-install-db", "--rpm", "--cross-bootstrap", "--user=mysql", "--disable-log-bin", "--skip-test-db"]


def sql(host, statement):
    """Return what mariadb(1) prints for a statement, as the database's administrator: bare, one row a line."""
    argv = ["mariadb", "--batch", "--skip-column-names", "--execute", statement]
    done = host.run(argv, user="mysql", capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{statement}: {done.stderr}"
    return done.stdout.strip()


def start(host, number, give):
    """Start a new MariaDB; return the service. The machine's own data, if there are any, are out of sight then."""
    host.run(["rm", "-rf", "/var/lib/mysql"], check=True)
    give(host, "mysql", "/var/lib/mysql")
    host.run(INSTALL, user="mysql", capture_output=True, check=True, timeout=60)  # as the package's installation does
    file = ["tee", "/etc/mysql/mariadb.conf.d/70-replication.cnf"]
    host.run(file, input=REPLICATION.format(number=number), text=True, capture_output=True, check=True)
    return host.start(["mariadbd"], name="mariadb", user="mysql", ready="notify", timeout=30)


def follow(host, primary):
    """Follow the primary from where this host's own history ends; knock again after a second."""
    sql(
        host,
        f"CHANGE MASTER TO master_host='{primary.ip}', master_user='replicator', master_password='secret',"
        " master_use_gtid=slave_pos, master_connect_retry=1; START SLAVE",
    )


@pytest.fixture
def services(netns_pair, give):
    """MariaDB on both hosts, by their names."""
    return {host.name: start(host, number, give) for number, host in enumerate(netns_pair, start=1)}


@pytest.fixture
def pair(netns_pair, services):
    """Two hosts with a MariaDB each, of which one follows the other; in both there is the table "t"."""
    primary, replica = netns_pair
    sql(primary, "CREATE USER replicator IDENTIFIED BY 'secret'; GRANT REPLICATION SLAVE ON *.* TO replicator")
    sql(primary, "CREATE DATABASE d; CREATE TABLE d.t (colour TEXT)")
    sql(replica, "SET GLOBAL read_only = 1")
    follow(replica, primary)
    eventually(lambda: holds(replica), timeout=30)
    return netns_pair


def holds(host, *colours):
    assert sql(host, "SELECT colour FROM d.t ORDER BY colour").split() == list(colours)


def has_heard(host, word):
    assert word in sql(host, "SHOW SLAVE STATUS")


def test_rows_reach_the_replica(pair):
    """What is committed on the primary is soon seen on the replica."""
    primary, replica = pair
    sql(primary, "INSERT INTO d.t VALUES ('blue')")
    eventually(lambda: holds(replica, "blue"), timeout=30)


def test_the_replica_catches_up_when_the_cable_is_mended(pair):
    """Rows that were written while the cable was cut come later; none is lost."""
    primary, replica = pair
    with pair.link.cut():
        sql(primary, "INSERT INTO d.t VALUES ('blue')")
        holds(replica)
    eventually(lambda: holds(replica, "blue"), timeout=30)


def test_the_replica_follows_a_primary_that_was_killed_and_came_back(pair, services):
    """A primary that is killed has what it had confirmed; the replica finds it again."""
    primary, replica = pair
    sql(primary, "INSERT INTO d.t VALUES ('blue')")
    services["primary"].process.send_signal(signal.SIGKILL)
    eventually(lambda: has_heard(replica, "error reconnecting"), timeout=30)
    services["primary"].restart()
    sql(primary, "INSERT INTO d.t VALUES ('red')")
    eventually(lambda: holds(replica, "blue", "red"), timeout=30)


def test_the_roles_can_be_swapped(pair):
    """A replica that was promoted while the cable was cut leads afterwards, and the old primary follows it."""
    primary, replica = pair
    sql(primary, "INSERT INTO d.t VALUES ('blue')")
    eventually(lambda: holds(replica, "blue"), timeout=30)
    with pair.link.cut():
        sql(replica, "STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only = 0; INSERT INTO d.t VALUES ('red')")
        holds(primary, "blue")
    sql(primary, "SET GLOBAL read_only = 1; SET GLOBAL gtid_slave_pos = @@gtid_binlog_pos")
    follow(primary, replica)
    eventually(lambda: holds(primary, "blue", "red"), timeout=30)
