"""A root file system of a few links and the machine's /usr, for tests of what stands on one."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from pytest_poorcontainer.rootfs import Rootfs

__all__ = ["UsrTree", "copy_programs"]

NAMES = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"


class UsrTree(Rootfs):
    """All programs of the machine, and nothing else of it; ``files`` are more files, by their path."""

    def __init__(self, *, readonly=False, files=()):
        super().__init__(("usr tree", tuple(files)), readonly=readonly)
        self.files = dict(files)

    @property
    def description(self):
        """What messages call it."""
        return "tree of /usr"

    def binds(self):
        """Show the machine's /usr, and what is no link into it, as on machines that are not merged."""
        return [
            (f"/{name}", f"/{name}")
            for name in ("usr", *NAMES)
            if Path(f"/{name}").is_dir() and not Path(f"/{name}").is_symlink()
        ]

    def fill(self, dir_fd):
        """Make the links of a merged /usr, users, and the files."""
        for name in NAMES:
            if Path(f"/{name}").is_symlink():
                os.symlink(Path(f"/{name}").readlink(), name, dir_fd=dir_fd)
        for path, text in {"etc/passwd": PASSWD, "etc/group": "root:x:0:\n", **self.files}.items():
            parent = path.rpartition("/")[0]
            if parent and not os.access(parent, os.F_OK, dir_fd=dir_fd):
                os.mkdir(parent, dir_fd=dir_fd)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=dir_fd)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(text)


def copy_programs(directory, *programs):
    """Make of a directory a root in which these programs run: they, and what ldd(1) says that they load."""
    for program in programs:
        found = shutil.which(program)
        loaded = subprocess.run(["ldd", found], capture_output=True, text=True, check=True).stdout
        for path in (found, *re.findall(r"(/\S+) \(0x", loaded)):
            place = directory / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
    return directory
