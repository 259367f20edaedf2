"""Root file systems of some programs, and of a tarball: what is in them runs, and nothing else is there."""

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
from trees import copy_programs

from pytest_poorcontainer import Container, Network, Programs, UsageError, machine

pytestmark = pytest.mark.skipif(
    not machine.fixtures_ready()["chroot_env"].works, reason=machine.fixtures_ready()["chroot_env"].reason
)


def out(container, *argv, **options):
    """Return what a command prints; it must succeed."""
    done = container.run(argv, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def compiled(directory, name, source, *options):
    """Compile a C program; return its path."""
    (directory / f"{name}.c").write_text(source)
    subprocess.run(["cc", "-o", directory / name, directory / f"{name}.c", *options], check=True)
    return directory / name


def test_there_are_these_programs_and_nothing_else():
    """A shell and cat, what they load, and what every container has."""
    with Container("p", rootfs=["/bin/sh", "cat"]) as box:
        assert out(box, "cat", "/etc/hostname") == "p"
        assert out(box, "/bin/sh", "-c", "echo $((40 + 2)); cd /usr/bin; echo *").split() == ["42", "cat", "dash", "sh"]
        with pytest.raises(FileNotFoundError, match=r"there is no 'python3' .*\(programs /bin/sh, cat\)"):
            box.run(["python3"])
        box.write("/usr/bin/mine", "#!/bin/sh\necho mine\n", mode=0o755)
        assert out(box, "mine") == "mine", "it is the container's to change"
    assert not Path("/usr/bin/mine").exists()


def test_a_python_has_its_standard_library_and_the_packages_that_were_asked_for():
    """Also modules that are libraries of their own; packages come with what they depend on."""
    python = sys.executable
    with Container("p", rootfs=[f"{python}:pytest"]) as box:
        imports = "import ctypes, json, lzma, sqlite3, ssl, pytest, pluggy; print(pytest.__version__)"
        assert out(box, python, "-c", imports) == pytest.__version__
    with pytest.raises(UsageError, match="no package 'no-such-package'"):
        Container("p", rootfs=[f"{python}:no-such-package"])


def test_users_certificates_and_time_zones_on_request():
    """The machine's, where programs look for them."""
    script = (
        "import pwd, ssl, zoneinfo; print(pwd.getpwnam('daemon').pw_uid, "
        "len(ssl.create_default_context().get_ca_certs()) > 0, zoneinfo.ZoneInfo('Europe/Berlin').key)"
    )
    if not Path("/etc/ssl/certs/ca-certificates.crt").exists() or not Path("/usr/share/zoneinfo/Europe").exists():
        pytest.skip("this machine has no certificates or no time zones: sudo apt-get install ca-certificates tzdata")
    roots = (
        ["/usr/bin/python3", "+nss", "+certificates", "+timezones"],
        Programs(["/usr/bin/python3"], nss=True, certificates=True, timezones=True),
    )
    for rootfs in roots:
        with Container("p", rootfs=rootfs) as box:
            assert out(box, "python3", "-c", script) == "1 True Europe/Berlin"
    with Container("p", rootfs=["/usr/bin/python3"]) as box:
        assert box.run(["python3", "-c", script], capture_output=True).returncode != 0


def test_scripts_come_with_their_interpreters(tmp_path):
    """The first line is followed, by way of env(1) too."""
    script = tmp_path / "script"
    script.write_text("#!/usr/bin/env bash\necho from $0\n")
    script.chmod(0o755)
    with Container("p", rootfs=[script]) as box:
        assert out(box, script) == f"from {script}"
        assert box.exists("/usr/bin/env")


@pytest.fixture
def elsewhere():
    """A directory that containers do not see at its place, as they do see pytest's temporary one."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        yield Path(directory)


def test_a_program_that_is_compiled_anew_is_the_new_one(elsewhere):
    """Each container has what is there when it is made; libraries are found by RPATH with $ORIGIN."""
    library = elsewhere / "lib"
    library.mkdir()
    compiled(library, "libsaid.so", 'const char *said(void) { return "one"; }', "-shared", "-fPIC")
    source = "#include <stdio.h>\nconst char *said(void);\nint main(void) { puts(said()); return 0; }"
    program = compiled(elsewhere, "says", source, f"-L{library}", "-lsaid", "-Wl,-rpath,$ORIGIN/lib")
    with Container("p", rootfs=[program]) as box:
        assert out(box, program) == "one"
        compiled(library, "libsaid.so", 'const char *said(void) { return "two"; }', "-shared", "-fPIC")
        with Container("q", rootfs=[program]) as other:
            assert out(other, program) == "two"
        assert out(box, program) == "one"
    (library / "libsaid.so").unlink()
    with pytest.raises(UsageError, match=r"says needs libsaid\.so, which is not there"):
        Container("p", rootfs=[program])


def test_what_a_program_lacks_is_named(tmp_path):
    """A library, an interpreter, a script's interpreter: the error says which, and of which root."""
    root = copy_programs(tmp_path / "root", "cat")
    (root / "bin/script").parent.mkdir(exist_ok=True)
    (root / "bin/script").write_text("#!/bin/no-such-shell\n")
    (root / "bin/script").chmod(0o755)
    shutil.copy(shutil.which("cat"), root / "bin/cat2")
    for loader in root.glob("lib64/ld-*"):
        loader.unlink()
    with Container("box", rootfs=root) as box:
        with pytest.raises(FileNotFoundError, match=rf"/bin/no-such-shell.*not there.*directory {root}"):
            box.run(["/bin/script"])
        with pytest.raises(FileNotFoundError, match=r"ld-linux.*not there"):
            box.run(["/bin/cat2"])
        with pytest.raises(FileNotFoundError, match=rf"'/no/such' *.*directory {root}|directory {root}.*/no/such"):
            box.run(["/no/such"])


@pytest.mark.parametrize("compression", ["", "gz", "xz", "bz2"])
def test_a_tarball_is_a_root(tmp_path, compression):
    """It is unpacked into memory; each container changes its own view."""
    root = copy_programs(tmp_path / "root", "sh", "cat")
    (root / "etc").mkdir()
    (root / "etc/mark").write_text("the image's")
    image = tmp_path / "image.tar"
    with tarfile.open(image, f"w:{compression}") as archive:
        archive.add(root, ".")
    program = shutil.which("cat")
    for _ in range(2):
        with Container("box", rootfs=image) as box:
            assert out(box, program, "/etc/mark") == "the image's"
            box.write("/etc/mark", "mine")
            assert out(box, program, "/etc/mark") == "mine"
            assert box.rootfs == f"tarball {image}"
    with Container("box", rootfs=image, readonly=True) as box, pytest.raises(OSError, match="Read-only"):
        box.write("/etc/mark", "mine")
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    with pytest.raises(UsageError, match=r"cannot use tarball .*truncated|damaged|no end"):
        Container("box", rootfs=image)


def test_hosts_on_a_root_of_programs():
    """Joined hosts have it as containers alone do, and talk."""
    with Network() as net:
        pair = net.pair("one", "two", rootfs=["/bin/sh", "cat"])
        with pair.a.listen((pair.a.ip, 80)) as server, pair.b.connect((pair.a.name, 80)):
            server.accept()[0].close()
        assert [out(host, "cat", "/etc/hostname") for host in pair] == ["one", "two"]
        assert out(
            pair.b, "/bin/sh", "-c", "while read line; do case $line in *one*) echo found;; esac; done </etc/hosts"
        )


def test_ordinary_lists_are_refused_when_they_are_none():
    """The error says what a list looks like."""
    for wrong, message in (
        ([], "at least one"),
        ([3], "no path"),
        (["+nothing"], "none of"),
        (["/no/such"], "/no/such"),
    ):
        with pytest.raises(UsageError, match=message):
            Container("p", rootfs=wrong)
