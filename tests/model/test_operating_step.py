"""A model with an operating point on a table with few frauds: trained, attacked, certified, served alike."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest

from holdfast.artifacts.documents import Column, Model, RobustnessReport, Snapshot, ThreatModel
from holdfast.artifacts.folder import DOCUMENT, Artifact, Ref, load, save
from holdfast.compute import Compute
from holdfast.errors import WorkloadError
from holdfast.model.attack.step import attack
from holdfast.model.certify.step import certify
from holdfast.model.inputs import read_split
from holdfast.model.networks import load_network, logits
from holdfast.model.register.pyfunc import PyfuncModel
from holdfast.model.train.step import train
from holdfast.workload.schema import (
    AttackConfig,
    CertifyConfig,
    DecisionConfig,
    NetworkConfig,
    RecipeConfig,
    TrainConfig,
)
from tests.model.conftest import table_snapshot

SETTINGS = Compute(seed=0, device="cpu", threads=1)
COSTS = {"costs": {"miss": 50, "false_alarm": 1}}
CLASSES = ("ok", "fraud")


@pytest.fixture(scope="module")
def frauds(tmp_path_factory: pytest.TempPathFactory) -> Artifact[Snapshot]:
    """4 % of the rows lie 0.9 to one side in each of 6 columns."""
    rng = np.random.default_rng(0)
    own = rng.random(6000) < 0.04
    frame = pd.DataFrame({f"c{i}": rng.normal(0.9 * own) for i in range(6)})
    frame["label"] = np.where(own, "fraud", "ok")
    columns = tuple(Column(name=f"c{i}", kind="number") for i in range(6))
    return table_snapshot(tmp_path_factory.mktemp("frauds") / "s", frame, columns, CLASSES, train=4000)


@pytest.fixture(scope="module")
def make(frauds: Artifact[Snapshot], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Artifact[Model]]:
    """Trains with a rule for the threshold, or without one."""

    def trained(
        rule: dict[str, object] | None, network: str = "mlp", checkpoint: Path | None = None, **recipe: object
    ) -> Artifact[Model]:
        decision = None if rule is None else DecisionConfig.model_validate({"positive": "fraud", **rule})
        config = TrainConfig(
            name="frauds",
            network=NetworkConfig(architecture=network),
            threat=ThreatModel(norm="linf", epsilon="1/10", unit="standard deviations of each feature"),
            train=RecipeConfig.model_validate(
                {"epochs": 6, "attack_steps": 2, "selection_rows": 800, "learning_rate": 0.01} | recipe
            ),
            decision=decision,
        )
        out = tmp_path_factory.mktemp("models") / "m"
        return train(Ref(frauds.folder), out, scan=None, config=config, settings=SETTINGS, checkpoint=checkpoint)

    return trained


@pytest.fixture(scope="module")
def costly(make: Callable[..., Artifact[Model]]) -> Artifact[Model]:
    return make(COSTS)


@pytest.fixture(scope="module")
def attacked(costly: Artifact[Model], frauds: Artifact[Snapshot], tmp_path_factory: pytest.TempPathFactory):
    config = AttackConfig(examples=300, second_opinion=False)
    out = tmp_path_factory.mktemp("reports") / "r"
    return attack(Ref(costly.folder), Ref(frauds.folder), out, config=config, baseline=None, settings=SETTINGS)


def held_out(model: Artifact[Model], data: Artifact[Snapshot]) -> tuple[np.ndarray, np.ndarray]:
    """Whether each held-out row is a fraud, and whether the model answers that it is."""
    rows = read_split(data, "test", model.document.input)
    answers = logits(load_network(model, "cpu"), rows.x, device="cpu").argmax(axis=1)
    return rows.y == 1, answers == 1


def cost(own: np.ndarray, answers: np.ndarray) -> float:
    return 1000 * float(50 * (own & ~answers).sum() + (~own & answers).sum()) / len(own)


def test_a_dear_miss_raises_recall_and_lowers_what_held_out_rows_cost(
    make: Callable[..., Artifact[Model]], costly: Artifact[Model], frauds: Artifact[Snapshot]
) -> None:
    plain = make(None)
    own, before = held_out(plain, frauds)
    _, after = held_out(costly, frauds)
    assert after[own].mean() > before[own].mean() + 0.3
    assert cost(own, after) < 0.7 * cost(own, before)
    assert plain.document.operating_point is None


def test_the_report_has_the_cost_of_held_out_rows(
    attacked: Artifact[RobustnessReport], costly: Artifact[Model], frauds: Artifact[Snapshot]
) -> None:
    found = attacked.document.operating_point
    assert found is not None
    own, answers = held_out(costly, frauds)
    with np.load(attacked.open("flags.npz"), allow_pickle=False) as flags:
        seen, clean, worst = flags["index"], flags["answer"] == 1, flags["worst_answer"] == 1
    share = own.mean()
    for errors, given in ((found.clean, clean), (found.worst_case, worst)):
        missed, alarmed = (~given[own[seen]]).mean(), given[~own[seen]].mean()
        assert found.cost(errors) == pytest.approx(1000 * (50 * share * missed + (1 - share) * alarmed))
    assert found.clean.misses.n >= 50
    assert found.cost(found.worst_case) > found.cost(found.clean)
    assert found.cost(found.constant_errors) == pytest.approx(min(50 * 1000 * share, 1000 * (1 - share)))
    assert found.cost(found.clean) == pytest.approx(cost(own, answers), rel=0.25)
    assert found.without_threshold.misses.k > found.clean.misses.k


def test_with_a_false_positive_rate_that_of_held_out_rows_is_compatible_with_it(
    make: Callable[..., Artifact[Model]], frauds: Artifact[Snapshot]
) -> None:
    own, answers = held_out(make({"false_positive_rate": 0.03}), frauds)
    false_alarms, rows = int((answers & ~own).sum()), int((~own).sum())
    assert binomtest(false_alarms, rows, 0.03, alternative="greater").pvalue > 0.01
    assert answers[own].mean() > 0.4


def test_too_few_rows_for_a_rate_are_refused_before_the_first_epoch(
    make: Callable[..., Artifact[Model]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(WorkloadError, match="false_positive_rate 0.001: expected at least 2995 rows of 'ok'"):
        make({"false_positive_rate": 0.001})
    assert "epoch" not in capsys.readouterr().err


def test_the_attack_counts_a_row_as_robust_exactly_when_the_served_class_stays(
    attacked: Artifact[RobustnessReport], costly: Artifact[Model], frauds: Artifact[Snapshot]
) -> None:
    served = PyfuncModel(load_network(costly, "cpu"), costly.document)
    rows = read_split(frauds, "test", costly.document.input)
    with np.load(attacked.open("flags.npz"), allow_pickle=False) as flags:
        index, clean = flags["index"], flags["clean"]
    table = pd.DataFrame(rows.x[index], columns=[f"c{i}" for i in range(6)])
    answers = served.predict(table)["class"].to_numpy()
    assert (answers == np.array(CLASSES)[rows.y[index]]).tolist() == clean.tolist()
    with np.load(attacked.open("attacks.npz"), allow_pickle=False) as kept:
        table = pd.DataFrame(kept["x"], columns=[f"c{i}" for i in range(6)])
        answers = served.predict(table)["class"].to_numpy()
        assert (answers != np.array(CLASSES)[kept["y"]]).tolist() == kept["fooled"].tolist()


def test_a_network_without_its_threshold_would_be_noticed(
    attacked: Artifact[RobustnessReport], costly: Artifact[Model], frauds: Artifact[Snapshot]
) -> None:
    # The planted mistake: a server that answers by the largest logit as it was trained.
    point = costly.document.operating_point
    assert point is not None
    rows = read_split(frauds, "test", costly.document.input)
    with np.load(attacked.open("flags.npz"), allow_pickle=False) as flags:
        index, clean = flags["index"], flags["clean"]
    values = logits(load_network(costly, "cpu"), rows.x[index], device="cpu")
    wrong = (values + [0, point.threshold]).argmax(axis=1) == rows.y[index]
    assert (values.argmax(axis=1) == rows.y[index]).tolist() == clean.tolist()
    assert (wrong != clean).sum() > 20


@pytest.mark.parametrize("method", ["smoothing", "bounds"])
def test_certificates_are_about_the_decision(
    method: str, costly: Artifact[Model], frauds: Artifact[Snapshot], tmp_path: Path
) -> None:
    config = CertifyConfig.model_validate(
        {"method": method, "examples": 60, "noise": 0.01, "samples": 100, "radii": [0.0]}
    )
    made = certify(Ref(costly.folder), Ref(frauds.folder), tmp_path / "c", config=config, settings=SETTINGS)
    own, answers = held_out(costly, frauds)
    with np.load(made.open("radii.npz"), allow_pickle=False) as found:
        proven = found["radius"] >= 0
        # What is proven is answered rightly, and, with so little noise, what is answered rightly is proven.
        right = own[found["index"]] == answers[found["index"]]
    assert not (proven & ~right).any()
    assert (proven == right).mean() > 0.9


@pytest.mark.parametrize(
    ("network", "recipe"),
    [("own_networks:table", {}), ("mlp", {"engine": "art", "epochs": 1}), ("mlp", {"recipe": "ibp", "average": 0.5})],
)
def test_own_networks_and_other_engines_have_their_threshold_inside(
    network: str,
    recipe: dict[str, object],
    make: Callable[..., Artifact[Model]],
    frauds: Artifact[Snapshot],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent / "networks")
    model = make(COSTS, network, **recipe)
    point = model.document.operating_point
    assert point is not None
    own, answers = held_out(model, frauds)
    assert model.document.clean.k == (own == answers).sum()
    # The rate on the rows set apart is that of held-out rows, as far as 32 frauds show.
    rate = binomtest(point.misses.k, point.misses.n).proportion_ci(0.999)
    assert rate.low <= (~answers[own]).mean() <= rate.high


def test_a_model_of_before_has_no_operating_point(costly: Artifact[Model], tmp_path: Path) -> None:
    made = save(tmp_path / "m", costly.document.model_copy(update={"files": {}, "operating_point": None}))
    found = json.loads((made.folder / DOCUMENT).read_text())
    assert found.pop("operating_point") is None
    (made.folder / DOCUMENT).write_text(json.dumps(found))
    assert load(made.folder, Model).document.operating_point is None
    assert made.digest != costly.digest


def test_weights_and_program_answer_alike(costly: Artifact[Model], frauds: Artifact[Snapshot]) -> None:
    rows = read_split(frauds, "test", costly.document.input)
    program = torch.export.load(costly.open("program.pt2")).module()
    with torch.no_grad():
        values = program(torch.from_numpy(rows.x)).numpy()
    np.testing.assert_allclose(values, logits(load_network(costly, "cpu"), rows.x, device="cpu"), atol=1e-5)


def test_equal_settings_give_equal_bytes_and_the_threshold_hangs_on_no_checkpoint(
    make: Callable[..., Artifact[Model]], costly: Artifact[Model], tmp_path: Path
) -> None:
    assert make(COSTS, checkpoint=tmp_path).digest == costly.digest
