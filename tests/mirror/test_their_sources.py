"""Sources that other people add: by the hook through which ours are registered."""

import importlib.metadata
import sys
import types

import pytest

from pytest_poorcontainer import plugins
from pytest_poorcontainer.mirror.errors import BadConfig
from pytest_poorcontainer.mirror.sources.base import Options
from pytest_poorcontainer.mirror.sources.files import FileSource
from pytest_poorcontainer.mirror.sources.finding import known, manager, open_source


class Shelf:
    """A plugin: ``shelf://NAME/`` is a directory below ``top``."""

    def __init__(self, top):
        self.top = top

    def open(self, url, options):
        """Return the directory's source, which says that it is a shelf."""
        if not url.endswith("/"):
            raise BadConfig(f"{url} is no shelf: write shelf://NAME/")
        found = FileSource(str(self.top / url.partition("://")[2].strip("/")), options)
        found.protocol = "shelf"
        return found

    @plugins.hookimpl
    def poor_container_mirror_sources(self):
        """Return what is ours, and something that is not."""
        return {"shelf": self.open, "http": self.open}


@pytest.fixture
def shelf(tmp_path):
    """Register a plugin for as long as the test takes."""
    found = Shelf(tmp_path)
    manager().register(found, "shelf")
    yield found
    manager().unregister(found)


def test_ours_are_registered_as_everybodys(monkeypatch):
    """The package knows no source that the hook does not name."""
    ours = manager().get_plugin("pytest_poorcontainer.mirror.sources.builtin")
    assert known().keys() == {"http", "https", "ftp", "ftps", "rsync", "file"}
    manager().unregister(ours)
    try:
        monkeypatch.setattr(plugins, "declare", lambda *_: plugins.manager())
        with pytest.raises(BadConfig, match='source "file"'):
            open_source("/srv", Options())
    finally:
        plugins.manager().register(ours, ours.__name__)


@pytest.mark.usefixtures("shelf")
def test_a_source_of_a_plugin(make_place):
    """A mirror is copied, followed and guarded as from a source of ours, and says what it came from."""
    with make_place("file") as place:
        place.fill(5)
        url = f"SHELF://{place.source.relative_to(place.base.parent)}/"
        result = place.sync(source=url)
        assert (result.state, result.protocol, result.added) == ("ok", "shelf", 5)
        assert place.tree() == place.tree(place.source)
        for number in range(5):
            (place.source / f"d{number}/f{number}.bin").unlink()
        assert place.sync(source=url).state == "held"
        result = place.sync(source=url.rstrip("/"))
        assert (result.state, result.status) == ("failed", 2)
        assert "write shelf://NAME/" in result.reason


@pytest.mark.usefixtures("shelf")
def test_nobody_takes_our_schemes_away():
    """A plugin that names one of them is not asked for it."""
    assert open_source("http://h/", Options()).protocol == "http"


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize("url", ["gopher://h/", "nonsense", ""])
def test_what_nobody_knows(url):
    """Is told with all that is registered, plugins' included."""
    with pytest.raises(BadConfig, match="file, ftp, ftps, http, https, rsync, shelf"):
        open_source(url, Options())


def test_a_source_of_an_installed_distribution(monkeypatch, tmp_path):
    """Its entry point is enough; one that cannot be loaded is named."""
    module = types.ModuleType("their_source")
    module.plugin = Shelf(tmp_path)
    monkeypatch.setitem(sys.modules, "their_source", module)
    entries = [importlib.metadata.EntryPoint("theirs", "their_source:plugin", plugins.GROUP)]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries)
    monkeypatch.setattr(plugins, "_loaded", False)
    try:
        assert open_source("shelf://x/", Options()).protocol == "shelf"
        entries.append(importlib.metadata.EntryPoint("broken", "their_source:nothing", plugins.GROUP))
        monkeypatch.setattr(plugins, "_loaded", False)
        with pytest.raises(BadConfig, match=r'source "gopher", nor .* cannot load the plugin broken'):
            open_source("gopher://h/", Options())
    finally:
        plugins.manager().unregister(name="theirs")
