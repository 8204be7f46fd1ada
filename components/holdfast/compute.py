"""Seed, device and threads of a step."""

import os
from dataclasses import dataclass
from typing import Literal

from holdfast.errors import ModelError

Device = Literal["auto", "cpu", "cuda"]
GPUS = "HOLDFAST_GPUS"
"""The environment variable of a step whose pod asked for GPUs: how many."""


@dataclass(frozen=True)
class Compute:
    """How a step computes: equal settings on equal hardware give equal bytes."""

    seed: int
    device: Device = "auto"
    threads: int = 1

    def prepare(self) -> str:
        """Sets torch's threads and returns the device to use: "cpu" or "cuda".

        Raises:
            ModelError: CUDA was asked for, or the pod holds a GPU, and there is none that torch can use.
        """
        import torch

        torch.set_num_threads(self.threads)
        there = torch.cuda.is_available()
        if self.device == "cuda" and not there:
            raise ModelError("--device cuda: expected a CUDA device, found none; use --device auto or cpu")
        if self.device == "auto" and os.environ.get(GPUS, "0") != "0" and not there:
            raise ModelError(
                f"{GPUS}={os.environ[GPUS]}: expected torch {torch.__version__} to find the GPU that this step holds, "
                "found none; use the image that `make images TORCH=cuda` builds, or ask for no GPU"
            )
        return "cuda" if there and self.device != "cpu" else "cpu"
