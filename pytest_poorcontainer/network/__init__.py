"""Hosts joined by cables.

``addresses``, ``subnets`` (who gets which) <- ``topology`` (who is joined to whom) <- ``routes``; ``netlink``,
``messages`` <- ``fabric`` <- ``program`` (what a fault drops) <- ``link`` (cables) <- ``splice``, ``impair``, ``wire``
(what carries them); ``sockets``, ``entering`` (how the test's own process acts inside a host) <- ``host``, ``router``
<- ``building`` <- ``prefetch``, ``pairs`` (built ahead) <- ``network``.
"""

from pytest_poorcontainer.network.host import Host
from pytest_poorcontainer.network.link import Link
from pytest_poorcontainer.network.network import Chain, HostPair, Lan, Network
from pytest_poorcontainer.network.router import Router
from pytest_poorcontainer.network.topology import Switch
from pytest_poorcontainer.network.topology_file import TopologyError

__all__ = ["Chain", "Host", "HostPair", "Lan", "Link", "Network", "Router", "Switch", "TopologyError"]
