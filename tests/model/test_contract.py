"""What a champion's clients send means the same to its successor, however the columns of a delivery are ordered."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from holdfast.artifacts.documents import (
    Baseline,
    Column,
    Model,
    Paired,
    RobustnessReport,
    ScanReport,
    Snapshot,
    ThreatModel,
    Verdict,
)
from holdfast.artifacts.folder import Artifact, Ref, save, seal, write_artifact
from holdfast.compute import Compute
from holdfast.errors import IntegrityError
from holdfast.model.attack.step import attack
from holdfast.model.inputs import read_spec, read_split, rows_digest
from holdfast.model.networks import load_network, logits
from holdfast.model.register.pyfunc import PyfuncModel
from holdfast.model.train.step import train
from holdfast.workload.schema import AttackConfig, NetworkConfig, RecipeConfig, TrainConfig

SETTINGS = Compute(seed=0, device="cpu", threads=1)
ATTACK = AttackConfig(examples=60, second_opinion=False)
CLASSES = ("fine", "fraud")
ROWS, TRAIN = 400, 320
KINDS = {
    "exposure": Column(name="exposure", kind="number"),
    "tenure": Column(name="tenure", kind="number"),
    "region": Column(name="region", kind="category", categories=("east", "north", "south")),
}
Deliver = Callable[..., Artifact[Snapshot]]


def rows(seed: int) -> pd.DataFrame:
    """Frauds are exposed, wherever they live and however long they have been customers."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({name: rng.normal(0, 1, ROWS) for name in ("exposure", "tenure")})
    frame["region"] = rng.choice(["east", "north", "south"], ROWS)
    frame["exposure"] += np.where(frame["exposure"] > 0.5, 0.5, -0.5)  # a gap, so that the class is easy
    return frame.assign(label=np.where(frame["exposure"] > 0.5, "fraud", "fine"))


@pytest.fixture(scope="module")
def deliver(save_table: Deliver, tmp_path_factory: pytest.TempPathFactory) -> Deliver:
    """A snapshot of rows with these columns in this order."""

    def made(
        frame: pd.DataFrame, *names: str, classes: tuple[str, ...] = CLASSES, **other: Column
    ) -> Artifact[Snapshot]:
        columns = tuple((KINDS | other)[name] for name in names)
        given = frame[[*names, "label"]]
        return save_table(tmp_path_factory.mktemp("delivery") / "snapshot", given, columns, classes, train=TRAIN)

    return made


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Artifact[Model]]:
    def made(
        data: Artifact[Snapshot], baseline: Ref | None = None, scan: Ref | None = None, allow: bool = False
    ) -> Artifact[Model]:
        config = TrainConfig(
            name="risk",
            network=NetworkConfig(architecture="mlp", arguments={"hidden": 8}),
            threat=ThreatModel(norm="linf", epsilon="1/10", unit="any"),
            train=RecipeConfig.model_validate({"epochs": 5, "batch": 32, "attack_steps": 1, "learning_rate": 0.02}),
            allow_new_contract=allow,
        )
        out = tmp_path_factory.mktemp("models") / "model"
        return train(
            Ref(data.folder), out, scan=scan, config=config, settings=SETTINGS, checkpoint=None, baseline=baseline
        )

    return made


@pytest.fixture(scope="module")
def crown(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Artifact[Model]], Ref]:
    def made(model: Artifact[Model]) -> Ref:
        out = tmp_path_factory.mktemp("baselines") / "baseline"
        with write_artifact(out) as work:
            shutil.copytree(model.folder, work / "model")
            seal(work, Baseline(name="risk", present=True, model_version=3, model=model.digest))
        return Ref(out)

    return made


@pytest.fixture(scope="module")
def first(deliver: Deliver) -> Artifact[Snapshot]:
    return deliver(rows(1), "exposure", "tenure", "region")


@pytest.fixture(scope="module")
def old(first: Artifact[Snapshot], fit: Callable[..., Artifact[Model]]) -> Artifact[Model]:
    """The champion: its clients send [exposure, tenure, east, north, south]."""
    return fit(first)


@pytest.fixture(scope="module")
def swapped(deliver: Deliver) -> Artifact[Snapshot]:
    """Other rows, with their columns in another order."""
    return deliver(rows(2), "region", "tenure", "exposure")


def clients_find(model: Artifact[Model]) -> float:
    """The share of frauds that clients find who send rows to the champion's places."""
    frame = rows(3)
    regions = [(frame["region"] == name).to_numpy(np.float32) for name in ("east", "north", "south")]
    x = np.stack([frame["exposure"], frame["tenure"], *regions], axis=1).astype(np.float32)
    fraud = (frame["label"] == "fraud").to_numpy()
    answers = logits(load_network(model, "cpu"), x, device="cpu").argmax(1)
    return float((answers[fraud] == CLASSES.index("fraud")).mean())


def report(model: Artifact[Model], data: Artifact[Snapshot], baseline: Ref, out: Path) -> RobustnessReport:
    given = Ref(model.folder, model.digest), Ref(data.folder)
    return attack(*given, out, config=ATTACK, baseline=baseline, settings=SETTINGS).document


def test_a_delivery_with_exchanged_columns_answers_the_same_clients(
    old: Artifact[Model], swapped: Artifact[Snapshot], fit: Callable[..., Artifact[Model]], crown: Callable[..., Ref]
) -> None:
    assert clients_find(old) > 0.95
    assert clients_find(fit(swapped, crown(old))) > 0.95
    # Its negative twin: without the champion's order, clients are misunderstood.
    assert clients_find(fit(swapped)) < 0.7


def test_the_same_rows_in_another_order_of_columns_give_the_same_network(
    deliver: Deliver, old: Artifact[Model], fit: Callable[..., Artifact[Model]], crown: Callable[..., Ref]
) -> None:
    again = fit(deliver(rows(1), "tenure", "region", "exposure"), crown(old))
    assert again.document.input == old.document.input
    assert again.document.files["weights.safetensors"] == old.document.files["weights.safetensors"]


def test_a_champion_of_the_same_order_changes_nothing(
    first: Artifact[Snapshot], old: Artifact[Model], fit: Callable[..., Artifact[Model]], crown: Callable[..., Ref]
) -> None:
    assert fit(first, crown(old)).digest == old.digest


def test_a_category_that_a_delivery_lacks_keeps_its_place(
    deliver: Deliver, old: Artifact[Model], fit: Callable[..., Artifact[Model]], crown: Callable[..., Ref]
) -> None:
    frame = rows(2).assign(region=lambda given: given["region"].replace("north", "south"))
    fewer = KINDS["region"].model_copy(update={"categories": ("east", "south")})
    model = fit(deliver(frame, "exposure", "tenure", "region", region=fewer), crown(old))
    assert [feature.name for feature in model.document.input.features] == [
        feature.name for feature in old.document.input.features
    ]
    assert clients_find(model) > 0.95


def test_a_category_that_the_champion_does_not_know_is_none_of_its_own(
    deliver: Deliver,
    old: Artifact[Model],
    fit: Callable[..., Artifact[Model]],
    crown: Callable[..., Ref],
    capsys: pytest.CaptureFixture[str],
) -> None:
    # In the first delivery the rare value was among the held-out rows alone, say, so that no schema objects to it.
    frame = rows(2)
    frame.loc[::40, "region"] = "west"
    more = KINDS["region"].model_copy(update={"categories": ("east", "north", "south", "west")})
    data = deliver(frame, "exposure", "tenure", "region", region=more)
    model = fit(data, crown(old))
    assert model.document.input.columns[2].categories == ("east", "north", "south")
    assert clients_find(model) > 0.95
    assert "train: 'region': the champion does not know 'west'" in capsys.readouterr().err
    assert fit(data, crown(old), allow=True).document.input.columns[2].categories[-1] == "west"


def test_a_delivery_without_missing_cells_keeps_the_place_of_their_indicator(
    deliver: Deliver, fit: Callable[..., Artifact[Model]], crown: Callable[..., Ref], tmp_path: Path
) -> None:
    frame = rows(1)
    frame["tenure missing"] = (np.arange(ROWS) % 10 == 0).astype(float)
    filled = KINDS["tenure"].model_copy(update={"fill": 0.5})
    indicator = Column(name="tenure missing", kind="number", integer=True, indicates="tenure")
    first = deliver(frame, "exposure", "tenure", "tenure missing", tenure=filled, **{"tenure missing": indicator})
    old = fit(first)
    whole = deliver(rows(2), "tenure", "exposure")
    found = report(fit(whole, crown(old)), whole, crown(old), tmp_path / "report")
    assert found.champion is not None
    assert (found.champion.differences, found.champion.not_compared) == ((), None)


def test_the_rows_that_a_scan_left_are_the_same_in_any_order(
    swapped: Artifact[Snapshot],
    old: Artifact[Model],
    fit: Callable[..., Artifact[Model]],
    crown: Callable[..., Ref],
    tmp_path: Path,
) -> None:
    left = rows_digest(read_split(swapped, "train", read_spec(swapped)))

    def scan(name: str, clean: str) -> Ref:
        found = ScanReport(
            detectors=(),
            suspects={"k": 0, "n": TRAIN},
            budget=1,
            per_class=(0, 0),
            clean_rows=clean,
            verdict=Verdict.PASS,
            inputs={"snapshot": swapped.digest},
        )
        return Ref(save(tmp_path / name, found).folder)

    assert fit(swapped, crown(old), scan("scan", left)).document.input.columns[0].name == "exposure"
    with pytest.raises(IntegrityError, match="after quarantine, found"):
        fit(swapped, crown(old), scan("other", "0" * 64))


def test_the_successor_is_compared_with_the_champion(
    old: Artifact[Model],
    swapped: Artifact[Snapshot],
    fit: Callable[..., Artifact[Model]],
    crown: Callable[..., Ref],
    tmp_path: Path,
) -> None:
    found = report(fit(swapped, crown(old)), swapped, crown(old), tmp_path / "report")
    assert found.champion is not None
    assert (found.champion.model_version, found.champion.differences) == (3, ())
    assert found.champion_worst_case is not None


def test_a_champion_of_fewer_columns_is_measured_on_those_that_it_reads(
    deliver: Deliver, fit: Callable[..., Artifact[Model]], crown: Callable[..., Ref], tmp_path: Path
) -> None:
    narrow = fit(deliver(rows(1), "exposure", "region"))
    wide = deliver(rows(2), "tenure", "region", "exposure")
    found = report(fit(wide, crown(narrow)), wide, crown(narrow), tmp_path / "report")
    assert found.champion is not None
    assert found.champion.differences == ("the candidate reads 'tenure', the champion does not",)
    # The champion alone, on the same rows without the column that it does not read.
    only = deliver(rows(2), "exposure", "region")
    alone = report(narrow, only, crown(narrow), tmp_path / "alone")
    assert found.champion_clean is not None
    assert found.champion_worst_case is not None
    assert found.champion_clean.champion_right == alone.clean
    assert abs(found.champion_worst_case.champion_right.k - alone.worst_case.k) <= 1
    assert len(found.champion_classes) == 2


def test_a_champion_that_reads_a_column_that_is_gone_is_not_compared_and_the_column_is_named(
    deliver: Deliver,
    old: Artifact[Model],
    fit: Callable[..., Artifact[Model]],
    crown: Callable[..., Ref],
    tmp_path: Path,
) -> None:
    narrow = deliver(rows(2), "exposure", "region")
    found = report(fit(narrow, crown(old)), narrow, crown(old), tmp_path / "report")
    assert found.champion is not None
    assert found.champion.not_compared == "the champion (version 3) reads 'tenure', which this delivery does not have"
    assert (found.champion_clean, found.champion_worst_case, found.champion_classes) == (None, None, ())


def test_a_champion_that_answers_other_classes_is_not_compared(
    deliver: Deliver,
    old: Artifact[Model],
    fit: Callable[..., Artifact[Model]],
    crown: Callable[..., Ref],
    tmp_path: Path,
) -> None:
    renamed = rows(2).assign(label=lambda given: given["label"].replace("fraud", "theft"))
    data = deliver(renamed, "exposure", "tenure", "region", classes=("fine", "theft"))
    found = report(fit(data, crown(old)), data, crown(old), tmp_path / "report").champion
    assert found is not None
    assert found.not_compared == (
        "the champion (version 3) answers 'fine', 'fraud', while this delivery has 'fine', 'theft'"
    )


def test_classes_in_another_order_are_compared_by_name(
    deliver: Deliver,
    old: Artifact[Model],
    fit: Callable[..., Artifact[Model]],
    crown: Callable[..., Ref],
    tmp_path: Path,
) -> None:
    data = deliver(rows(2), "exposure", "tenure", "region", classes=("fraud", "fine"))
    found = report(fit(data, crown(old)), data, crown(old), tmp_path / "report")
    assert found.champion_clean is not None
    assert found.champion_clean.champion_right.share > 0.9
    assert found.champion is not None
    assert "classes are in the order 'fraud', 'fine'" in found.champion.differences[0]


def test_a_champion_that_reads_another_kind_is_measured_without_an_attack(
    deliver: Deliver,
    old: Artifact[Model],
    fit: Callable[..., Artifact[Model]],
    crown: Callable[..., Ref],
    tmp_path: Path,
) -> None:
    numbered = rows(2).assign(region=lambda given: given["region"].map({"east": 1.0, "north": 2.0, "south": 3.0}))
    data = deliver(numbered, "exposure", "tenure", "region", region=Column(name="region", kind="number"))
    found = report(fit(data, crown(old)), data, crown(old), tmp_path / "report")
    assert isinstance(found.champion_clean, Paired)
    assert found.champion_worst_case is None
    assert found.champion is not None
    assert found.champion.not_attacked == (
        "'region' is a number, for the champion a category, so that the same attack is not possible"
    )


def test_a_clients_dates_and_missing_cells_are_read_as_the_training_rows_were(
    deliver: Deliver, fit: Callable[..., Artifact[Model]]
) -> None:
    frame = rows(1)
    days = np.random.default_rng(1).integers(0, 5000, ROWS) * 86400.0  # 2^24 of them would be too many for float32
    frame = frame.assign(since=days, **{"tenure missing": (np.arange(ROWS) % 10 == 0).astype(float)})
    columns = {
        "since": Column(name="since", kind="number", datetime=True),
        "tenure": KINDS["tenure"].model_copy(update={"fill": 0.5}),
        "tenure missing": Column(name="tenure missing", kind="number", integer=True, indicates="tenure"),
    }
    model = fit(deliver(frame, "exposure", "tenure", "tenure missing", "since", **columns))
    asked = PyfuncModel(load_network(model, "cpu"), model.document)
    given = pd.DataFrame(
        {"exposure": [2.0, 2.0], "tenure": [None, 1.5], "since": ["2001-09-09", "2001-09-09T00:00:00Z"]}
    )
    network = logits(
        load_network(model, "cpu"),
        np.array([[2.0, 0.5, 1.0, 999993600.0], [2.0, 1.5, 0.0, 999993600.0]], dtype=np.float32),
        device="cpu",
    )
    for dates in (given["since"], pd.to_datetime(given["since"], format="ISO8601", utc=True), [999993600, 999993600]):
        answer = asked.predict(given.assign(since=dates))
        np.testing.assert_array_equal(answer[["logit_fine", "logit_fraud"]].to_numpy(), network)
