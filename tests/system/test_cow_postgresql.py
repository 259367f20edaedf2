"""PostgreSQL in a tree: initdb, start, load, crash, recovery and stop, as in a plain directory of the same path."""

import contextlib
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

from pytest_poorcontainer import CowTree
from pytest_poorcontainer.cow.copying import remove_directory
from pytest_poorcontainer.errors import Unavailable

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
ROOT = os.geteuid() == 0
USER = {"user": "nobody", "group": "nogroup", "extra_groups": []} if ROOT else {}
# An ordinary user is root in the container that an overlay's commands run in, and PostgreSQL does not run as root.
BACKENDS = ["preload", "overlay"] if ROOT else ["preload"]
SCRIPT = r"""
umask 077
export LC_ALL=C PGHOST=$PWD PGDATABASE=postgres PGUSER=postgres PGOPTIONS='-c client_min_messages=warning'
start() { pg_ctl start -s -w -t 60 -D data -l log -o "-c listen_addresses='' -c unix_socket_directories='$PWD'"; }
initdb -D data -U postgres -A trust -E UTF8 --data-checksums >initdb.out
cat >>data/postgresql.conf <<X
autovacuum = off  # nothing is done when nobody has asked for it
fsync = off
X
start
psql -Xqb <<X
create table t (i int primary key, s text);
insert into t select i, repeat(md5(i::text), 3) from generate_series(1, 5000) as i;
create index on t (s); create table gone as table t; drop table gone; update t set s = s || 'x' where i % 3 = 0;
create database other; vacuum full t;
create tablespace apart location '$PWD/apart'; alter index t_s_idx set tablespace apart;
copy t to '$PWD/t.csv' csv; checkpoint; insert into t select i, 'late' from generate_series(5001, 5100) as i;
X
psql -Xqd other -c 'create table o as select generate_series(1, 10) as n'
pg_ctl stop -s -D data -m immediate  # as after a crash: what was late is in the log alone
start
psql -XAtc 'select count(*), sum(i), md5(string_agg(s, null order by i)) from t' -c 'select count(*) from pg_tables'
pg_dumpall --no-comments | grep -v '^\\\(un\)\?restrict ' >dump.sql  # lines with a random word in newer ones
pg_ctl stop -s -D data -m fast
pg_checksums --check -D data
pg_controldata -D data | grep -E 'state|page size|locale|Next(XID|OID|Multi)'
"""
# What holds times, process ids, or numbers that the cluster drew by lot.
UNLIKE = ("data/global/", "data/pg_wal/", "data/postmaster.opts", "log", "data/pg_stat/", "data/base/", "apart/")


@pytest.fixture
def place():
    """Return a directory that every user may enter, as pytest's own is not, which the user of these tests owns."""
    directory = Path(tempfile.mkdtemp(prefix="cow-pg-", dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    remove_directory(str(directory))


def empty(directory):
    """Make what the cluster is made in."""
    (directory / "apart").mkdir(parents=True)
    if USER:
        for path in (directory, directory / "apart"):
            shutil.chown(path, USER["user"], USER["group"])


def listed(root):
    """Return of each path its type, mode, size (of a directory none) and the target of a link."""
    found = {}
    for path in root.rglob("*"):
        info = path.lstat()
        size = 0 if stat.S_ISDIR(info.st_mode) or str(path.relative_to(root)) == "log" else info.st_size
        target = str(path.readlink()) if path.is_symlink() else ""
        found[str(path.relative_to(root))] = oct(info.st_mode), size, target
    return found


@pytest.mark.skipif(not PROGRAMS, reason="PostgreSQL is not installed: sudo apt install postgresql")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("backend", BACKENDS)
def test_postgresql_does_the_same_in_a_tree(place, tmp_path, backend):
    """The same answers, dump and files, types, modes and sizes, and the same bytes of what no run draws by lot."""
    environment = {"PATH": f"{PROGRAMS[-1].parent}:{os.environ['PATH']}", "HOME": "/nonexistent"}
    options = {"capture_output": True, "text": True, "timeout": 120, "env": environment}
    source, plain = place / "source", place / "plain"
    empty(source)
    argv = ["sh", "-ec", SCRIPT]
    expected = subprocess.run(argv, cwd=source, stdin=subprocess.DEVNULL, check=False, **options, **USER)
    assert (expected.returncode, expected.stderr) == (0, "")
    source.rename(plain)
    empty(source)
    with contextlib.ExitStack() as trees:
        try:
            tree = trees.enter_context(CowTree(source, backend=backend, temporary=place))
        except Unavailable as error:
            pytest.skip(str(error))
        done = tree.run(argv, **options, **({"user": USER["user"]} if USER else {}))
        assert (done.returncode, done.stdout, done.stderr) == (0, expected.stdout, "")
        assert tree.refused == []
        tree.check_original(most=None)
        assert [path.name for path in source.rglob("*")] == ["apart"]
        tree.commit()
    assert listed(source) == listed(plain)
    files = [path for path in listed(plain) if (plain / path).is_file() and not path.startswith(UNLIKE)]
    assert {"dump.sql", "t.csv", "data/PG_VERSION", "data/pg_xact/0000", "data/postgresql.conf"} <= set(files)
    assert [path for path in files if (source / path).read_bytes() != (plain / path).read_bytes()] == []
