"""Places to mirror from, by the protocols that they speak."""

import shutil

import pytest
from places import place


@pytest.fixture
def make_place(tmp_path):
    """``make_place(kind)`` is a context manager that serves a new directory."""
    count = iter(range(100))

    def make(kind, **options):
        base = tmp_path / f"place{next(count)}"
        base.mkdir()
        return place(base, kind, **options)

    return make


@pytest.fixture
def served(make_place, request):
    """Return a place of the kind that the test names by indirect parametrization."""
    if request.param == "rsync" and shutil.which("rsync") is None:
        pytest.skip("needs rsync: sudo apt-get install rsync")
    with make_place(request.param) as found:
        yield found
