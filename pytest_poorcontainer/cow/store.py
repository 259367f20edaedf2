"""What a store on disk says of itself, so that another process can go on with it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field

from pytest_poorcontainer.errors import UsageError

__all__ = ["FILE", "Description", "check_apart", "read", "write"]

FILE = "tree.json"
_VERSION = 1


@dataclass
class Description:
    """``lowers`` are the directories below, the topmost first, ``since`` their ctimes of when the tree was made.

    ``own`` is what the tree has committed since (:class:`~pytest_poorcontainer.cow.commit.Known`).
    """

    lowers: list[str]
    since: list[int]
    backend: str
    place: str
    version: int = _VERSION
    own: dict[str, tuple[int, int]] = field(default_factory=dict)


def read(directory: str) -> Description | None:
    """Return what a store says, None when it is new. Raises :class:`UsageError` when it is none of ours."""
    try:
        with open(os.path.join(directory, FILE), encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        if os.path.isdir(directory) and os.listdir(directory):
            raise UsageError(
                f"upper {directory} is not empty, and no copy-on-write tree made it: name one that is empty or new"
            ) from None
        return None
    except NotADirectoryError:
        raise UsageError(f"upper {directory}: a directory is needed") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise UsageError(f"upper {directory}: {FILE} cannot be read ({error}): remove the directory") from None
    if not isinstance(found, dict) or found.get("version") != _VERSION:
        raise UsageError(f"upper {directory} was made by another version of this package: remove it")
    return Description(**found)


def write(directory: str, description: Description) -> None:
    """Write it, whole or not at all."""
    part = os.path.join(directory, f"{FILE}.part")
    with open(part, "w", encoding="utf-8") as file:
        json.dump(asdict(description), file)
    os.replace(part, os.path.join(directory, FILE))


def check_apart(upper: str, lower: str) -> None:
    """Raise :class:`UsageError` when one directory lies in the other."""
    store, source = os.path.realpath(upper), os.path.realpath(lower)
    if store == source or store.startswith(f"{source.rstrip('/')}/"):
        raise UsageError(
            f"upper {upper} lies in its lower {lower}: it would be part of what it changes; put it elsewhere"
        )
    if source.startswith(f"{store.rstrip('/')}/"):
        raise UsageError(f"lower {lower} lies in upper {upper}: changes and original must not be in one another")
