"""Hosts joined by cables.

``addresses`` (who gets which) <- ``link`` (cables and their media) <- ``sockets``, ``entering`` (how the test's own
process acts inside a host) <- ``host`` <- ``network``.
"""

from pytest_poorcontainer.network.host import Host
from pytest_poorcontainer.network.link import Link, Medium
from pytest_poorcontainer.network.network import HostPair, Network

__all__ = ["Host", "HostPair", "Link", "Medium", "Network"]
