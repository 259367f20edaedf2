"""Copy-on-write trees: directories that programs change while their originals stay as they were.

``layer`` (a directory by its descriptor), ``overlayfs`` (the format of an upper) <- ``view`` (what layers show) <-
``changes``, ``copying``, ``upper`` (comparing, taking back, snapshots), ``commit``, ``oci`` <- ``backend`` <-
``overlay``, ``duplicate`` (plugins, see ``hookspecs``) <- ``choosing`` <- ``tree`` <- ``prepared``. ``tripwire`` looks
after the originals.
"""

from __future__ import annotations

from pytest_poorcontainer.cow.changes import Changes
from pytest_poorcontainer.cow.commit import CommitRefused
from pytest_poorcontainer.cow.tree import Tree
from pytest_poorcontainer.cow.tripwire import Damaged

__all__ = ["Changes", "CommitRefused", "Damaged", "Tree"]
