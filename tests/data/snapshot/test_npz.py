"""Files that lie: none of them is decoded, none unpickled."""

import io
import tracemalloc
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from holdfast.data.snapshot.npz import read_npz
from holdfast.errors import InputError, LimitError

LIMIT = 2**24


class Trap:
    """Says so when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return (pytest.fail, ("it was unpickled",))


def packed(**arrays: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def zipped(name: str, content: bytes, kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def read(data: bytes, *keys: str) -> dict[str, NDArray[np.generic]]:
    return read_npz(data, keys or ("x",), name="data.npz", max_bytes=LIMIT)


@given(
    kind=st.sampled_from(["u1", "<f4", ">f4", ">i8", "?", "f8"]),
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    order=st.sampled_from("CF"),
)
def test_what_numpy_wrote_is_read_back(kind: str, shape: list[int], order: Any) -> None:
    array = np.asarray(np.arange(np.prod(shape)).reshape(shape), dtype=kind, order=order)
    found = read(packed(x=array))["x"]
    np.testing.assert_array_equal(found, array)
    assert found.dtype.isnative


def test_pickled_objects_are_refused_without_being_unpickled() -> None:
    with pytest.raises(InputError, match=r"data.npz\[x\]: expected numbers, found pickled Python objects"):
        read(packed(x=np.array([Trap()], dtype=object)))


def test_pickled_objects_beside_what_is_wanted_are_refused_too() -> None:
    with pytest.raises(InputError, match=r"data.npz\[extra\]: expected numbers, found pickled"):
        read(packed(x=np.zeros(3), extra=np.array([Trap()], dtype=object)))


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    bomb = packed(x=np.zeros(2**26, dtype=np.uint8))
    assert len(bomb) < 2**17
    tracemalloc.start()
    with pytest.raises(LimitError, match="expected at most 16777216 bytes when decoded"):
        read(bomb)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_a_header_that_claims_more_than_its_member_holds_is_refused() -> None:
    honest = npy(np.zeros(4))
    claimed = honest.replace(b"(4,)", b"(9999999999999,)").replace(b"             \n", b" \n")
    with pytest.raises(InputError, match="bytes as its header declares, found|header that cannot be read"):
        read(zipped("x.npy", claimed))


def test_a_header_that_is_no_literal_is_refused() -> None:
    text = b"(" * 9_000 + b"\n"
    with pytest.raises(InputError, match="found a header that cannot be read"):
        read(zipped("x.npy", b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text))


def test_a_directory_that_claims_less_than_is_there_is_refused() -> None:
    data = bytearray(packed(x=np.zeros(1000)))
    size = (1000 * 8 + 128).to_bytes(4, "little")
    at = data.rindex(size)
    data[at : at + 4] = (1000).to_bytes(4, "little")
    with pytest.raises(InputError, match="expected a whole NPZ file, found Bad CRC-32"):
        read(bytes(data))


@pytest.mark.parametrize("cut", [10, 500, -30])
def test_a_file_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(InputError, match="data.npz: expected a whole NPZ file, found"):
        read(packed(x=np.random.default_rng(0).normal(size=200))[:cut])


def test_one_flipped_bit_is_refused_wherever_the_numbers_are() -> None:
    data = bytearray(packed(x=np.random.default_rng(0).normal(size=200)))
    data[len(data) // 2] ^= 1
    with pytest.raises(InputError, match="expected a whole NPZ file, found"):
        read(bytes(data))


def test_text_and_records_are_refused() -> None:
    with pytest.raises(InputError, match="expected numbers, found dtype <U3"):
        read(packed(x=np.array(["abc"])))
    with pytest.raises(InputError, match="expected numbers, found dtype"):
        read(packed(x=np.zeros(2, dtype=[("a", "i4")])))


def test_missing_arrays_are_named() -> None:
    with pytest.raises(InputError, match="expected arrays 'x', 'y', found 'a'"):
        read(packed(a=np.zeros(1)), "x", "y")


def test_another_file_and_another_compression_are_refused() -> None:
    with pytest.raises(InputError, match="expected a whole NPZ file, found File is not a zip file"):
        read(b"x,y\n1,2\n")
    with pytest.raises(InputError, match="expected a stored or deflated array"):
        read(zipped("x.npy", npy(np.zeros(3)), zipfile.ZIP_LZMA))
    with pytest.raises(InputError, match="header that cannot be read"):
        read(zipped("x.npy", b"not an array"))


@given(at=st.integers(0, 10_000), value=st.integers(0, 255))
def test_no_byte_put_anywhere_leads_to_anything_but_a_refusal_or_the_same_numbers(at: int, value: int) -> None:
    array = np.arange(60.0).reshape(3, 20)
    data = bytearray(packed(x=array))
    data[at % len(data)] = value
    try:
        found = read(bytes(data))["x"]
    except InputError:
        return
    np.testing.assert_array_equal(found, array)
