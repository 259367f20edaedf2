"""A source in a host: a server of ours on a directory, told what to do wrong."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.errors import Unavailable, UsageError
from pytest_poorcontainer.mirror.testing.faults import Fault, write
from pytest_poorcontainer.mirror.testing.server import PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_poorcontainer.container.service import Service
    from pytest_poorcontainer.network import Host

__all__ = ["MirrorSource", "contents"]

_PORTS = {"http": 80, "ftp": 21, "ftp-list": 21, "rsync": 873}
_SERVER = "pytest_poorcontainer.mirror.testing.server"
_OURS = {".poor-mirror", ".poor-mirror.manifest"}


def contents(top: Path) -> dict[str, str]:
    """Return what is in a tree, each file as its size and checksum, each link as its target, for comparing."""
    found = {}
    for directory, names, files in os.walk(top):
        for name in [*files, *names]:
            path = Path(directory, name)
            relative = os.path.relpath(path, top)
            if relative.split("/")[0] in _OURS:
                continue
            if path.is_symlink():
                found[relative] = f"-> {os.readlink(path)}"  # noqa: PTH115 - as it is, odd bytes too
            elif path.is_file():
                data = path.read_bytes()
                found[relative] = f"{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()[:16]}"
    return dict(sorted(found.items()))


def _check_rsync(host: Host) -> None:
    """Raise :class:`Unavailable` where rsync's daemon cannot run."""
    allowed = host.run(["cat", "/proc/self/setgroups"], capture_output=True, text=True).stdout
    if allowed.strip() == "deny":
        raise Unavailable(
            "a mirror source by rsync",
            "its daemon calls setgroups(2), which a host with a single id may not",
            "give the user a range in /etc/subuid and /etc/subgid, and install uidmap",
        )


class MirrorSource:
    """An archive that a host offers, at ``url``. What is below ``path`` is offered; tests may change it at any time."""

    def __init__(
        self,
        host: Host,
        files: Mapping[str, int | bytes] | Path,
        directory: Path,
        *,
        protocol: str = "http",
        dialect: str = "nginx",
    ) -> None:
        """Write the files and start the server; ``directory`` has to be one that the host sees at the same path.

        ``files`` are contents or sizes (bytes) by path, or a directory that is copied. ``protocol`` is one of
        "http", "ftp", "ftp-list" (without MLSD) and "rsync"; ``dialect`` how HTTP shows directories. Raises
        :class:`~pytest_poorcontainer.errors.UsageError`, :class:`~pytest_poorcontainer.errors.Unavailable`, and what
        starting a service raises.
        """
        if protocol not in PROTOCOLS:
            raise UsageError(f'there is no protocol "{protocol}" for a source; there are {", ".join(PROTOCOLS)}')
        self.host = host
        self.protocol = protocol
        self.path = directory / "tree"
        self._faults_file = directory / "faults.json"
        self._faults: list[Fault] = []
        if isinstance(files, Path):
            shutil.copytree(files, self.path, symlinks=True)
        else:
            self.path.mkdir()
            for name, content in files.items():
                self.put(name, content)
        if protocol == "rsync":
            _check_rsync(host)
        scheme = protocol.partition("-")[0]
        self.url = f"{scheme}://{host.ip}/{'mirror/' if scheme == 'rsync' else ''}"
        options = ["--address", host.ip, "--port", str(_PORTS[protocol]), "--faults", str(self._faults_file)]
        options += ["--dialect", dialect] if protocol == "http" else []
        argv = [sys.executable, "-m", _SERVER, protocol, str(self.path), *options]
        self.service: Service = host.start(argv, ready=_PORTS[protocol], name=f"mirror-source-{protocol}")

    def put(self, name: str, content: int | bytes) -> None:
        """Write a file: these bytes, or so many (the same ones for the same name)."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else random.Random(name).randbytes(content)  # noqa: S311 - no secret
        new = path.with_name(f".{path.name}.new")
        new.write_bytes(data)
        os.utime(new, (time.time(), int(time.time())))
        new.replace(path)

    def remove(self, name: str) -> None:
        """Remove a file or a directory."""
        path = self.path / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

    def tree(self) -> dict[str, str]:
        """Return what is offered, as :meth:`PoorMirror.tree` does."""
        return contents(self.path)

    def fault(self, kind: str, path: str | None = None, **details: Any) -> None:
        """Do something wrong from now on (``mirror.testing.faults.KINDS``), for one path or for all; not by rsync."""
        if self.protocol == "rsync":
            raise UsageError("an rsync source misbehaves in no way of ours: use http or ftp")
        self._faults.append({"kind": kind, **({} if path is None else {"path": path}), **details})
        write(self._faults_file, self._faults)

    def heal(self) -> None:
        """Do everything right again."""
        self._faults.clear()
        write(self._faults_file, [])

    def __repr__(self) -> str:
        """Name the URL and what is wrong with it."""
        return f"<MirrorSource {self.url} {', '.join(fault['kind'] for fault in self._faults) or 'without faults'}>"
