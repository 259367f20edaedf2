"""What loading the plugin brings along: modules are counted, times are for ``make bench``."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("asyncio", "pyroute2", "scapy", "cloudpickle", "difflib", "subprocess", "tempfile", "ctypes")
OURS_WHEN_OFF = {
    "pytest_poorcontainer",
    "pytest_poorcontainer.errors",
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
PROBE = """
    import json, sys
    def pytest_unconfigure():
        with open("modules.json", "w") as file:
            json.dump(sorted(sys.modules), file)
"""


def modules(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, *args: str) -> set[str]:
    """Return what is loaded at the end of a pytest of its own, with no plugin but those in ``args``."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
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
    return set(json.loads((pytester.path / "modules.json").read_text()))


@pytest.mark.parametrize("args", [("--collect-only",), ()])
def test_loaded_but_off_imports_pytest_alone(pytester, monkeypatch, args):
    """Off, neither collecting nor skipping loads a heavy module, our network package, or anything pytest had not."""
    without = modules(pytester, monkeypatch, "--collect-only")
    added = modules(pytester, monkeypatch, "-p", "pytest_poorcontainer.plugin", *args) - without
    assert {name for name in added if name.startswith("pytest_poorcontainer")} == OURS_WHEN_OFF
    assert not [name for name in added | without if name.split(".")[0] in ("pyroute2", "scapy", "asyncio")]
    assert not [name for name in added if name.split(".")[0] in HEAVY]


def test_on_but_unused_builds_nothing(pytester, monkeypatch):
    """Collecting with the plugin on reads the markers and still loads no network package."""
    loaded = modules(pytester, monkeypatch, "-p", "pytest_poorcontainer.plugin", "--poor-container", "--collect-only")
    assert "pytest_poorcontainer.fixtures._marker" in loaded
    assert not loaded & {"pytest_poorcontainer.network", "pytest_poorcontainer.fixtures._factory"}
    assert not [name for name in loaded if name.split(".")[0] in ("pyroute2", "scapy", "asyncio")]
