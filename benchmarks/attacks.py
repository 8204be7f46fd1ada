"""Attacks, and torchattacks, ART, pyautoattack and a plain loop: same network, examples, budget and one thread."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy as torch_cross_entropy

from benchmarks.scenes import Bench, Images
from benchmarks.table import Row, at_least, at_most, cpu_seconds, shown
from benchmarks.training import hardened
from holdfast.model.attack.kinds import pgd_plan, plans
from holdfast.model.attack.losses import cross_entropy
from holdfast.model.attack.plan import AttackPlan
from holdfast.model.attack.suite import measure

EXAMPLES, MANY, MOST = 500, 1000, 2000
STEPS = 20
NIGHTLY_STEPS, NIGHTLY_RESTARTS, QUERIES = 50, 5, 1000
HOW = "one thread, CPU-seconds, the network of `training`"


def run(bench: Bench) -> list[Row]:
    """PGD-20, the nightly tier and the release tier."""
    images = bench.images
    net = hardened(images)[0]
    return [*_pgd(images, net), *_nightly(images, net), *_release(images, net)]


def _pgd(images: Images, net: nn.Module) -> list[Row]:
    """One restart of PGD-20 on cross-entropy; each way sees all examples to the end or stops where it wants to."""
    x, y = images.tensors(MOST)
    epsilon, size = float(images.epsilon), 2.5 * float(images.epsilon) / STEPS
    robust: dict[str, float] = {}

    def note(name: str, share: float) -> None:
        robust[name] = share

    ways = {
        "holdfast": lambda: note("holdfast", _ours(images, net, (pgd_plan("pgd", STEPS, 1, cross_entropy),), x, y)),
        "plain": lambda: note("plain", _standing(net, _plain_pgd(net, x, y, epsilon, size), y)),
        "torchattacks": lambda: note("torchattacks", _standing(net, _torchattacks_pgd(net, x, y, epsilon, size), y)),
        "art": lambda: note("art", _standing(net, _art_pgd(images, net, x, y, epsilon, size), y)),
    }
    times = _interleaved(ways, repeats=3)
    how = f"{MOST} images, {HOW}"
    speed = {name: times[name] / times["holdfast"] for name in ways}
    gap = max(abs(robust[name] - robust["holdfast"]) for name in robust)
    what = f"PGD-{STEPS}, one restart, images per CPU-second, times those of"
    return [
        at_least(f"{what} a plain torch loop", speed["plain"], 1.0, how),
        at_least(f"{what} torchattacks", speed["torchattacks"], 1.05, how),
        at_least(f"{what} ART", speed["art"], 1.3, how),
        at_most(f"PGD-{STEPS}, one restart, largest difference in robust accuracy", gap, 0.005, f"{robust}"),
        shown(f"PGD-{STEPS}, one restart, images per CPU-second", MOST / times["holdfast"], how),
    ]


def _nightly(images: Images, net: nn.Module) -> list[Row]:
    x, y = images.tensors(EXAMPLES)
    epsilon = float(images.epsilon)
    found: dict[str, float] = {}

    def note(name: str, share: float) -> None:
        found[name] = share

    ways = {
        "holdfast": lambda: note(
            "holdfast", _ours(images, net, plans("nightly", "linf", images.classes, embedding=False), x, y)
        ),
        "torchattacks": lambda: note("torchattacks", _torchattacks_worst(net, x, y, epsilon)),
        "art": lambda: note("art", _art_worst(images, net, x, y, epsilon)),
    }
    times = _interleaved(ways, repeats=2)
    how = f"PGD-{NIGHTLY_STEPS} x {NIGHTLY_RESTARTS}, APGD, Square with {QUERIES} queries, {EXAMPLES} images; {found}"
    what = "worst case over PGD-50 x 5 restarts + APGD + Square (the nightly tier)"
    above = found["holdfast"] - min(found.values())
    return [
        at_least(f"{what}, speed, times torchattacks'", times["torchattacks"] / times["holdfast"], 2.0, how),
        at_least(f"{what}, speed, times ART's", times["art"] / times["holdfast"], 3.0, how),
        at_most(f"{what}, accuracy above that of the strongest peer", above, 0.005, how),
    ]


def _release(images: Images, net: nn.Module) -> list[Row]:
    import pyautoattack

    x, y = images.tensors(MANY)
    found: dict[str, Tensor] = {}

    def ours() -> None:
        chosen = plans("release", "linf", images.classes, embedding=False)
        found["holdfast"] = measure(net, x, y, images.ball, chosen, seed=0).worst

    def theirs() -> None:
        attack = pyautoattack.AutoAttack(
            net, norm="Linf", eps=float(images.epsilon), version="standard", device="cpu", seed=0
        )
        moved = attack.run_standard_evaluation(x, y, batch_size=256)[0]
        found["pyautoattack"] = net(moved).argmax(1) == y

    times = _interleaved({"holdfast": ours, "pyautoattack": theirs}, repeats=1)
    share = {name: float(flags.float().mean()) for name, flags in found.items()}
    apart = int((found["holdfast"] ^ found["pyautoattack"]).sum())
    above = share["holdfast"] - share["pyautoattack"]
    what = "release tier against pyautoattack standard, 1,000 images"
    how = f"{MANY} images; {share}; {apart} images judged differently"
    return [
        at_most(f"{what}, robust accuracy above its", above, 0.003, how),
        at_most(f"{what}, distance of the robust accuracies", abs(above), 0.005, how),
        at_least(f"{what}, speed, times its", times["pyautoattack"] / times["holdfast"], 1.6, how),
    ]


def _interleaved(ways: Mapping[str, Callable[[], object]], *, repeats: int) -> dict[str, float]:
    """Least CPU-seconds of each way; they take turns, so that a busy moment meets all of them."""
    times = {name: float("inf") for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            torch.manual_seed(0)  # torchattacks and the plain loop draw from the global generator
            times[name] = min(times[name], cpu_seconds(way))
    return times


def _ours(images: Images, net: nn.Module, chosen: tuple[AttackPlan, ...], x: Tensor, y: Tensor) -> float:
    return float(measure(net, x, y, images.ball, chosen, seed=0).worst.float().mean())


def _standing(net: nn.Module, moved: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((net(moved).argmax(1) == y).float().mean())


def _plain_pgd(net: nn.Module, x: Tensor, y: Tensor, epsilon: float, size: float) -> Tensor:
    """What one writes by hand: batches of 100, every example walks to the end."""
    parts = []
    for rows, labels in zip(x.split(100), y.split(100), strict=True):
        moved = (rows + epsilon * (2 * torch.rand(rows.shape) - 1)).clamp(0, 1)
        for _ in range(STEPS):
            moved = moved.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(torch_cross_entropy(net(moved), labels), moved)
            moved = rows + (moved.detach() + size * gradient.sign() - rows).clamp(-epsilon, epsilon)
            moved = moved.clamp(0, 1)
        parts.append(moved)
    return torch.cat(parts)


def _torchattacks_pgd(net: nn.Module, x: Tensor, y: Tensor, epsilon: float, size: float) -> Tensor:
    import torchattacks

    attack = torchattacks.PGD(net, eps=epsilon, alpha=size, steps=STEPS, random_start=True)
    return torch.cat([attack(a, b) for a, b in zip(x.split(100), y.split(100), strict=True)])


def _art_classifier(images: Images, net: nn.Module) -> object:
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        model=net,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(images.spec.shape),
        nb_classes=images.classes,
        clip_values=(np.float32(0), np.float32(1)),
        device_type="cpu",
    )


def _art_pgd(images: Images, net: nn.Module, x: Tensor, y: Tensor, epsilon: float, size: float) -> Tensor:
    from art.attacks.evasion import ProjectedGradientDescent

    attack = ProjectedGradientDescent(
        _art_classifier(images, net),
        eps=epsilon,
        eps_step=size,
        max_iter=STEPS,
        num_random_init=1,
        batch_size=100,
        verbose=False,
    )
    return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


def _torchattacks_worst(net: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> float:
    """MultiAttack: every attack sees only the remaining examples, as torchattacks recommends."""
    import torchattacks

    size = 2.5 * epsilon / NIGHTLY_STEPS
    attacks = [
        *(torchattacks.PGD(net, eps=epsilon, alpha=size, steps=NIGHTLY_STEPS) for _ in range(NIGHTLY_RESTARTS)),
        torchattacks.APGD(net, eps=epsilon, steps=100, n_restarts=1, loss="dlr"),
        torchattacks.Square(net, eps=epsilon, n_queries=QUERIES),
    ]
    attack = torchattacks.MultiAttack(attacks)
    moved = torch.cat([attack(a, b) for a, b in zip(x.split(100), y.split(100), strict=True)])
    return _standing(net, moved, y)


def _art_worst(images: Images, net: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> float:
    """ART's attacks one after another, each on the remaining examples."""
    from art.attacks.evasion import AutoProjectedGradientDescent, ProjectedGradientDescent, SquareAttack

    classifier = _art_classifier(images, net)
    size = 2.5 * epsilon / NIGHTLY_STEPS
    attacks = [
        ProjectedGradientDescent(
            classifier,
            eps=epsilon,
            eps_step=size,
            max_iter=NIGHTLY_STEPS,
            num_random_init=NIGHTLY_RESTARTS,
            batch_size=100,
            verbose=False,
        ),
        AutoProjectedGradientDescent(
            classifier,
            eps=epsilon,
            eps_step=2 * epsilon,
            max_iter=100,
            nb_random_init=1,
            batch_size=100,
            loss_type="difference_logits_ratio",
            verbose=False,
        ),
        SquareAttack(classifier, eps=epsilon, max_iter=QUERIES, nb_restarts=1, batch_size=100, verbose=False),
    ]
    left = np.flatnonzero((net(x).argmax(1) == y).numpy())
    for attack in attacks:
        moved = torch.from_numpy(attack.generate(x[left].numpy(), y[left].numpy()).astype(np.float32))
        left = left[(net(moved).argmax(1) == y[left]).numpy()]
    return len(left) / len(y)
