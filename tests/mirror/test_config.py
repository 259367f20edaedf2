"""The configuration: what it says, and each mistake in one sentence with file, line and remedy."""

from pathlib import Path

import pytest

from pytest_poorcontainer.mirror import units
from pytest_poorcontainer.mirror.config import Mirror, host_of, load, single
from pytest_poorcontainer.mirror.errors import BadConfig
from pytest_poorcontainer.mirror.plan import Limits
from pytest_poorcontainer.mirror.rules import Rules
from pytest_poorcontainer.mirror.sources.base import Options

GOOD = """
[defaults]
root = "ROOT"
interval = "6h"
connections = 4
[site]
title = "Ours"
jobs = 2
[server."ftp.example.org"]
connections = 1
bandwidth = "10M"
user = "me"
[mirror.debian]
source = "rsync://ftp.example.org/debian/"
profile = "debian"
[mirror.apache]
source = "https://downloads.example.org/apache/"
exclude = ["*.asc.tmp", "/nightly/**"]
max_delete = { files = 500, ratio = 0.2 }
dest = "elsewhere"
hooks = { post = "echo done" }
connections = 9
"""


def write(tmp_path, text):
    """Write a configuration, and return its path."""
    path = tmp_path / "mirrors.toml"
    path.write_text(text.replace("ROOT", str(tmp_path / "root")))
    return path


def test_what_it_says(tmp_path):
    """Defaults, then the server's, then the mirror's own: the closest counts, but of limits the lowest."""
    config = load(write(tmp_path, GOOD))
    debian, apache = config.mirrors["debian"], config.mirrors["apache"]
    assert (debian.connections, debian.bandwidth, debian.user, debian.interval) == (1, 10 << 20, "me", 6 * 3600)
    assert (apache.connections, apache.bandwidth, apache.user) == (9, 0, "")
    assert apache.max_delete == Limits(files=500, ratio=0.2)
    assert apache.dest == tmp_path / "root/elsewhere"
    assert debian.dest == tmp_path / "root/debian"
    assert apache.hooks == {"post": ["/bin/sh", "-c", "echo done"]}
    assert (config.title, config.jobs, config.state) == ("Ours", 2, tmp_path / "root/.poor-mirror")
    assert [mirror.name for mirror in config.chosen(["apache"])] == ["apache"]
    assert debian.layout().stage("dists/x/Release") == 1


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("interval =", "intervall =", 4, 'did you mean "interval"?'),
        ('profile = "debian"', 'profile = "debain"', 15, "there are alpine, arch, debian"),
        ('profile = "debian"', 'profil = "debian"', 15, 'did you mean "profile"?'),
        ("[site]", "[sites]", 6, 'did you mean "site"?'),
        ('"6h"', '"6 hours"', 4, 'write a number of seconds, or "90s"'),
        ("connections = 4", 'connections = "4"', 5, "is no count"),
        ("ratio = 0.2", "ratio = 20", 19, "a share from 0 to 1"),
        ("ratio = 0.2", "ration = 0.2", 19, 'did you mean "ratio"?'),
        ("post =", "past =", 21, 'did you mean "post"?'),
        ('source = "https', 'source = "https://[::1/', 17, "this is no URL"),
        ('source = "https', 'source = "http://h:99999/', 17, "Port out of range"),
        ("[defaults]", "root = 3\n[defaults]", 2, 'there is no table "root"'),
        ('source = "https', 'sourse = "https', 17, 'did you mean "source"?'),
        ('"elsewhere"', '"debian"', 20, 'that of "debian"'),
        ('"elsewhere"', '"debian/sub"', 20, 'that of "debian"'),
        ('"elsewhere"', '"/"', 20, "the root of the machine"),
        ('"/nightly/**"', '""', 18, "matches nothing"),
        ("[mirror.apache]", '[mirror."a/b"]', 16, "is no name for a mirror"),
        ('bandwidth = "10M"', "bandwidth = -1", 11, "is no size"),
    ],
)
def test_mistakes_have_their_line(tmp_path, old, new, line, words):
    """Each is one sentence that names file, line and what was meant."""
    with pytest.raises(BadConfig) as caught:
        load(write(tmp_path, GOOD.replace(old, new, 1)))
    assert str(caught.value).startswith(f"{tmp_path}/mirrors.toml:{line}: "), str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "it has no mirror"), ("x = [", "it has to be TOML"), ("[mirror.a]\n", "it has no source"),
     ("[mirror.a]\nsource = 'x'\n", "has no root"), ("mirror = 3", "table"), ("[defaults]\nroot=3\n", "is no text"),
     ("[mirror.index]\nsource = 'x'\ndest = 'y'\n", "index.html is the page of all"),
     ("[mirror.fragment]\nsource = 'x'\ndest = 'y'\n", "fragment.html is the page"),
     ("[mirror.a]\nsource = 'x'\ndest = 'y'\ncommand = 'z'\nsnapshots = 2", "toml:5: .* a command writes into")],
)  # fmt: skip
def test_other_mistakes(tmp_path, text, words):
    """What is no configuration at all is said as well."""
    path = write(tmp_path, text)
    with pytest.raises(BadConfig, match=words):
        load(path)


def test_a_file_that_is_not_there(tmp_path):
    """Is named, with the flag that names another."""
    with pytest.raises(BadConfig, match="--config"):
        load(tmp_path / "nothing.toml")


def test_a_copy_without_a_configuration():
    """Its keys are those of a mirror, and are checked as they are."""
    mirror = single("http://x/", Path("/srv/x"), {"idle": "10s", "links": "skip"})
    assert (mirror.idle, mirror.links, mirror.name) == (10.0, "skip", "x")
    with pytest.raises(BadConfig, match='did you mean "idle"'):
        single("http://x/", Path("/srv/x"), {"idel": 3})
    with pytest.raises(BadConfig, match="keep, skip, error"):
        single("http://x/", Path("/srv/x"), {"links": "kept"})


@pytest.mark.parametrize(
    ("source", "host"),
    [
        ("http://a.b/c", "a.b"),
        ("ftp://u:p@h:21/", "h"),
        ("me@h:path", "h"),
        ("/path:x", ""),
        ("file:///x", ""),
        ("h:p", "h"),
        ("ftp://[::1]:2121/", "::1"),
        ("h::module/x", "h"),
        ("[fe80::1]:/srv/x", "fe80::1"),
        ("me@[fe80::1]:/srv/x", "fe80::1"),
        ("h:/srv/x@y:z", "h"),
        ("/srv/x:y@z", ""),
    ],
)
def test_servers_of_sources(source, host):
    """Limits per server go by the name of the host."""
    assert host_of(source) == host


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("*.tmp", ["a.tmp", "d/a.tmp"], ["a.tmpx", "a.tmp/b"]),
        ("/a", ["a"], ["d/a"]),
        ("d/", ["d"], []),
        ("/n/**", ["n/a", "n/a/b"], ["n", "x/n/a"]),
        ("/n/***", ["n", "n/a/b"], ["x/n"]),
        ("a/b", ["a/b", "x/a/b"], ["a/xb"]),
        ("f?[0-9]", ["fx1", "d/fx9"], ["f/1", "fxx"]),
        ("[!a]b", ["xb"], ["ab"]),
        ("a**z", ["a/b/z", "az"], ["b"]),
        (r"a\*b", ["a*b"], ["axb"]),
    ],
)
def test_patterns_are_rsyncs(pattern, matches, others):
    """Anchors, wildcards and double stars mean what they mean in rsync(1)."""
    rules = Rules(exclude=[pattern])
    assert not [path for path in matches if rules.wanted(path, True)]
    assert all(rules.wanted(path, True) for path in others)


def test_patterns_agree_with_rsync(tmp_path):
    """The same rules choose the same files in rsync itself."""
    import shutil
    import subprocess

    if shutil.which("rsync") is None:
        pytest.skip("needs rsync: sudo apt-get install rsync")
    paths = ["a", "b.tmp", "d/a", "d/b.tmp", "d/e/f", "n/a", "n/x/y", "x/n/a", "keep/b.tmp", "z/[q]", "z/aXb", "z/a*b"]
    for path in paths:
        file = tmp_path / "source" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    rules = Rules(["/keep/*.tmp"], ["*.tmp", "/n/**", "d/e/", r"a\*b", "[[]q]"], ["- /x/***"])
    above = {path: [str(one) for one in Path(path).parents if str(one) != "."] for path in paths}
    ours = {path for path in paths if rules.wanted(path, False) and all(rules.wanted(one, True) for one in above[path])}
    argv = ["rsync", "-r", *rules.for_rsync(), f"{tmp_path}/source/", f"{tmp_path}/dest/"]
    subprocess.run(argv, check=True)
    theirs = {str(path.relative_to(tmp_path / "dest")) for path in (tmp_path / "dest").rglob("*") if path.is_file()}
    assert ours == theirs


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15min", 900), ("6h", 21600), ("2d", 172800), (5, 5.0), ("500ms", 0.5)]
)
def test_times(text, seconds):
    """Numbers are seconds; texts have a unit."""
    assert units.seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (200 << 20, "200 MiB"), (5 << 40, "5.0 TiB"), (None, "-")]
)
def test_sizes_for_people(count, text):
    """Three digits and a binary unit."""
    assert units.human_bytes(count) == text


@pytest.mark.parametrize(
    ("site", "own", "runs", "bandwidth", "connections"),
    [
        ("", "", 4, 0, 0),
        ("connections = 40", "", 4, 0, 8),
        ("connections = 70", "", 4, 0, 0),
        ('bandwidth = "8K"\nconnections = 20', "", 4, 2048, 5),
        ('bandwidth = "8K"\nconnections = 20', "", 1, 8192, 0),
        ("bandwidth = 8000", "bandwidth = 1000\nconnections = 3", 4, 1000, 3),
        ("connections = 2", "", 4, 0, 1),
    ],
)
def test_limits_for_all_are_shared(tmp_path, site, own, runs, bandwidth, connections):
    """Each run gets its part of what [site] allows, and never more than its own limits allow.

    Whose own are not said may have 8 connections, or decide itself (0) where the part is enough for a far server's 16.
    """
    path = tmp_path / "mirrors.toml"
    path.write_text(f"[site]\n{site}\n[mirror.one]\nsource = '/x'\ndest = '{tmp_path}/one'\n{own}\n")
    config = load(path)
    found = config.limited(config.mirrors["one"], runs)
    assert (found.bandwidth, found.connections) == (bandwidth, connections)
    assert config.at_once() == 1


@pytest.mark.parametrize(
    ("defaults", "server", "own", "bandwidth", "connections"),
    [
        ("", "connections = 2", "connections = 20", 0, 2),
        ("", "connections = 20", "connections = 2", 0, 2),
        ("", "connections = 20", "", 0, 20),
        ("", "connections = 0", "connections = 3", 0, 3),
        ("connections = 4", 'bandwidth = "2K"', 'bandwidth = "8K"', 2048, 4),
        ('bandwidth = "4K"', 'bandwidth = "8K"', "connections = 5", 4096, 5),
    ],
)
def test_a_servers_limits_are_no_mirrors_to_raise(tmp_path, defaults, server, own, bandwidth, connections):
    """The lowest counts: a mirror's own, or that of [defaults], and its server's."""
    path = tmp_path / "mirrors.toml"
    path.write_text(
        f"[defaults]\n{defaults}\n[server.'h.example']\n{server}\n"
        f"[mirror.one]\nsource = 'http://h.example/x'\ndest = '{tmp_path}/one'\n{own}\n"
    )
    found = load(path).mirrors["one"]
    assert (found.bandwidth, found.connections) == (bandwidth, connections)


def test_a_mirror_is_named_first():
    """What it has in common with a source's options are keywords."""
    assert Mirror("x", connections=2).connections == Options(connections=2).connections == 2
    with pytest.raises(TypeError):
        Options(2)
