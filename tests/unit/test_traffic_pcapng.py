"""Wireshark's own tools read the files that we write."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.utils import PcapNgReader
from sent import ether, framed

from pytest_poorcontainer.traffic.frames import Frame
from pytest_poorcontainer.traffic.pcapng import Interface, blocks

WIRESHARK = shutil.which("capinfos") and shutil.which("tshark")
INTERFACES = (Interface(1, "a eth0", "what a sends", 256), Interface(2, "b eth0", "what b sends"))


def datagram(number, interface=1, size=10):
    """Return a datagram at so many milliseconds."""
    packet = ether("a", IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=number, dport=9) / (b"x" * size))
    return framed(packet, at=number, interface=interface, snaplen=60)


def wireshark(*command):
    """Run one of Wireshark's tools; return what it prints. It may complain of nothing but that we are root."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if "Running as user" not in line]
    assert (done.returncode, complaints) == (0, []), done.stderr
    return done.stdout


@pytest.mark.skipif(not WIRESHARK, reason="needs capinfos and tshark (apt-get install tshark)")
def test_wireshark_reads_the_file(tmp_path):
    """Interfaces, comment, times to the nanosecond, lengths and directions are read without complaint."""
    path = tmp_path / "x.pcapng"
    frames = [datagram(1), datagram(2, interface=2, size=1000), datagram(3)._replace(out=False, time=3_000_000_007)]
    with path.open("wb") as file:
        file.writelines(blocks(INTERFACES, frames, comment="t\u00e9st", lost={2: 5}))
    about = wireshark("capinfos", str(path))
    assert "Number of packets:   3" in about
    assert "Number of interfaces in file: 2" in about
    assert "Capture comment:     t\u00e9st" in about
    assert "Name = a eth0" in about
    assert "Description = what b sends" in about
    assert "nanoseconds (9)" in about
    fields = ("frame.interface_name", "frame.len", "frame.cap_len", "frame.packet_flags_direction", "udp.srcport")
    lines = wireshark("tshark", "-r", str(path), "-T", "fields", *(word for name in fields for word in ("-e", name)))
    rows = [line.split("\t") for line in lines.splitlines()]
    assert [row[0] for row in rows] == ["a eth0", "b eth0", "a eth0"]
    assert [(row[1], row[2]) for row in rows] == [("52", "52"), ("1042", "60"), ("52", "52")]
    assert [int(row[3], 0) for row in rows] == [2, 2, 1]
    assert [row[4] for row in rows] == ["1", "2", "3"]
    times = wireshark("tshark", "-r", str(path), "-T", "fields", "-e", "frame.time_epoch").split()
    assert times[2] == "3.000000007"


def test_a_file_without_frames_is_whole(tmp_path):
    """Hosts that have sent nothing are in the file all the same."""
    path = tmp_path / "x.pcapng"
    path.write_bytes(b"".join(blocks(INTERFACES, [])))
    with PcapNgReader(str(path)) as reader:
        assert list(reader) == []


def test_frames_of_others_are_left_out():
    """A frame of an interface that is not in the file has no place in it."""
    assert b"".join(blocks(INTERFACES, [datagram(1, interface=7)])) == b"".join(blocks(INTERFACES, []))


@given(
    st.lists(
        st.tuples(st.integers(0, 2**63), st.sampled_from([1, 2]), st.binary(max_size=70), st.integers(0, 9)), max_size=9
    )
)
def test_what_is_written_is_read_again(tmp_path_factory, given_frames):
    """Times, bytes and lengths of any frames come back from the file (by scapy, another reader)."""
    frames = [Frame(time, number, True, len(data) + more, data) for time, number, data, more in given_frames]
    path = tmp_path_factory.mktemp("pcapng") / "x.pcapng"
    path.write_bytes(b"".join(blocks(INTERFACES, frames, comment="\ud800" * 9000)))
    with PcapNgReader.__mro__[1](str(path)) as reader:
        read = list(reader)
    assert [data for data, _ in read] == [frame.data for frame in frames]
    assert [meta.wirelen for _, meta in read] == [frame.length for frame in frames]
    assert [(meta.tshigh << 32) + meta.tslow for _, meta in read] == [frame.time for frame in frames]
