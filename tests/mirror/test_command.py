"""``poor-mirror`` on the command line: what it prints, and its exit statuses."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_poorcontainer.mirror.errors import STATUSES
from pytest_poorcontainer.mirror.sources import rsync as rsync_source
from pytest_poorcontainer.mirror.sources import transfers

PROGRAM = [sys.executable, "-m", "pytest_poorcontainer.cli.poor_mirror"]


def poor_mirror(*words, cwd=None, **options):
    """Run the command."""
    return subprocess.run(
        [*PROGRAM, *words], capture_output=True, text=True, cwd=cwd, check=False, timeout=60, **options
    )


@pytest.fixture
def site(tmp_path):
    """Return a directory with a configuration: a mirror that works, and one whose source does not answer."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(12):
        (source / f"f{number}").write_text("x" * number)
    (tmp_path / "mirrors.toml").write_text(
        f'[defaults]\nroot = "{tmp_path}/root"\nretries = 0\n[mirror.one]\nsource = "{source}"\n'
        '[mirror.two]\nsource = "http://me:secret@127.0.0.1:1/x/"\n'
    )
    return tmp_path


def test_sync_status_history_log(site):
    """One run, and what is told of it afterwards."""
    done = poor_mirror("sync", "one", cwd=site)
    assert (done.returncode, done.stderr) == (0, "")
    assert "one: ok (+12 ~0 -0 files" in done.stdout
    assert "12 files" in poor_mirror("status", cwd=site).stdout
    assert "ok" in poor_mirror("history", "one", cwd=site).stdout
    assert "ok: all well" in poor_mirror("log", "one", cwd=site).stdout
    status = json.loads(poor_mirror("status", "--json", cwd=site).stdout)
    assert [one["state"] for one in status["mirrors"]] == ["ok", "none"]


def test_the_worst_status_counts(site):
    """Of several mirrors the one that needs a person most; credentials are in no output."""
    done = poor_mirror("sync", cwd=site)
    assert done.returncode == 6
    assert "two: failed" in done.stderr
    assert f"({site}/mirrors.toml:7)" in poor_mirror("--config", f"{site}/mirrors.toml", "sync", "two").stderr
    for words in (["sync"], ["status"], ["check"], ["history", "two"], ["log", "two"], ["status", "--json"]):
        shown = poor_mirror(*words, cwd=site)
        assert "secret" not in shown.stdout + shown.stderr


def test_plan_release(site):
    """A held plan is shown, released, and carried out."""
    assert poor_mirror("sync", "one", cwd=site).returncode == 0
    for path in (site / "source").iterdir():
        path.unlink()
    held = poor_mirror("sync", "one", cwd=site)
    assert held.returncode == 4
    assert poor_mirror("status", cwd=site).returncode == 4
    plan = poor_mirror("plan", "one", cwd=site)
    assert plan.returncode == 0
    assert "- f11 11" in plan.stdout
    assert "all 12 files would be deleted" in plan.stdout
    digest = json.loads(poor_mirror("plan", "one", "--json", cwd=site).stdout)["digest"]
    assert f"poor-mirror release one {digest}\n" in plan.stdout
    other = poor_mirror("release", "one", "0123456789abcdef", cwd=site)
    assert other.returncode == 2
    assert f"is {digest}, and not 0123456789abcdef" in other.stderr
    assert poor_mirror("sync", "one", cwd=site).returncode == 4
    assert len(json.loads(poor_mirror("plan", "one", "--json", cwd=site).stdout)["deletions"]) == 12
    assert poor_mirror("release", "one", digest, cwd=site).returncode == 0
    assert poor_mirror("sync", "one", cwd=site).returncode == 0
    again = poor_mirror("release", "one", cwd=site)
    assert again.returncode == 2
    assert "nothing to release" in again.stderr


def test_dry_run(site):
    """The plan is printed and nothing is changed."""
    done = poor_mirror("sync", "one", "--dry-run", cwd=site)
    assert "+ f11 11" in done.stdout
    assert "# +12 ~0 -0 files" in done.stdout
    assert not (site / "root").exists()


def test_a_plan_that_cannot_be_made_ends_as_a_run_would(site):
    """With the status that tells why."""
    done = poor_mirror("plan", "two", cwd=site)
    assert (done.returncode, done.stdout) == (6, "")
    assert "cannot be reached" in done.stderr


def test_json_lines(site):
    """With --json every line is an object; the last one is the result."""
    lines = [json.loads(line) for line in poor_mirror("sync", "one", "--json", cwd=site).stdout.splitlines()]
    assert {line["event"] for line in lines[:-1]} == {"progress"}
    assert (lines[-1]["event"], lines[-1]["state"], lines[-1]["added"]) == ("result", "ok", 12)


def test_a_copy_without_changes_loads_no_compressors(tmp_path):
    """It takes little longer than to start; shutil, with all that it can unpack, is not needed."""
    (tmp_path / "source").mkdir()
    program = (
        "import sys; from pytest_poorcontainer.cli.poor_mirror import main; "
        "main(['copy', 'source', 'copy', '--quiet']); print(sorted({'shutil', 'bz2', 'lzma'} & set(sys.modules)))"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("columns", "lines"), [("40", 2), ("200", 1)])
def test_the_help_is_as_wide_as_the_terminal(columns, lines):
    """As COLUMNS says, or else the terminal."""
    argv = [sys.executable, "-m", "pytest_poorcontainer.cli.poor_mirror", "release", "--help"]
    done = subprocess.run(argv, env={**os.environ, "COLUMNS": columns}, capture_output=True, text=True, check=True)
    text = done.stdout.partition("\n\n")[2].partition("\n\n")[0]
    assert len(text.splitlines()) == lines


def test_copy(site):
    """No configuration: one source, one destination, the same guards."""
    assert poor_mirror("copy", "source", "there", "--exclude", "f1*", cwd=site).returncode == 0
    assert sorted(path.name for path in (site / "there").iterdir() if path.name[0] == "f") == [
        "f0",
        *(f"f{n}" for n in range(2, 10)),
    ]
    assert poor_mirror("copy", "source", "/", cwd=site).returncode == 8
    assert not Path("/.poor-mirror").exists()
    assert poor_mirror("copy", "gopher://x/", "there", cwd=site).returncode == 2
    done = poor_mirror("copy", "source", "mirrors.toml", cwd=site)
    assert done.returncode == 8
    assert "has to be a directory" in done.stderr
    assert "[mirror.NAME]" in poor_mirror("copy", "source", "x", "--set", "snapshots=1", cwd=site).stderr
    wrong = poor_mirror("copy", "source", "there", "--set", "idel=3", cwd=site)
    assert (wrong.returncode, wrong.stderr) == (2, 'poor-mirror: "idel" is no key for a copy; did you mean "idle"?\n')


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--config", "none.toml", "sync"], 2, "cannot read the configuration none.toml"),
        (["sync", "three"], 2, 'there is no mirror "three"'),
        (["sync", "on"], 2, 'did you mean "one"?'),
        (["log", "one"], 1, "it has not run yet"),
        (["run", "--serve", "nowhere"], 2, "127.0.0.1:8080"),
    ],
)
def test_bad_input_is_one_sentence(site, words, status, said):
    """With the remedy, and without a traceback."""
    done = poor_mirror(*words, cwd=site)
    assert done.returncode == status
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("gopher://h/", 'source "gopher": there are file, ftp, ftps, http, https, rsync'),
        ("http:///x", "has no host"),
        ("rsync://h", "a host and a module"),
        ("rsync://h/m", "cannot find /nowhere/rsync|/nowhere/rsync"),
    ],
)
def test_check_opens_the_sources(site, source, words):
    """What no run could read is told by `check`, with file and line; nothing is connected to."""
    config = site / "mirrors.toml"
    config.write_text(config.read_text() + f"[mirror.odd]\nsource = '{source}'\nrsync = '/nowhere/rsync'\n")
    done = poor_mirror("check", cwd=site)
    assert done.returncode in {1, 2}
    assert done.stderr.startswith("poor-mirror: mirrors.toml:9: [mirror.odd] source: ")
    assert re.search(words, done.stderr)
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(site):
    """Is not taken for what is not there."""
    assert poor_mirror("sync", "one", cwd=site).returncode == 0
    ours = site / "root/one/.poor-mirror"
    ours.chmod(0)
    try:
        for word in ("log", "release", "plan"):
            done = poor_mirror(word, "one", cwd=site)
            assert (done.returncode, done.stderr.count("\n")) == (8, 1)
            assert "Permission denied" in done.stderr
    finally:
        ours.chmod(0o700)


def test_a_bar_on_a_terminal(site):
    """Where standard error is a terminal a bar is drawn, and wiped away at the end."""
    main, side = pty.openpty()
    subprocess.run([*PROGRAM, "sync", "one"], cwd=site, stderr=side, stdout=subprocess.DEVNULL, check=True, timeout=60)
    os.close(side)
    drawn = os.read(main, 100_000).decode()
    os.close(main)
    assert "one [" in drawn
    assert drawn.endswith("\r\x1b[K")


def test_the_page_without_a_daemon(site):
    """`page` writes it once; `sync` keeps it up to date where the configuration says so."""
    assert poor_mirror("page", cwd=site).returncode == 0
    assert (site / "root/.poor-mirror/page/index.html").exists()
    config = site / "mirrors.toml"
    config.write_text(config.read_text() + f'[site]\npage = "{site}/www"\n')
    assert poor_mirror("sync", "one", cwd=site).returncode == 0
    assert "up to date" in (site / "www/index.html").read_text()


def test_the_page_shows_what_runs(site):
    """It is written when there is something to fetch, not only at the end of a run that may take hours."""
    config = site / "mirrors.toml"
    words = f"[site]\npage = '{site}/www'\n[mirror.three]\nsource = '{site}/source'\n"
    config.write_text(config.read_text() + words + f"hooks = {{ post = 'cp {site}/www/index.html {site}/seen' }}\n")
    assert poor_mirror("sync", "three", cwd=site).returncode == 0
    assert 'class="badge running"' in (site / "seen").read_text()
    assert 'class="badge running"' not in (site / "www/index.html").read_text()


def test_a_page_that_cannot_be_written_ends_no_run(site):
    """All mirrors are synchronised; what is wrong is said, and the status is not 0."""
    config = site / "mirrors.toml"
    (site / "www").write_text("a file")
    config.write_text(
        config.read_text().replace("[mirror.two]", f"[mirror.four]\nsource = '{site}/source'\n[mirror.two]")
    )
    config.write_text(config.read_text() + f"[site]\npage = '{site}/www'\n")
    done = poor_mirror("sync", "one", "four", cwd=site)
    assert done.returncode == 1
    assert "one: ok" in done.stdout
    assert "four: ok" in done.stdout
    assert done.stderr.count("cannot write the status page") == 2
    assert (site / "root/four/f11").exists()


def test_without_the_extra(monkeypatch):
    """Without pycurl there is one sentence with the line that installs it."""
    monkeypatch.setitem(sys.modules, "pycurl", None)
    with pytest.raises(transfers.MirrorError, match=r"pip install 'pytest-poorcontainer\[mirror\]'"):
        transfers.load_pycurl()


def test_rsync_that_is_missing_or_has_holes(make_place, tmp_path, monkeypatch):
    """Each is one sentence; an old one is used if the admin says so."""
    monkeypatch.setattr(rsync_source, "_mended_by_debian", lambda: False)
    old = tmp_path / "old-rsync"
    old.write_text("#!/bin/sh\necho rsync  version 3.2.7  protocol version 31\n")
    old.chmod(0o755)
    with make_place("file") as place:
        result = place.sync(source="rsync://127.0.0.1/x/", rsync=str(tmp_path / "none"))
        assert "apt-get install rsync" in result.reason
        result = place.sync(source="rsync://127.0.0.1/x/", rsync=str(old))
        assert "CVE-2024" in result.reason
        assert "old_rsync = true" in result.reason
        assert "CVE" not in place.sync(source="rsync://127.0.0.1/x/", rsync=str(old), old_rsync=True).reason


def test_the_statuses_are_documented():
    """docs/mirror.md has the table of the program's own."""
    page = (Path(__file__).parents[2] / "docs/mirror.md").read_text()
    rows = dict(re.findall(r"^\| (\d+) \| (.+?) \|$", page, re.MULTILINE))
    assert {int(number): text for number, text in rows.items()} == STATUSES


def test_a_run_without_changes_loads_little(tmp_path):
    """Most runs find nothing to do: what only others need would be a good part of their time."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source/one").write_text("1")
    words = ["copy", str(tmp_path / "source"), str(tmp_path / "dest"), "--quiet"]
    code = (
        "import sys; before = set(sys.modules)\n"
        "from pytest_poorcontainer.cli.poor_mirror import main\n"
        f"assert main({words}) == 0\n"
        "heavy = {'importlib.metadata', 'subprocess', 'tomllib', 'email', 'difflib', 'pycurl', 'socket'}\n"
        "print(sorted((set(sys.modules) - before) & heavy))"
    )
    assert poor_mirror(*words).returncode == 0
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout.splitlines()[-1:], done.stderr) == (["[]"], "")
