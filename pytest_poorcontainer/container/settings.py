"""What a container is to be besides its name and its network, checked before anything is built."""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.lab.protocol import Network
from pytest_poorcontainer.lab.spec import Spec

if TYPE_CHECKING:
    from typing import TypeAlias

    from pytest_poorcontainer.container.limits import Limits
    from pytest_poorcontainer.cow import Tree
    from pytest_poorcontainer.lab import Lab
    from pytest_poorcontainer.lab.handle import Handle
    from pytest_poorcontainer.rootfs import Rootfs, Source

    Rlimits: TypeAlias = Mapping[str, int | tuple[int | None, int | None] | None]

__all__ = ["CAPABILITIES", "Settings"]

# The numbers of linux/capability.h. init.c keeps just these, whatever is asked for.
CAPABILITIES = {
    "chown": 0,
    "dac_override": 1,
    "fowner": 3,
    "fsetid": 4,
    "kill": 5,
    "setgid": 6,
    "setuid": 7,
    "setpcap": 8,
    "net_bind_service": 10,
    "net_broadcast": 11,
    "net_admin": 12,
    "net_raw": 13,
    "ipc_lock": 14,
    "sys_chroot": 18,
    "audit_write": 29,
    "setfcap": 31,
}
"""The capabilities that a container has (capabilities(7)); with the machine's network net_admin is none of them."""

_INFINITY = (1 << 64) - 1
_NETWORKS = {"none": Network.OWN, "host": Network.HOST}


@dataclass(frozen=True)
class Settings:
    """What containers are to be. Make it with :meth:`of`; equal ones are interchangeable."""

    rootfs: Rootfs | None = None
    limits: Limits | None = None
    capabilities: int | None = None
    rlimits: tuple[tuple[int, int, int], ...] = ()
    network: Network = Network.OWN

    @classmethod
    def of(
        cls,
        *,
        rootfs: Source | None = None,
        readonly: bool = False,
        memory: int | str | None = None,
        pids: int | None = None,
        cpu: float | None = None,
        capabilities: Sequence[str] | None = None,
        rlimits: Rlimits | None = None,
        network: str = "none",
    ) -> Settings:
        """Return what these arguments of :class:`Container` ask for. Raises :class:`UsageError` for what is wrong."""
        limits = None
        if memory is not None or pids is not None or cpu is not None:
            from pytest_poorcontainer.container.limits import Limits  # noqa: PLC0415 - few tests need it

            limits = Limits.parse(memory=memory, pids=pids, cpu=cpu)
        return cls(
            _rootfs(rootfs, readonly=readonly), limits, _mask(capabilities), _limits_of(rlimits), _network(network)
        )

    @property
    def description(self) -> str:
        """What the container sees as ``/``, for people: "host", "directory /srv/image", ..."""
        return "host" if self.rootfs is None else self.rootfs.description

    def spec(self, lab: Lab, name: str, hosts: str) -> Spec:
        """Return what the lab is asked for. Raises what the source of a root file system raises."""
        number = 0 if self.rootfs is None else self.rootfs.number(lab)
        return Spec(name, hosts, self.network, rootfs=number, capabilities=self.capabilities, rlimits=self.rlimits)

    def created(self, handles: Sequence[Handle]) -> None:
        """Do what can be done only to containers that are there. Raises what that raises; then they are ended."""
        try:
            for handle in handles:
                handle.rootfs = self.description
            if self.rootfs is not None:
                self.rootfs.created(handles)
            for handle in handles:
                if self.limits is not None:
                    self.limits.apply(handle)
        except BaseException:
            for handle in handles:
                handle.close()
            raise


def _rootfs(source: Source | None, *, readonly: bool) -> Rootfs | None:
    if source is None or (isinstance(source, str) and source == "host"):
        if readonly:
            raise UsageError("readonly=True is for rootfs=: the machine's own / is read-only as it is")
        return None
    if getattr(source, "is_tree", False):
        from pytest_poorcontainer.container.tree_root import TreeRoot  # noqa: PLC0415 - few tests need it

        return TreeRoot(cast("Tree", source), readonly=readonly)
    from pytest_poorcontainer.rootfs import find  # noqa: PLC0415 - few tests need it

    return find(source, readonly=readonly)


def _mask(capabilities: Sequence[str] | None) -> int | None:
    if capabilities is None:
        return None
    if isinstance(capabilities, str) or not isinstance(capabilities, Sequence):
        raise UsageError(f"capabilities is a list of names, such as ['net_bind_service'], not {capabilities!r}")
    mask = 0
    for name in capabilities:
        number = CAPABILITIES.get(str(name).lower().removeprefix("cap_"))
        if number is None:
            raise UsageError(
                f"a container cannot have the capability {name!r}; what it can have: {', '.join(CAPABILITIES)}"
            )
        mask |= 1 << number
    return mask


def _limits_of(rlimits: Rlimits | None) -> tuple[tuple[int, int, int], ...]:
    if rlimits is None:
        return ()
    if not isinstance(rlimits, Mapping):
        raise UsageError(f"rlimits is a mapping such as {{'nofile': 64}}, not {rlimits!r}")
    return tuple(_limit_of(name, value) for name, value in sorted(rlimits.items()))


def _limit_of(name: str, value: object) -> tuple[int, int, int]:
    number = getattr(resource, f"RLIMIT_{str(name).upper()}", None)
    if not isinstance(number, int):
        known = ", ".join(sorted(one[7:].lower() for one in dir(resource) if one.startswith("RLIMIT_")))
        raise UsageError(f"rlimits: there is no resource {name!r}; those of setrlimit(2) are {known}")
    pair = value if isinstance(value, tuple) else (value, value)
    if len(pair) != 2:  # noqa: PLR2004 - soft and hard
        raise UsageError(
            f"rlimits: {name} is a number, None (no limit) or a pair of soft and hard limit, not {value!r}"
        )
    soft, hard = (_INFINITY if one is None else _checked(name, one) for one in pair)
    if soft > hard:
        raise UsageError(f"rlimits: the soft limit of {name} is above its hard limit: {value!r}")
    return number, soft, hard


def _checked(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _INFINITY:
        raise UsageError(f"rlimits: {name} is a number from 0 up, None (no limit) or a pair of both, not {value!r}")
    return value


def _network(network: str) -> Network:
    if network not in _NETWORKS:
        raise UsageError(f"network is one of {', '.join(map(repr, _NETWORKS))}, not {network!r}")
    return _NETWORKS[network]
