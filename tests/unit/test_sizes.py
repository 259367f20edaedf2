"""Sizes as people write them."""

import pytest

from pytest_poorcontainer import UsageError
from pytest_poorcontainer.lab.sizes import parse_size, shown_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (4096, 4096),
        ("4096", 4096),
        ("512k", 512 << 10),
        ("512K", 512 << 10),
        ("64M", 64 << 20),
        (" 64 m ", 64 << 20),
        ("1.5G", 3 << 29),
        ("2T", 2 << 40),
    ],
)
def test_sizes_are_bytes_or_texts_with_a_unit(text, size):
    """The units are powers of two, in either case."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "wrong", ["", "64MB", "64 MiB", "M", "-1M", "1e6", "64,5M", "0x40", 0, -5, "0", 1.5, True, None, b"64M"]
)
def test_what_is_no_size_is_named(wrong):
    """The error repeats what was given and what is expected."""
    with pytest.raises(UsageError) as raised:
        parse_size(wrong, "memory")
    assert repr(wrong) in str(raised.value)
    assert str(raised.value).startswith("memory is ")


@pytest.mark.parametrize(
    ("size", "text"), [(64 << 20, "64M"), (1 << 40, "1T"), (1536, "1536"), (3 << 29, "1536M"), (0, "0")]
)
def test_a_size_for_people_is_whole_or_has_all_its_digits(size, text):
    """What is shown can be written back and means the same."""
    assert shown_size(size) == text
