"""Impaired links in tests of ``netns_pair``: what a wire has to say is said when the pair is closed at the latest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.poor_container

SUITE = """
    import signal
    import time

    import pytest

    from pytest_poorcontainer import WireDied

    def kill(link):
        carrier = link._impairments.carrier
        signal.pidfd_send_signal(carrier._pidfd, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while not carrier.dead and time.monotonic() < deadline:
            time.sleep(0.001)

    def test_left_on(netns_pair):
        netns_pair.link.impair(delay="1ms")

    def test_killed_and_never_noticed(netns_pair):
        netns_pair.link.impair(delay="1ms")
        kill(netns_pair.link)

    def test_killed_and_noticed(netns_pair):
        with pytest.raises(WireDied), netns_pair.link.impair(delay="1ms"):
            kill(netns_pair.link)

    def test_the_next_pair_is_whole(netns_pair):
        a, b = netns_pair
        with a.listen((a.ip, 80)) as server, b.connect((a.ip, 80)):
            server.accept()[0].close()
        assert netns_pair.link.medium == "veth"
"""


def test_a_wire_that_died_is_an_error_of_the_test_whose_link_it_was(
    pytester: pytest.Pytester, run: Callable[..., pytest.RunResult]
) -> None:
    """A test that leaves its link impaired passes; one whose wire has died unnoticed has an error at the end."""
    pytester.makepyfile(SUITE)
    result = run("--poor-container")
    result.assert_outcomes(passed=4, errors=1)
    result.stdout.fnmatch_lines(
        ["*ERROR at teardown of test_killed_and_never_noticed*", "*nothing passes on this link*"]
    )
