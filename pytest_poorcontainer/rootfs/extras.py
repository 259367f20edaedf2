"""What programs look for at run time and name nowhere: users, name services, certificates, time zones."""

# Paths are text in here: objects for thousands of them cost more than what is done with them.
# ruff: noqa: PTH110, PTH112, PTH123

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_poorcontainer.rootfs.closure import Closure
    from pytest_poorcontainer.rootfs.plan import Plan

__all__ = ["add_basics", "add_certificates", "add_nss", "add_timezones"]

_USERS = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
_GROUPS = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"
_NSSWITCH = "passwd: files\ngroup: files\nshadow: files\nhosts: files\nservices: files\nprotocols: files\n"

_NSS_FILES = ("nsswitch.conf", "passwd", "group", "services", "protocols", "networks", "host.conf", "gai.conf", "rpc")
# Bundles and OpenSSL's configuration, where distributions have them: Debian, Fedora, openSUSE, Alpine.
_CERTIFICATES = (
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/openssl.cnf",
    "/etc/pki/ca-trust/extracted",
    "/usr/lib/ssl/certs",
    "/usr/lib/ssl/cert.pem",
    "/usr/lib/ssl/openssl.cnf",
)
# LANG in containers is C.UTF-8; glibc has it in a directory, musl needs none.
_LOCALES = ("/usr/lib/locale/C.utf8", "/usr/lib/locale/C.UTF-8")
_ZONES = "/usr/share/zoneinfo"


def add_basics(plan: Plan) -> None:
    """Add root's and nobody's names, names from files alone, and directories that programs take for granted."""
    plan.write("/etc/passwd", _USERS)
    plan.write("/etc/group", _GROUPS)
    plan.write("/etc/nsswitch.conf", _NSSWITCH)
    for directory, mode in (("/root", 0o700), ("/home", 0o755), ("/var", 0o755), ("/var/tmp", 0o1777)):  # noqa: S108
        plan.directories[directory] = mode
    with plan.unwatched():
        for locale in _LOCALES:
            if os.path.isdir(locale):
                plan.add_tree(locale)


def add_nss(closure: Closure) -> None:
    """Add the machine's name services: nsswitch.conf(5), the modules it names, users, services, protocols."""
    plan = closure.plan
    for name in _NSS_FILES:
        path = f"/etc/{name}"
        if os.path.exists(path):
            plan.texts.pop(path, None)
            plan.place(path)
    try:
        with open("/etc/nsswitch.conf", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except FileNotFoundError:
        return
    lines = [line.partition("#")[0].partition(":")[2] for line in text.splitlines()]
    for name in dict.fromkeys(re.findall(r"[a-z0-9_]+", re.sub(r"\[[^]]*\]", " ", " ".join(lines)))):
        closure.add_library(f"libnss_{name}.so.2")  # absent: it is in libc (glibc 2.34), or not installed


def add_certificates(plan: Plan) -> None:
    """Add the certificates of authorities that the machine trusts, in all forms that it has, and OpenSSL's settings."""
    with plan.unwatched():
        for path in _CERTIFICATES:
            if os.path.isdir(path):
                plan.add_tree(path)
            elif os.path.exists(path):
                plan.place(path)


def add_timezones(plan: Plan) -> None:
    """Add the time zones (tzset(3)), and which of them is the machine's."""
    if os.path.isdir(_ZONES):
        plan.bind(_ZONES)
    for path in ("/etc/localtime", "/etc/timezone"):
        if os.path.exists(path):
            plan.place(path)
