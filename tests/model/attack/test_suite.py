"""What the suite keeps of each example: on a line, where the worst case is known."""

from fractions import Fraction

import torch
from torch import Tensor, nn

from holdfast.artifacts.documents import InputSpec, ThreatModel
from holdfast.modality.ball import Ball
from holdfast.model.attack.kinds import plans
from holdfast.model.attack.suite import measure, worse
from holdfast.model.performance import performance


class Line(nn.Module):
    """Two classes, split at one half."""

    def forward(self, x: Tensor) -> Tensor:
        score = 10 * (x.flatten(1)[:, :1] - 0.5)
        return torch.cat([-score, score], dim=1)


def test_the_worst_logits_are_those_at_the_edge_of_the_ball() -> None:
    x = torch.linspace(0.05, 0.95, 40).reshape(-1, 1, 1, 1)
    y = (x.flatten() > 0.5).long()
    spec = InputSpec(modality="image", shape=(1, 1, 1), dtype="float32")
    ball = Ball.of(ThreatModel(norm="linf", epsilon=Fraction(1, 10), unit="input units [0, 1]"), spec, "cpu")
    measured = measure(Line(), x, y, ball, plans("pr", "linf", 2, embedding=False), seed=0)
    # The attacker moves a positive down and a negative up by 0.1 each, and stops no earlier than at the mistake.
    edge = torch.where(y == 1, x.flatten() - 0.1, x.flatten() + 0.1).clamp(0, 1)
    right = torch.where(y == 1, edge > 0.5, edge <= 0.5)
    assert (measured.worst_logits.argmax(1) == y).tolist() == right.tolist()
    clean = performance(["a", "b"], y.numpy(), measured.logits.numpy(), 40)
    attacked = performance(["a", "b"], y.numpy(), measured.worst_logits.numpy(), 40)
    assert clean.roc_auc == 1.0
    assert attacked.roc_auc is not None
    assert attacked.roc_auc < 1.0
    assert sum(one.recall.k for one in attacked.classes) == int(measured.worst.sum())


def test_of_two_answers_the_one_closer_to_a_mistake_is_kept() -> None:
    y = torch.tensor([0, 1])
    one, other = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert worse(one, other, y).tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert worse(other, one, y).tolist() == [[1.0, 0.0], [0.0, 1.0]]
