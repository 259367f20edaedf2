"""Compiles preload/ into the wheel, for pip and uv; ``make -C preload`` does the same from the same programs.mk.

An editable install compiles into the checkout (``pytest_poorcontainer/_native``), any other into the wheel alone. Only
a C compiler and the C library's headers are needed: nothing here is a Python extension, so one wheel serves every
Python 3 of an architecture.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

__all__ = ["NativeBuildHook", "compile_programs", "settings"]

HERE = Path(__file__).resolve().parent
NO_COMPILER = (
    "pytest-poorcontainer needs a C compiler and the C library's headers to install itself, and {problem}; "
    "on Debian or Ubuntu: sudo apt install gcc libc6-dev"
)


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """hatchling's side: where the programs go, and which machines the wheel is for."""

    _scratch: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; ``version`` is hatchling's word for the kind of build ("editable" or "standard")."""
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{re.sub('[-.]', '_', sysconfig.get_platform())}"
        if version == "editable":
            compile_programs(HERE.parent / "pytest_poorcontainer" / "_native", checkout=True)
            return
        self._scratch = tempfile.TemporaryDirectory(prefix="poor-container-build-")
        for path in compile_programs(Path(self._scratch.name), checkout=False):
            build_data["force_include"][str(path)] = f"pytest_poorcontainer/_native/{path.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove what has gone into the wheel."""
        if self._scratch is not None:
            self._scratch.cleanup()


def settings(path: Path = HERE / "programs.mk") -> dict[str, list[str]]:
    """Return the variables of programs.mk, each as a list of words."""
    lines = re.findall(r"^(\w+) := (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: shlex.split(words) for name, words in lines}


def compile_programs(out: Path, *, checkout: bool) -> list[Path]:
    """Compile every program that has a ``main``, and every library, into the directory ``out``; return their paths.

    ``checkout`` adds the flags for work on the code itself, as ``make -C preload`` does.
    Raises SystemExit with one sentence when there is no working compiler, or when it refuses our code.
    """
    words = settings()
    compiler = shlex.split(os.environ.get("CC", "cc"))
    static = _check_compiler(compiler)
    out.mkdir(parents=True, exist_ok=True)
    made = []
    for entry in words["PROGRAMS"]:
        directories, name = entry.split(":")
        sources = sorted(source for directory in directories.split("+") for source in (HERE / directory).glob("*.c"))
        if not any(re.search(r"^int main\b", source.read_text(encoding="utf-8"), re.MULTILINE) for source in sources):
            continue
        sources += sorted((HERE / "common").glob("*.c"))
        flags = [*words["CFLAGS"], *(words["CHECKOUT"] if checkout else []), *static]
        made.append(_compile([*compiler, *flags, *map(str, sources), *words["LDFLAGS"]], out / name))
    for entry in words["LIBRARIES"]:
        directories, name = entry.split(":")
        sources = sorted(source for directory in directories.split("+") for source in (HERE / directory).glob("*.c"))
        flags = [*words["CFLAGS"], *(words["CHECKOUT"] if checkout else [])]
        linking = [*words["LDFLAGS"], *words["LIBRARY"]]
        table = HERE / directories.split("+")[0]
        with tempfile.TemporaryDirectory(prefix="poor-container-build-") as scratch:
            if (table / "generate.py").exists():
                generator = [sys.executable, str(table / "generate.py"), str(table / "calls.table"), scratch]
                subprocess.run(generator, check=True)
                sources.append(Path(scratch) / "calls.c")
                flags.append(f"-I{table}")
                linking.append(f"-Wl,--version-script={scratch}/exported.map")
            made.append(_compile([*compiler, *flags, *map(str, sources), *linking], out / name))
    return made


def _compile(argv: list[str], target: Path) -> Path:
    """Run the compiler; in one step the result is in place: a lab of a test run next door may be starting it."""
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    argv = [*argv, "-o", str(fresh)]
    if subprocess.run(argv, check=False).returncode != 0:
        raise SystemExit(
            f"cannot compile {target.name}; the compiler's own words stand above, its command was:\n{shlex.join(argv)}"
        )
    return fresh.replace(target)


def _check_compiler(compiler: list[str]) -> list[str]:
    """Return the flags for a static program if this machine can link one, else none."""
    if shutil.which(compiler[0]) is None:
        raise SystemExit(NO_COMPILER.format(problem=f"{compiler[0]} is not on PATH"))
    for flags in (["-static"], []):
        trial = subprocess.run(
            [*compiler, *flags, "-x", "c", "-", "-o", "/dev/null"],
            input="#include <stdio.h>\n#include <linux/sched.h>\nint main(void) { return 0; }\n",
            capture_output=True,
            text=True,
            check=False,
        )
        if trial.returncode == 0:
            return flags
    raise SystemExit(NO_COMPILER.format(problem=f"{compiler[0]} cannot compile a small program:\n{trial.stderr}"))
