"""Networks as a user brings them, good and bad."""

import torch
from torch import Tensor, nn


def good(shape: tuple[int, ...], classes: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, classes))


def dropout(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, classes))


def number() -> int:
    return 3


def eleven() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 11))


def nan() -> nn.Module:
    class Nan(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 10), float("nan"))

    return Nan()


def softmax(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes), nn.Softmax(1))


def flat() -> nn.Module:
    return nn.Linear(999, 10)


def spoils(classes: int) -> nn.Module:
    class Spoils(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.add_(1).flatten(1))

    return Spoils(64, classes)


class Shown(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.table = nn.Embedding(128, 4)
        self.out = nn.Linear(4, classes)

    def embed(self, ids: Tensor) -> Tensor:
        return self.table(ids)

    def forward_embedded(self, embedded: Tensor) -> Tensor:
        return self.out(embedded.mean(1))

    def forward(self, ids: Tensor) -> Tensor:
        return self.forward_embedded(self.embed(ids))


def shown(classes: int) -> nn.Module:
    return Shown(classes)


def table(classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, classes))
