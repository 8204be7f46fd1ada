"""Limits with a rate of false alarms, and an attacker who knows them."""

import math
from fractions import Fraction

import pytest
import torch
from torch import nn

from holdfast.artifacts.documents import InputSpec, ThreatModel
from holdfast.modality.ball import Ball
from holdfast.model.detect.detector import SqueezeDetector, calibrated, conformal_limit, measured
from holdfast.model.detect.evasion import AttackedRows, evade, evaded
from holdfast.model.detect.squeezers import BitDepth, Median


def test_the_limit_is_an_order_statistic() -> None:
    scores = torch.arange(1.0, 20.0)[torch.randperm(19, generator=torch.Generator().manual_seed(0))]
    assert conformal_limit(scores, 0.05) == 19
    assert conformal_limit(scores, 0.5) == 10
    with pytest.raises(ValueError, match="at least 99 rows for a rate of 0.01, found 19"):
        conformal_limit(scores, 0.01)


def test_users_are_suspicious_at_the_stated_rate() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(4_000, 60, generator=generator).square()
    alarms = sum(float(row[59]) > conformal_limit(row[:59], 0.1) for row in drawn)
    expected = 6 / 60  # of 60 exchangeable scores the last is among the six largest
    assert abs(alarms / 4_000 - expected) < 4 * math.sqrt(expected * (1 - expected) / 4_000)


class Cut(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bright = x.detach().flatten(1).mean(1, keepdim=True)
        return torch.cat([bright - 0.5, 0.5 - bright], 1) * 20


def test_a_network_without_a_gradient_is_searched_all_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.full((8, 1, 8, 8), 0.501)
    spec = InputSpec(modality="image", shape=(1, 8, 8), dtype="float32")
    ball = Ball.of(ThreatModel(norm="linf", epsilon=Fraction(1, 5), unit="input units"), spec, "cpu")
    detector = SqueezeDetector("", Cut(), (Median(),), limit=2.0)
    y = torch.zeros(8, dtype=torch.int64)
    assert evaded(detector, evade(detector, AttackedRows(x, y, ball), generator), y).any()


def test_the_joint_score_is_in_units_of_what_is_usual() -> None:
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).requires_grad_(False)
    x = torch.rand(200, 1, 8, 8, generator=generator)
    bits, median, joint = calibrated(network, (BitDepth(0, 1), Median()), x, 0.1)
    assert [bits.name, median.name, joint.name] == ["bit-depth", "median", "joint"]
    alone = torch.stack([measured(SqueezeDetector("", network, one.squeezers), x) for one in (bits, median)])
    assert torch.allclose(measured(joint, x), (alone / torch.tensor(joint.usual)[:, None]).amax(0))
    assert 0.02 <= float(joint.suspects(x).float().mean()) <= 0.2
