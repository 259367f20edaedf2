"""The entry point ``poor-container``: what pytest calls, and where each call goes.

Loaded at every start of pytest in an environment that has this package, so it imports
pytest and the small modules of ``fixtures/``, and probes nothing. The rest is loaded
by the first test that asks for a host.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from pytest_poorcontainer.fixtures import _gate, _options
from pytest_poorcontainer.fixtures.containers import (
    _poor_container_works as _poor_container_works,  # noqa: PLC0414 - a fixture is found where the plugin has it
)
from pytest_poorcontainer.fixtures.containers import (
    chroot_env,
    chroot_env_factory,
    unshared_mounts,
    unshared_mounts_factory,
)
from pytest_poorcontainer.fixtures.mirror import (
    mirror_source,
    mirror_source_factory,
    poor_mirror,
    poor_mirror_factory,
)
from pytest_poorcontainer.fixtures.network import netns_factory, netns_pair, network, network_factory
from pytest_poorcontainer.fixtures.probe import sections, tcp_probe, tcp_probe_factory
from pytest_poorcontainer.fixtures.trees import (
    _poor_container_prepared as _poor_container_prepared,  # noqa: PLC0414 - as above
)
from pytest_poorcontainer.fixtures.trees import cow_dir, cow_dir_factory, prepared

if TYPE_CHECKING:
    from collections.abc import Generator

    from xdist.workermanage import WorkerController

__all__ = [
    "chroot_env",
    "chroot_env_factory",
    "cow_dir",
    "cow_dir_factory",
    "mirror_source",
    "mirror_source_factory",
    "netns_factory",
    "netns_pair",
    "network",
    "network_factory",
    "poor_mirror",
    "poor_mirror_factory",
    "prepared",
    "tcp_probe",
    "tcp_probe_factory",
    "unshared_mounts",
    "unshared_mounts_factory",
]

_LAB = "pytest_poorcontainer.lab.client"
# False where something else in this process may have a lab: a test that runs pytest inside pytest, a program that calls
# pytest.main. Then it is theirs to end, and ends with the process.
_OUR_LAB: pytest.StashKey[bool] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare our flags and ini keys (docs/options.md)."""
    _options.add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare our own hooks."""
    from pytest_poorcontainer import hookspecs  # noqa: PLC0415 - named here only

    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    """Settle whether we are on, declare the marker, and have ourselves called around each test if we are."""
    config.stash[_OUR_LAB] = _LAB not in sys.modules
    decided = _options.settle(config)
    config.addinivalue_line("markers", _gate.MARKER_LINE)
    if decided.on:
        from pytest_poorcontainer.fixtures import _live, _mounts  # noqa: PLC0415 - not when off
        from pytest_poorcontainer.fixtures._reporting import REPORTING, Reporting  # noqa: PLC0415 - as above

        _mounts.settle(config)
        config.stash[REPORTING] = Reporting(config, own_lab=config.stash[_OUR_LAB])
        config.pluginmanager.register(config.stash[REPORTING], "poor-container-reporting")
        if _live.wanted(config):
            _live.show_lines(config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    """Tell an xdist worker what was settled here: its environment may be another."""
    node.workerinput.update(_options.crossing(node.config))


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say in one line that we are on, and who said so; nothing when off."""
    decided = _options.mode(config)
    return f"poor-container: {decided.value} ({decided.source})" if decided.on else None


@pytest.hookimpl(trylast=True)  # after the conftest files that add markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Decide which tests are gated."""
    _gate.collected(config, items)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse a test whose marker has a mistake or asks for too much, before pytest sets up any of its fixtures."""
    _gate.refuse(item)


def pytest_poor_container_report_sections(item: pytest.Item) -> list[tuple[str, str]] | None:
    """Tell what the last probes of a failed test found out."""
    return sections(item)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outermost: what we write comes after everyone's summary
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None]:
    """Say how many tests were skipped because we are off, also under ``-q``."""
    yield
    line = _gate.off_line(terminalreporter.stats.get("skipped", []))
    if line:
        terminalreporter.write_line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the lab, if this session has started one."""
    if config.stash.get(_OUR_LAB, False) and _LAB in sys.modules:
        sys.modules[_LAB].Lab.close_current()
