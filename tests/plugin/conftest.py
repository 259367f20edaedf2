"""Running pytest inside pytest, with this plugin and none of the others unless a test asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_poorcontainer.fixtures import _options

if TYPE_CHECKING:
    from collections.abc import Callable

OTHERS = ("asyncio", "hypothesispytest", "randomly", "rerunfailures", "timeout")


@pytest.fixture(autouse=True)
def _no_say_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the outer run was told is not what the inner one is told."""
    for name in (_options.ENVIRONMENT, *(option.environment for option in _options.OPTIONS)):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """Run pytest in this process; ``plugins`` names the other plugins to leave loaded."""

    def run(*args: str, plugins: tuple[str, ...] = (), subprocess: bool = False) -> pytest.RunResult:
        without = [f"-pno:{name}" for name in OTHERS if name not in plugins]
        runner = pytester.runpytest_subprocess if subprocess else pytester.runpytest_inprocess
        return runner("-pno:cacheprovider", *without, *args)

    return run
