"""Our attacks beside other people's on the same examples; skipped where theirs are not installed (extra `peers`)."""

import pytest
import torch
from torch import Tensor, nn

from holdfast.modality.ball import Ball
from holdfast.model.attack.kinds import plans
from holdfast.model.attack.losses import Ascent, cross_entropy
from holdfast.model.attack.pgd import pgd
from holdfast.model.attack.suite import measure

Scene = tuple[nn.Module, Tensor, Tensor, Ball]


def test_the_release_tier_reads_what_pyautoattack_reads(scene: Scene) -> None:
    pyautoattack = pytest.importorskip("pyautoattack", reason="needs pyautoattack: the extra `peers`")
    net, x, y, ball = scene
    x, y = x[:80], y[:80]
    ours = measure(net, x, y, ball, plans("release", "linf", 10, embedding=False), seed=0).worst
    attack = pyautoattack.AutoAttack(net, norm="Linf", eps=ball.epsilon, device="cpu", seed=0)
    theirs = net(attack.run_standard_evaluation(x, y, batch_size=80)[0]).argmax(1) == y
    # Never more robust than theirs by more than one of the eighty.
    assert int(ours.sum()) <= int(theirs.sum()) + 1
    assert int((ours & ~theirs).sum()) <= 1


def test_our_pgd_and_that_of_torchattacks_agree_within_two_points(scene: Scene) -> None:
    torchattacks = pytest.importorskip("torchattacks", reason="needs torchattacks: the extra `peers`")
    net, x, y, ball = scene
    generator = torch.Generator().manual_seed(0)
    moved = pgd(net, x, y, ball, Ascent(cross_entropy, 20), generator=generator)
    attack = torchattacks.PGD(net, eps=ball.epsilon, alpha=2.5 * ball.epsilon / 20, steps=20)
    ours, theirs = (float((net(found).argmax(1) == y).float().mean()) for found in (moved, attack(x, y)))
    assert abs(ours - theirs) <= 0.02
