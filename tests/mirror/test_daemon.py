"""``poor-mirror run`` for weeks: signals, a history that is damaged, another daemon, a configuration that changes."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from urllib.request import urlopen

import pytest

from pytest_poorcontainer.mirror.history import History

PROGRAM = [sys.executable, "-m", "pytest_poorcontainer.cli.poor_mirror"]


class Running:
    """A daemon: ``url`` is its page."""

    def __init__(self, process, log):
        self.process, self._log = process, log
        self.url = self.until(lambda: self.said().partition("the page is at ")[2].partition("\n")[0])

    def said(self):
        """Return all that it has printed."""
        return self._log.read_text()

    def until(self, ask, seconds=30):
        """Return what ``ask`` returns as soon as that is true."""
        end = time.monotonic() + seconds
        while not (found := ask()):
            assert time.monotonic() < end, self.said()
            assert self.process.poll() is None, self.said()
            time.sleep(0.05)
        return found

    def states(self):
        """Return the state of each mirror, as the page has it."""
        with urlopen(f"{self.url}status.json", timeout=10) as answer:
            return {one["name"]: one["state"] for one in json.loads(answer.read())["mirrors"]}


@contextlib.contextmanager
def daemon(path, name="daemon"):
    """Run the daemon until the block ends."""
    log = path.with_name(f"{name}.log")
    with (
        log.open("w") as file,
        subprocess.Popen(
            [*PROGRAM, "--config", path, "run", "--serve", "127.0.0.1:0"], stdout=file, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            yield Running(process, log)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0, log.read_text()
        finally:
            process.kill()


@pytest.fixture
def config(tmp_path):
    """Return the path of a configuration with one mirror."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_text("x")
    path = tmp_path / "mirrors.toml"
    path.write_text(f'[defaults]\nroot = "{tmp_path}/root"\n[mirror.one]\nsource = "{tmp_path}/source"\n')
    return path


def test_a_configuration_that_changes(config, tmp_path):
    """SIGHUP: new mirrors run, old ones go; with a mistake it is told by file and line, and the old one counts."""
    with daemon(config) as it:
        it.until(lambda: it.states() == {"one": "ok"})
        good = config.read_text()
        config.write_text(good.replace("mirror.one", "mirror.two"))
        it.process.send_signal(signal.SIGHUP)
        it.until(lambda: it.states() == {"two": "ok"})
        config.write_text(good.replace("source =", "sauce ="))
        it.process.send_signal(signal.SIGHUP)
        it.until(lambda: f'{config}:4: [mirror.one] sauce: there is no such key; did you mean "source"?' in it.said())
        assert it.states() == {"two": "ok"}
        config.write_text(good)
        it.process.send_signal(signal.SIGHUP)
        it.until(lambda: it.states() == {"one": "ok"})
    assert (tmp_path / "root/one/file").read_text() == (tmp_path / "root/two/file").read_text() == "x"


def test_a_run_that_a_new_configuration_has_no_more(config, tmp_path):
    """It goes on to its end, and the daemon bears that."""
    good = config.read_text()
    command = f"until test -e {tmp_path}/go; do sleep .1; done; touch f"
    config.write_text(good + f'[mirror.long]\nsource = "/x"\ncommand = "{command}"\n')
    with daemon(config) as it:
        it.until(lambda: it.states()["one"] == "ok" and (tmp_path / "root/long/.poor-mirror/status.json").exists())
        config.write_text(good)
        it.process.send_signal(signal.SIGHUP)
        it.until(lambda: "long" not in it.states())
        (tmp_path / "go").touch()
        history = History(tmp_path / "root/.poor-mirror/history.sqlite3")
        assert it.until(lambda: history.last("long"))["state"] == "ok"
        it.until(lambda: it.states() == {"one": "ok"})


def test_a_history_that_is_damaged_under_it(config, tmp_path):
    """It says so once, runs nothing in haste, and goes on when the history has been moved away."""
    history = tmp_path / "root/.poor-mirror/history.sqlite3"
    with daemon(config) as it:
        it.until(lambda: it.states() == {"one": "ok"})
        history.write_bytes(b"no database " * 400)
        it.process.send_signal(signal.SIGHUP)
        it.until(lambda: "is it ours, and whole? Move it away" in it.said())
        history.unlink()
        it.process.send_signal(signal.SIGHUP)
        it.until(lambda: history.exists() and it.states() == {"one": "ok"})
        assert it.said().count("cannot open the history") == 1


def test_two_daemons_of_one_configuration(config, tmp_path):
    """The lock keeps their runs apart: each is done once, and the one that came late is no failure."""
    command = f"echo x >>{tmp_path}/began; until test -e {tmp_path}/go; do sleep .1; done; touch f"
    config.write_text(config.read_text() + f'[mirror.long]\nsource = "/x"\ncommand = "{command}"\n')
    with daemon(config, "first") as one, daemon(config, "second") as two:
        one.until((tmp_path / "began").exists)
        two.until(lambda: "is being synchronised by process" in one.said() + two.said())
        (tmp_path / "go").touch()
        one.until(lambda: one.states() == {"one": "ok", "long": "ok"})
        two.until(lambda: two.states() == {"one": "ok", "long": "ok"})
    assert (tmp_path / "began").read_text() == "x\n"
    assert len(History(tmp_path / "root/.poor-mirror/history.sqlite3").runs("long")) == 1
