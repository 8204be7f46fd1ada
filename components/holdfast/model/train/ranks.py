"""One training over several processes, as torchrun or workers.py starts them: every rank fits its share of each batch.

The gradients are averaged over the ranks before each step, so that the weights stay equal and the training is that of
one process with the whole batch (DistributedDataParallel's sum, without its hooks, which the inner attack would fire).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from holdfast.errors import ModelError


@dataclass(frozen=True)
class Ranks:
    """This process among its peers; the default is a process alone."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes what all of them made."""
        return self.rank == 0

    def share(self, rows: Tensor) -> Tensor:
        """This rank's part of the positions of a batch; parts differ by at most one row."""
        return rows.tensor_split(self.count)[self.rank]

    def average(self, net: nn.Module, *, rows: int, of: int) -> None:
        """Makes every rank's gradients the mean over a batch of `of` rows, of which this rank had `rows`."""
        if self.count == 1:
            return
        for parameter in net.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(rows / of)
                _sum(parameter.grad)

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is up on any rank: all of them must stop, or go on, together."""
        if self.count == 1:
            return flag
        found = torch.tensor(float(flag), device=device)
        _sum(found)
        return bool(found.item())

    def wait(self) -> None:
        """Returns when every rank has come here."""
        if self.count > 1:
            torch.distributed.barrier()


def _sum(values: Tensor) -> None:
    """Adds the values of all ranks, in place.

    Raises:
        ModelError: another rank is gone.
    """
    try:
        torch.distributed.all_reduce(values)
    except RuntimeError as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"train: expected all processes to go on, found one that ended ({reason[:200]})") from None
