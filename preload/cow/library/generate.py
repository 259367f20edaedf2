"""Makes calls.c and exported.map of libpccow.so from calls.table: ``generate.py TABLE DIRECTORY``.

Run by the build (preload/Makefile, hatch_build.py) with whatever Python there is; what it writes is not committed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

__all__ = ["exported", "generate", "known"]

LINE = re.compile(
    r"(?P<type>[\w ]+?[ *]+)(?P<name>\w+)\((?P<parameters>.*?)\)(?: \[(?P<aliases>[\w ]+)\])?"
    r" (?P<kind>:?=) (?P<body>.+)"
)
HEAD = """/* Generated from calls.table; do not edit. */
#define _GNU_SOURCE
#include "library.h"

"""


def rows(table: str) -> list[re.Match[str]]:
    """Return the lines of the table that define a function; raises SystemExit at a line that is none of the kinds."""
    found = []
    for number, line in enumerate(table.splitlines(), 1):
        if not line or line[0] in "#@-":
            continue
        match = LINE.fullmatch(line)
        if not match:
            raise SystemExit(f"calls.table:{number}: neither a prototype nor a list of names: {line}")
        found.append(match)
    return found


def exported(table: str) -> list[str]:
    """Return every name that the library exports, sorted."""
    names = [name for row in rows(table) for name in [row["name"], *(row["aliases"] or "").split()]]
    names += [name for line in table.splitlines() if line.startswith("@") for name in line.split()[1:]]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise SystemExit(f"calls.table names twice: {' '.join(doubled)}")
    return sorted(names)


def known(table: str) -> set[str]:
    """Return every name that the table speaks of, also those that need no wrapper."""
    plain = [line.rpartition(":")[2].split() for line in table.splitlines() if line.startswith("- ")]
    return set(exported(table)) | {name for names in plain for name in names}


def function(row: re.Match[str]) -> str:
    """Return the C text of one function and its aliases."""
    type_, name, parameters, body = (row[key].strip() for key in ("type", "name", "parameters", "body"))
    lines = []
    optional = re.search(r", (mode_t (\w+))\.\.\.$", parameters)
    if optional:
        parameters = parameters[: optional.start()] + ", ..."
        lines += [
            f"    {optional[1]} = 0;",
            "    if (flags & (O_CREAT | __O_TMPFILE)) {",
            "        va_list more;",
            "        va_start(more, flags);",
            f"        {optional[2]} = va_arg(more, mode_t);",
            "        va_end(more);",
            "    }",
        ]
    give = "" if type_ == "void" else "return "
    lines.append(f"    {give}({type_})pl_result(({body}));" if row["kind"] == "=" else f"    {give}({body});")
    text = f"EXPORT {type_}{'' if type_.endswith('*') else ' '}{name}({parameters})\n{{\n" + "\n".join(lines) + "\n}\n"
    for alias in (row["aliases"] or "").split():
        text += f'__asm__(".globl {alias}\\n.type {alias}, %function\\n.set {alias}, {name}");\n'
    return text


def generate(table: str) -> tuple[str, str]:
    """Return the texts of calls.c and of the version script."""
    names = "".join(f"    {name};\n" for name in exported(table))
    return HEAD + "\n".join(map(function, rows(table))), f"{{\nglobal:\n{names}local:\n    *;\n}};\n"


def main() -> None:
    """Write both files; the directory is made if it is missing."""
    table, out = Path(sys.argv[1]).read_text(encoding="utf-8"), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    code, script = generate(table)
    (out / "calls.c").write_text(code, encoding="utf-8")
    (out / "exported.map").write_text(script, encoding="utf-8")


if __name__ == "__main__":
    main()
