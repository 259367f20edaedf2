"""The bandwidth for all runs of the daemon: divided among those that there are."""

import os
import time

import pytest

from pytest_poorcontainer.mirror.config import load
from pytest_poorcontainer.mirror.daemon import Daemon
from pytest_poorcontainer.mirror.shares import Share, publish, share_file


@pytest.fixture
def config(tmp_path):
    """Return a configuration with mirrors of all kinds, and 4000 bytes/s for all of them."""
    path = tmp_path / "mirrors.toml"
    sources = {
        "web": "http://a/",
        "tls": "https://b/",
        "ftp": "ftp://c/",
        "rs": "rsync://d/m/",
        "ssh": "e:x",
        "file": "/x",
    }
    tables = "".join(f'[mirror.{name}]\nsource = "{source}"\n' for name, source in sources.items())
    program = '[mirror.own]\nsource = "http://f/"\ncommand = "true"\n'
    path.write_text(f'[defaults]\nroot = "{tmp_path}"\n[site]\nbandwidth = 4000\njobs = 4\n{tables}{program}')
    return load(path)


@pytest.mark.parametrize(
    ("running", "share"),
    [
        ("web", 4000),
        ("web tls", 2000),
        ("web tls ftp", 1333),
        ("web rs", 3000),
        ("web ftp rs ssh", 1000),
        ("web own", 4000),
        ("", 4000),
        ("rs", 3000),
    ],
)
def test_what_each_run_has(config, running, share):
    """All of it together is never more than the limit, and one that is alone has all."""
    mirrors = [config.mirrors[name] for name in running.split()]
    publish(config, mirrors)
    following = sum(mirror.source.startswith(("http", "ftp")) and not mirror.command for mirror in mirrors)
    fixed = sum(not mirror.source.startswith(("http", "ftp")) for mirror in mirrors)
    assert Share(share_file(config), 1, 4000).now() == share
    assert following * share + fixed * config.limited(config.mirrors["rs"], 4).bandwidth <= 4000


def test_a_runs_own_limit_counts(config):
    """A share is never more than a mirror or its server may have."""
    publish(config, [config.mirrors["web"]])
    assert Share(share_file(config), 100, 700).now() == 700


@pytest.mark.parametrize("content", [None, "", "many\n", "-5\n"])
def test_a_file_that_says_nothing(config, content):
    """Leaves a run its fixed part, or the least."""
    if content is not None:
        share_file(config).parent.mkdir(parents=True)
        share_file(config).write_text(content)
    assert Share(share_file(config), 1000, 4000).now() == (1 if content == "-5\n" else 1000)


def test_the_daemon_divides_as_runs_come_and_go(config):
    """It says anew what each has, at each start and each end of one."""
    daemon = Daemon(config)

    class Running:
        code = None

        def poll(self):
            return self.code

    daemon._launch = lambda name: daemon._running.update({name: Running()})
    said = []
    daemon._due = {"web": 0.0}
    daemon._start()
    said.append(share_file(config).read_text())
    daemon._due = {"tls": 0.0, "rs": 1.0}
    daemon._start()
    said.append(share_file(config).read_text())
    for name in ("web", "rs"):
        daemon._running[name].code = 0
    daemon._collect()
    said.append(share_file(config).read_text())
    assert said == ["4000\n", "1500\n", "4000\n"]


@pytest.mark.parametrize("served", ["nginx", "ftp"], indirect=True)
def test_a_run_follows_while_it_fetches(served):
    """A share that becomes another one in the middle of a file counts from then on."""
    served.put("f", os.urandom(2_000_000))
    asked = []

    def share():
        asked.append(time.monotonic())
        return 100_000 if asked[-1] - asked[0] < 1 else 20_000_000

    result = served.sync(share=share, bandwidth=20_000_000)
    assert result.state == "ok"
    assert 0.9 < result.ended - result.started < 10  # at the first share it would be 20 s, at the second none
