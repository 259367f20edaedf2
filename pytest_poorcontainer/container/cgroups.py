"""Control groups: where ours may be made on this machine, and the making (cgroups(7), Documentation/cgroup-v2.rst).

In version 1 each controller has a tree of its own, and a group may be made below our own. In version 2 there is one
tree, and a group that has processes cannot give controllers to groups below it; so ours stand beside our own, below
the first ancestor that gives them what they need.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pytest_poorcontainer.errors import Unavailable
from pytest_poorcontainer.lab import mountinfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["FEATURE", "Controller", "Setting", "controllers", "enter", "make", "remove", "unavailable"]

FEATURE = "cgroup_limits"
_DELEGATE = "run under systemd-run --user --scope -p Delegate=yes, or as root"
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


class Controller(NamedTuple):
    """Where a controller's groups can be made: the version of its tree, and the directory that is to be above them."""

    version: int
    above: Path


class Setting(NamedTuple):
    """A file of a group and what is written to it. One that is ``optional`` may be absent in this kernel."""

    file: str
    value: str
    optional: bool = False


class _Tree(NamedTuple):
    """A mounted tree: the controllers that its mount names (version 1), its top, our own group in it."""

    names: frozenset[str]
    top: Path
    own: Path


def unavailable(reason: str, remedy: str) -> Unavailable:
    """Return the error that says that this machine cannot limit containers."""
    return Unavailable(FEATURE, reason, remedy)


def controllers(names: Sequence[str], proc: Path = Path("/proc/self")) -> dict[str, Controller]:
    """Return for each controller ("memory", "pids", "cpu") where its groups can be made.

    Version 2 where it has the controller, else version 1. Nothing is made, but where a tree of version 2 was delegated
    to this user its controllers are switched on. Raises :class:`Unavailable` when one of them is not to be had.
    """
    two, one = _trees(proc)
    offered = _words(two.own / "cgroup.controllers") | _words(two.top / "cgroup.controllers") if two else frozenset()
    in_two = [name for name in names if name in offered]
    found: dict[str, Controller] = {}
    if two and in_two:
        above = _above(two, in_two)
        found = {name: Controller(2, above) for name in in_two}
    for name in names:
        if name in found:
            continue
        tree = next((tree for tree in one if name in tree.names), None)
        if tree is None:
            raise unavailable(
                f"no tree of control groups with the controller {name} is mounted here",
                "boot without cgroup_disable=; in a container of an engine, mount /sys/fs/cgroup into it",
            )
        found[name] = Controller(1, tree.own)
    return found


def _trees(proc: Path) -> tuple[_Tree | None, list[_Tree]]:
    """Return the tree of version 2, if it is mounted, and those of version 1 (proc_pid_mountinfo(5), cgroups(7))."""
    own: dict[frozenset[str], str] = {}
    for line in _lines(proc / "cgroup"):
        _, names, path = line.split(":", 2)
        own[frozenset(names.split(",")) - {""}] = path
    two: _Tree | None = None
    one: list[_Tree] = []
    for row in mountinfo.parse("\n".join(_lines(proc / "mountinfo"))):
        if row.kind == "cgroup2":
            two = two or _tree(frozenset(), own.get(frozenset()), row.root, row.target)
        elif row.kind == "cgroup":
            named = set(row.file_system.split(","))
            names_here = next((names for names in own if names & named), frozenset[str]())
            tree = _tree(names_here, own.get(names_here), row.root, row.target) if names_here else None
            one += [tree] if tree else []
    return two, one


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()


def _tree(names: frozenset[str], path: str | None, root: str, place: str) -> _Tree | None:
    """Return a tree; None when our own group is outside of what is mounted there."""
    if path is None or path.startswith("/.."):
        return None
    # In a bind of a subtree, as engines make it, the path starts above it.
    if root != "/":
        if path != root and not path.startswith(f"{root}/"):
            return None
        path = path[len(root) :]
    return _Tree(names, Path(place), Path(place, path.lstrip("/")))


def _words(file: Path) -> frozenset[str]:
    try:
        return frozenset(file.read_text(encoding="ascii").split())
    except (FileNotFoundError, PermissionError):  # the top of a tree has no such file, or it is not for us
        return frozenset()


def _above(tree: _Tree, names: Sequence[str]) -> Path:
    """Return the nearest group, from our own upwards, that gives these controllers to those below it."""
    needed = set(names)
    for group in _upwards(tree):
        missing = needed - _words(group / "cgroup.subtree_control")
        if not missing or _switched_on(group, missing):
            return group
    # Our own has processes, so nobody can switch them on there.
    nearest = tree.own if tree.own == tree.top else tree.own.parent
    wanted = " ".join(f"+{name}" for name in names)
    raise unavailable(
        f"no group from {tree.own} upwards gives the controllers {', '.join(names)} to those below it",
        f"{_DELEGATE.partition(',')[0]}, or as root: echo {wanted} > {nearest}/cgroup.subtree_control",
    )


def _upwards(tree: _Tree) -> Iterator[Path]:
    group = tree.own
    while True:
        yield group
        if group == tree.top:
            return
        group = group.parent


def _switched_on(group: Path, names: Iterable[str]) -> bool:
    """Switch controllers on for groups below one that was delegated to us; for root, who owns all, it is not ours."""
    user = os.geteuid()
    try:
        if user == 0 or group.stat().st_uid != user:
            return False
        (group / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(names)), encoding="ascii")
    except OSError:  # it has processes (EBUSY), does not have the controllers itself (ENOENT), or is not ours after all
        return False
    return True


def make(above: Path, name: str, settings: Mapping[str, Sequence[Setting]]) -> Path:
    """Make a group and set its limits; ``settings`` are those of the controllers that are limited there.

    Raises :class:`Unavailable`; then it is not there.
    """
    group = above / name
    try:
        _make_directory(group)
    except OSError as error:
        why = f"cannot make a control group in {above}: {_meaning(error)}"
        if error.errno in _REFUSED:
            raise unavailable(f"{why}; it is not delegated to this user", _DELEGATE) from None
        raise unavailable(why, "look at cgroup.max.descendants and cgroup.max.depth there") from None
    try:
        for controller, some in settings.items():
            for setting in some:
                _write(group, controller, setting)
    except BaseException:
        remove([group])
        raise
    return group


def _make_directory(group: Path) -> None:
    """Make a group; the kernel puts its files into it."""
    group.mkdir(0o755)


def _write(group: Path, controller: str, setting: Setting) -> None:
    file = group / setting.file
    if setting.optional and not file.exists():
        return
    try:
        with file.open("r+", encoding="ascii") as limit:  # a file that is not there is not made
            limit.write(setting.value)
    except OSError as error:
        raise unavailable(
            f"cannot write {setting.value!r} to {file}: {_meaning(error)}",
            f"the controller {controller} may not have it in this kernel, or a group above allows less",
        ) from None


def enter(group: Path, pid: int) -> None:
    """Put a process into a group. Raises :class:`Unavailable`."""
    try:
        (group / "cgroup.procs").write_text(str(pid), encoding="ascii")
    except OSError as error:
        raise unavailable(f"cannot put a process into {group}: {_meaning(error)}", _DELEGATE) from None


def _meaning(error: OSError) -> str:
    number = error.errno or 0
    return f"{errno.errorcode.get(number, number)} ({os.strerror(number)})"


def remove(groups: Iterable[Path]) -> list[Path]:
    """Remove groups, and return those that could not be: they still have processes, or are somebody else's."""
    return [group for group in groups if not _removed(group)]


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
