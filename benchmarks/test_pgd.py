"""PGD-20, one restart, on an adversarially trained digits network: ours beside a plain torch loop and ART's.

Same network, examples, budget, batch and one thread. Robust accuracies stand in `extra_info`: a faster attack that
breaks less is not faster.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from sklearn.datasets import load_digits
from torch import Tensor, nn

from holdfast.artifacts.documents import InputSpec, ThreatModel
from holdfast.model.attack.losses import cross_entropy
from holdfast.model.attack.suite import pgd_plan, survivors
from holdfast.model.networks import build
from holdfast.model.threat import Ball
from holdfast.workload import NetworkConfig

EPSILON, STEPS = 0.1, 20
SPEC = InputSpec(modality="image", shape=(1, 8, 8), dtype="float32")


@pytest.fixture(scope="module")
def scene() -> tuple[nn.Module, Tensor, Tensor, Ball]:
    """A network after a little training against one gradient step, and 500 examples."""
    torch.set_num_threads(1)
    digits = load_digits()
    x = torch.from_numpy((digits.images[:, None] / 16).astype(np.float32))
    y = torch.from_numpy(digits.target.astype(np.int64))
    net = build(NetworkConfig(architecture="cnn"), SPEC, 10, seed=0).train()
    optimizer, generator = torch.optim.Adam(net.parameters(), 2e-3), torch.Generator().manual_seed(0)
    for _ in range(8):
        for rows in torch.randperm(1297, generator=generator).split(64):
            bent = plain_step(net, x[500:][rows], y[500:][rows], EPSILON)
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(bent), y[500:][rows]).backward()
            optimizer.step()
    ball = Ball.of(ThreatModel(norm="linf", epsilon="1/10", unit="input units [0, 1]"), SPEC, "cpu")
    return net.eval(), x[:500], y[:500], ball


def plain_step(net: nn.Module, x: Tensor, y: Tensor, size: float) -> Tensor:
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(net(x), y), x)
    return (x + size * gradient.sign()).detach().clamp(0, 1)


def plain_pgd(net: nn.Module, x: Tensor, y: Tensor) -> float:
    generator = torch.Generator().manual_seed(0)
    bent = (x + EPSILON * (2 * torch.rand(x.shape, generator=generator) - 1)).clamp(0, 1)
    for _ in range(STEPS):
        bent = plain_step(net, bent, y, 2.5 * EPSILON / STEPS)
        bent = x + (bent - x).clamp(-EPSILON, EPSILON)
    return float((net(bent).argmax(1) == y).float().mean())


def ours(net: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> float:
    plan = pgd_plan("pgd", STEPS, 1, cross_entropy)
    return float(survivors(net, x, y, ball, plan, seed=0).float().mean())


@pytest.mark.benchmark(group="PGD-20, 500 digits")
def test_plain_loop(benchmark: BenchmarkFixture, scene: tuple[nn.Module, Tensor, Tensor, Ball]) -> None:
    net, x, y, _ = scene
    benchmark.extra_info["robust"] = benchmark(plain_pgd, net, x, y)


@pytest.mark.benchmark(group="PGD-20, 500 digits")
def test_holdfast(benchmark: BenchmarkFixture, scene: tuple[nn.Module, Tensor, Tensor, Ball]) -> None:
    robust = benchmark(ours, *scene)
    benchmark.extra_info["robust"] = robust
    assert abs(robust - plain_pgd(*scene[:3])) <= 0.02


@pytest.mark.benchmark(group="PGD-20, 500 digits")
def test_art(benchmark: BenchmarkFixture, scene: tuple[nn.Module, Tensor, Tensor, Ball], tmp_path: Path) -> None:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    net, x, y, _ = scene
    classifier = PyTorchClassifier(
        model=net, loss=nn.CrossEntropyLoss(), input_shape=(1, 8, 8), nb_classes=10, clip_values=(0.0, 1.0)
    )
    attack = ProjectedGradientDescentPyTorch(
        classifier, eps=EPSILON, eps_step=2.5 * EPSILON / STEPS, max_iter=STEPS, num_random_init=1, batch_size=500,
        verbose=False,
    )  # fmt: skip
    bent = benchmark(attack.generate, x.numpy(), y.numpy())
    benchmark.extra_info["robust"] = float((net(torch.from_numpy(bent)).argmax(1) == y).float().mean())
