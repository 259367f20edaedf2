"""Where the compiled programs of this package are."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_poorcontainer.errors import PoorContainerError

__all__ = ["directory", "program"]


def directory() -> Path:
    """Return the directory of the compiled programs.

    ``POOR_CONTAINER_NATIVE`` names another one, for a sanitizer build under test.
    """
    override = os.environ.get("POOR_CONTAINER_NATIVE")
    return Path(override) if override else Path(__file__).parent / "_native"


def program(name: str) -> str:
    """Return the path of the compiled program ``name`` ("pclab", "pcprobe").

    Raises :class:`PoorContainerError` when it was not built.
    """
    path = directory() / name
    if not path.is_file():
        msg = (
            f"cannot find the compiled program {name} in {path.parent}: the package was installed without a C compiler "
            "or from a checkout that was not built; run `make build` in the checkout, or reinstall with gcc present"
        )
        raise PoorContainerError(msg)
    return str(path)
