"""Seed, device and threads of a step."""

from dataclasses import dataclass
from typing import Literal

from holdfast.errors import ModelError

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Compute:
    """How a step computes: equal settings on equal hardware give equal bytes."""

    seed: int
    device: Device = "auto"
    threads: int = 1

    def prepare(self) -> str:
        """Sets torch's threads and returns the device to use: "cpu" or "cuda".

        Raises:
            ModelError: CUDA was asked for and there is none.
        """
        import torch

        torch.set_num_threads(self.threads)
        there = torch.cuda.is_available()
        if self.device == "cuda" and not there:
            raise ModelError("--device cuda: expected a CUDA device, found none; use --device auto or cpu")
        return "cuda" if there and self.device != "cpu" else "cpu"
