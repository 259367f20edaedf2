"""Times, shares and rates as tests write them."""

import math

import pytest

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.network.impair import parse_impairment
from pytest_poorcontainer.network.units import parse_rate, parse_share, parse_time, rate_text, share_text, time_text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20ms", 0.02),
        (" 1.5 s ", 1.5),
        ("150us", 150e-6),
        ("3secs", 3),
        ("7nsec", 7e-9),
        ("0", 0),
        (0.25, 0.25),
        (2, 2),
        (".5s", 0.5),
    ],
)
def test_times(text, seconds):
    """Numbers are seconds; texts have tc's suffixes."""
    assert parse_time(text, "delay") == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "share"), [("1%", 0.01), ("0.1 %", 0.001), ("100%", 1), (0.5, 0.5), (1, 1), (0, 0), ("0.25", 0.25)]
)
def test_shares(text, share):
    """Shares are from 0 to 1, or of a hundred."""
    assert parse_share(text, "loss") == pytest.approx(share)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10mbit", 1e7),
        ("1Gbit", 1e9),
        ("64kibit", 65536),
        ("1.5mbit", 1.5e6),
        ("800bit", 800),
        (1e6, 1e6),
        (9600, 9600),
    ],
)
def test_rates(text, rate):
    """Numbers are bits per second; texts have tc's suffixes."""
    assert parse_rate(text, "rate") == pytest.approx(rate)


@pytest.mark.parametrize(
    ("parse", "value", "message"),
    [
        (parse_time, "20", "say of what, '20ms' or '20s'"),
        (parse_time, "20 min", "'min' is no unit of time"),
        (parse_time, "ms", "like '20ms'"),
        (parse_time, "-3ms", "like '20ms'"),
        (parse_time, -3, "cannot be negative"),
        (parse_time, math.nan, "not nan"),
        (parse_time, math.inf, "not inf"),
        pytest.param(parse_rate, 10**400, "not 1000", id="no float"),
        (parse_time, None, "not None"),
        (parse_time, True, "not True"),
        (parse_time, "2h", "no unit"),
        (parse_time, 4000, "longer than an hour"),
        (parse_share, "300%", "no more than all packets"),
        (parse_share, 5, "perhaps '5%'"),
        (parse_share, "5", "perhaps '5%'"),
        (parse_share, "1ms", "'ms' is no unit of it"),
        (parse_share, "1%%", "not '1%%'"),
        (parse_share, [], r"not \[\]"),
        (parse_rate, "10mbps", "say '10mbit' or '80mbit'"),
        (parse_rate, "10Mbps", "say '10mbit' or '80mbit'"),
        (parse_rate, "10", "say of what"),
        (parse_rate, "10ms", "'ms' is no unit of a rate"),
        (parse_rate, 0, r"cut\(\) lets nothing pass"),
        (parse_rate, "0mbit", r"cut\(\) lets nothing pass"),
        (parse_rate, "5tbit", "leave it out"),
    ],
)
def test_what_is_none_of_them_is_told(parse, value, message):
    """The message names the argument, shows the value, and says what was expected."""
    with pytest.raises(UsageError, match=message) as caught:
        parse(value, "that")
    assert "that" in str(caught.value)
    assert repr(value) in str(caught.value) or isinstance(value, float)


@pytest.mark.parametrize(
    ("text", "shown", "parse"),
    [
        ("20ms", time_text, parse_time),
        ("1.5s", time_text, parse_time),
        ("150us", time_text, parse_time),
        ("0us", time_text, parse_time),
        ("1%", share_text, parse_share),
        ("0.01%", share_text, parse_share),
        ("10mbit", rate_text, parse_rate),
        ("1.25gbit", rate_text, parse_rate),
        ("800bit", rate_text, parse_rate),
    ],
)
def test_what_is_shown_is_what_is_written(text, shown, parse):
    """Values are shown in the form in which tests write them."""
    assert shown(parse(text, "that")) == text


def test_only_what_is_said_is_said():
    """What is left out is not in the result, so that it can come from an outer impairment; 0 is said."""
    assert parse_impairment(delay="1ms", loss=0) == {"delay": 0.001, "loss": 0}
    assert parse_impairment(precise=True, jitter="1ms") == {"jitter": 0.001, "precise": True}
