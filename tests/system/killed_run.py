"""The files of a pytest run that is going to be killed; ``nothing_left.py`` writes them into a directory of its own."""

from __future__ import annotations

__all__ = ["CONFTEST", "TESTS"]

CONFTEST = '''
"""Each pytest process runs a copy of our programs of its own, so that its lab can be told from others'."""
import os
import shutil
from pathlib import Path

import pytest

ROUND = Path(os.environ["NOTHING_LEFT"])
WORDS = os.open(ROUND / "words", os.O_WRONLY | os.O_CLOEXEC)


def say(*words):
    os.write(WORDS, (" ".join(map(str, [os.getpid(), *words])) + "\\n").encode())


OWN = ROUND / f"native-{os.getpid()}"
OWN.mkdir()
for program in Path(os.environ["NOTHING_LEFT_NATIVE"]).iterdir():
    try:
        os.link(program, OWN / program.name)
    except OSError:  # another file system
        shutil.copy2(program, OWN)
os.environ["POOR_CONTAINER_NATIVE"] = str(OWN)


@pytest.fixture(name="say")
def say_fixture():
    return say


@pytest.fixture
def spawning():
    """Requested before netns_pair: the first one spawns the lab."""
    say("spawn")
'''

TESTS = '''
import os
import time

import pytest

VARIANT = os.environ["NOTHING_LEFT_VARIANT"]
WORD = os.environ["NOTHING_LEFT_WORD"]
HOLD = float(os.environ["NOTHING_LEFT_HOLD"])


def command(word):
    """A shell that ignores polite signals and starts children that called setsid, and that double-forked."""
    deaf = "trap '' TERM HUP INT; while :; do sleep 1; done"
    return ["sh", "-c", f"""
        trap '' TERM HUP INT
        setsid sh -c "$1" {word} "$1" &
        ( setsid sh -c 'sh -c "$1" {word} & exit' {word} "$1" & )
        while :; do sleep 1; done
    """, word, deaf]


@pytest.mark.parametrize("number", range(int(os.environ["NOTHING_LEFT_TESTS"])))
def test_pair(say, number, spawning, netns_pair):
    say("built")
    for host in netns_pair:
        host.popen(command(f"{WORD}{os.getpid()}x"))
    if number % 2:
        netns_pair.link.impair(delay="1ms")  # another program of ours
    if VARIANT == "fork":
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        say("forked", child)
    say("steady")
    time.sleep(HOLD)
    if VARIANT == "_exit":
        os._exit(3)
    if VARIANT == "timeout":
        time.sleep(30)
    for host in netns_pair:
        assert host.run(["true"], timeout=10).returncode == 0
    say("teardown")
'''
