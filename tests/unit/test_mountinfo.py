"""The table of mounts as the kernel writes it."""

from pathlib import Path

from pytest_poorcontainer.lab.mountinfo import Row, parse

TABLE = r"""22 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
31 22 0:25 /a\040b /mnt/x\011y\134z ro,nosuid shared:7 master:3 - tmpfs tmp\040fs rw,size=1024k
"""


def test_rows_have_their_parts_without_escapes():
    """Optional fields are passed over, however many there are; spaces, tabs and backslashes are themselves."""
    assert parse(TABLE) == [
        Row(22, "254:0", "/", "/", "rw,relatime", "ext4", "/dev/vda", "rw,discard"),
        Row(31, "0:25", "/a b", "/mnt/x\ty\\z", "ro,nosuid", "tmpfs", "tmp fs", "rw,size=1024k"),
    ]


def test_our_own_table_is_understood():
    """Every mount of the machine that the tests run on is a row, and one of them is the root."""
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    rows = parse(text)
    assert len(rows) == len(text.splitlines())
    assert "/" in [row.target for row in rows]
