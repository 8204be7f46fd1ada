"""What the benchmark of the guard runs on: a network and a table's network, users' rows, and attackers' queries."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.rendered import digits
from benchmarks.scenes import Bench, kept, training_code
from holdfast.artifacts.documents import Feature, InputSpec, ThreatModel
from holdfast.modality.ball import Ball
from holdfast.model.attack.square import square
from holdfast.model.extract.queries import noise, shuffled
from holdfast.model.networks import build
from holdfast.serving.guard.calibration import Calibration, Samples, calibrate
from holdfast.serving.guard.features import see
from holdfast.workload.schema import NetworkConfig

DELTA = 0.01
TRAINED, EPOCHS, BATCH = 25_000, 5, 128
SEEDS, LAMBDA = 100, 0.1
"""Of the Jacobian attack: rows that it begins with, and its step (Papernot et al. 2017, arXiv:1602.02697)."""
Rows = NDArray[np.float32]
Make = Callable[[int, np.random.Generator], Rows]
"""So many queries of an attacker."""


@dataclass(frozen=True)
class Guarded:
    """A model with its calibration, and rows that users send."""

    name: str
    network: nn.Module
    spec: InputSpec
    classes: int
    calibration: Calibration
    users: Rows

    def seen(self, x: Rows) -> Samples:
        """Rows as the guard sees them."""
        return see(self.network, self.spec, x, "cpu")

    def some(self, count: int, chance: np.random.Generator) -> Rows:
        """Users' rows, each once."""
        return self.users[chance.permutation(len(self.users))[:count]]


def of_images(bench: Bench) -> Guarded:
    """A network of 25,000 training images; users send those that it was not trained on."""
    images = bench.images
    x, y = images.train.x[:TRAINED], images.train.y[:TRAINED]
    network = _kept("guard-images", images.network(), (np.asarray(x, np.float32), y))
    return _guarded(images.name, network, images.spec, images.classes, (images.train.x, images.test.x))


def of_table(bench: Bench) -> Guarded:
    """Credit default: 10,000 rows to train on, 10,000 held out, 10,000 of users."""
    table = pd.read_csv(bench.file("credit_default.csv")).drop(columns="ID")
    rows = np.random.default_rng(0).permutation(len(table))
    x, y = table.drop(columns="Y").to_numpy(np.float32)[rows], table["Y"].to_numpy(np.int64)[rows]
    features = tuple(
        Feature(name=f"x{i}", lower=float(c.min()), upper=float(c.max()), mean=float(c.mean()), scale=float(c.std()))
        for i, c in enumerate(x[:10_000].T)
    )
    spec = InputSpec(modality="tabular", shape=(x.shape[1],), dtype="float32", features=features)
    network = build(NetworkConfig(architecture="mlp"), spec, 2, 0)
    network = _kept("guard-table", network, (x[:10_000], y[:10_000]))
    users = np.concatenate([x[:10_000], x[20_000:]])
    return _guarded("credit default", network, spec, 2, (users, x[10_000:20_000]), trained=10_000)


def strangers(scene: Guarded) -> Mapping[str, Make]:
    """Queries of those who are no users, by name; for images those of facts about copying, for a table what fits it."""
    made: dict[str, Make] = {
        "noise": lambda n, chance: noise(scene.users, n, chance),
        "each value from another row": lambda n, chance: shuffled(scene.users, n, chance),
        "search around one row (Square)": lambda n, chance: searched(scene, n, chance),
    }
    if len(scene.spec.shape) == 3:
        made |= {
            "foreign images (digits)": lambda n, chance: digits(n, seed=int(chance.integers(1 << 30))).x.astype(
                np.float32
            ),
            "flipped images": lambda n, chance: np.ascontiguousarray(scene.some(n, chance)[:, :, ::-1]),
            "mixed images": lambda n, chance: ((scene.some(n, chance) + scene.some(n, chance)) / 2).astype(np.float32),
            "Jacobian augmentation": lambda n, chance: augmented(scene, n, chance),
        }
    return made


def among(scene: Guarded, make: Make, share: float) -> Make:
    """That share of the queries; the others are a user's."""

    def mixed(count: int, chance: np.random.Generator) -> Rows:
        x, strange = scene.some(count, chance), chance.random(count) < share
        x[strange] = make(int(strange.sum()), chance)
        return x

    return mixed


def searched(scene: Guarded, count: int, chance: np.random.Generator) -> Rows:
    """What Square asks about one row that the model gets right, until its queries are used up."""
    asked: list[Tensor] = []
    unit = "input units" if len(scene.spec.shape) == 3 else "standard deviations"
    threat = ThreatModel(norm="linf", epsilon=Fraction(1, 50), unit=unit)
    x = torch.from_numpy(scene.some(1, chance))
    with torch.no_grad():
        y = scene.network(x).argmax(1)
    generator = torch.Generator().manual_seed(int(chance.integers(1 << 30)))
    square(_Watched(scene.network, asked), x, y, Ball.of(threat, scene.spec, "cpu"), queries=count, generator=generator)
    return torch.cat(asked)[:count].numpy()


def augmented(scene: Guarded, count: int, chance: np.random.Generator) -> Rows:
    """Some rows, then each moved along the gradient of a copy that is trained on the answers, again and again."""
    x = torch.from_numpy(scene.some(SEEDS, chance))
    copy = build(NetworkConfig(architecture="cnn"), scene.spec, scene.classes, int(chance.integers(1 << 30)))
    while len(x) < count:
        y = torch.from_numpy(scene.seen(x.numpy()).labels)
        _fit(copy, (x.numpy(), y.numpy()), 10)
        moved = x.clone().requires_grad_(True)
        copy(moved)[torch.arange(len(x)), y].sum().backward()
        assert moved.grad is not None
        x = torch.cat([x, (x + LAMBDA * moved.grad.sign()).clamp(0, 1)]).detach()
    found: Rows = x[:count].numpy()
    return found


class _Watched(nn.Module):
    """A network that keeps what it was asked."""

    def __init__(self, network: nn.Module, asked: list[Tensor]) -> None:
        super().__init__()
        self.network, self.asked = network, asked

    def forward(self, x: Tensor) -> Tensor:
        """Logits of x."""
        self.asked.append(x.detach().clone())
        found: Tensor = self.network(x)
        return found


def _guarded(
    name: str,
    network: nn.Module,
    spec: InputSpec,
    classes: int,
    rows: tuple[NDArray[np.generic], NDArray[np.generic]],
    *,
    trained: int = TRAINED,
) -> Guarded:
    """`rows`: those of training, after `trained` of them those of users; and held-out ones."""
    ours, held_out = (np.asarray(part, np.float32) for part in rows)
    reference, usual = (see(network, spec, x, "cpu") for x in (ours[:trained], held_out))
    calibration = calibrate(reference, usual, classes, seed=0, delta=DELTA)
    return Guarded(name, network, spec, classes, calibration, ours[trained:])


def _kept(name: str, network: nn.Module, rows: tuple[Rows, NDArray[np.int64]]) -> nn.Module:
    def make() -> nn.Module:
        _fit(network, rows, EPOCHS)
        return network

    return kept(name, f"{name} {len(rows[1])} {EPOCHS} {BATCH} {training_code()}", make, network)[0]


def _fit(network: nn.Module, rows: tuple[Rows, NDArray[np.int64]], epochs: int) -> None:
    x, y = (torch.from_numpy(part) for part in rows)
    optimizer, generator = torch.optim.Adam(network.parameters(), 0.002), torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator).split(BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()
