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
from pytest_poorcontainer.fixtures.network import netns_factory, netns_pair

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from xdist.workermanage import WorkerController

__all__ = ["netns_factory", "netns_pair"]

_LAB = "pytest_poorcontainer.container.lab"
# False where something else in this process may have a lab: a test that runs pytest inside pytest, a program that calls
# pytest.main. Then it is theirs to end, and ends with the process.
_OUR_LAB = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare our flags and ini keys (docs/options.md)."""
    _options.add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare our own hooks."""
    from pytest_poorcontainer import hookspecs  # noqa: PLC0415 - named here only

    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    """Settle whether we are on, and declare the marker."""
    config.stash[_OUR_LAB] = _LAB not in sys.modules
    _options.settle(config)
    config.addinivalue_line("markers", _gate.MARKER_LINE)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    """Tell an xdist worker what was settled here: its environment may be another."""
    node.workerinput[_options.WORKERINPUT] = _options.mode(node.config).value


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add our sections to the report of a phase that failed."""
    report = yield
    if report.failed and _gate.is_gated(item):
        from pytest_poorcontainer.fixtures import _report  # noqa: PLC0415 - only after a failure

        _report.add_sections(item, report)
    return report


def pytest_poor_container_report_sections(item: pytest.Item) -> Sequence[tuple[str, str]] | None:
    """Say which hosts there are: the sections that we add ourselves."""
    from pytest_poorcontainer.fixtures import _report  # noqa: PLC0415 - only after a failure

    return _report.hosts_section(item)


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
