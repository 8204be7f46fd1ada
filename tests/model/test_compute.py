import pytest

from holdfast.compute import GPUS, Compute
from holdfast.errors import ModelError

torch = pytest.importorskip("torch")


def test_a_step_that_holds_a_gpu_which_torch_cannot_use_fails(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv(GPUS, "1")
    with pytest.raises(ModelError, match="HOLDFAST_GPUS=1: expected torch .* to find the GPU that this step holds"):
        Compute(seed=0).prepare()
    assert Compute(seed=0, device="cpu").prepare() == "cpu"
    monkeypatch.setenv(GPUS, "0")
    assert Compute(seed=0).prepare() == "cpu"


def test_a_gpu_that_is_there_is_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv(GPUS, "1")
    assert Compute(seed=0).prepare() == "cuda"
