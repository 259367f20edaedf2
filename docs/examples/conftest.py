"""What the examples share: which packages they need, and how a daemon comes to own its directories."""

import pathlib

import pytest

PACKAGES = pathlib.Path("/var/lib/dpkg/info")


def pytest_configure(config):
    config.addinivalue_line("markers", "debian(package, ...): the test needs these packages of Debian or Ubuntu")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Skip a test whose packages are not here, or fail it under ``--poor-container-require``."""
    wanted = [package for marker in item.iter_markers("debian") for package in marker.args]
    missing = [package for package in wanted if not (PACKAGES / f"{package}.list").exists()]
    if missing:
        line = f"needs Debian's packages: sudo apt-get install --no-install-recommends {' '.join(missing)}"
        give_up = pytest.fail if item.config.getoption("poor_container") == "require" else pytest.skip
        give_up(line)


@pytest.fixture(scope="session")
def give():
    """``give(host, user, *directories)`` makes directories and lets a user have them with all that is in them.

    Where an ordinary user runs the tests, what is below /etc and /var belongs to the host's root. chown then helps, or
    fails: without a range in /etc/subuid the host has one id, which all its users share, and the files with it.
    """

    def give(host, user, *directories):
        host.run(["mkdir", "-p", *directories], check=True)
        host.run(["chown", "-R", f"{user}:", *directories], capture_output=True)

    return give
