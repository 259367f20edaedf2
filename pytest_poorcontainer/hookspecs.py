"""The hooks that this plugin calls; implement them in a ``conftest.py`` or a plugin.

Their names start with ``pytest_``, because pytest's plugin manager looks at no other
name (``PytestPluginManager.parse_hookimpl_opts``; docs/decisions/0004-hook-names.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_poorcontainer.container import Container
    from pytest_poorcontainer.network import Host, HostPair, Network

__all__ = [
    "pytest_poor_container_container_ready",
    "pytest_poor_container_host_ready",
    "pytest_poor_container_network_ready",
    "pytest_poor_container_report_sections",
]


@pytest.hookspec
def pytest_poor_container_container_ready(container: Container) -> None:
    """Called for each new container that a fixture is about to hand to a test, hosts as well, before it is used.

    The place for what every container of a project needs (a file, a directory). An exception ends the set-up of the
    test, and the container is closed.
    """


@pytest.hookspec
def pytest_poor_container_host_ready(host: Host) -> None:
    """Called for each new host, when it has its addresses and its links are usable.

    The place for what every host of a project needs (a sysctl, a directory). An
    exception ends the set-up of the test, and the hosts are closed.
    """


@pytest.hookspec
def pytest_poor_container_network_ready(network: HostPair | Network) -> None:
    """Called after the last ``pytest_poor_container_host_ready`` of what a fixture is about to hand to a test.

    ``network`` is that very value: for ``netns_pair`` and ``netns_factory`` a
    :class:`~pytest_poorcontainer.HostPair`; for ``network`` and ``network_factory`` a
    :class:`~pytest_poorcontainer.Network`, which may be empty yet. An exception ends the
    set-up of the test, and the hosts are closed.
    """


@pytest.hookspec
def pytest_poor_container_report_sections(item: pytest.Item) -> Sequence[tuple[str, str]] | None:
    """Called when a phase of a test that needs containers has failed, before its fixtures are torn down.

    Return pairs of title and text; each becomes a section of the report, shown with
    the captured output and carried across pytest-xdist. None means nothing to say. An
    exception becomes a section too; it never hides the failure itself.
    """
