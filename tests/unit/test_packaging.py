"""What is built and installed: the wheel, the native programs, the set-up of a checkout, the public names."""

import email
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import pytest_poorcontainer

ROOT = Path(__file__).resolve().parents[2]
PRELOAD = ROOT / "preload"
LISTED = re.findall("^(?:PROGRAMS|LIBRARIES) :=(.*)$", (PRELOAD / "programs.mk").read_text(), re.MULTILINE)
NATIVE = [entry.partition(":")[2] for line in LISTED for entry in line.split()]
APT_LINE = "sudo apt install make python3-venv gcc libc6-dev"
FAKE_COMPILER = """#!/bin/sh
# Notes its arguments and makes the file that -o names.
echo "$@" >>"{log}"
while [ $# -gt 1 ]; do [ "$1" = -o ] && echo >"$2"; shift; done
"""


def build(target, out, **environment):
    """Run a build of the checkout by hatchling."""
    return subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The path of a wheel of this checkout."""
    out = tmp_path_factory.mktemp("dist")
    done = build("wheel", out)
    assert done.returncode == 0, done.stderr
    (path,) = out.iterdir()
    return path


@pytest.fixture
def fake_compiler(tmp_path):
    """A compiler that only takes notes; returns its path and the file with its notes."""
    path, log = tmp_path / "fakecc", tmp_path / "fakecc.log"
    path.write_text(FAKE_COMPILER.format(log=log))
    path.chmod(0o755)
    log.touch()
    return path, log


def compilations(log):
    """Return the noted command lines that made a program, each as a set of words without paths."""
    lines = [line for line in log.read_text().splitlines() if ".c " in line]
    return [{Path(word).name for word in shlex.split(line) if not word.startswith("/dev")} for line in lines]


def test_the_wheel_is_for_one_architecture_and_every_python(wheel):
    """The wheel's name says Python 3, no ABI, and this architecture."""
    platform = re.sub("[-.]", "_", sysconfig.get_platform())
    assert wheel.name.endswith(f"-py3-none-{platform}.whl")


def test_the_wheel_holds_what_runs(wheel):
    """The wheel carries the typed package and its compiled programs, executable, and no C source."""
    with zipfile.ZipFile(wheel) as archive:
        members = {info.filename: info for info in archive.infolist()}
    assert {"pytest_poorcontainer/py.typed", "pytest_poorcontainer/plugin.py"} <= set(members)
    programs = {name: info for name, info in members.items() if "/_native/" in name}
    assert set(programs) == {f"pytest_poorcontainer/_native/{name}" for name in NATIVE}
    assert all(info.external_attr >> 16 & 0o111 == 0o111 for info in programs.values())
    assert not [name for name in members if name.endswith((".c", ".h")) or name.startswith(("tests/", "docs/"))]


def test_the_wheel_says_what_it_is(wheel):
    """The metadata has name, licence, classifiers and entry points as published plugins have them."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        (points,) = [name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt")]
        about = email.message_from_bytes(archive.read(metadata))
        entry_points = archive.read(points).decode()
    assert (about["Name"], about["License-Expression"]) == ("pytest-poorcontainer", "MIT")
    assert about["Requires-Python"] == ">=3.10"
    assert {"Framework :: Pytest", "Typing :: Typed"} <= set(about.get_all("Classifier"))
    assert "poor-container = pytest_poorcontainer.plugin" in entry_points
    assert "poor-container = pytest_poorcontainer.cli.main:main" in entry_points


def test_the_programs_look_for_libraries_only_where_the_system_does(wheel, tmp_path):
    """No program in the wheel has an RPATH or a RUNPATH."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    programs = sorted((tmp_path / "pytest_poorcontainer" / "_native").iterdir())
    assert programs
    for program in programs:
        done = subprocess.run(["readelf", "-d", program], check=True, capture_output=True, text=True)
        assert not re.search(r"R(UN)?PATH", done.stdout)


def test_the_source_archive_can_be_built(tmp_path):
    """The source archive has all C files and what compiles them, and none of what was compiled."""
    done = build("sdist", tmp_path)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.iterdir()
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {str(path.relative_to(ROOT)) for path in PRELOAD.rglob("*.[ch]")}
    assert sources | {"preload/programs.mk", "preload/hatch_build.py", "LICENSE", "README.md"} <= names
    assert not [name for name in names if "/_native/" in name or name.startswith(".venv")]


@pytest.mark.parametrize(
    ("compiler", "problem"),
    [("no-such-compiler", "no-such-compiler is not on PATH"), ("false", "false cannot compile a small program")],
)
def test_a_missing_compiler_is_one_clear_sentence(tmp_path, compiler, problem):
    """A build without a working compiler says so, with the line that installs one, and shows no traceback."""
    done = build("wheel", tmp_path, CC=compiler)
    assert done.returncode != 0
    assert problem in done.stderr
    assert "sudo apt install gcc libc6-dev" in done.stderr
    assert "Traceback" not in done.stderr


def test_refused_c_code_names_the_program(tmp_path):
    """A compiler that works but refuses our code is shown with its command line, and without a traceback."""
    compiler = tmp_path / "picky"
    compiler.write_text('#!/bin/sh\ncase "$*" in *"-x c -"*) exit 0;; esac\necho "picky: no" >&2\nexit 1\n')
    compiler.chmod(0o755)
    done = build("wheel", tmp_path, CC=str(compiler))
    assert done.returncode != 0
    assert "picky: no" in done.stderr
    assert "cannot compile pclab" in done.stderr
    assert "Traceback" not in done.stderr


def test_make_and_pip_compile_alike(tmp_path, fake_compiler):
    """``make -C preload`` and the wheel's build hook hand the same words to the compiler, but for -g and -Werror."""
    compiler, log = fake_compiler
    subprocess.run(["make", "-s", "-C", PRELOAD, f"OUT={tmp_path / 'out'}", f"CC={compiler}"], check=True)
    by_make = compilations(log)
    log.write_text("")
    assert build("wheel", tmp_path, CC=str(compiler)).returncode == 0
    names = re.compile(r"^\.?(lib)?pc[\w.]+\.\d+$")  # the temporary names differ
    strip = [
        [{word for word in words if not names.match(word)} for words in run] for run in (by_make, compilations(log))
    ]
    assert len(by_make) == len(NATIVE)
    assert strip[0] == [words | {"-g", "-Werror"} for words in strip[1]]
    assert all({"-fvisibility=hidden", "-static"} <= words for words in strip[1] if "-shared" not in words)
    assert all("-Werror" not in words for words in strip[1])


def test_a_changed_header_compiles_its_programs_again(tmp_path, fake_compiler):
    """Make does nothing when nothing changed, and compiles what may include a changed header, and only that."""
    compiler, log = fake_compiler
    shutil.copytree(PRELOAD, tmp_path / "preload")
    command = ["make", "-s", "-C", tmp_path / "preload", f"OUT={tmp_path / 'out'}", f"CC={compiler}"]

    def count():
        log.write_text("")
        subprocess.run(command, check=True)
        return len(compilations(log))

    assert count() == len(NATIVE)
    assert count() == 0
    later = next((tmp_path / "out").iterdir()).stat().st_mtime
    header = next((tmp_path / "preload" / "lab").glob("*.h"))
    os.utime(header, (later + 3600, later + 3600))
    assert count() == 1
    header = next((tmp_path / "preload" / "common").glob("*.h"))
    os.utime(header, (later + 7200, later + 7200))
    assert count() == len(NATIVE)


def test_a_sanitizer_build_is_never_static(tmp_path, fake_compiler):
    """SAN=1 adds the sanitizers and leaves out -static, which they cannot bear."""
    compiler, log = fake_compiler
    subprocess.run(["make", "-s", "-C", PRELOAD, "SAN=1", f"OUT={tmp_path}", f"CC={compiler}"], check=True)
    assert compilations(log)
    for words in compilations(log):
        # AddressSanitizer wants to be a program's first library: the tests see to that for the library with a table of
        # calls, not in the containers where the other one is preloaded.
        alone = "-shared" in words and "calls.c" not in words
        assert ("-fsanitize=undefined" if alone else "-fsanitize=address,undefined") in words
        assert "-static" not in words
    assert sum("-fsanitize=undefined" in words for words in compilations(log)) == 1


@pytest.mark.parametrize("present", [[], ["cc"], ["python3"]])
def test_set_up_without_compiler_or_python_says_the_apt_line(tmp_path, present):
    """As an ordinary user, set-up names what is missing and the one apt line, and makes nothing."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ["sh", "dirname", "cat", "tr", "rm"]:
        (tools / name).symlink_to(shutil.which(name))
    scripts = {"id": "echo 1000"}
    real = {"cc": shutil.which("cc"), "python3": sys.executable}
    scripts.update({name: f'PATH={os.environ["PATH"]} exec {real[name]} "$@"' for name in present})
    for name, line in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{line}\n")
        (tools / name).chmod(0o755)
    checkout = tmp_path / "checkout"
    (checkout / ".ci").mkdir(parents=True)
    script = (ROOT / ".ci" / "setup").read_text().replace("/usr/local/bin/python3", "").replace("/usr/bin/python3", "")
    (checkout / ".ci" / "setup").write_text(script)
    done = subprocess.run(
        [shutil.which("sh"), checkout / ".ci" / "setup", "test"],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert APT_LINE in done.stderr
    assert ("C compiler" in done.stderr) == ("cc" not in present)
    assert ("Python 3.10" in done.stderr) == ("python3" not in present)
    assert not (checkout / ".venv").exists()


def test_every_public_name_is_there():
    """Each name of ``__all__`` loads, is listed by dir(), and is what its own module exports under that name."""
    assert set(pytest_poorcontainer.__all__) <= set(dir(pytest_poorcontainer))
    for name in pytest_poorcontainer.__all__:
        value = getattr(pytest_poorcontainer, name)
        own, package = sys.modules[value.__module__], sys.modules[value.__module__.rpartition(".")[0]]
        assert value.__name__ == name
        assert name in {*getattr(own, "__all__", ()), *getattr(package, "__all__", ())}


def test_an_unknown_name_is_an_attribute_error():
    """A name that is not public is refused as in any other module."""
    with pytest.raises(AttributeError, match="no attribute 'Netwerk'"):
        _ = pytest_poorcontainer.Netwerk


def test_the_version_is_the_installed_one():
    """``__version__`` is what the installed metadata say."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", pytest_poorcontainer.__version__)
