"""The lab's client: one helper process per pytest process, and the lines to what it has made.

``protocol`` (the words) <- ``forks``, ``agent`` (the lines) <- ``handle``, ``order`` (a container as its lab knows it)
<- ``spec``, ``idmap``, ``run_directories``, ``launch`` <- ``client`` (who owns everything).
"""

from pytest_poorcontainer.lab.client import Lab, Spec

__all__ = ["Lab", "Spec"]
