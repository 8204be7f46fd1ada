"""Arrays in an artifact: equal arrays, equal bytes."""

import io
import zipfile

import numpy as np

from holdfast.artifacts.arrays import npz


def test_arrays_come_back_as_they_were():
    given = {"x": np.ones((2, 3), dtype=np.float32), "clean": np.array([True, False]), "a-b": np.array([1])}
    with np.load(io.BytesIO(npz(**given)), allow_pickle=False) as found:
        assert set(found) == set(given)
        for name, array in given.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype


def test_no_member_carries_the_time_of_writing():
    # The zip format's own first moment; numpy writes it, and equal arrays give equal bytes for that.
    members = zipfile.ZipFile(io.BytesIO(npz(x=np.zeros(3), y=np.ones(2)))).infolist()
    assert {member.date_time for member in members} == {(1980, 1, 1, 0, 0, 0)}
