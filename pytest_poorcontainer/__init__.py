"""Containers without a container engine, for tests.

This list is the public API; what is not named here may change without notice. The names load on first use (PEP 562),
so that ``import pytest_poorcontainer`` costs nothing in a pytest run that builds no container.

The layers, each of which imports only what stands to its right::

    plugin, fixtures, cli -> report -> probe, mirror -> network -> traffic, rootfs, cow, mounts
        -> container -> machine -> native -> errors
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_poorcontainer.container import Container, Process
    from pytest_poorcontainer.errors import LabDied, LabError, PoorContainerError, Unavailable, UsageError
    from pytest_poorcontainer.machine import Feature, features
    from pytest_poorcontainer.network import Host, HostPair, Link, Network

__all__ = [
    "Container",
    "Feature",
    "Host",
    "HostPair",
    "LabDied",
    "LabError",
    "Link",
    "Network",
    "PoorContainerError",
    "Process",
    "Unavailable",
    "UsageError",
    "features",
]

_HOMES = {
    "container": ("Container", "Process"),
    "errors": ("LabDied", "LabError", "PoorContainerError", "Unavailable", "UsageError"),
    "machine": ("Feature", "features"),
    "network": ("Host", "HostPair", "Link", "Network"),
}


def __getattr__(name: str) -> object:
    """Load a public name, or ``__version__``, when it is asked for the first time."""
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("pytest-poorcontainer")
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name the public API, loaded or not."""
    return [*__all__, "__version__"]
