"""Adversarial training: Madry et al. 2018, https://arxiv.org/abs/1706.06083.

Each batch is moved to where the network errs most inside the ball, and the network is fitted there. Epsilon grows over
the first third of the training, the learning rate follows one cycle (Smith 2018, https://arxiv.org/abs/1803.09820).
Text: the inner attack flips characters (HotFlip, Ebrahimi et al. 2018). Noise for certification is added afterwards:
Gaussian (Cohen et al. 2019, https://arxiv.org/abs/1902.02918), for text characters are hidden.

All randomness is a function of seed, epoch and batch, so a state of tensors and counters is all that resuming needs.
"""

from dataclasses import asdict, dataclass, field
from math import cos, pi

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from holdfast.errors import ModelError
from holdfast.model.attack.hotflip import Embedding, flip_at_once
from holdfast.model.attack.losses import correct
from holdfast.model.attack.losses import cross_entropy as climbed
from holdfast.model.attack.pgd import perturb, pgd
from holdfast.model.inputs import HIDDEN, PAD, Arrays
from holdfast.model.threat import Ball, random_edits
from holdfast.workload import RecipeConfig

SELECTION_STEPS = 10
"""PGD steps of the accuracy that chooses the best epoch."""
SELECTION_SHARE = 5
"""At most one row in this many is set apart for that choice."""
_EVALUATION_BATCH = 512
_WARM_UP = 1 / 3
_PEAK = 0.3
"""Share of the training after which the learning rate is highest."""
_CLIP = 5.0
_NOISY = 0.5
"""Share of a batch that gets noise when the recipe has any."""


@dataclass(frozen=True)
class Epoch:
    """One row of the learning curve; counts are of the rows set apart."""

    epoch: int
    loss: float
    clean: int
    robust: int
    rows: int


@dataclass
class State:
    """Where a training stands: with the same rows, recipe and seed it leads to the same end."""

    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    curve: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    """The weights of the best epoch so far."""


def split_selection(rows: Arrays, config: RecipeConfig, seed: int) -> tuple[Arrays, Arrays]:
    """Rows to fit and rows set apart to choose the best epoch, by a permutation that the seed fixes."""
    order = np.random.default_rng([seed, 0]).permutation(len(rows))
    apart = max(1, min(config.selection_rows, len(rows) // SELECTION_SHARE))
    return rows.take(np.sort(order[apart:])), rows.take(np.sort(order[:apart]))


class Training:
    """One training, advanced batch by batch."""

    def __init__(self, net: nn.Module, rows: Arrays, ball: Ball, config: RecipeConfig, *, seed: int) -> None:
        device = ball.scale.device
        fitted, apart = split_selection(rows, config, seed)
        self.net = net.to(device).train()
        self.ball = ball
        self.config = config
        self.seed = seed
        self.x, self.y = _tensors(fitted, device)
        self.apart = _tensors(apart, device)
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=0.0, weight_decay=config.weight_decay)
        self.state = State()

    @property
    def batches(self) -> int:
        """Batches per epoch; a last batch of less than half the size is left out."""
        return max(1, round(len(self.y) / self.config.batch))

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.state.epoch >= self.config.epochs

    @property
    def best_epoch(self) -> Epoch:
        """The epoch whose weights are kept: most robust (recipe standard: most accurate) on the rows set apart."""
        return max(self.state.curve, key=self._rank)

    def advance(self) -> Epoch | None:
        """Fits one batch; after the last of an epoch, judges the epoch and returns its row of the curve.

        Raises:
            ModelError: the loss is not a finite number.
        """
        state = self.state
        self.state.loss += self._fit(self._batch_rows()) / self.batches
        state.batch += 1
        if state.batch < self.batches:
            return None
        row = self._judge()
        state.curve.append(row)
        if self.best_epoch is row:
            state.best = {name: value.detach().clone() for name, value in self.net.state_dict().items()}
        state.epoch, state.batch, state.loss = state.epoch + 1, 0, 0.0
        return row

    def export_state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """Everything that `restore_state` needs: tensors by name, and counters."""
        tensors = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self.state.best.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in moments.items()}
        counters = {"epoch": self.state.epoch, "batch": self.state.batch, "loss": self.state.loss.hex()}
        return tensors, {**counters, "curve": [asdict(row) for row in self.state.curve]}

    def restore_state(self, tensors: dict[str, Tensor], counters: dict[str, object]) -> None:
        """Goes on from what `export_state` gave."""
        self.net.load_state_dict(_under(tensors, "net."))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _under(tensors, "optimizer.").items():
            index, _, key = name.partition(".")
            moments.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.state = State(
            epoch=int(str(counters["epoch"])),
            batch=int(str(counters["batch"])),
            loss=float.fromhex(str(counters["loss"])),
            curve=[Epoch(**row) for row in counters["curve"]],  # type: ignore[attr-defined]
            best=_under(tensors, "best."),
        )

    def _rank(self, row: Epoch) -> tuple[int, int]:
        return (row.robust, row.clean) if self.config.recipe == "pgd" else (row.clean, row.robust)

    def _batch_rows(self) -> Tensor:
        order = np.random.default_rng([self.seed, 1, self.state.epoch]).permutation(len(self.y))
        parts = np.array_split(order, self.batches)
        return torch.from_numpy(parts[self.state.batch]).to(self.y.device)

    def _fit(self, rows: Tensor) -> float:
        x, y = self.x[rows], self.y[rows]
        seed = int(np.random.SeedSequence([self.seed, 2, self.state.epoch, self.state.batch]).generate_state(1)[0])
        generator = torch.Generator(x.device).manual_seed(seed)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * one_cycle(self._progress())
        # A user's network may draw from torch's own generator (dropout): it is seeded inside and restored after.
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            torch.manual_seed(seed)
            x = self._harden(x, y, generator)
            return self._descend(x, y)

    def _descend(self, x: Tensor, y: Tensor) -> float:
        self.net.train()
        loss = cross_entropy(self.net(x).float(), y)
        value = loss.item()
        if not np.isfinite(value):
            raise ModelError(
                f"train: epoch {self.state.epoch + 1}, batch {self.state.batch + 1}: expected a finite loss, "
                f"found {value}; lower train.learning_rate"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), _CLIP)
        self.optimizer.step()
        return value

    def _harden(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """The batch as it is fitted: a share attacked, then a share with noise."""
        self.net.eval()
        attacked = round(len(y) * self.config.adversarial_share) if self.config.recipe == "pgd" else 0
        ball = self.ball.resized(self.ball.epsilon * min(1.0, self._progress() / _WARM_UP))
        if attacked:
            moved = inner_attack(
                self.net, x[:attacked], y[:attacked], ball, steps=self.config.attack_steps, generator=generator
            )
            x = torch.cat([moved, x[attacked:]])
        return with_noise(x, self.config.noise, self.ball, generator) if self.config.noise else x

    def _progress(self) -> float:
        done = self.state.epoch * self.batches + self.state.batch
        return (done + 0.5) / (self.config.epochs * self.batches)

    def _judge(self) -> Epoch:
        self.net.eval()
        x, y = self.apart
        generator = torch.Generator(x.device).manual_seed(self.seed)
        clean = robust = 0
        for part, labels in zip(x.split(_EVALUATION_BATCH), y.split(_EVALUATION_BATCH), strict=True):
            clean += int(correct(self.net, part, labels).sum())
            moved = selection_attack(self.net, part, labels, self.ball, generator)
            robust += int(correct(self.net, moved, labels).sum())
        return Epoch(epoch=self.state.epoch + 1, loss=self.state.loss, clean=clean, robust=robust, rows=len(y))


def one_cycle(progress: float) -> float:
    """Share of the highest learning rate at `progress` in [0, 1]: up along a cosine, then down to zero."""
    if progress < _PEAK:
        return 0.05 + 0.95 * (1 - cos(pi * progress / _PEAK)) / 2
    return (1 + cos(pi * (progress - _PEAK) / (1 - _PEAK))) / 2


def inner_attack(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, *, steps: int, generator: torch.Generator) -> Tensor:
    """The attack of the training: PGD; characters are flipped one after another, or at random without an embedding."""
    if ball.norm != "edits":
        return perturb(net, x, y, ball, steps=steps, generator=generator)
    edits = round(ball.epsilon)
    if not isinstance(net, Embedding):
        return random_edits(x, edits, generator)
    point = x
    for _ in range(edits):
        point = flip_at_once(net, point, y, 1)
    return ball.resized(edits).project(point, x)


def selection_attack(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
    """The attack that chooses the best epoch."""
    if ball.norm == "edits":
        return inner_attack(net, x, y, ball, steps=1, generator=generator)
    return pgd(net, x, y, ball, steps=SELECTION_STEPS, restarts=1, loss=climbed, generator=generator)


def with_noise(x: Tensor, noise: float, ball: Ball, generator: torch.Generator) -> Tensor:
    """Half of the rows with Gaussian noise of that many units of scale, or with that share of characters hidden."""
    chosen = torch.rand(len(x), generator=generator, device=x.device) < _NOISY
    chosen = chosen.reshape(-1, *([1] * (x.dim() - 1)))
    if ball.norm == "edits":
        hidden = torch.rand(x.shape, generator=generator, device=x.device) < noise
        return x.masked_fill(hidden & chosen & (x != PAD), HIDDEN)
    return x + chosen * noise * ball.scale * torch.randn(x.shape, generator=generator, device=x.device)


def _tensors(rows: Arrays, device: torch.device) -> tuple[Tensor, Tensor]:
    x: NDArray[np.generic] = np.ascontiguousarray(rows.x)
    return torch.from_numpy(x).to(device), torch.from_numpy(rows.y).to(device)


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
