"""ELF files for tests: headers and names as a linker writes them, without any code."""

import struct

X86_64, AARCH64, I386, S390 = 62, 183, 3, 22


def build(
    needed=(), *, interpreter="", rpath="", runpath="", soname="", machine=X86_64, bits=64, order="<", no_default=False
):
    """Return the bytes of a program (with ``interpreter``) or a library."""
    strings, places = b"\0", {}
    for name in [*needed, rpath, runpath, soname]:
        places[name] = len(strings)
        strings += name.encode() + b"\0"
    word = "Q" if bits == 64 else "I"
    tags = [(1, places[name]) for name in needed]
    tags += [(tag, places[name]) for tag, name in ((14, soname), (15, rpath), (29, runpath)) if name]
    count = 3 if interpreter else 2
    header, each = (64, 56) if bits == 64 else (52, 32)
    at_strings = header + each * count
    at_interpreter = at_strings + len(strings)
    at_dynamic = at_interpreter + len(interpreter) + 1
    base = 0x400000
    tags += [(5, base + at_strings), (10, len(strings)), (0x6FFFFFFB, 0x800 if no_default else 0), (0, 0)]
    dynamic = b"".join(struct.pack(order + word * 2, *tag) for tag in tags)
    end = at_dynamic + len(dynamic)

    def segment(kind, offset, size):
        if bits == 64:
            return struct.pack(order + "IIQQQQQQ", kind, 4, offset, base + offset, 0, size, size, 8)
        return struct.pack(order + "IIIIIIII", kind, offset, base + offset, 0, size, size, 4, 4)

    segments = [segment(1, 0, end), segment(2, at_dynamic, len(dynamic))]
    if interpreter:
        segments.append(segment(3, at_interpreter, len(interpreter) + 1))
    ident = b"\x7fELF" + bytes([1 if bits == 32 else 2, 1 if order == "<" else 2, 1]) + bytes(9)
    fixed = struct.pack(
        order + "HHI" + word * 3 + "IHHHHHH", 3, machine, 1, 0, header, 0, 0, header, each, count, 0, 0, 0
    )
    return ident + fixed + b"".join(segments) + strings + interpreter.encode() + b"\0" + dynamic


def cache(entries):
    """Return an ld.so.cache of these (name, path) pairs."""
    strings, table = b"", b""
    start = 48 + 24 * len(entries)
    for name, path in entries:
        key, value = start + len(strings), start + len(strings) + len(name) + 1
        strings += name.encode() + b"\0" + path.encode() + b"\0"
        table += struct.pack("iIIIQ", 0x303, key, value, 0, 0)
    return b"glibc-ld.so.cache1.1" + struct.pack("II20x", len(entries), len(strings)) + table + strings
