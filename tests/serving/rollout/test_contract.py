"""A rollout does not put a model in front of clients that it would misunderstand."""

from pathlib import Path

import pytest

from holdfast.artifacts.documents import Column, Feature, InputSpec, Model
from holdfast.artifacts.folder import Artifact, Ref, load
from holdfast.errors import RolloutError
from holdfast.serving.predictor.metadata import input_tensor, output_tensors
from holdfast.serving.predictor.settings import Served
from holdfast.serving.rollout.contract.served_arm import ServedArm
from holdfast.serving.rollout.matchup import Matchup, require_same_contract

TOWN = Column(name="town", kind="category", categories=("Bonn", "Ulm"))
AGE = Column(name="age", kind="number")
FEE = Column(name="fee", kind="number")


@pytest.fixture
def against(bundle, make_bundle):
    """Candidate and champion that read these columns; the gate judged the candidate by a policy with these keys."""

    def arm(bundle: Path, version: int, columns: tuple[Column, ...], classes: tuple[str, ...]) -> ServedArm:
        document = load(Ref(bundle / "model"), Model).document
        places = [name for column in columns for name in (column.categories or [column.name])]
        features = tuple(Feature(name=name, lower=0, upper=1, scale=1) for name in places)
        spec = InputSpec(modality="tabular", shape=(len(places),), dtype="float32", features=features, columns=columns)
        model = document.model_copy(update={"input": spec, "classes": classes})
        served = Served("risk", version, Ref(bundle / "model"), Ref(bundle / "decision"))
        return ServedArm(served, Artifact(bundle / "model", model, "0" * 64))

    def made(candidate, champion, classes=("ok", "fraud"), **keys) -> Matchup:
        judged = make_bundle(seed=0, policy={"name": "default"} | keys)
        stable = arm(bundle, 3, champion, ("ok", "fraud"))
        return Matchup(arm(judged, 4, candidate, classes), stable, Path("rows.npz"))

    return made


def test_the_champions_contract_is_let_through(against):
    require_same_contract(against((AGE, TOWN), (AGE, TOWN)))


def test_columns_in_another_order_are_refused_though_the_shape_is_the_same(against):
    with pytest.raises(RolloutError) as refused:
        require_same_contract(against((FEE, AGE), (AGE, FEE)))
    assert str(refused.value) == (
        "risk version 4: expected the champion's contract, found another: the candidate's columns are in "
        "the order 'fee', 'age', the champion's in 'age', 'fee'; move its clients, and have the gate judge under a "
        "policy with allow_new_contract: true"
    )


@pytest.mark.parametrize(
    ("candidate", "named"),
    [
        ((AGE, TOWN.model_copy(update={"categories": ("Bonn", "Köln")})), "'Köln'"),
        ((AGE.model_copy(update={"name": "years"}), TOWN), "'years'"),
    ],
)
def test_names_and_categories_are_compared_too(against, candidate, named):
    with pytest.raises(RolloutError, match=named):
        require_same_contract(against(candidate, (AGE, TOWN)))


def test_classes_in_another_order_are_refused(against):
    with pytest.raises(RolloutError, match="classes are in the order 'fraud', 'ok'"):
        require_same_contract(against((AGE,), (AGE,), ("fraud", "ok")))


def test_a_policy_may_allow_another_meaning_of_the_same_rows(against):
    require_same_contract(against((FEE, AGE), (AGE, FEE), allow_new_contract=True))


def test_it_cannot_allow_rows_that_only_one_arm_can_read(against):
    wider = against((AGE, FEE), (AGE,), allow_new_contract=True)
    with pytest.raises(RolloutError, match="no request fits both, serve it under a new name"):
        require_same_contract(wider)


def test_the_metadata_of_a_table_names_columns_kinds_and_categories(against):
    document = against((AGE, TOWN), (AGE, TOWN)).candidate.model.document
    found = input_tensor(document)
    assert found["shape"] == [-1, 3]
    assert found["parameters"]["columns"] == (
        '[{"name": "age", "kind": "number", "at": 0}, '
        '{"name": "town", "kind": "category", "at": 1, "categories": ["Bonn", "Ulm"]}]'
    )
    assert [tensor["name"] for tensor in output_tensors(document, label_only=True)] == ["label"]
    assert output_tensors(document, label_only=False)[1]["parameters"] == {"classes": '["ok", "fraud"]'}
