from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from holdfast.artifacts.documents import Verdict
from holdfast.modality.ball import Ball
from holdfast.model.attack.kinds import plans, stronger_plan
from holdfast.model.attack.masking import check, has_gradients, second_opinion_check
from holdfast.model.attack.suite import measure

Scene = tuple[nn.Module, Tensor, Tensor, Ball]


class Defended(nn.Module):
    """A network behind a defence."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


class Rounded(Defended):
    """Pixels rounded to 9 levels: the answers stay, the gradient is gone."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(torch.round(x * 8) / 8)


class Loud(Defended):
    """Logits so large that cross-entropy saturates."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * 1000


class Silent(Defended):
    """The answer alone, cut from the input."""

    def forward(self, x: Tensor) -> Tensor:
        return 5 * nn.functional.one_hot(self.net(x).argmax(1), 10).float().detach()


class Trembling(Defended):
    """Random pixels."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + 0.1 * torch.randn(x.shape))


class Soft(Defended):
    """Probabilities."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).softmax(1)


def failed(net: nn.Module, scene: Scene) -> set[str]:
    _, x, y, ball = scene
    measured = measure(net, x, y, ball, plans("pr", "linf", 10, embedding=False), seed=0)
    stronger = stronger_plan("pr", "linf", embedding=False)
    checks = check(net, x, y, ball, measured=measured, stronger=stronger, seed=0)
    return {found.name for found in checks if found.verdict is not Verdict.PASS}


def test_an_honest_model_raises_no_alarm(scene: Scene) -> None:
    assert failed(scene[0], scene) == set()


@pytest.mark.parametrize(
    ("defence", "sign"),
    [
        (Rounded, "zero-gradients"),
        (Rounded, "unlimited-budget"),
        (Loud, "zero-gradients"),
        (Silent, "zero-gradients"),
        (Silent, "unlimited-budget"),
        (Trembling, "random-answers"),
        (Soft, "probabilities"),
    ],
)
def test_a_defence_that_hides_the_gradient_is_caught(defence: type[Defended], sign: str, scene: Scene) -> None:
    assert sign in failed(defence(scene[0]), scene)


class Constant(Defended):
    """One answer, far from all others."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        return z - z + torch.eye(10)[3] * 9


def test_a_constant_answer_is_not_blamed_on_the_gradients(scene: Scene) -> None:
    _, x, y, ball = scene
    net = Constant(scene[0])
    measured = measure(net, x, y, ball, plans("pr", "linf", 10, embedding=False), seed=0)
    stronger = stronger_plan("pr", "linf", embedding=False)
    (only,) = check(net, x, y, ball, measured=measured, stronger=stronger, seed=0)
    assert (only.name, only.verdict) == ("constant-answer", Verdict.INCONCLUSIVE)
    assert "the network separates no classes" in only.detail


@pytest.mark.parametrize("recipe", ["standard", "pgd", "trades", "fgsm-rs", "awp"])
def test_honestly_trained_models_raise_no_alarm(
    recipe: str, train_digits: Callable[[str], nn.Module], scene: Scene
) -> None:
    net = train_digits(recipe)
    assert failed(net, (net, *scene[1:])) == set()


def test_a_network_without_gradients_meets_attacks_that_need_none(scene: Scene, plain_net: nn.Module) -> None:
    _, x, y, ball = scene
    assert has_gradients(plain_net, x, y, ball)
    assert not has_gradients(Silent(plain_net), x, y, ball)
    chosen = plans("pr", "linf", 10, embedding=False, gradients=False)
    assert [plan.name for plan in chosen] == ["square", "hop-skip-jump"]
    measured = measure(Silent(plain_net), x[:40], y[:40], ball, chosen, seed=0)
    assert measured.worst.sum() < measured.clean.sum()


def test_square_sees_through_a_plain_model_behind_rounding(scene: Scene, plain_net: nn.Module) -> None:
    assert "black-box-beats-white-box" in failed(Rounded(plain_net), scene)


def test_the_second_opinion_allows_three_points() -> None:
    ours, theirs = np.ones(100, dtype=bool), np.ones(100, dtype=bool)
    theirs[:3] = False
    assert second_opinion_check(ours, theirs, library="other").verdict is Verdict.PASS
    theirs[3] = False
    found = second_opinion_check(ours, theirs, library="other 1.0")
    assert found.verdict is Verdict.FAIL
    assert found.detail == "of 100 examples other 1.0 broke 4 that ours did not, ours 0 that it did not"
