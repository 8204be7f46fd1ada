"""What clients of a champion would be misunderstood by."""

from fractions import Fraction

import pytest

from holdfast.artifacts.contract import as_texts, differences, exchangeable, in_order_of, published, unread
from holdfast.artifacts.documents import (
    Architecture,
    Column,
    Count,
    Feature,
    InputSpec,
    Model,
    OperatingPoint,
    ThreatModel,
)

AGE = Column(name="age", kind="number", integer=True)
FEE = Column(name="fee", kind="number")
TOWN = Column(name="town", kind="category", categories=("Bonn", "Ulm"))


def model(*columns: Column, classes: tuple[str, ...] = ("ok", "fraud"), **changes: object) -> Model:
    """A model that reads these columns of a table."""
    places = [name for c in columns for name in (c.categories or [c.name])]
    features = tuple(Feature(name=name, lower=0, upper=1, scale=1) for name in places)
    spec = InputSpec(
        modality="tabular", shape=(len(places),), dtype="float32", features=features, columns=tuple(columns)
    )
    return Model(
        name="risk",
        architecture=Architecture(name="mlp", parameters=1),
        input=spec.model_copy(update=changes),
        classes=classes,
        threat=ThreatModel(norm="linf", epsilon=Fraction(1, 4), unit="any"),
        recipe={},
        seed=0,
        threads=1,
        device="cpu",
        best_epoch=1,
        clean=Count(k=1, n=1),
        robust=Count(k=1, n=1),
    )


def test_a_model_has_its_own_contract() -> None:
    assert differences(model(AGE, TOWN), model(AGE, TOWN)) == ()


def test_what_an_attacker_may_do_is_no_part_of_the_contract() -> None:
    frozen = AGE.model_copy(update={"immutable": True, "integer": False})
    assert differences(model(frozen, TOWN), model(AGE, TOWN)) == ()


@pytest.mark.parametrize(
    ("candidate", "found"),
    [
        (model(AGE), "the champion reads 'town', the candidate does not"),
        (model(AGE, TOWN, FEE), "the candidate reads 'fee', the champion does not"),
        (
            model(TOWN, AGE),
            "the candidate's columns are in the order 'town', 'age', the champion's in 'age', 'town'",
        ),
        (
            model(AGE, Column(name="town", kind="number")),
            "'town' is a number, for the champion a category",
        ),
        (
            model(AGE, TOWN.model_copy(update={"categories": ("Bonn", "Köln", "Ulm")})),
            "'town' has the categories 'Köln', which the champion does not know",
        ),
        (
            model(AGE, TOWN.model_copy(update={"categories": ("Bonn",)})),
            "'town' does not have the champion's categories 'Ulm'",
        ),
        (
            model(AGE, TOWN.model_copy(update={"categories": ("Ulm", "Bonn")})),
            "the categories of 'town' are in the order 'Ulm', 'Bonn', the champion's in another",
        ),
        (
            model(AGE, TOWN, classes=("ok", "theft")),
            "the candidate answers 'ok', 'theft', the champion 'ok', 'fraud'",
        ),
        (
            model(AGE, TOWN, classes=("fraud", "ok")),
            "the candidate's classes are in the order 'fraud', 'ok', the champion's in 'ok', 'fraud'",
        ),
        (
            model(AGE, TOWN, shape=(9,)),
            "the candidate takes float32[N, 9], the champion float32[N, 3]",
        ),
    ],
)
def test_each_difference_is_named(candidate: Model, found: str) -> None:
    assert differences(candidate, model(AGE, TOWN)) == (found,)


def test_images_of_another_range_and_other_data_are_differences() -> None:
    picture = {"modality": "image", "shape": (1, 8, 8), "raw_lower": 0.0, "raw_upper": 1.0}
    dark = model(**{**picture, "raw_upper": 255.0})
    assert differences(dark, model(**picture)) == (
        "delivered values are between 0 and 255, for the champion between 0 and 1",
    )
    assert differences(dark, model(AGE)) == ("the candidate takes image data, the champion tabular data",)


def test_the_name_of_a_column_of_messages_is_no_part_of_the_contract() -> None:
    old, new = (model(Column(name=name, kind="text"), modality="text") for name in ("message", "text"))
    assert differences(new, old) == ()
    assert unread(old.input, new.input.columns) == ()


def test_another_rule_for_the_operating_point_is_a_difference_and_another_threshold_is_none() -> None:
    none = Count(k=0, n=9)
    by_cost, moved, by_rate = (
        model(AGE).model_copy(
            update={"operating_point": OperatingPoint(positive="fraud", misses=none, false_alarms=none, **rule)}
        )
        for rule in (
            {"threshold": -2.0, "costs": {"miss": 50.0, "false_alarm": 1.0}},
            {"threshold": -1.5, "costs": {"miss": 50.0, "false_alarm": 1.0}},
            {"threshold": -2.0, "false_positive_rate": 0.01},
        )
    )
    assert differences(moved, by_cost) == ()
    (found,) = differences(by_rate, by_cost)
    assert found == (
        "the candidate answers 'fraud' above a threshold (false-positive rate at most 0.01, by its upper 95 % bound), "
        "the champion 'fraud' above a threshold (least cost: 50 for a miss, 1 for a false alarm)"
    )
    assert differences(model(AGE), by_cost)[0].startswith("the candidate answers the largest logit, the champion ")


def test_a_request_fits_both_when_only_its_meaning_differs() -> None:
    assert exchangeable(model(FEE, AGE), model(AGE, FEE))
    assert not exchangeable(model(AGE, TOWN), model(AGE, FEE))
    assert not exchangeable(model(AGE, classes=("a", "b", "c")), model(AGE))


def test_a_delivery_keeps_the_champions_order_by_name() -> None:
    assert in_order_of((FEE, AGE, TOWN), (TOWN, AGE, FEE)) == (FEE, AGE, TOWN)


def test_new_columns_come_after_the_champions_and_missing_ones_are_left_out() -> None:
    assert in_order_of((FEE, TOWN), (AGE, TOWN)) == (TOWN, AGE)
    assert unread(model(FEE, TOWN).input, (AGE, TOWN)) == ("fee",)


def test_categories_keep_their_places_and_new_ones_come_last_where_they_are_allowed() -> None:
    delivered = Column(name="town", kind="category", categories=("Aachen", "Ulm"))
    assert in_order_of((TOWN,), (delivered,))[0].categories == ("Bonn", "Ulm")
    allowed = in_order_of((TOWN,), (delivered,), new_categories=True)
    assert allowed[0].categories == ("Bonn", "Ulm", "Aachen")


def test_a_date_is_another_kind_than_a_number() -> None:
    day = Column(name="age", kind="number", datetime=True)
    assert differences(model(day, TOWN), model(AGE, TOWN)) == ("'age' is a date, for the champion a number",)
    assert published(model(day))["columns"] == [{"name": "age", "kind": "date", "at": 0}]


def test_another_value_for_missing_cells_is_a_difference() -> None:
    filled = AGE.model_copy(update={"fill": 40.0})
    (found,) = differences(model(filled), model(AGE))
    assert found == "a missing 'age' becomes 40.0, for the champion it is refused"
    assert published(model(filled))["columns"] == [{"name": "age", "kind": "number", "at": 0, "missing": 40.0}]


def test_a_delivery_without_missing_cells_keeps_the_column_that_indicates_them() -> None:
    indicator = Column(name="age missing", kind="number", integer=True, indicates="age")
    champion = (AGE.model_copy(update={"fill": 40.5}), indicator, TOWN)
    found = in_order_of(champion, (TOWN, AGE))
    assert [column.name for column in found] == ["age", "age missing", "town"]
    assert found[0].fill == 40.5
    assert unread(model(*champion).input, (TOWN, AGE)) == ()
    # The mean of the training rows moves a little with each delivery; that is no other contract.
    again = in_order_of(champion, (TOWN, AGE.model_copy(update={"fill": 41.0}), indicator))
    assert differences(model(*again), model(*champion)) == ()


def test_a_column_of_another_kind_is_left_as_it_was_delivered() -> None:
    number = Column(name="town", kind="number")
    assert in_order_of((TOWN,), (number,)) == (number,)


def test_clients_find_the_place_of_every_column_in_a_row() -> None:
    found = published(model(AGE, TOWN, FEE))
    assert found == {
        "columns": [
            {"name": "age", "kind": "number", "at": 0},
            {"name": "town", "kind": "category", "at": 1, "categories": ["Bonn", "Ulm"]},
            {"name": "fee", "kind": "number", "at": 3},
        ],
        "classes": ["ok", "fraud"],
    }
    assert as_texts(model(TOWN.model_copy(update={"categories": ("Köln",)})))["columns"] == (
        '[{"name": "town", "kind": "category", "at": 0, "categories": ["Köln"]}]'
    )


def test_clients_of_images_find_the_range_of_delivered_values() -> None:
    assert published(model(modality="image", raw_upper=16.0))["range"] == [0.0, 16.0]
