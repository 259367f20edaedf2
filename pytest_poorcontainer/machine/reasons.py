"""From a failed step and its errno to a sentence and a remedy.

The knowledge is the table ``RULES``: the first rule that fits is taken. A rule says what it is about (features, a part
of the step's words, errnos, a fact that must hold), the cause, and what a person can do.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_poorcontainer.machine.facts import Facts

__all__ = ["Rule", "explain"]

_REFUSED = (errno.EPERM, errno.EACCES)
_ABSENT = (errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.ENODEV, errno.EAFNOSUPPORT, errno.EINVAL)


def _always(_facts: Facts) -> bool:
    return True


def _sysctl(name: str, test: Callable[[int], bool]) -> Callable[[Facts], bool]:
    return lambda facts: name in facts.sysctls and test(facts.sysctls[name])


def _older(major: int, minor: int) -> Callable[[Facts], bool]:
    return lambda facts: facts.kernel < (major, minor)


@dataclass(frozen=True)
class Rule:
    """One line of knowledge. Empty ``features``, ``step`` or ``errnos`` mean any."""

    why: str
    remedy: str = ""
    features: tuple[str, ...] = ()
    step: str = ""
    errnos: tuple[int, ...] = ()
    when: Callable[[Facts], bool] = _always

    def fits(self, feature: str, step: str, number: int, facts: Facts) -> bool:
        """Say whether this rule is about that failure."""
        return (
            (not self.features or feature in self.features)
            and self.step in step
            and (not self.errnos or number in self.errnos)
            and self.when(facts)
        )


_UNCONFINED = (
    "start the engine's container with seccomp=unconfined (docker run --security-opt seccomp=unconfined; in Kubernetes "
    "securityContext.seccompProfile.type: Unconfined), or run on the machine itself"
)
_APPARMOR = Rule(
    "AppArmor takes the privileges of user namespaces away from programs without a profile (Ubuntu 23.10 and later)",
    "as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or run as root",
    errnos=_REFUSED,
    when=_sysctl("kernel.apparmor_restrict_unprivileged_userns", bool),
)

_USERNS = (
    Rule(
        "user namespaces are switched off: user.max_user_namespaces is 0",
        "as root: sysctl -w user.max_user_namespaces=15000, or run as root",
        step="user namespace",
        errnos=(errno.ENOSPC,),
        when=_sysctl("user.max_user_namespaces", lambda limit: limit == 0),
    ),
    Rule(
        "all user namespaces that user.max_user_namespaces allows are in use, or 32 are nested",
        "as root: raise user.max_user_namespaces",
        step="user namespace",
        errnos=(errno.ENOSPC, errno.EUSERS),
    ),
    Rule(
        "kernel.unprivileged_userns_clone is 0",
        "as root: sysctl -w kernel.unprivileged_userns_clone=1, or run as root",
        step="make a user namespace",
        errnos=_REFUSED,
        when=_sysctl("kernel.unprivileged_userns_clone", lambda value: value == 0),
    ),
    Rule(
        "a seccomp filter refuses namespaces, as the default profiles of Docker, Podman and containerd do",
        _UNCONFINED,
        step="make a user namespace",
        errnos=(*_REFUSED, errno.ENOSYS),
        when=lambda facts: facts.seccomp,
    ),
    Rule(_APPARMOR.why, _APPARMOR.remedy, ("userns",), "", _REFUSED, _APPARMOR.when),
    Rule(
        "root may map itself into a user namespace only with CAP_SETFCAP (Linux 5.12 and later), which was dropped",
        "run as another user than root, or start the engine's container with --cap-add SETFCAP",
        step="write uid_map",
        errnos=_REFUSED,
        when=lambda facts: facts.uid == 0 and not facts.capable,
    ),
    Rule(
        "the kernel was built without user namespaces (CONFIG_USER_NS)",
        "run as root, or on another kernel",
        step="make a user namespace",
        errnos=(errno.EINVAL, errno.ENOSYS),
    ),
    Rule(
        "a security module refuses it, or this process stands in a chroot, where the kernel does",
        "run as root, or outside the chroot",
        features=("userns",),
        errnos=_REFUSED,
    ),
    Rule(
        "/etc/subuid or /etc/subgid has no range for {user}",
        "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}; without it a container "
        "without root has one user only",
        features=("idranges",),
        step="find our range",
    ),
    Rule(
        "the program is not installed",
        "install it (Debian, Ubuntu: apt install uidmap; Fedora: dnf install shadow-utils)",
        features=("idranges",),
        step="run new",
        errnos=(errno.ENOENT,),
    ),
    Rule(
        "no_new_privs is set, under which setuid programs have no effect",
        "",
        features=("idranges",),
        step="run new",
        when=lambda facts: facts.no_new_privs,
    ),
    Rule(
        "it refused the range",
        "check that it is setuid root, and what it prints: newuidmap PID 0 {uid} 1",
        features=("idranges",),
        step="run new",
    ),
)

_NAMESPACES = (
    Rule(
        "the limit user.max_*_namespaces is reached (dead network namespaces count until the kernel has freed them)",
        "as root: raise the limit of that kind, see sysctl user",
        step="namespace",
        errnos=(errno.ENOSPC,),
    ),
    Rule(
        "the kernel was built without this kind of namespace",
        step="namespace",
        errnos=(errno.EINVAL,),
    ),
    Rule(
        "root has no CAP_SYS_ADMIN here, as in a container of an engine",
        _UNCONFINED + ", or with --cap-add SYS_ADMIN",
        step="namespace",
        errnos=_REFUSED,
        when=lambda facts: facts.uid == 0 and not facts.capable,
    ),
    Rule(
        "a seccomp filter refuses namespaces, as the default profiles of Docker, Podman and containerd do",
        _UNCONFINED,
        step="namespace",
        errnos=(*_REFUSED, errno.ENOSYS),
        when=lambda facts: facts.seccomp,
    ),
)

_MOUNTS = (
    Rule(
        "parts of the machine's own /proc or /sys are masked, as container engines do, and then the kernel lets no "
        "user namespace mount a new one",
        "docker run --security-opt systempaths=unconfined; podman run --security-opt unmask=ALL; Kubernetes "
        "securityContext.procMount: Unmasked",
        features=("fresh_proc", "sysfs"),
        step="mount a fresh",
        errnos=_REFUSED,
    ),
    Rule(
        "overlay in a user namespace needs Linux 5.11, and this is {release}",
        "run as root, or on a newer kernel",
        features=("overlay",),
        errnos=(errno.EPERM, errno.EINVAL),
        when=_older(5, 11),
    ),
    Rule(
        "the kernel has no overlay file system (CONFIG_OVERLAY_FS)",
        "as root: modprobe overlay",
        features=("overlay",),
        errnos=(errno.ENODEV,),
    ),
    Rule(
        "a seccomp filter refuses it, as Docker's does even with --cap-add SYS_ADMIN",
        "mount_move does the same where it works",
        features=("pivot_root",),
        errnos=(*_REFUSED, errno.ENOSYS),
        when=lambda facts: facts.seccomp,
    ),
    Rule(
        "the root is an initramfs, which cannot be pivoted away",
        "mount_move does the same where it works",
        features=("pivot_root",),
        errnos=(errno.EINVAL,),
    ),
    Rule(
        "it needs Linux 5.12, and this is {release}",
        "run on a newer kernel",
        features=("mount_setattr",),
        errnos=(errno.ENOSYS,),
        when=_older(5, 12),
    ),
    _APPARMOR,
)

_CALLS = (
    Rule(
        "a seccomp filter answers so, as those of container engines do; clone is used in its place, and nothing "
        "is lost",
        features=("clone3",),
        errnos=(errno.ENOSYS,),
        when=lambda facts: facts.seccomp,
    ),
    Rule("it needs Linux 5.3, and this is {release}; clone is used in its place", features=("clone3", "pidfd")),
    Rule("it needs Linux 5.9, and this is {release}", features=("close_range",), when=_older(5, 9)),
    Rule("it needs Linux 5.6, and this is {release}", features=("openat2",), when=_older(5, 6)),
    Rule("it takes root (CAP_SYS_CHROOT)", "run as root", features=("chroot",), errnos=_REFUSED),
    Rule(
        "kernel.yama.ptrace_scope forbids it",
        "as root: sysctl -w kernel.yama.ptrace_scope=1",
        features=("ptrace",),
        when=_sysctl("kernel.yama.ptrace_scope", lambda scope: scope > 1),
    ),
    Rule(
        "the program is not installed",
        "install it (Debian, Ubuntu: apt install proot)",
        features=("proot",),
        errnos=(errno.ENOENT,),
    ),
    Rule(
        "/bin/cat is absent or statically linked, so there is no dynamic linker that could do it",
        features=("preload",),
    ),
    Rule(
        "another program already answers system calls of ours, and the kernel allows one listener",
        features=("seccomp_notify",),
        errnos=(errno.EBUSY,),
    ),
    Rule("it needs Linux 5.0 with CONFIG_SECCOMP_FILTER, and this is {release}", features=("seccomp_notify",)),
    Rule(
        "Landlock is in the kernel but was not chosen at boot",
        "boot with landlock in the list of lsm=",
        features=("landlock",),
        errnos=(errno.EOPNOTSUPP,),
    ),
    Rule(
        "the kernel was built without Landlock (Linux 5.13 and later have it)",
        features=("landlock",),
        errnos=(errno.ENOSYS,),
    ),
    Rule(
        "control groups are not mounted here",
        features=("cgroup_limits",),
        step="find our own",
    ),
    Rule(
        "control groups are not delegated to {user}",
        "run under systemd-run --user --scope -p Delegate=yes, or as root",
        features=("cgroup_limits",),
        errnos=(*_REFUSED, errno.EROFS),
    ),
    Rule(
        "the controller is not switched on for groups below ours (cgroup.subtree_control)",
        "run under systemd-run --user --scope -p Delegate=yes, or switch it on as root",
        features=("cgroup_limits",),
        errnos=(errno.ENOENT, errno.EBUSY, errno.EINVAL),
    ),
    Rule(
        "the file system of the temporary directory cannot share blocks",
        "set TMPDIR to a directory on btrfs, or on XFS with reflink=1",
        features=("reflink",),
        step="FICLONE",
    ),
    Rule(
        "files cannot be made there",
        "set TMPDIR to a directory that can be written to",
        features=("reflink",),
    ),
)


def _module(feature: str, what: str, option: str, module: str, more: str = "") -> Rule:
    """Return the rule for something that is a module of its own in most kernels."""
    return Rule(
        f"the kernel has no {what} ({option})",
        f"as root: modprobe {module}{more}",
        features=(feature,),
        errnos=_ABSENT,
    )


_EXTRA = "; on Ubuntu and cloud kernels first: apt install linux-modules-extra-{release}"

_NETWORK = (
    Rule(
        "the device is not there",
        "as root: modprobe tun; in a container of an engine: docker run --device /dev/net/tun",
        features=("tun",),
        step="open /dev/net/tun",
        errnos=(errno.ENOENT, errno.ENODEV, errno.ENXIO),
    ),
    Rule(
        "its mode or a device rule keeps {user} from it",
        "as root: chmod 0666 /dev/net/tun, as udev does; in a container of an engine: docker run --device /dev/net/tun",
        features=("tun",),
        step="open /dev/net/tun",
        errnos=_REFUSED,
    ),
    Rule(
        "IPv6 is switched off (net.ipv6.conf.default.disable_ipv6)",
        "as root: sysctl -w net.ipv6.conf.default.disable_ipv6=0",
        features=("ipv6",),
        when=_sysctl("net.ipv6.conf.default.disable_ipv6", bool),
    ),
    Rule(
        "the kernel has no IPv6, or it was switched off at boot",
        "boot without ipv6.disable=1",
        features=("ipv6",),
    ),
    _module("veth", "veth interfaces", "CONFIG_VETH", "veth"),
    _module("bridge", "bridges", "CONFIG_BRIDGE", "bridge"),
    _module("dummy", "dummy interfaces", "CONFIG_DUMMY", "dummy", _EXTRA),
    _module("ifb", "ifb interfaces", "CONFIG_IFB", "ifb", _EXTRA),
    _module("nft_netdev", "nftables of the netdev family", "CONFIG_NF_TABLES_NETDEV", "nf_tables"),
    Rule(
        "the egress hook needs Linux 5.16 with CONFIG_NETFILTER_EGRESS, and this is {release}",
        "run on a newer kernel",
        features=("nft_egress",),
        errnos=_ABSENT,
    ),
    _module("tc_clsact", "clsact", "CONFIG_NET_SCH_INGRESS", "sch_ingress", _EXTRA),
    _module(
        "cls_bpf", "cls_bpf or clsact", "CONFIG_NET_CLS_BPF, CONFIG_NET_SCH_INGRESS", "-a cls_bpf sch_ingress", _EXTRA
    ),
    _module(
        "mirred", "mirred or what it needs", "CONFIG_NET_ACT_MIRRED", "-a act_mirred cls_bpf sch_ingress veth", _EXTRA
    ),
    _module("netem", "netem", "CONFIG_NET_SCH_NETEM", "sch_netem", _EXTRA),
    _module("tbf", "tbf", "CONFIG_NET_SCH_TBF", "sch_tbf", _EXTRA),
    _module("packet_socket", "packet sockets", "CONFIG_PACKET", "af_packet"),
)

# What can be said when nothing better is known. Never the bare name of an errno.
_GENERAL = (
    Rule(
        "a seccomp filter, a security module or the kernel refuses it to {user}",
        errnos=_REFUSED,
        when=lambda facts: facts.seccomp,
    ),
    Rule("a security module or the kernel refuses it to {user}", errnos=_REFUSED),
    Rule("a seccomp filter or this kernel ({release}) does not know the call", errnos=(errno.ENOSYS,)),
    Rule("the kernel ({release}) has no such thing, or its module is not loaded", errnos=_ABSENT),
    Rule("the kernel did not answer in time", errnos=(errno.ETIMEDOUT,)),
    Rule("out of memory", errnos=(errno.ENOMEM,)),
    Rule("a limit on open files or processes is reached", errnos=(errno.EMFILE, errno.ENFILE, errno.EAGAIN)),
    Rule("the kernel reported no error, but it did not happen", errnos=(0,)),
    Rule("the kernel ({release}) refuses it"),
)

RULES = (*_USERNS, *_NAMESPACES, *_MOUNTS, *_CALLS, *_NETWORK, *_GENERAL)


def explain(feature: str, step: str, number: int, facts: Facts) -> tuple[str, str]:
    """Return why ``feature`` does not work, and a remedy, given the step that failed and its errno (0: no effect)."""
    rule = next(rule for rule in RULES if rule.fits(feature, step, number, facts))
    words = {"release": facts.release, "user": facts.user, "uid": str(facts.uid)}
    cause = rule.why.format(**words)
    if number:
        # The kernel's own word; Python knows the number under ENOTSUP too.
        name = "EOPNOTSUPP" if number == errno.EOPNOTSUPP else errno.errorcode.get(number, f"errno {number}")
        cause = f"{name} ({os.strerror(number)}), because {cause}"
    return f"cannot {step}: {cause}", rule.remedy.format(**words)
