"""A training, batch by batch: what a recipe makes of a batch is in recipes.py.

Epsilon grows over the first third of the training, the learning rate follows one cycle (Smith 2018,
https://arxiv.org/abs/1803.09820). The weights that are judged and kept may be a running mean of those that are fitted
(Izmailov et al. 2018, https://arxiv.org/abs/1803.05407; for robustness Gowal et al. 2020, https://arxiv.org/abs/2010.03593).

All randomness is a function of seed, epoch and batch, so a state of tensors and counters is all that resuming needs.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import ceil, cos, pi, sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from holdfast.errors import ModelError
from holdfast.modality.ball import Ball
from holdfast.model.attack.fgsm import fgsm
from holdfast.model.attack.kinds import selection_attack
from holdfast.model.attack.losses import correct
from holdfast.model.inputs import Arrays
from holdfast.model.train.interval import interval_holds, interval_schedule, interval_start
from holdfast.model.train.ranks import Ranks
from holdfast.model.train.recipes import Moment, batch_loss, class_weights
from holdfast.workload.schema import RecipeConfig

RARE = 20
"""A class of which fewer rows are expected among those set apart is rare."""
SELECTION_SHARE = 5
"""Rows of which at most one is set apart for that choice."""
_EVALUATION_BATCH = 512
_WARM_UP = 1 / 3
_PEAK = 0.3
"""Share of the training after which the learning rate is highest."""
_CLIP, _CLIP_BOUNDS = 5.0, 1.0
"""Largest norm of a gradient; that of interval bounds is far larger than others."""
_AVERAGE_START = 10
"""The running mean forgets faster in its first steps: its share of the past is at most (1 + t) / (10 + t)."""
CHECKS = 4
"""How often in an epoch fgsm-rs is looked at for a collapse, on so many rows:"""
CHECK_ROWS = 256
COLLAPSED_GAP, COLLAPSED_SHARE = 0.2, 0.7
READ_EVERY = {"cpu": 1, "cuda": 32}
"""Batches after which their losses are read: reading makes a GPU wait for its next work."""


@dataclass(frozen=True)
class Epoch:
    """One row of the learning curve; counts and rates are of the rows set apart."""

    epoch: int
    loss: float
    clean: int
    robust: int
    rows: int
    clean_balanced: float
    """Balanced accuracy (the mean of the classes' recall) without an attack."""
    robust_balanced: float
    """The same under the selection attack."""


@dataclass
class TrainingState:
    """How far a training has come: with the same rows, recipe and seed it leads to the same end."""

    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    curve: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    """The weights of the best epoch so far."""
    average: dict[str, Tensor] = field(default_factory=dict)
    """The running mean of the weights, when the recipe keeps one."""
    sound: dict[str, Tensor] = field(default_factory=dict)
    """fgsm-rs: the weights at the last look that found no collapse."""
    most_sound: int = 0
    """fgsm-rs: the most rows that stood under PGD at any look."""
    rescues: int = 0
    """fgsm-rs: how many collapses were taken back; each adds a step to the inner attack."""


@dataclass(frozen=True)
class _Unread:
    """What a batch came to, not yet read from the device."""

    batch: int
    losses: tuple[tuple[Tensor, float], ...]
    """The losses of the pieces of the batch, with their shares of it."""
    norm: Tensor
    """The gradient's norm."""


def split_selection(rows: Arrays, config: RecipeConfig, seed: int) -> tuple[Arrays, Arrays]:
    """Rows to fit and rows set apart to choose the best epoch, chosen by the seed.

    Where a class is rare, so that chance may leave it out, the rows set apart hold the same share of every class.
    """
    order = np.random.default_rng([seed, 0]).permutation(len(rows))
    apart = max(1, min(config.selection_rows, len(rows) // SELECTION_SHARE))
    if np.unique(rows.y, return_counts=True)[1].min() * apart < RARE * len(rows):
        order = evenly(rows.y, order)
    return rows.take(np.sort(order[apart:])), rows.take(np.sort(order[:apart]))


def evenly(y: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """The permutation `order` int64[N] of rows of the classes y, with every class in proportion in each beginning."""
    place = np.empty(len(y))
    for label in np.unique(y):
        own = order[y[order] == label]
        place[own] = (np.arange(len(own)) + 0.5) / len(own)
    return order[np.argsort(place[order], kind="stable")]


class Training:
    """One training, advanced batch by batch; `notes` gathers what a person should be told."""

    def __init__(
        self,
        net: nn.Module,
        rows: Arrays,
        ball: Ball,
        config: RecipeConfig,
        *,
        seed: int,
        second: Ball | None = None,
        ranks: Ranks | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        device = ball.scale.device
        fitted, apart = split_selection(rows, config, seed)
        if config.recipe == "ibp":
            net = interval_start(net, torch.Generator().manual_seed(seed))
        self.net = net.to(device).train()
        self.ball, self.second = ball, second
        self.config = config
        self.seed = seed
        self.ranks = ranks or Ranks()
        self.x, self.y = fitted.tensors(device)
        self.apart = apart.tensors(device)
        self.class_weights = class_weights(self.y, classes, config.class_weights)
        self.optimizer = torch.optim.AdamW(
            net.parameters(), lr=0.0, weight_decay=config.weight_decay, fused=True if device.type == "cuda" else None
        )
        self.state = TrainingState()
        self._unread: list[_Unread] = []
        self._order: tuple[int, tuple[Tensor, ...]] = (-1, ())
        self.pieces = 1
        self.notes: list[str] = []
        self._half = device.type == "cuda" and config.precision == "auto" or config.precision == "bfloat16"
        self._called = compiled(net) if config.compile else net

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
        """The epoch whose weights are kept, by balanced accuracy on the rows set apart.

        By `epoch_value` of that without and under attack. The recipe `standard`, which attacks nothing, goes by the one
        without. Ties: the count under attack, then that without.
        """
        return max(self.state.curve, key=self._rank)

    def advance(self) -> Epoch | None:
        """Fits one batch; after the last of an epoch, judges the epoch and returns its row of the curve.

        Raises:
            ModelError: the loss or a gradient is not a finite number, or one row does not fit into the memory.
        """
        state = self.state
        self._unread.append(self._fit(self._batch_rows()))
        self._keep_average()
        if len(self._unread) >= READ_EVERY.get(self.x.device.type, 1):
            self._read()
        state.batch += 1
        if self.config.recipe == "fgsm-rs" and state.batch % max(1, self.batches // CHECKS) == 0:
            self._look_for_collapse()
        return None if state.batch < self.batches else self._end_epoch()

    def _read(self) -> None:
        """Adds the losses of the batches that are not read yet.

        Raises:
            ModelError: a loss or a gradient was not a finite number.
        """
        for unread in self._unread:
            value = 0.0
            for loss, share in unread.losses:
                value += loss.item() * share
                self._guard("loss", value, unread.batch)
            self._guard("gradient", unread.norm.item(), unread.batch)
            self.state.loss += value / self.batches
        self._unread.clear()

    def _end_epoch(self) -> Epoch:
        """Judges the epoch and keeps its weights when they are the best so far."""
        self._read()
        state, row = self.state, self._judge()
        state.curve.append(row)
        if self.best_epoch is row:
            state.best = {name: value.detach().clone() for name, value in self._judged().items()}
        state.epoch, state.batch, state.loss = state.epoch + 1, 0, 0.0
        return row

    def export_state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """Everything that `restore_state` needs: tensors by name, and counters."""
        self._read()
        kept = {"best": self.state.best, "average": self.state.average, "sound": self.state.sound}
        tensors = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        tensors |= {f"{name}.{k}": v for name, weights in kept.items() for k, v in weights.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in moments.items()}
        counters = {name: getattr(self.state, name) for name in ("epoch", "batch", "most_sound", "rescues")}
        curve = [asdict(row) for row in self.state.curve]
        return tensors, {**counters, "loss": self.state.loss.hex(), "curve": curve}

    def restore_state(self, tensors: dict[str, Tensor], counters: dict[str, object]) -> None:
        """Goes on from what `export_state` gave."""
        self._unread.clear()
        self.net.load_state_dict(_under(tensors, "net."))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _under(tensors, "optimizer.").items():
            index, _, key = name.partition(".")
            moments.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        device = self.ball.scale.device
        curve = [Epoch(**row) for row in counters["curve"]]  # type: ignore[attr-defined]
        self.state = TrainingState(loss=float.fromhex(str(counters["loss"])), curve=curve)
        for name in ("epoch", "batch", "most_sound", "rescues"):
            setattr(self.state, name, int(str(counters[name])))
        for name in ("best", "average", "sound"):
            setattr(self.state, name, _on(device, _under(tensors, f"{name}.")))

    def _rank(self, row: Epoch) -> tuple[float, float, int, int]:
        if self.config.recipe == "standard":
            return row.clean_balanced, 0.0, row.clean, row.robust
        luck = lucky_accuracy(self.apart[1].unique(return_counts=True)[1].tolist())
        return (*epoch_value(row.clean_balanced, row.robust_balanced, luck), row.robust, row.clean)

    def _batch_rows(self) -> Tensor:
        epoch = self.state.epoch
        if self._order[0] != epoch:
            order = np.random.default_rng([self.seed, 1, epoch]).permutation(len(self.y))
            self._order = epoch, torch.from_numpy(order).to(self.y.device).tensor_split(self.batches)
        return self._order[1][self.state.batch]

    def _fit(self, rows: Tensor) -> _Unread:
        """Fits the batch; where it does not fit into the memory it is fitted in more, smaller pieces."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * one_cycle(self._progress())
        while True:
            try:
                return self._descend(rows)
            except torch.OutOfMemoryError:
                if self.pieces >= len(rows):
                    raise ModelError("train: expected memory for one row at a time, found too little") from None
                self.pieces *= 2
                size = ceil(len(rows) / self.pieces)
                self.notes.append(f"train: a batch of {len(rows)} rows does not fit; {size} at a time from now on")

    def _descend(self, rows: Tensor) -> _Unread:
        """One step of the optimizer on the batch, or on this rank's share of it."""
        place = [self.seed, 2, self.state.epoch, self.state.batch, *([self.ranks.rank] if self.ranks.rank else [])]
        seed = int(np.random.SeedSequence(place).generate_state(1)[0])
        mine, device = self.ranks.share(rows), self.x.device
        generator, losses = torch.Generator(device).manual_seed(seed), list[tuple[Tensor, float]]()
        self.optimizer.zero_grad(set_to_none=True)
        # A user's network may draw from torch's own generator (dropout): it is seeded inside and restored after.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            _seed(seed, device)
            for part in mine.tensor_split(self.pieces):
                share = len(part) / len(mine)
                losses.append((self._accumulate(part, share, generator), share))
        self.ranks.average(self.net, rows=len(mine), of=len(rows))
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), _CLIP_BOUNDS if self.config.recipe == "ibp" else _CLIP)
        self.optimizer.step()
        return _Unread(self.state.batch, tuple(losses), norm)

    def _accumulate(self, rows: Tensor, share: float, generator: torch.Generator) -> Tensor:
        """Adds the gradient of a piece of the batch, weighed by its share of it, and returns its loss."""
        x, y = self.x[rows], self.y[rows]
        with (
            torch.autocast(self.x.device.type, torch.bfloat16, enabled=self._half),
            batch_loss(self._called, x, y, self._moment(generator), self.config) as loss,
        ):
            (loss * share).backward()
        return loss.detach()

    def _guard(self, what: str, value: float, batch: int) -> None:
        if not np.isfinite(value):
            raise ModelError(
                f"train: epoch {self.state.epoch + 1}, batch {batch + 1}: expected a finite {what}, "
                f"found {value}; lower train.learning_rate"
            )

    def _moment(self, generator: torch.Generator) -> Moment:
        """Epsilon and the steps of the attack at this batch."""
        config, progress = self.config, self._progress()
        if config.recipe == "ibp":
            share, kappa = interval_schedule(progress)
            ball = self.ball.resized(self.ball.epsilon * share)
            return Moment(ball, None, 0, generator, kappa, self.class_weights)
        share = 1.0 if config.recipe == "finetune" else min(1.0, progress / _WARM_UP)
        steps = config.attack_steps
        if config.recipe == "fgsm-rs":
            steps = config.fast_steps + self.state.rescues
        if config.recipe == "curriculum":
            steps = 1 + int(min(1.0, progress / (2 * _WARM_UP)) * (config.attack_steps - 1))
        second = None if self.second is None else self.second.resized(self.second.epsilon * share)
        ball = self.ball.resized(self.ball.epsilon * share)
        return Moment(ball, second, steps, generator, class_weights=self.class_weights)

    def _progress(self) -> float:
        done = self.state.epoch * self.batches + self.state.batch
        return (done + 0.5) / (self.config.epochs * self.batches)

    def _keep_average(self) -> None:
        if not self.config.average:
            return
        done = self.state.epoch * self.batches + self.state.batch
        past = min(self.config.average, (1 + done) / (_AVERAGE_START + done))
        self.state.average = mixed(self.state.average, self.net.state_dict(), past)

    def _judged(self) -> dict[str, Tensor]:
        """The weights that are judged and kept."""
        return self.state.average if self.config.average else self.net.state_dict()

    def _judge(self) -> Epoch:
        fitted = {name: value.clone() for name, value in self.net.state_dict().items()}
        self.net.load_state_dict(self._judged())
        row = self.judged()
        self.net.load_state_dict(fitted)
        return row

    def judged(self) -> Epoch:
        """How the network as it is answers the rows set apart, without and under the selection attack."""
        self.net.eval()
        x, y = self.apart
        generator = torch.Generator(x.device).manual_seed(self.seed)
        parts = list(zip(x.split(_EVALUATION_BATCH), y.split(_EVALUATION_BATCH), strict=True))
        clean = torch.cat([correct(self.net, part, labels) for part, labels in parts])
        robust = torch.cat([self._standing(part, labels, generator) for part, labels in parts])
        return Epoch(
            epoch=self.state.epoch + 1,
            loss=self.state.loss,
            clean=int(clean.sum()),
            robust=int(robust.sum()),
            rows=len(y),
            clean_balanced=balanced_accuracy(clean, y),
            robust_balanced=balanced_accuracy(robust, y),
        )

    def _standing(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """bool[N]: which rows stand under the attack of every ball of the threat; ibp: which are certified."""
        if self.config.recipe == "ibp":
            return interval_holds(self.net, x, y, self.ball)
        flags = correct(self.net, selection_attack(self.net, x, y, self.ball, generator), y)
        if self.second is None:
            return flags
        return flags & correct(self.net, selection_attack(self.net, x, y, self.second, generator), y)

    def _look_for_collapse(self) -> None:
        """Takes a collapse (FGSM is resisted, PGD is not) back to the last sound weights, with one more step."""
        self.net.eval()
        x, y = self.apart[0][:CHECK_ROWS], self.apart[1][:CHECK_ROWS]
        one = int(correct(self.net, fgsm(self.net, x, y, self.ball), y).sum())
        many = int(self._standing(x, y, torch.Generator(x.device).manual_seed(self.seed)).sum())
        state = self.state
        if collapsed(one, many, state.most_sound, len(y)) and state.sound:
            state.rescues += 1
            self.net.load_state_dict(state.sound)
            self.optimizer.state.clear()
            state.average = {name: value.clone() for name, value in state.sound.items()} if state.average else {}
            self.notes.append(
                f"train: collapse in epoch {state.epoch + 1}: {one} of {len(y)} stand under FGSM, {many} under PGD; "
                f"back to the last sound weights, with {self.config.fast_steps + state.rescues} steps from now on"
            )
            return
        state.most_sound = max(state.most_sound, many)
        state.sound = {name: value.detach().clone() for name, value in self.net.state_dict().items()}


def epoch_value(clean: float, robust: float, luck: float) -> tuple[float, float]:
    """What two balanced accuracies are worth above `luck`, which guesses reach; compare as tuples.

    First the harmonic mean of both shares of the way from luck to 1: without one of them there is nothing. Where that
    is so, their plain mean: a constant answer is worth less than a network that has learned, and does not resist yet.
    """
    above = [max(0.0, (value - luck) / (1 - luck)) if luck < 1 else value for value in (clean, robust)]
    harmonic = 2 * above[0] * above[1] / sum(above) if all(above) else 0.0
    return harmonic, (clean + robust) / 2


def lucky_accuracy(rows: Sequence[int]) -> float:
    """The balanced accuracy of guesses, and one standard error more, on so many rows of each class.

    Among thirty epochs one that answers nearly everything alike is a little above chance: without the standard error it
    would be preferred to one that answers two thirds right.
    """
    chance = 1 / max(1, len(rows))
    return chance + chance * sqrt(sum(chance * (1 - chance) / count for count in rows))


def balanced_accuracy(right: Tensor, y: Tensor) -> float:
    """The mean over the classes of y int64[N] of the share of their rows that are right, bool[N]."""
    y = y.cpu()  # where this sum has a fixed order
    rows, hits = torch.bincount(y), torch.bincount(y, weights=right.cpu().double())
    return float((hits[rows > 0] / rows[rows > 0]).mean())


def collapsed(one: int, many: int, best: int, rows: int) -> bool:
    """Whether rows that stand under one step fall under many, and more of them stood before.

    Catastrophic overfitting (Wong et al. 2020, section 5.2): FGSM accuracy rises while PGD accuracy falls. Where PGD
    never left more than a few, as while epsilon still grows, nothing has been lost.
    """
    gap = COLLAPSED_GAP * rows
    return best > gap and one - many > gap and many < COLLAPSED_SHARE * best


def mixed(past: dict[str, Tensor], now: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """share x past + (1 - share) x now for every floating-point tensor; counters are taken from `now`."""
    if not past:
        return {name: value.detach().clone() for name, value in now.items()}
    return {
        name: past[name].lerp(value.detach(), 1 - share) if value.is_floating_point() else value.clone()
        for name, value in now.items()
    }


def compiled(net: nn.Module) -> nn.Module:
    """The network with kernels of torch.compile; it shares the weights."""
    made = torch.compile(net)
    assert isinstance(made, nn.Module)  # compile answers a module with a module
    return made


def one_cycle(progress: float) -> float:
    """Share of the highest learning rate at `progress` in [0, 1]: up along a cosine, then down to zero."""
    if progress < _PEAK:
        return 0.05 + 0.95 * (1 - cos(pi * progress / _PEAK)) / 2
    return (1 + cos(pi * (progress - _PEAK) / (1 - _PEAK))) / 2


def _seed(seed: int, device: torch.device) -> None:
    """Seeds the generator of the CPU and that of `device`.

    `torch.manual_seed` also formats a stack for every kind of device that is absent: a tenth of a small network's step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _on(device: torch.device, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in tensors.items()}
