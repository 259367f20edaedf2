"""The directory of the sockets: where it is, and that it is this user's alone."""

import os
import stat
from pathlib import Path

import pytest

from pytest_poorcontainer.container import runtime_dir
from pytest_poorcontainer.errors import PoorContainerError

FALLBACK = Path(f"/tmp/poor-container-{os.geteuid()}")
NOBODY = 65534


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    monkeypatch.delenv(runtime_dir.ENVIRONMENT, raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)


@pytest.fixture
def place(monkeypatch, tmp_path):
    """Return the directory that this test is alone with; it does not exist yet."""
    monkeypatch.setenv(runtime_dir.ENVIRONMENT, str(tmp_path / "here"))
    return tmp_path / "here"


def test_it_lies_in_the_users_runtime_directory(monkeypatch, tmp_path):
    """XDG_RUNTIME_DIR is used when it is there, ours and writable."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_dir.place() == tmp_path / "poor-container"


@pytest.mark.parametrize("value", ["", "relative", "/nonexistent/run", "/etc/passwd"])
def test_without_one_it_lies_in_tmp(monkeypatch, value):
    """Without the variable, or where it names nothing to be used, the directory's name has the user in it."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    assert runtime_dir.place() == FALLBACK


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_runtime_directory_that_is_read_only_is_not_used(monkeypatch, tmp_path):
    """Where we may not write we do not try."""
    tmp_path.chmod(0o500)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    try:
        assert runtime_dir.place() == FALLBACK
    finally:
        tmp_path.chmod(0o700)


def test_a_runtime_directory_of_somebody_elses_is_not_used(monkeypatch, tmp_path):
    """After su the variable may be another user's."""
    if os.geteuid() == 0:
        os.chown(tmp_path, NOBODY, NOBODY)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path) if os.geteuid() == 0 else "/")
    assert runtime_dir.place() == FALLBACK


def test_it_is_made_for_its_user_alone(place):
    """It is made when it is needed, and opened as the same one again; looking for it makes nothing."""
    assert list(runtime_dir.existing()) == []
    assert not place.exists()
    for _ in range(2):
        fd = runtime_dir.opened()
        assert os.path.samestat(os.fstat(fd), place.stat())
        os.close(fd)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert [path for path, _ in runtime_dir.existing()] == [place]


def test_one_that_lets_others_in_is_refused(place):
    """A mode that somebody widened is named, with what to do; by who looks too, for what is in it is not safe."""
    place.mkdir(0o755)
    place.chmod(0o750)
    words = f"cannot use {place} for sockets: its mode 0750 lets others in; chmod 0700 {place}"
    with pytest.raises(PoorContainerError) as error:
        runtime_dir.opened()
    assert str(error.value) == words
    with pytest.raises(PoorContainerError, match="0750"):
        list(runtime_dir.existing())


def test_a_symbolic_link_in_its_place_is_refused(place, tmp_path):
    """Who puts a link where the directory is to be could lead us to a place of theirs."""
    place.symlink_to(tmp_path)
    with pytest.raises(PoorContainerError, match="it is a symbolic link, which somebody put there; remove "):
        runtime_dir.opened()


def test_a_file_in_its_place_is_refused(place):
    """What is no directory is named."""
    place.touch()
    with pytest.raises(PoorContainerError, match="it is no directory, which somebody put there; remove "):
        runtime_dir.opened()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
@pytest.mark.parametrize("mode", [0o700, 0o777])
def test_one_of_somebody_elses_is_refused_and_not_looked_into(place, mode):
    """A directory that another user made in our place is refused; who looks passes it over: it has nothing of ours."""
    place.mkdir()
    place.chmod(mode)
    os.chown(place, NOBODY, NOBODY)
    match = r"it belongs to user 65534; remove .* or set POOR_CONTAINER_RUNTIME_DIR"
    with pytest.raises(PoorContainerError, match=match):
        runtime_dir.opened()
    assert list(runtime_dir.existing()) == []


def test_a_place_that_cannot_be_made_is_named(monkeypatch):
    """Where no directory can be made the error says which, why, and what else to do."""
    monkeypatch.setenv(runtime_dir.ENVIRONMENT, "/proc/self/here")
    with pytest.raises((PoorContainerError, FileNotFoundError), match="/proc/self/here"):
        runtime_dir.opened()


def test_a_relative_directory_is_refused(monkeypatch):
    """It would be another one in every working directory, and rm --all would silently miss what is kept."""
    monkeypatch.setenv(runtime_dir.ENVIRONMENT, "here")
    with pytest.raises(PoorContainerError, match="POOR_CONTAINER_RUNTIME_DIR must be an absolute path"):
        runtime_dir.place()
