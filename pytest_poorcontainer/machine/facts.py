"""Facts that sharpen a reason. They are only read, and none of them decides whether a feature works."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Facts", "read_facts"]

CAP_SYS_ADMIN = 21  # capability.h

_SYSCTLS = (
    "kernel.unprivileged_userns_clone",  # Debian's and old Ubuntu's own
    "kernel.apparmor_restrict_unprivileged_userns",  # Ubuntu 23.10 and later
    "kernel.yama.ptrace_scope",
    "net.ipv6.conf.default.disable_ipv6",
    "user.max_user_namespaces",
    "user.max_mnt_namespaces",
    "user.max_pid_namespaces",
    "user.max_net_namespaces",
    "user.max_uts_namespaces",
    "user.max_ipc_namespaces",
    "user.max_cgroup_namespaces",
)


@dataclass(frozen=True)
class Facts:
    """What the kernel says of itself and of this process.

    ``sysctls`` lacks those that this kernel does not have. ``engine`` is the container engine we seem to run in, or "".
    """

    kernel: tuple[int, int]
    release: str
    architecture: str
    uid: int
    gid: int
    capable: bool
    """CAP_SYS_ADMIN is in effect: what "root" means to the kernel here."""
    seccomp: bool
    """A seccomp filter is in force."""
    no_new_privs: bool
    engine: str = ""
    sysctls: dict[str, int] = field(default_factory=dict)

    @property
    def user(self) -> str:
        """Return the user's name, or its number where it has none."""
        import pwd  # noqa: PLC0415 - only for a message

        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)


def read_facts() -> Facts:
    """Read all of them; one that cannot be read counts as absent."""
    kernel = os.uname()
    status = _status()
    return Facts(
        kernel=_version(kernel.release),
        release=kernel.release,
        architecture=kernel.machine,
        uid=os.geteuid(),
        gid=os.getegid(),
        capable=bool(int(status.get("CapEff", "0"), 16) >> CAP_SYS_ADMIN & 1),
        seccomp=status.get("Seccomp", "0") == "2",
        no_new_privs=status.get("NoNewPrivs", "0") == "1",
        engine=_engine(),
        sysctls=_sysctls(),
    )


def _version(release: str) -> tuple[int, int]:
    major, _, rest = release.partition(".")
    minor = "".join(character for character in rest.partition(".")[0] if character.isdigit())
    return (int(major), int(minor or 0)) if major.isdigit() else (0, 0)


def _status() -> dict[str, str]:
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:  # no /proc: the probes will say so in their own way
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {key: value.strip() for key, _, value in pairs}


def _sysctls() -> dict[str, int]:
    found = {}
    for name in _SYSCTLS:
        try:
            text = Path("/proc/sys", *name.split(".")).read_text(encoding="ascii")
        except OSError:  # this kernel does not have it
            continue
        if text.strip().lstrip("-").isdigit():
            found[name] = int(text)
    return found


def _engine() -> str:
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "Kubernetes"
    if Path("/.dockerenv").exists():
        return "Docker"
    if Path("/run/.containerenv").exists():
        return "Podman"
    return os.environ.get("container", "")  # noqa: SIM112 - systemd's own convention
