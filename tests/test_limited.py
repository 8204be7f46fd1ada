"""Work in a child that the kernel ends: by memory, by CPU time, by the clock."""

import time

import pytest

from holdfast.errors import LimitError
from holdfast.limited import Allowance, in_child

SMALL = Allowance(memory=2**27, cpu_seconds=1, seconds=5.0)


def forever() -> bytes:
    while True:
        pass


def asleep() -> bytes:
    time.sleep(60)
    return b""


def test_what_the_work_found_comes_back_whole():
    assert in_child(lambda: b"\n" * 200_000, SMALL, "f") == b"\n" * 200_000
    assert in_child(bytes, SMALL, "f") == b""


def test_memory_above_the_limit_ends_it():
    with pytest.raises(LimitError, match="f: expected to be read within 128 MiB of memory, found a file that takes"):
        in_child(lambda: b"%d" % len(bytearray(2**30)), SMALL, "f")


def test_cpu_time_above_the_limit_ends_it():
    with pytest.raises(LimitError, match="f: expected to be read within 1 s of CPU time, found a file that takes more"):
        in_child(forever, Allowance(2**27, cpu_seconds=1, seconds=120), "f")  # a busy machine gives it little


def test_the_clock_ends_what_only_waits():
    with pytest.raises(LimitError, match="f: expected to be read within 0.2 s, found a file that takes longer"):
        in_child(asleep, Allowance(2**27, 5, 0.2), "f")


def test_a_child_that_fails_is_one_line():
    with pytest.raises(LimitError, match="f: expected a file that can be judged, found one at which the judge failed"):
        in_child(lambda: b"%d" % (1 // 0), SMALL, "f")
