"""The console command's own manners; what its commands do is tested in tests/system."""

import subprocess
import sys

import pytest

from pytest_poorcontainer.cli import doctor
from pytest_poorcontainer.cli.main import main
from pytest_poorcontainer.errors import PoorContainerError, Unavailable


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "COMMAND"),
        (["docter"], 2, "docter"),
        (["doctor", "--yaml"], 2, "--yaml"),
        (["run"], 125, "a command is needed"),
        (["run", "--"], 125, "a command is needed"),
        (["run", "--nett", "--", "true"], 125, "--nett"),
        (["ps", "--yaml"], 2, "--yaml"),
        (["enter"], 125, "NAME"),
        (["enter", "--usr", "root", "primary"], 125, "--usr"),
        (["rm"], 2, "say which"),
        (["rm", "--all", "primary"], 2, "say which"),
    ],
)
def test_bad_usage_is_named_and_has_the_status_of_its_command(capsys, arguments, status, words):
    """A mistake is said on stderr; ``run`` and ``enter`` answer 125, so that 2 stays the status of what they run."""
    try:
        ended = main(arguments)
    except SystemExit as exit_:
        ended = exit_.code
    said = capsys.readouterr()
    assert ended == status
    assert words in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    "arguments", [["--help"], *([name, "--help"] for name in ("doctor", "run", "ps", "enter", "rm"))]
)
def test_help_is_for_standard_output(capsys, arguments):
    """Help goes to stdout with status 0, and every command documents its exit status."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    said = capsys.readouterr()
    assert len(arguments) == 1 or "Exit status" in said.out
    assert said.err == ""


@pytest.mark.parametrize(
    "error",
    [PoorContainerError("cannot do it: no reason"), Unavailable("veth", "the kernel has none", "modprobe veth")],
)
def test_our_errors_are_one_line_without_a_traceback(capsys, monkeypatch, error):
    """An error of ours becomes one line on stderr."""

    def fail(_options):
        raise error

    monkeypatch.setattr(doctor, "execute", fail)
    assert main(["doctor"]) == doctor.FAILURE
    assert capsys.readouterr().err == f"poor-container: {error}\n"


def test_the_command_line_is_parsed_without_loading_the_library():
    """Reading the arguments loads neither containers nor probes, so that help and mistakes are quick."""
    code = (
        "import sys, pytest_poorcontainer.cli.main\n"
        "heavy = ('pytest_poorcontainer.container', 'pytest_poorcontainer.machine', 'asyncio', 'scapy', 'subprocess')\n"
        "print([name for name in sys.modules if name.startswith(heavy)])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_reader_that_goes_away_is_no_traceback():
    """When whoever reads the output has gone, the command ends quietly."""
    code = "import os, sys\nfrom pytest_poorcontainer.cli.main import main\nos.close(0)\nsys.exit(main(['doctor']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == doctor.FAILURE
    process.stderr.close()
