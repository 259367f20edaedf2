"""Containers, and the commands in them.

``control`` (the line to a command) <- ``request``, ``streams``, ``process``, ``run`` (commands) <- ``sockets``,
``log``, ``ready``, ``service``, ``service_list`` (services) <- ``call_pickle``, ``callee``, ``call_worker``, ``call``
(functions) <- ``container`` <- ``runtime_dir``, ``kept``, ``keep`` (what others may enter). What a container is to the
lab, and the lab itself, is in ``lab``.
"""

from pytest_poorcontainer.container.container import Container
from pytest_poorcontainer.container.process import Process

__all__ = ["Container", "Process"]
