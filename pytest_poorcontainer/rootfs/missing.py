"""Why a program cannot be started in a container although there seems to be nothing wrong with it.

execve(2) says ENOENT for a program that is not there, and just so for one whose interpreter or dynamic loader is not
there; of a library that is missing the loader says a line, and ends with 127. This says which it is.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, BinaryIO

from pytest_poorcontainer.rootfs import elf, shebang
from pytest_poorcontainer.rootfs.libraries import Libraries, lacking

if TYPE_CHECKING:
    from collections.abc import Callable

    Open = Callable[[str], BinaryIO]

__all__ = ["explain"]

_ABSENT = (FileNotFoundError, NotADirectoryError)


def explain(open_file: Callable[[str], BinaryIO], program: str, search_path: str) -> str | None:
    """Return what ``program`` lacks, as a clause for a message; None when nothing is found missing.

    ``open_file`` opens an absolute path for reading as the container resolves it, and raises OSError;
    FileNotFoundError and NotADirectoryError mean that it is not there, every other one that nothing can be said.
    ``search_path`` is the PATH in which a name without a slash is looked for. Whatever the files contain, it does not
    raise.
    """
    path = program
    if "/" not in program:
        directories = [directory for directory in search_path.split(":") if directory.startswith("/")]
        candidates = [posixpath.join(directory, program) for directory in directories]
        found = next((one for one in candidates if _is_there(open_file, one)), None)
        if found is None:
            return f"there is no {program!r} in {', '.join(directories) or 'PATH, which is empty'}"
        path = found
    return _explain(open_file, path, search_path, 0)


def _explain(open_file: Open, path: str, search_path: str, depth: int) -> str | None:
    try:
        with open_file(path) as file:
            head = file.read(shebang.HEAD)
    except _ABSENT:
        return f"there is no {path}"
    except OSError:
        return None
    script = shebang.parse(head)
    if script is not None and depth < shebang.DEPTH_MAX:
        return _explain_script(open_file, path, script, search_path, depth)
    return _explain_elf(open_file, path) if head.startswith(elf.MAGIC) else None


def _explain_script(open_file: Open, path: str, script: shebang.Shebang, search_path: str, depth: int) -> str | None:
    interpreter = script.interpreter
    if interpreter.endswith("\r") and not _is_there(open_file, interpreter):
        what = f"the first line of {path} ends with a carriage return, so its interpreter is {interpreter!r}"
        return f"{what}: give it Unix line ends"
    if not interpreter.startswith("/"):
        return None  # relative to a directory that is not known here
    if not _is_there(open_file, interpreter):
        return f"{path} is a script for {interpreter}, which is not there"
    found = _explain(open_file, interpreter, search_path, depth + 1)
    name = script.program()
    if found is None and name and "/" not in name:
        found = explain(open_file, name, search_path) if depth + 1 < shebang.DEPTH_MAX else None
    return None if found is None else f"{path} is a script for {name or interpreter}: {found}"


def _explain_elf(open_file: Open, path: str) -> str | None:
    libraries = Libraries(open_file)
    headers = libraries.look(path)
    if headers is None:
        return f"{path} is a damaged ELF file"
    loader = headers.interpreter
    if not loader:
        return None
    if loader.startswith("/") and not _is_there(open_file, loader):
        return f"{path} needs the dynamic loader {loader}, which is not there"
    found = libraries.look(loader)
    if found is not None and found.kind != headers.kind:
        return f"{path} is made for {elf.machine_name(headers)}, and {loader} for {elf.machine_name(found)}"
    missing = libraries.scope(path, headers).missing
    return lacking(missing) if missing else None


def _is_there(open_file: Open, path: str) -> bool:
    try:
        with open_file(path):
            return True
    except _ABSENT:
        return False
    except OSError:
        return True
