"""A container as the parts of this package share it: its lab, its number, its agent. Nobody holds it: it is ended."""

from __future__ import annotations

import os
import select
import threading
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import LabDied, PoorContainerError
from pytest_poorcontainer.lab import forks
from pytest_poorcontainer.lab.agent import Agent

if TYPE_CHECKING:
    from pytest_poorcontainer.lab.client import Lab

__all__ = ["Handle"]


class Handle:
    """Owns a container that runs: the container object has it, and so has every process in there.

    ``id`` is its number in ``lab``, ``agent`` the line to its first process, ``pidfd`` that process's, ``rootfs`` says
    what it sees as ``/``, for messages, ``clock`` how many ns the clocks of commands to come are ahead.
    """

    __slots__ = ("__weakref__", "_lock", "_pid", "agent", "clock", "closed", "id", "lab", "name", "pidfd", "rootfs")

    def __init__(self, lab: Lab, name: str, number: int, agent: int, pidfd: int) -> None:
        """Take over what the lab has made: the descriptors of the agent's socket and of the pidfd."""
        self.closed = True  # until all is here
        self.lab = lab
        self.name = name
        self.id = number
        self.pidfd = pidfd
        self.rootfs = "host"
        self.clock = 0
        self._pid = 0
        self._lock = threading.Lock()
        forks.guard(pidfd)
        self.agent = Agent(agent, name)
        self.closed = False

    def rename(self, name: str, hosts: str) -> None:
        """Call the container something else, inside too; ``hosts`` becomes its /etc/hosts. Raises :class:`LabError`."""
        self.agent.rename(name, hosts)
        self.name = name

    def has_ended(self) -> bool:
        """Return whether its first process is dead, and with it all the others (pid_namespaces(7))."""
        waiting = select.poll()
        waiting.register(self.pidfd, select.POLLIN)
        return bool(waiting.poll(0))

    def check(self) -> None:
        """Raise :class:`PoorContainerError` when the container is closed, or belongs to another process."""
        if self.closed or self.lab.closed or self.lab.foreign():
            self.lab.check_fork(f"container {self.name}")
            if self.closed:
                raise PoorContainerError(f"container {self.name} is closed: it cannot be used any more")
            raise PoorContainerError(f"container {self.name} has ended with its lab, which was closed")

    def ended_by_us(self) -> bool:
        """Return whether its end is no surprise."""
        return self.closed or self.lab.closed

    def pid(self) -> int:
        """Return the pid of the container's init as this process sees it (proc(5), fdinfo of a pidfd).

        Raises :class:`LabDied` when it is dead.
        """
        if not self._pid:
            self.check()
            with open(f"/proc/self/fdinfo/{self.pidfd}", encoding="ascii") as info:  # noqa: PTH123 - proc(5)
                pids = [int(line.split()[1]) for line in info if line.startswith("Pid:")]
            if not pids or pids[0] <= 0:
                raise self.died(f"find the pid of {self.name}")
            self._pid = pids[0]
        return self._pid

    def died(self, operation: str) -> LabDied:
        """Return the error for a container that ended although nobody asked it to."""
        return self.agent.died(operation)

    def close(self) -> None:
        """End the container; return when all its processes are dead. Idempotent, also beside other threads."""
        with self._lock:
            if self.closed:
                return
            # First, so that who waits for a command in there learns that its end is no surprise.
            self.closed = True
            try:
                self.lab.end([self.id])
            finally:
                self._release()

    def __del__(self) -> None:
        """End the container because nobody refers to it any more; the garbage collector calls this, in any thread."""
        if getattr(self, "closed", True):
            return
        self.closed = True
        self._release()
        self.lab.drop(self.id)

    def _release(self) -> None:
        self.agent.close()
        forks.expose(self.pidfd)
        os.close(self.pidfd)
