import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor, nn

from holdfast.artifacts.documents import Feature, InputSpec, Norm, ThreatModel
from holdfast.modality.ball import Ball
from holdfast.model.attack.decision import hop_skip_jump
from holdfast.model.attack.losses import correct

IMAGE = InputSpec(modality="image", shape=(1, 8, 8), dtype="float32")


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class Label(nn.Module):
    """The label of a linear model, without gradient or score."""

    def __init__(self, w: Tensor, b: float) -> None:
        super().__init__()
        self.w, self.b = w, b

    def forward(self, x: Tensor) -> Tensor:
        one = (x.flatten(1) @ self.w + self.b > 0).long()
        return nn.functional.one_hot(one, 2).float()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_answers_alone_lead_near_the_closest_mistake_of_a_linear_model(norm: Norm) -> None:
    # Closed form: the boundary is |w.x + b| / ||w||_dual away. 1.6 times that is enough, 0.9 of it never.
    w = torch.randn(64, generator=torch.Generator().manual_seed(3))
    # The last row is of the other class: somewhere to start from.
    x, y = torch.full((4, 1, 8, 8), 0.5), torch.tensor([1, 1, 1, 0])
    x[3] = 0.5 - 0.5 * w.sign().reshape(1, 8, 8)
    dual = float(w.abs().sum() if norm == "linf" else w.norm())
    away = 0.1 if norm == "linf" else 0.6
    net = Label(w, float(away * dual - x[0].flatten() @ w))
    for share, falls in ((0.9, False), (1.6, True)):
        here = Ball.of(ThreatModel(norm=norm, epsilon=f"{away * share:.4f}", unit="any"), IMAGE, "cpu")
        moved = hop_skip_jump(net, x, y, here, queries=6000, generator=generator())
        assert here.contains(moved, x).all()
        assert bool(correct(net, moved, y)[:3].any()) != falls


def test_a_forest_is_attacked_through_its_answers() -> None:
    data = load_breast_cancer()
    forest = RandomForestClassifier(30, random_state=0).fit(data.data, data.target)

    class Forest(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.from_numpy(forest.predict_proba(x.numpy())).float().round()

    features = tuple(
        Feature(name=str(name), lower=float(column.min()), upper=float(column.max()), scale=float(column.std()))
        for name, column in zip(data.feature_names, data.data.T, strict=True)
    )
    spec = InputSpec(modality="tabular", shape=(30,), dtype="float32", features=features)
    here = Ball.of(ThreatModel(norm="linf", epsilon="1/2", unit="any"), spec, "cpu")
    rows = np.random.default_rng(0).permutation(len(data.data))[:40]
    x, y = torch.from_numpy(data.data[rows].astype(np.float32)), torch.from_numpy(data.target[rows])
    moved = hop_skip_jump(Forest(), x, y, here, queries=1500, generator=generator())
    assert here.contains(moved, x).all()
    before, after = correct(Forest(), x, y).sum(), correct(Forest(), moved, y).sum()
    assert before >= 39
    assert after <= before - 8
