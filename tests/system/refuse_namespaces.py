"""Runs a command where namespaces are refused, as the default seccomp profiles of container engines do it.

    python tests/system/refuse_namespaces.py -- CMD...

unshare, setns and clone with any CLONE_NEW* flag answer EPERM, clone3 answers ENOSYS (engines do that because a filter
cannot read its flags). no_new_privs is set, so setuid programs have no effect. The filter holds for the command and all
that it starts. Needs nothing but the standard library, so any Python will do.
"""

import argparse
import ctypes
import errno
import os
import platform
import struct
import sys

# From the kernel headers seccomp, audit, bpf_common, prctl and sched (include/uapi/linux).
PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_RET_ERRNO = 0x00050000
LOAD, JUMP_EQUAL, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
NR, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
# NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. (NEWTIME is a signal number's bit in clone's flags.)
CLONE_NEW = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000

# machine: AUDIT_ARCH, then the numbers of clone, unshare, setns, clone3
NUMBERS = {
    "x86_64": (0xC000003E, 56, 272, 308, 435),
    "aarch64": (0xC00000B7, 220, 97, 268, 435),
    "riscv64": (0xC00000F3, 220, 97, 268, 435),
}


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def instruction(code, value, if_true=0, if_false=0):
    """Encode one struct sock_filter; jumps count the instructions to skip."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


def build_filter(machine):
    """Return the filter for this architecture; calls of any other one are refused whole."""
    architecture, clone, unshare, setns, clone3 = NUMBERS[machine]
    eperm = instruction(RETURN, SECCOMP_RET_ERRNO | errno.EPERM)
    enosys = instruction(RETURN, SECCOMP_RET_ERRNO | errno.ENOSYS)
    allow = instruction(RETURN, SECCOMP_RET_ALLOW)
    return b"".join(
        (
            instruction(LOAD, ARCHITECTURE),
            instruction(JUMP_EQUAL, architecture, 1, 0),
            enosys,
            instruction(LOAD, NR),
            instruction(JUMP_EQUAL, clone3, 0, 1),
            enosys,
            instruction(JUMP_EQUAL, unshare, 2, 0),
            instruction(JUMP_EQUAL, setns, 1, 0),
            instruction(JUMP_EQUAL, clone, 1, 2),
            eperm,
            instruction(LOAD, FIRST_ARGUMENT),  # its low half on a little-endian machine
            instruction(JUMP_ANY_BIT, CLONE_NEW, 0, 1),
            eperm,
            allow,
        )
    )


def refuse_namespaces():
    """Put the filter on the calling process, for good. Its threads made before keep their freedom."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = build_filter(platform.machine())
    program = Program(len(code) // 8, code)
    for arguments in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program), 0, 0),
    ):
        if libc.prctl(*(ctypes.c_ulong(argument) for argument in arguments)) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), f"prctl({arguments[0]})")


def main():
    """Refuse, then become the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD")
    command = parser.parse_args().command
    if command[:1] == ["--"]:
        command = command[1:]
    if not command:
        parser.error("a command is needed")
    refuse_namespaces()
    os.execvp(command[0], command)


if __name__ == "__main__":
    sys.exit(main())
