"""The threshold of a decision: how it is chosen, and that it is inside the network."""

import io
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from torch import nn

from holdfast.artifacts.documents import Costs, Feature, InputSpec, ThreatModel
from holdfast.errors import WorkloadError
from holdfast.modality.ball import Ball
from holdfast.model.attack.hotflip import has_embedding
from holdfast.model.certify.bounds import margins
from holdfast.model.files.program import check
from holdfast.model.networks import build
from holdfast.model.operating import (
    Shifted,
    Thresholds,
    bounded_rate,
    check_rows,
    least_cost,
    most_false_alarms,
    negatives_needed,
    set_operating_point,
    with_threshold,
)
from holdfast.model.train.export import export_program
from holdfast.workload.schema import DecisionConfig, NetworkConfig

CLASSES = ("ok", "fraud")
TABLE = InputSpec(
    modality="tabular",
    shape=(3,),
    dtype="float32",
    features=tuple(Feature(name=name, lower=-3, upper=3, scale=1) for name in "abc"),
)
IMAGE = InputSpec(modality="image", shape=(1, 8, 8), dtype="float32")
TEXT = InputSpec(modality="text", shape=(12,), dtype="int64")
ROWS = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=1, max_size=12)


def cost_at(threshold: float, margins: np.ndarray, positive: np.ndarray, costs: Costs) -> float:
    answers = margins > threshold
    return float(costs.miss * (positive & ~answers).sum() + costs.false_alarm * (~positive & answers).sum())


@given(rows=ROWS, miss=st.sampled_from([0.1, 1.0, 7.0]), alarm=st.sampled_from([0.3, 1.0, 5.0]))
def test_no_threshold_costs_less(rows: list[tuple[int, bool]], miss: float, alarm: float) -> None:
    found, positive = np.array([m for m, _ in rows], float), np.array([own for _, own in rows])
    costs = Costs(miss=miss, false_alarm=alarm)
    chosen = cost_at(least_cost(found, positive, costs), found, positive, costs)
    assert chosen <= min(cost_at(t, found, positive, costs) for t in np.arange(-6, 7) / 2) + 1e-9


def test_with_margins_that_are_log_odds_the_threshold_is_that_of_bayes() -> None:
    # Answer positive where p x miss > (1 - p) x false alarm, that is where log p/(1-p) > log(false alarm / miss).
    rng = np.random.default_rng(0)
    found = rng.normal(-2, 3, 400_000)
    positive = rng.random(len(found)) < 1 / (1 + np.exp(-found))
    assert least_cost(found, positive, Costs(miss=50, false_alarm=1)) == pytest.approx(math.log(1 / 50), abs=0.15)


def test_of_thresholds_that_cost_the_same_the_one_nearest_to_zero_is_chosen() -> None:
    found, positive = np.array([-3.0, -1.0, 2.0, 6.0]), np.array([True, False, True, False])
    # Always positive, never, and between -1 and 2: each answers two rows wrongly.
    assert least_cost(found, positive, Costs(miss=3, false_alarm=3)) == 0.5
    assert least_cost(found + 10, positive, Costs(miss=3, false_alarm=3)) == 6.0


def test_the_outermost_thresholds_give_one_answer_to_all_rows() -> None:
    at = Thresholds.of(np.array([1.0, 1.0, 3.0]), np.array([True, False, True]))
    assert at.values.tolist() == [0.0, 2.0, 4.0]
    assert at.misses.tolist() == [0, 1, 2]
    assert at.false_alarms.tolist() == [1, 0, 0]


@given(negatives=st.integers(1, 600), rate=st.floats(0.005, 0.4))
def test_so_many_false_alarms_are_allowed_that_a_higher_rate_would_be_an_exception(negatives: int, rate: float) -> None:
    # Umbrella algorithm, from the binomial tail: P[at most k false alarms | true rate] <= 0.05.
    k = most_false_alarms(negatives, rate)
    assert k < 0 or binom.cdf(k, negatives, rate) <= 0.05 + 1e-9
    assert binom.cdf(k + 1, negatives, rate) > 0.05 - 1e-9


@pytest.mark.parametrize(("rate", "needed"), [(0.01, 299), (0.05, 59), (0.1, 29), (0.5, 5)])
def test_the_rows_that_it_takes_are_those_of_the_textbooks(rate: float, needed: int) -> None:
    # Wilks 1941: n with (1 - rate)^n <= 0.05.
    assert negatives_needed(rate) == needed


def test_a_bounded_rate_takes_the_lowest_threshold_that_is_allowed() -> None:
    found = np.concatenate([np.arange(100.0), [40.5, 97.5, 120.0]])
    positive = np.arange(103) >= 100
    # 1 of 100 false alarms is bounded by 0.0466, 2 by 0.0616.
    assert bounded_rate(found, positive, 0.05) == 98.5
    assert bounded_rate(found, positive, 0.0617) == 97.25


def test_the_rate_on_new_rows_is_above_the_one_asked_for_at_most_once_in_twenty() -> None:
    rng, above = np.random.default_rng(1), 0
    for _ in range(400):
        found = rng.normal(0, 1, 330) + np.where(own := np.arange(330) < 30, 2.0, 0.0)
        rate = (1 - math.erf(bounded_rate(found, own, 0.05) / math.sqrt(2))) / 2
        above += rate > 0.05
    # Binomial(400, 0.05) is above 33 with probability 0.002.
    assert above <= 33


@pytest.mark.parametrize(
    ("spec", "name", "x"),
    [
        (TABLE, "mlp", torch.randn(50, 3)),
        (IMAGE, "cnn", torch.rand(50, 1, 8, 8)),
        (TEXT, "text", torch.randint(2, 40, (50, 12))),
        (IMAGE, "own_networks:good", torch.rand(50, 1, 8, 8)),
        (TEXT, "own_networks:shown", torch.randint(2, 40, (50, 12))),
    ],
)
def test_the_threshold_is_inside_the_network_and_inside_its_program(
    spec: InputSpec, name: str, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent / "networks")
    arguments = {"width": 5} if name.endswith("good") else {}
    net = build(NetworkConfig(architecture=name, arguments=arguments), spec, 2, seed=0).eval()
    with torch.no_grad():
        before = net(x)
        after = with_threshold(net, 1, 0.25)
        assert torch.allclose(after(x), before - torch.tensor([0.0, 0.25]), atol=1e-6)
        program = export_program(after, spec)
        check(program)
        served = torch.export.load(io.BytesIO(program)).module()(x)
    assert torch.allclose(served, before - torch.tensor([0.0, 0.25]), atol=1e-5)
    assert has_embedding(after) == (spec is TEXT)
    monkeypatch.delitem(sys.modules, "own_networks", raising=False)


def test_bounds_prove_the_decision_and_not_the_largest_logit_of_before() -> None:
    spec = TABLE
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    x, ball = torch.randn(40, 3), Ball.of(ThreatModel(norm="linf", epsilon="1/100", unit="any"), spec, "cpu")
    y = torch.zeros(40, dtype=torch.int64)
    shifted = Shifted(net, torch.tensor([0.0, -0.7]))
    program = torch.export.load(io.BytesIO(export_program(Shifted(net, torch.tensor([0.0, -0.7])), spec))).module()
    for other in (shifted, program):
        found = margins(other, x, y, ball)
        assert found.numpy() == pytest.approx(margins(net, x, y, ball).numpy() + 0.7, abs=1e-4)


def test_an_embedding_is_moved_too() -> None:
    net = with_threshold(build(NetworkConfig(architecture="text"), TEXT, 2, seed=0), 0, 0.5).eval()
    ids = torch.randint(2, 40, (5, 12))
    assert torch.allclose(net.forward_embedded(net.embed(ids)), net(ids))  # type: ignore[operator]


def test_the_point_counts_what_the_network_answers_with_the_threshold_inside() -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(3, 2)).eval(), torch.randn(300, 3)
    y = (x[:, 0] + torch.randn(300) > 1).long()
    decision = DecisionConfig(positive="fraud", costs=Costs(miss=20, false_alarm=1))
    moved, point = set_operating_point(net, x, y, decision=decision, classes=CLASSES)
    answers = moved(x).argmax(1)
    assert (point.misses.k, point.misses.n) == (int(((y == 1) & (answers == 0)).sum()), int((y == 1).sum()))
    assert (point.false_alarms.k, point.false_alarms.n) == (int(((y == 0) & (answers == 1)).sum()), int((y == 0).sum()))
    assert point.threshold < 0


@pytest.mark.parametrize(
    ("rule", "classes", "rows", "message"),
    [
        ({"costs": {"miss": 2, "false_alarm": 1}}, ("a", "b", "c"), [9, 9, 9], "two classes, found 3: 'a', 'b', 'c'"),
        ({"costs": {"miss": 2, "false_alarm": 1}}, ("a", "b"), [9, 9], "expected one of 'a', 'b', found 'fraud'"),
        (
            {"costs": {"miss": 2, "false_alarm": 1}},
            CLASSES,
            [9, 0],
            "found none of 'fraud'; raise train.selection_rows",
        ),
        ({"false_positive_rate": 0.01}, CLASSES, [20, 5], "at least 299 rows of 'ok' .*, found 20; raise"),
    ],
)
def test_rows_without_an_operating_point_are_refused(
    rule: dict[str, object], classes: tuple[str, ...], rows: list[int], message: str
) -> None:
    decision = DecisionConfig.model_validate({"positive": "fraud", **rule})
    with pytest.raises(WorkloadError, match=message):
        check_rows(decision, classes, np.repeat(np.arange(len(rows)), rows))
