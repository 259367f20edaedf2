"""What loading the plugin brings along: modules are counted, times are for ``make bench``."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("asyncio", "pyroute2", "scapy", "cloudpickle", "difflib", "subprocess", "tempfile", "ctypes")
OURS_WHEN_OFF = {
    "pytest_poorcontainer",
    "pytest_poorcontainer.fixtures",
    "pytest_poorcontainer.fixtures._gate",
    "pytest_poorcontainer.fixtures._options",
    "pytest_poorcontainer.fixtures.containers",
    "pytest_poorcontainer.fixtures.mirror",
    "pytest_poorcontainer.fixtures.network",
    "pytest_poorcontainer.fixtures.probe",
    "pytest_poorcontainer.fixtures.trees",
    "pytest_poorcontainer.hookspecs",
    "pytest_poorcontainer.plugin",
}
BEFORE_PLAIN_IMPORTS = {"pytest_poorcontainer", "pytest_poorcontainer.plugin", "pytest_poorcontainer.fixtures"}
PROBE = """
    import json, sys
    def pytest_unconfigure():
        with open("modules.json", "w") as file:
            loaders = {name: getattr(module, "__loader__", None) for name, module in sys.modules.items()}
            json.dump({name: type(loader).__name__ for name, loader in loaders.items()}, file)
"""


def modules(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, *args: str, alone: bool = True
) -> dict[str, str]:
    """Return what a pytest of its own has loaded in the end, and by what; ``alone``: no plugin but in ``args``."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1" if alone else "")
    pytester.makeconftest(PROBE)
    pytester.makepyfile(
        """
        import pytest

        def test_pair(netns_pair): pass

        @pytest.mark.poor_container(level="namespaces")
        def test_marked(): pass
        """,
    )
    subprocess.run([sys.executable, "-m", "pytest", *args], cwd=pytester.path, stdout=subprocess.DEVNULL, check=True)
    return dict(json.loads((pytester.path / "modules.json").read_text()))


@pytest.mark.parametrize("args", [("--collect-only",), ()])
def test_loaded_but_off_imports_pytest_alone(pytester, monkeypatch, args):
    """Off, neither collecting nor skipping loads a heavy module, our network package, or anything pytest had not."""
    without = modules(pytester, monkeypatch, "--collect-only")
    added = modules(pytester, monkeypatch, "-p", "pytest_poorcontainer.plugin", *args).keys() - without.keys()
    assert {name for name in added if name.startswith("pytest_poorcontainer")} == OURS_WHEN_OFF
    assert not [name for name in added | without.keys() if name.split(".")[0] in ("pyroute2", "scapy", "asyncio")]
    assert not [name for name in added if name.split(".")[0] in HEAVY]


def test_on_but_unused_builds_nothing(pytester, monkeypatch):
    """Collecting with the plugin on reads the markers and still loads no network package."""
    loaded = modules(pytester, monkeypatch, "-p", "pytest_poorcontainer.plugin", "--poor-container", "--collect-only")
    assert "pytest_poorcontainer.fixtures._marker" in loaded
    assert not loaded.keys() & {"pytest_poorcontainer.network", "pytest_poorcontainer.fixtures._factory"}
    assert not [name for name in loaded if name.split(".")[0] in ("pyroute2", "scapy", "asyncio")]


def test_our_modules_are_imported_plainly(pytester, monkeypatch):
    """Of a plugin pytest rewrites the assertions; of ours only in the modules that come before we can say no."""
    loaded = modules(pytester, monkeypatch, "--collect-only", alone=False)
    rewritten = {name for name, loader in loaded.items() if loader == "AssertionRewritingHook"}
    assert {name for name in rewritten if name.startswith("pytest_poorcontainer")} == BEFORE_PLAIN_IMPORTS
