"""What is different in a tree: which paths, and how; as a dict, and as text for people."""

from __future__ import annotations

import difflib
import os
import re
import stat
from typing import TYPE_CHECKING

from pytest_poorcontainer.cow import overlayfs
from pytest_poorcontainer.cow.layer import join
from pytest_poorcontainer.cow.view import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_poorcontainer.cow.layer import Layer
    from pytest_poorcontainer.cow.view import View

__all__ = ["ADDED", "DELETED", "METADATA", "MODIFIED", "Changes", "Comparison", "matcher"]

ADDED, MODIFIED, DELETED, METADATA = "added", "modified", "deleted", "metadata"
_CHUNK = 1 << 16
_TEXT_MAX = 256 << 10  # bytes of a file of which lines are compared
_LINES_MAX = 60  # of one file's difference
_SHOWN_MAX = 40  # files


class Changes(dict[str, str]):
    """Path and kind of each difference, in order of the paths: "added", "modified", "deleted" or "metadata".

    "modified" is another content or another type, "metadata" another mode, owner or extended attribute of the same
    content. Times do not count, nor does a directory in which something else has changed. What is below an added or a
    deleted directory stands there by itself. "." is the tree's root.
    """

    def matching(self, patterns: Iterable[str]) -> Changes:
        """Return those whose path is matched by one of the patterns (:func:`matcher`)."""
        fits = matcher(patterns)
        return Changes((path, kind) for path, kind in self.items() if fits(path))

    def without(self, patterns: Iterable[str]) -> Changes:
        """Return the others."""
        fits = matcher(patterns)
        return Changes((path, kind) for path, kind in self.items() if not fits(path))

    def lines(self) -> list[str]:
        """Return a line for each: the kind's first letter and the path."""
        return [f"{kind:8} {printable(path)}" for path, kind in self.items()]


def printable(path: str) -> str:
    """Return a path as it can be printed and sent anywhere: what is no text is escaped."""
    return path.encode("utf-8", "backslashreplace").decode().replace("\n", "\\n")


def matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that says whether one of the patterns matches a whole path.

    "*" and "?" stand for what is in one name, "**" for any number of names, "[abc]" for one of these characters; "a/**"
    is a and all that is below it. There is no shorthand for "anywhere": that is "**/name".
    """
    compiled = [re.compile(_expression(os.fspath(pattern)), re.DOTALL) for pattern in patterns]
    return lambda path: any(each.fullmatch(path) for each in compiled)


def _expression(pattern: str) -> str:
    parts = pattern.strip("/").split("/")
    text = ""
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "**":
            text = f"{text.removesuffix('/')}(?:/.*)?" if last and text else f"{text}{'.*' if last else '(?:.*/)?'}"
        else:
            text += _name(part) + ("" if last else "/")
    return text


def _name(part: str) -> str:
    """Return the expression of a pattern of one name."""
    text = re.sub(
        r"\[(!?)([^]]+)\]|\*|\?|[^[*?]+|\[",
        lambda found: (
            f"[{'^' if found[1] else ''}{re.escape(found[2]).replace(chr(92) + '-', '-')}]"
            if found[2]
            else {"*": "[^/]*", "?": "[^/]"}.get(found[0], re.escape(found[0]))
        ),
        part,
    )
    return text or "(?!)"


class Comparison:
    """Compares what a tree shows with what its lower has.

    ``owners`` says whether owners count; what has become the user ``copier``'s, who cannot keep an owner, does not.
    """

    def __init__(self, new: View, old: View, *, owners: bool = True, copier: int | None = None) -> None:
        """Compare ``new`` with ``old``."""
        self.new = new
        self.old = old
        self._owners = owners
        self._copier = copier
        self._found: dict[str, str] = {}

    def of_upper(self, upper: Layer, *, linked: bool = False) -> Changes:
        """Return the changes of a tree by what is in its upper: in proportion to these.

        ``linked`` says that a file of several names in the lower has been changed by one of them: then the upper does
        not have all names that are different, and the lower is searched for the others.
        """
        self._found = {}
        if self._differs(upper, self.old.layers[0], ""):
            self._found["."] = METADATA
        pending = [("", list(self.old.layers))]
        while pending:
            directory, below = pending.pop()
            names = set()
            for name, info in upper.entries(directory):
                names.add(name)
                path = join(directory, name)
                old = self._old(path, below)
                if overlayfs.is_whiteout(upper, path, info):
                    self._deleted(path, old)
                    continue
                merged = self._both(path, upper, info, old)
                if stat.S_ISDIR(info.st_mode):
                    pending.append((path, merged))
            if directory and below and overlayfs.is_opaque(upper, directory):
                for name in self.old.listing(directory, below):
                    if name not in names:
                        self._deleted(join(directory, name), self._old(join(directory, name), below))
        if linked:
            self._others(upper)
        return self._sorted()

    def _others(self, upper: Layer) -> None:
        """Look at the files of the lower that have several names."""
        for path, info, layer in self.old.walk():
            if stat.S_ISREG(info.st_mode) and info.st_nlink > 1 and path not in self._found and not upper.find(path):
                now = self.new.find(path)
                if now:
                    self._both(path, now[0], now[0].lstat(path), [layer])

    def of_copy(self, since: int) -> Changes:
        """Return the changes of a copy: inodes whose ctime is before ``since`` (nanoseconds) are as they were.

        That does not hold below a directory that may have been moved. To be moved changes its ctime (rename(2) on
        Linux's file systems), but so do entries that come and go.
        """
        copy = self.new.layers[0]
        self._found = {}
        if copy.lstat("").st_ctime_ns >= since and self._differs(copy, self.old.layers[0], ""):
            self._found["."] = METADATA
        pending = [("", list(self.old.layers), False)]
        while pending:
            directory, below, moved = pending.pop()
            before = self.old.listing(directory, below) if below else {}
            names = set()
            for name, info in copy.entries(directory):
                names.add(name)
                path = join(directory, name)
                old = before[name][1] if name in before else []
                touched = moved or info.st_ctime_ns >= since
                if stat.S_ISDIR(info.st_mode):
                    pending.append((path, self._both(path, copy, info, old), touched))
                elif touched or not old:
                    self._both(path, copy, info, old)
            for name, (_, layers) in before.items():
                if name not in names:
                    self._deleted(join(directory, name), layers)
        return self._sorted()

    def _sorted(self) -> Changes:
        return Changes(sorted(self._found.items()))

    def _old(self, path: str, layers: list[Layer]) -> list[Layer]:
        """Return the stack of a path in the lower, given that of its parent; an empty one when there is nothing."""
        if not layers:
            return []
        try:
            return visible(layers, path)
        except OSError:
            return []

    def _both(self, path: str, layer: Layer, info: os.stat_result, old: list[Layer]) -> list[Layer]:
        """Note what is different in what is there now; return the stack of a directory that both have."""
        if not old:
            self._found[path] = ADDED
            return []
        before = old[0].lstat(path)
        if stat.S_IFMT(before.st_mode) != stat.S_IFMT(info.st_mode):
            if stat.S_ISDIR(before.st_mode):
                for below, _, _ in self.old.walk(path, old):
                    self._found[below] = DELETED
            self._found[path] = MODIFIED
            return []
        if self._content_differs(path, layer, info, old[0], before):
            self._found[path] = MODIFIED
        elif self._differs(layer, old[0], path):
            self._found[path] = METADATA
        return old

    def _deleted(self, path: str, old: list[Layer]) -> None:
        if not old:
            return
        self._found[path] = DELETED
        if stat.S_ISDIR(old[0].lstat(path).st_mode):
            for below, _, _ in self.old.walk(path, old):
                self._found[below] = DELETED

    @staticmethod
    def _content_differs(path: str, new: Layer, info: os.stat_result, old: Layer, before: os.stat_result) -> bool:
        kind = stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFLNK:
            return new.readlink(path) != old.readlink(path)
        if kind in {stat.S_IFCHR, stat.S_IFBLK}:
            return info.st_rdev != before.st_rdev
        if kind != stat.S_IFREG:
            return False
        return info.st_size != before.st_size or not _same_content(new, old, path)

    def _differs(self, new: Layer, old: Layer, path: str) -> bool:
        """Return whether mode, owner or extended attributes are others."""
        now, before = new.lstat(path), old.lstat(path)
        if stat.S_IMODE(now.st_mode) != stat.S_IMODE(before.st_mode) and not stat.S_ISLNK(now.st_mode):
            return True
        copied = now.st_uid == self._copier != before.st_uid
        if self._owners and not copied and (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
            return True
        return _xattrs(new, path) != _xattrs(old, path)

    def text(self, changes: Changes) -> Iterator[str]:
        """Yield lines that show the changes: of text files what diff -u shows of them."""
        for number, (path, kind) in enumerate(changes.items()):
            if number >= _SHOWN_MAX:
                yield f"... and {len(changes) - number} more"
                return
            yield f"{kind} {printable(path)}{self._remark(path, kind)}"
            yield from self._lines(path, kind)

    def _remark(self, path: str, kind: str) -> str:
        """Return what is to be said of a change beside the difference of lines."""
        if kind == METADATA:
            name = "" if path == "." else path
            now, before = self.new.lstat(name), self.old.lstat(name)
            parts = [
                f"mode {stat.filemode(before.st_mode)} -> {stat.filemode(now.st_mode)}"
                if before.st_mode != now.st_mode
                else "",
                f"owner {before.st_uid}:{before.st_gid} -> {now.st_uid}:{now.st_gid}"
                if (before.st_uid, before.st_gid) != (now.st_uid, now.st_gid)
                else "",
            ]
            return f": {', '.join(filter(None, parts)) or 'extended attributes'}"
        return ""

    def _lines(self, path: str, kind: str) -> Iterator[str]:
        if kind == METADATA:
            return
        old = _text(self.old, path) if kind != ADDED else ""
        new = _text(self.new, path) if kind != DELETED else ""
        if old is None or new is None:
            yield f"  binary: {_size(self.old, path)} -> {_size(self.new, path)}"
            return
        shown = printable(path)
        lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), f"a/{shown}", f"b/{shown}", lineterm=""))
        yield from (f"  {line}" for line in lines[:_LINES_MAX])
        if len(lines) > _LINES_MAX:
            yield f"  ... {len(lines) - _LINES_MAX} more lines"


def _xattrs(layer: Layer, path: str) -> dict[str, bytes]:
    with layer.place(path) as place:
        try:
            names = os.listxattr(place, follow_symlinks=False)
            return {
                name: os.getxattr(place, name, follow_symlinks=False)
                for name in names
                if not overlayfs.is_own(name) and name.startswith(("user.", "security.capability", "system.posix_acl"))
            }
        except OSError:
            return {}  # a file system without any, or ones that are not for us to read


def _same_content(new: Layer, old: Layer, path: str) -> bool:
    """Compare two files of one size."""
    one, other = new.open(path), old.open(path)
    try:
        while True:
            left, right = os.read(one, _CHUNK), os.read(other, _CHUNK)
            if left != right:
                return False
            if not left:
                return True
    finally:
        os.close(one)
        os.close(other)


def _text(view: View, path: str) -> str | None:
    """Return what a file has as text ("" for what is no file), a link's target; None for what is binary or too long."""
    try:
        info = view.lstat(path)
        if stat.S_ISLNK(info.st_mode):
            return f"symbolic link to {printable(view.readlink(path))}"
        if not stat.S_ISREG(info.st_mode):
            return ""
        if info.st_size > _TEXT_MAX:
            return None
        fd = view.open(path)
    except OSError as error:
        return f"(cannot be read: {error.strerror})"
    with os.fdopen(fd, "rb") as file:
        content = file.read()
    if b"\0" in content:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _size(view: View, path: str) -> str:
    stack = view.find(path)
    return f"{stack[0].lstat(path).st_size} bytes" if stack else "nothing"
