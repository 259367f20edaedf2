"""The README's examples, run as they stand there."""

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
TESTS = [block for block in BLOCKS if "def test_" in block]
SCRIPTS = [block for block in BLOCKS if "def test_" not in block]


@pytest.mark.poor_container(level="namespaces")
@pytest.mark.parametrize("block", TESTS)
def test_the_examples_for_pytest_pass(pytester, block):
    """A test copied from the README passes in an empty project."""
    pytester.makepyfile(block)
    result = pytester.runpytest_subprocess("--poor-container-require", "-p", "no:randomly")
    result.assert_outcomes(passed=block.count("def test_"))


@pytest.mark.poor_container(level="namespaces")
@pytest.mark.parametrize("block", SCRIPTS)
def test_the_examples_for_scripts_run(pytester, block):
    """A script copied from the README ends without an error."""
    result = pytester.runpython(pytester.makepyfile(script=block))
    assert result.ret == 0, result.stderr.str()


def test_the_readme_has_examples_of_both_kinds():
    """The README still holds what these tests are about."""
    assert TESTS
    assert SCRIPTS
