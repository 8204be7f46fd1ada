"""A denoising autoencoder of the training rows: Vincent et al. 2008; as a purifier MagNet, Meng and Chen 2017,
arXiv:1705.09064.

It learns to give a row back that noise was added to, and so to move any row towards those of the data.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from holdfast.progress import track

EPOCHS, BATCH, MOST_ROWS, FEWEST_STEPS = 10, 128, 8_000, 600
_RATE, _WIDTH = 2e-3, 24


class ImageAutoencoder(nn.Module):
    """Convolutions on images float32[N, C, H, W] of any size, with half the resolution between them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(channels, _WIDTH, 3, padding=1), nn.ReLU(),
            nn.Conv2d(_WIDTH, _WIDTH, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.outer = nn.Sequential(
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1), nn.ReLU(), nn.Conv2d(_WIDTH, channels, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images of the same size."""
        inner = nn.functional.interpolate(self.inner(x), size=x.shape[2:], mode="bilinear", align_corners=False)
        found: Tensor = self.outer(inner)
        return found


class RowAutoencoder(nn.Module):
    """Linear layers on rows float32[N, D] in units of their spread, with half as many numbers between them."""

    mean: Tensor
    scale: Tensor

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        width = x.shape[1]
        self.register_buffer("mean", x.mean(0))
        self.register_buffer("scale", x.std(0).clamp_min(1e-6))
        middle = max(2, width // 2)
        self.body = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, middle), nn.ReLU(),
            nn.Linear(middle, 2 * width), nn.ReLU(), nn.Linear(2 * width, width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Rows of the same width."""
        found: Tensor = self.body((x - self.mean) / self.scale) * self.scale + self.mean
        return found


def trained(make: Callable[[], nn.Module], x: Tensor, noise: Tensor, generator: torch.Generator) -> nn.Module:
    """A new autoencoder, for rows `[N, ...]` with normal noise of these deviations (broadcastable to a row).

    Few rows are seen more often: at least `FEWEST_STEPS` steps are made.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator, device=x.device)))
        made = make()
    made.to(x.device)
    optimizer = torch.optim.Adam(made.parameters(), _RATE)
    for rows in track(_batches(len(x), generator, x.device), "autoencoder"):
        batch = x[rows]
        moved = batch + noise * torch.randn(batch.shape, generator=generator, device=x.device)
        loss = ((made(moved) - batch) / noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return made.eval().requires_grad_(False)


def _batches(count: int, generator: torch.Generator, device: torch.device) -> Sequence[Tensor]:
    epochs = max(EPOCHS, -(-FEWEST_STEPS * BATCH // count))
    found: list[Tensor] = []
    for _ in range(epochs):
        found += torch.randperm(count, generator=generator, device=device).split(BATCH)
    return found[: max(FEWEST_STEPS, EPOCHS * -(-count // BATCH))]
