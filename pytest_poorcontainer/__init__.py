"""Containers without a container engine, for tests.

This list is the public API; what is not named here may change without notice. The names load on first use (PEP 562),
so that ``import pytest_poorcontainer`` costs nothing in a pytest run that builds no container.

The layers, each of which imports only what stands to its right::

    plugin, fixtures, cli -> report -> probe, mirror -> network -> traffic -> container
        -> rootfs, cow, mounts -> lab -> machine -> native -> errors
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_poorcontainer.container import Container, Process
    from pytest_poorcontainer.container.call import CallDied, CallError, RemoteTraceback
    from pytest_poorcontainer.container.chroot_env import ChrootEnv
    from pytest_poorcontainer.container.eventually import eventually
    from pytest_poorcontainer.container.service import Service
    from pytest_poorcontainer.container.settings import Settings
    from pytest_poorcontainer.container.sockets import SocketInfo
    from pytest_poorcontainer.container.trees import CowTree
    from pytest_poorcontainer.cow import Changes, CommitRefused, Damaged
    from pytest_poorcontainer.errors import (
        LabDied,
        LabError,
        NotReady,
        PoorContainerError,
        ServiceDied,
        ServiceError,
        Unavailable,
        UsageError,
    )
    from pytest_poorcontainer.machine import Feature, features
    from pytest_poorcontainer.mirror.testing.edge import MirrorResult, PoorMirror
    from pytest_poorcontainer.mirror.testing.origin import MirrorSource
    from pytest_poorcontainer.mounts import MountEntry, Mounts
    from pytest_poorcontainer.network import Chain, Host, HostPair, Lan, Link, Network, Router, Switch, TopologyError
    from pytest_poorcontainer.network.wire import WireDied, WireOverflow
    from pytest_poorcontainer.probe.result import ProbeResult
    from pytest_poorcontainer.probe.tcp_probe import TcpProbe
    from pytest_poorcontainer.rootfs import Rootfs
    from pytest_poorcontainer.rootfs.programs import Programs
    from pytest_poorcontainer.traffic.capture import Packets
    from pytest_poorcontainer.traffic.frames import Frame

__all__ = [
    "CallDied",
    "CallError",
    "Chain",
    "Changes",
    "ChrootEnv",
    "CommitRefused",
    "Container",
    "CowTree",
    "Damaged",
    "Feature",
    "Frame",
    "Host",
    "HostPair",
    "LabDied",
    "LabError",
    "Lan",
    "Link",
    "MirrorResult",
    "MirrorSource",
    "MountEntry",
    "Mounts",
    "Network",
    "NotReady",
    "Packets",
    "PoorContainerError",
    "PoorMirror",
    "ProbeResult",
    "Process",
    "Programs",
    "RemoteTraceback",
    "Rootfs",
    "Router",
    "Service",
    "ServiceDied",
    "ServiceError",
    "Settings",
    "SocketInfo",
    "Switch",
    "TcpProbe",
    "TopologyError",
    "Unavailable",
    "UsageError",
    "WireDied",
    "WireOverflow",
    "eventually",
    "features",
]

_HOMES = {
    "container": ("Container", "Process"),
    "container.call": ("CallDied", "CallError", "RemoteTraceback"),
    "container.chroot_env": ("ChrootEnv",),
    "container.eventually": ("eventually",),
    "container.service": ("Service",),
    "container.settings": ("Settings",),
    "container.sockets": ("SocketInfo",),
    "container.trees": ("CowTree",),
    "cow": ("Changes", "CommitRefused", "Damaged"),
    "errors": (
        "LabDied",
        "LabError",
        "NotReady",
        "PoorContainerError",
        "ServiceDied",
        "ServiceError",
        "Unavailable",
        "UsageError",
    ),
    "machine": ("Feature", "features"),
    "mirror.testing.edge": ("MirrorResult", "PoorMirror"),
    "mirror.testing.origin": ("MirrorSource",),
    "mounts": ("MountEntry", "Mounts"),
    "network": ("Chain", "Host", "HostPair", "Lan", "Link", "Network", "Router", "Switch", "TopologyError"),
    "network.wire": ("WireDied", "WireOverflow"),
    "probe.result": ("ProbeResult",),
    "probe.tcp_probe": ("TcpProbe",),
    "rootfs": ("Rootfs",),
    "rootfs.programs": ("Programs",),
    "traffic.capture": ("Packets",),
    "traffic.frames": ("Frame",),
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
