"""The design, held by reading the sources: who may import whom, and the house rules."""

import ast
import fnmatch
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "pytest_poorcontainer"

# Imports run only to the right; what stands in one group does not import each other.
LAYERS = (
    ("plugin", "cli"),
    ("report",),
    ("probe", "mirror"),
    ("network",),
    ("traffic",),
    ("container",),
    ("rootfs", "cow", "mounts"),
    ("lab",),
    ("machine",),
    ("native", "plugins"),
    ("errors",),
)
RANK = {name: rank for rank, group in enumerate(LAYERS) for name in group}
PYTEST_LAYER = {"plugin", "hookspecs", "fixtures"}  # one part under three names

TOP_LEVEL = {
    ".ci",
    ".git",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "docs",
    "preload",
    "pyproject.toml",
    "pytest_poorcontainer",
    "tests",
}
MAX_FILE, MAX_FUNCTION, MAX_C_FUNCTION = 500, 60, 80


def find(*patterns, under=("pytest_poorcontainer", "preload", "tests", "docs")):
    """Return our files that match one of the patterns, as paths relative to the root."""
    found = {path.relative_to(ROOT) for top in under for pattern in patterns for path in (ROOT / top).rglob(pattern)}
    return sorted(path for path in found if not {"__pycache__", "_native", ".venv", "build"} & set(path.parts))


def as_parameters(paths):
    """Return the paths as parameters with readable ids."""
    return [pytest.param(path, id=str(path)) for path in paths]


OURS = as_parameters(find("*.py", under=["pytest_poorcontainer"]))
PYTHON = as_parameters(find("*.py"))
C = as_parameters(find("*.c", "*.h"))
TEXT = [
    *find("*.py", "*.c", "*.h", "*.mk", "*.md", "*.toml", "Makefile"),
    *(Path(name) for name in sorted(TOP_LEVEL) if (ROOT / name).is_file()),
    *(path.relative_to(ROOT) for path in sorted((ROOT / ".ci").iterdir())),
]


def parse(path):
    """Return the syntax tree of a file."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path))


def part_of(module):
    """Return the part of the package that a dotted module name belongs to; "" for the package itself."""
    name = module.partition("pytest_poorcontainer.")[2].split(".")[0]
    return "plugin" if name in PYTEST_LAYER else name


def imported_modules(path):
    """Yield (line, dotted module name) for every import in a file, also those in functions and for type checkers."""
    package = list(path.with_suffix("").parts)[:-1]
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize("path", OURS)
def test_imports_run_only_to_the_right(path):
    """No part of the package imports one that stands to its left, or beside it, in the design's chain."""
    if path == Path("pytest_poorcontainer/__init__.py"):
        return  # lists the public names of every part, for type checkers; the next test holds that nothing is loaded
    own = part_of(".".join(path.with_suffix("").parts))
    assert own in RANK, f"{path} belongs to no part that the design knows"
    wrong = []
    for line, module in imported_modules(path):
        if module.split(".")[0] != "pytest_poorcontainer":
            continue
        other = part_of(module)
        known = other in RANK or other == "__version__"
        if not known or (other != own and RANK.get(other, len(LAYERS)) <= RANK[own]):
            wrong.append(f"{path}:{line} imports {module}")
    assert not wrong


@pytest.mark.parametrize("path", OURS)
def test_only_the_pytest_layer_imports_pytest(path):
    """Everything but plugin.py, hookspecs.py and fixtures/ works without pytest."""
    if path.parts[1].removesuffix(".py") in PYTEST_LAYER:
        return
    packages = {module.split(".")[0] for _, module in imported_modules(path)}
    assert not packages & {"pytest", "_pytest", "xdist"}


@pytest.mark.parametrize("path", PYTHON)
def test_private_pytest_api_is_not_used(path):
    """Nothing imports from _pytest, which changes from one release to the next."""
    assert "_pytest" not in {module.split(".")[0] for _, module in imported_modules(path)}


def loaded_by(statement):
    """Return the modules in a fresh interpreter after the statement."""
    code = f"import sys\n{statement}\nprint(*sorted(sys.modules), sep='\\n')"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_the_plugin_loads_nothing_heavy():
    """A pytest run that builds no container does not pay for scapy, pyroute2 or asyncio, nor for our own parts."""
    fresh = loaded_by("import pytest_poorcontainer.plugin") - loaded_by("import pytest")
    assert "pytest_poorcontainer.plugin" in fresh
    assert not {name.split(".")[0] for name in fresh} & {"scapy", "pyroute2", "asyncio", "multiprocessing"}
    assert not {part_of(name) for name in fresh} & {"network", "container", "machine", "probe", "mirror"}


def test_the_package_loads_nothing_by_itself():
    """``import pytest_poorcontainer`` loads no module of ours but the package itself."""
    fresh = loaded_by("import pytest_poorcontainer") - loaded_by("pass")
    assert {name for name in fresh if name.startswith("pytest_poorcontainer")} == {"pytest_poorcontainer"}


def functions(tree):
    """Yield every function of a syntax tree, methods and nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


@pytest.mark.parametrize("path", [*PYTHON, *C])
def test_files_are_short(path):
    """No file of ours has more than 500 lines."""
    assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) <= MAX_FILE


@pytest.mark.parametrize("path", PYTHON)
def test_functions_are_short(path):
    """No Python function has more than 60 lines, its docstring included."""
    sizes = [(node.name, node.end_lineno - node.lineno + 1) for node in functions(parse(path))]
    assert not [(name, size) for name, size in sizes if size > MAX_FUNCTION]


def c_functions(text):
    """Yield (name, lines) of the functions in C source, found by their braces at the outermost level."""
    blanked = re.sub(
        r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'",
        lambda match: re.sub(r"[^\n]", " ", match[0]),
        text,
        flags=re.DOTALL,
    )
    depth = start = 0
    for match in re.finditer(r"[{}]", blanked):
        if match[0] == "{":
            if depth == 0:
                start = match.start()
            depth += 1
            continue
        depth -= 1
        head = re.search(r"(\w+)\s*\([^;{}]*\)\s*$", blanked[:start])
        if depth == 0 and head:
            yield head[1], blanked.count("\n", start, match.start()) + 1
    assert depth == 0, "the braces do not pair"


def test_the_brace_counter_sees_functions_and_nothing_else():
    """The C measure counts a function's lines and passes over structs, comments and strings."""
    text = 'struct s { int a; };\n/* f() { */\nint f(int a)\n{\n    puts("}");\n    if (a) {\n    }\n}\n'
    assert list(c_functions(text)) == [("f", 5)]


@pytest.mark.parametrize("path", C)
def test_c_functions_are_short(path):
    """No C function has more than 80 lines."""
    sizes = c_functions((ROOT / path).read_text(encoding="utf-8"))
    assert not [(name, size) for name, size in sizes if size > MAX_C_FUNCTION]


def undocumented(body, prefix=""):
    """Yield the public classes, functions and methods without a docstring."""
    for node in body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        marks = {ast.unparse(mark).split(".")[-1] for mark in node.decorator_list}
        if not ast.get_docstring(node) and not marks & {"overload", "setter", "override"}:
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from undocumented(node.body, f"{node.name}.")


@pytest.mark.parametrize("path", OURS)
def test_public_names_are_documented(path):
    """Every module, public class, function and method of the package has a docstring."""
    tree = parse(path)
    assert ast.get_docstring(tree)
    assert not list(undocumented(tree.body))


@pytest.mark.parametrize("path", OURS)
def test_modules_list_what_they_export(path):
    """Every module that holds more than a docstring says in ``__all__`` what it is for, and names only what it has."""
    tree = parse(path)
    names = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    if not names:
        assert all(isinstance(node, (ast.Expr, ast.ImportFrom)) for node in tree.body), "no __all__"
        assert {node.module for node in tree.body if isinstance(node, ast.ImportFrom)} <= {"__future__"}, "no __all__"
        return
    assert len(set(ast.literal_eval(names[0]))) == len(ast.literal_eval(names[0])) > 0


@pytest.mark.parametrize("path", as_parameters(find("test_*.py", under=["tests", "docs"])))
def test_tests_say_what_they_prove(path):
    """Every test has a docstring that states the behaviour in a sentence."""
    tests = [node for node in functions(parse(path)) if node.name.startswith("test_")]
    mute = [node.name for node in tests if not (ast.get_docstring(node) or "").strip().endswith((".", "?", ":"))]
    assert not mute


def test_the_top_level_holds_nothing_else():
    """At the top of the repository stand only the names that a newcomer looks for."""
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").split()]
    found = {path.name for path in ROOT.iterdir()}
    extra = {name for name in found - TOP_LEVEL if not any(fnmatch.fnmatch(name, pattern) for pattern in ignored)}
    assert not extra


# Written so that this file does not hold what it looks for.
PLACES = re.compile("|".join(["/wo" + r"rk/\w", "/ro" + r"ot/\.\w", "/tmp/h" + "q", "files.python" + "hosted"]))


def test_no_file_names_a_place_of_one_machine():
    """Nothing that is committed holds the path of a developer's machine or the host of a registry."""
    found = [
        f"{path}:{number}: {line}"
        for path in TEXT
        for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), 1)
        if PLACES.search(line)
    ]
    assert not found


def test_pages_that_are_named_exist():
    """A file that sends its reader to another of ours, by its path from the root, names one that is there."""
    name = re.compile(r"(?<![\w/.-])(?:docs|preload|tests)/[\w/.-]+\.\w+")
    named = {(path, found) for path in TEXT for found in name.findall((ROOT / path).read_text(encoding="utf-8"))}
    assert not {f"{path} names {found}" for path, found in named if not (ROOT / found).exists()}
