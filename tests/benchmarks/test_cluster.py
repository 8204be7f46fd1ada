import pytest

from benchmarks.cluster import BothWays, _compared, in_bytes
from holdfast.errors import RunError


@pytest.mark.parametrize(("text", "size"), [("0 B", 0), ("11.3 kB", 11300), ("129MB", 129e6), ("1.14 GB", 1.14e9)])
def test_sizes_are_read_as_podman_and_docker_write_them(text, size):
    assert in_bytes(text) == pytest.approx(size)


@pytest.mark.parametrize("text", ["", "many", "1.14 GiB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(RunError, match="expected a size"):
        in_bytes(text)


def test_one_other_digest_and_too_much_cpu_miss_their_targets():
    good, bad = BothWays("scan", True, 10.0, 10.0), BothWays("train", False, 14.0, 10.0)
    assert [row.met for row in _compared([good])] == [True, True]
    assert [row.met for row in _compared([good, bad])] == [False, False]
