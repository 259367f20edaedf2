"""Plugins of this package: registered by hand, or named by an installed distribution."""

import importlib.metadata
import subprocess
import sys

import pytest

from pytest_poorcontainer import plugins
from pytest_poorcontainer.errors import PoorContainerError, UsageError
from pytest_poorcontainer.rootfs import Rootfs, find


class Shelf(Rootfs):
    """A source of somebody else's."""

    description = "shelf of tests"

    @plugins.hookimpl
    def poor_container_rootfs(self, source, readonly):
        """Know one word, and every path, which it is not asked for."""
        return self if source == "shelf:one" or str(source).startswith("/") else None


@pytest.fixture
def shelf():
    """Register a plugin, and remove it."""
    find("host")  # declares the hook
    plugin = Shelf()
    plugins.manager().register(plugin, "shelf")
    yield plugin
    plugins.manager().unregister(plugin)


@pytest.fixture
def unloaded(monkeypatch):
    """Forget that entry points were loaded, and what they were."""
    monkeypatch.setattr(plugins, "_loaded", False)
    before = set(plugins.names())
    yield
    for name in set(plugins.names()) - before:
        plugins.manager().unregister(name=name)


def named(monkeypatch, value):
    """Let an installed distribution name a plugin."""
    entry = importlib.metadata.EntryPoint("theirs", value, plugins.GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry] if group == plugins.GROUP else [])


def test_a_registered_plugin_is_asked(shelf):
    """What a plugin knows is what it returns."""
    assert find("shelf:one") is shelf


def test_ours_are_asked_first(shelf, tmp_path):
    """A directory that exists is that directory, whatever a plugin says."""
    assert find(tmp_path).description == f"directory {tmp_path}"


def test_what_nobody_knows_names_who_was_asked(shelf):
    """The error for an unknown word tells which plugins do not know it."""
    with pytest.raises(UsageError, match=r"no such directory or tarball \(the plugins .*shelf.* do not know it"):
        find("shelf:two")


def test_a_plugin_that_returns_something_else_is_named(monkeypatch):
    """A hook whose answer is no Rootfs is an error, and not a crash later."""

    class Wrong:
        @plugins.hookimpl
        def poor_container_rootfs(self, source):
            return "a string" if source == "wrong:1" else None

    find("host")
    plugin = Wrong()
    plugins.manager().register(plugin)
    try:
        with pytest.raises(UsageError, match="returned 'a string', which is no Rootfs"):
            find("wrong:1")
    finally:
        plugins.manager().unregister(plugin)


def test_an_entry_point_is_loaded_for_an_unknown_word(monkeypatch, unloaded, tmp_path):
    """A distribution's plugin is loaded when a source is none of ours, and not before."""
    (tmp_path / "theirs_of_test.py").write_text(
        "from pytest_poorcontainer.plugins import hookimpl\n"
        "from pytest_poorcontainer.rootfs import Rootfs\n"
        "@hookimpl\n"
        "def poor_container_rootfs(source):\n"
        "    return Rootfs(source) if str(source).startswith('theirs:') else None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    named(monkeypatch, "theirs_of_test")
    find(tmp_path)
    assert "theirs_of_test" not in sys.modules
    assert find("theirs:1") == find("theirs:1") != find("theirs:2")
    del sys.modules["theirs_of_test"]


def test_a_plugin_that_cannot_be_loaded_is_named(monkeypatch, unloaded):
    """A broken distribution is named, with what it raised."""
    named(monkeypatch, "no_such_module_of_tests")
    with pytest.raises(
        PoorContainerError, match=r"cannot load the plugin theirs \(no_such_module_of_tests\).*No module"
    ):
        find("theirs:1")


def test_nothing_of_it_needs_pytest():
    """The plugin manager and the sources work where pytest is not imported."""
    code = (
        "import sys\nfrom pytest_poorcontainer.rootfs import find\nfind('host'); find('/tmp')\n"
        "print(sorted({'pytest', '_pytest', 'tarfile', 'ctypes'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_modules_that_were_imported_anew_take_their_old_selves_place(tmp_path):
    """What pytester forgets after a run in this process has classes of its own when it is there again."""
    code = f"""
import sys
for _ in range(2):
    from pytest_poorcontainer.rootfs import Rootfs, find
    assert isinstance(find({str(tmp_path)!r}), Rootfs)
    for name in [name for name in sys.modules if name.startswith("pytest_poorcontainer.rootfs")]:
        del sys.modules[name]
"""
    subprocess.run([sys.executable, "-c", code], check=True)
