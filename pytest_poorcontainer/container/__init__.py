"""The lab's client: containers, and the commands in them.

``protocol`` (the words) <- ``forks``, ``agent``, ``control`` (the lines) <- ``launch``, ``lab`` (who owns everything)
<- ``request``, ``streams``, ``process``, ``run`` (commands) <- ``container``.
"""

from pytest_poorcontainer.container.container import Container
from pytest_poorcontainer.container.lab import Lab
from pytest_poorcontainer.container.names import check_name
from pytest_poorcontainer.container.process import Process

__all__ = ["Container", "Lab", "Process", "check_name"]
