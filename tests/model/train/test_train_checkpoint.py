import hashlib
import json
from pathlib import Path

import pytest
import torch

from holdfast.errors import InputError
from holdfast.model.train.checkpoint import place, read, write

WHO = "a" * 64
TENSORS = {"net.w": torch.arange(6.0).reshape(2, 3), "optimizer.0.step": torch.tensor(3.0)}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = place(tmp_path / "new", WHO)
    write(path, WHO, TENSORS, {"epoch": 2, "loss": (0.1).hex()})
    found = read(path, WHO)
    assert found is not None
    assert all(torch.equal(found[0][name], TENSORS[name]) for name in TENSORS)
    assert found[1] == {"epoch": 2, "loss": (0.1).hex()}


def test_no_checkpoint_is_not_an_error(tmp_path: Path) -> None:
    assert read(place(tmp_path, WHO), WHO) is None


@pytest.mark.parametrize("keep", [0, 10, 65, 200, -1])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, keep: int) -> None:
    path = place(tmp_path, WHO)
    write(path, WHO, TENSORS, {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="expected a whole checkpoint, found altered or missing bytes"):
        read(path, WHO)


def test_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = place(tmp_path, WHO)
    write(path, WHO, TENSORS, {})
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="expected a whole checkpoint"):
        read(path, WHO)


def test_the_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    path = place(tmp_path, WHO)
    write(path, "b" * 64, TENSORS, {})
    with pytest.raises(InputError, match="expected the checkpoint of this training, found one of another"):
        read(path, WHO)


def test_tensors_that_lie_over_each_other_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = place(tmp_path, WHO)
    write(path, WHO, TENSORS, {})
    data = path.read_bytes().partition(b"\n")[2]
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["optimizer.0.step"]["data_offsets"] = [0, 4]
    forged = json.dumps(header).encode()
    forged = len(forged).to_bytes(8, "little") + forged + data[8 + size :]
    path.write_bytes(hashlib.sha256(forged).hexdigest().encode() + b"\n" + forged)
    with pytest.raises(InputError, match=r"\.checkpoint: .*expected to begin at 4, found 0"):
        read(path, WHO)
