"""Planted anomalies are found, clean data is quiet."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.artifacts.documents import (
    Architecture,
    Baseline,
    Column,
    Count,
    InputSpec,
    Model,
    SchemaReport,
    Snapshot,
    ThreatModel,
    Verdict,
)
from holdfast.artifacts.folder import Artifact, Ref, save, seal, write_artifact
from holdfast.data.schema.contract import library, parse_schema
from holdfast.data.schema.step import schema
from holdfast.errors import InputError, LimitError
from holdfast.workload.schema import SchemaConfig

Take = Callable[..., Artifact[Snapshot]]
Write = Callable[..., Path]


def table(rows: int = 200, seed: int = 0, **columns: Any) -> str:
    rng = np.random.default_rng(seed)
    cells = {
        "age": rng.integers(20, 60, rows),
        "city": rng.choice(["Bonn", "Ulm"], rows),
        "label": rng.choice(["no", "yes"], rows),
        **columns,
    }
    lines = [",".join(map(str, row)) for row in zip(*(v for v in cells.values() if v is not None), strict=True)]
    return "\n".join([",".join(name for name, v in cells.items() if v is not None), *lines])


@pytest.fixture
def judge(take: Take, write: Write, tmp_path: Path) -> Callable[..., Artifact[SchemaReport]]:
    """Judges a CSV delivery; a schema text becomes the champion's, `path` the given one."""

    def _judge(content: str, *, champion: str | None = None, **config: Any) -> Artifact[SchemaReport]:
        taken = take(write(content))
        baseline = None
        if champion is not None:
            document = Baseline(name="test", present=True, model_version=1, model="0" * 64)
            made = save(tmp_path / "baseline", document, {"schema.pbtxt": champion.encode()})
            baseline = Ref(made.folder, made.digest)
        made_ref = Ref(taken.folder, taken.digest)
        return schema(made_ref, tmp_path / "schema", config=SchemaConfig(**config), baseline=baseline)

    return _judge


@pytest.fixture
def contract(judge: Callable[..., Artifact[SchemaReport]]) -> str:
    """The schema that a clean delivery gives."""
    return judge(table()).open("schema.pbtxt").read().decode()


def found(report: Artifact[SchemaReport]) -> set[tuple[str, str]]:
    return {(anomaly.column, anomaly.kind) for anomaly in report.document.anomalies}


def test_a_first_delivery_passes_its_own_schema(judge: Any) -> None:
    report = judge(table()).document
    assert (report.source, report.verdict, report.anomalies) == ("inferred", Verdict.PASS, ())
    assert (report.columns, report.rows) == (3, 200)


def test_the_same_delivery_gives_the_same_bytes(judge: Any) -> None:
    assert judge(table()).digest == judge(table()).digest


def test_a_clean_delivery_passes_the_champions_schema(judge: Any, contract: str) -> None:
    for seed in range(1, 6):
        report = judge(table(seed=seed), champion=contract).document
        assert (report.source, report.anomalies) == ("champion", ())


def test_a_column_out_of_its_domain_is_found(judge: Any, contract: str) -> None:
    report = judge(table(age=np.full(200, 900)), champion=contract)
    assert found(report) == {("age", "FLOAT_TYPE_BIG_FLOAT")}
    assert report.document.verdict is Verdict.FAIL
    assert "900" in report.document.anomalies[0].detail


def test_an_unknown_category_is_found(judge: Any, contract: str) -> None:
    cities = np.array(["Bonn", "Ulm"] * 98 + ["Köln"] * 4)
    assert found(judge(table(city=cities), champion=contract)) == {("city", "ENUM_TYPE_UNEXPECTED_STRING_VALUES")}


def test_an_unknown_class_is_found(judge: Any, contract: str) -> None:
    labels = np.array(["no", "yes", "maybe", "yes"] * 50)
    assert ("label", "ENUM_TYPE_UNEXPECTED_STRING_VALUES") in found(judge(table(label=labels), champion=contract))


def test_a_missing_and_a_new_column_are_found(judge: Any, contract: str) -> None:
    assert ("city", "SCHEMA_MISSING_COLUMN") in found(judge(table(city=None), champion=contract))
    assert ("pay", "SCHEMA_NEW_COLUMN") in found(judge(table(pay=np.arange(200) % 50), champion=contract))


def test_a_number_that_became_a_category_is_found(judge: Any, contract: str) -> None:
    ages = np.random.default_rng(0).choice(["old", "young"], 200)
    assert "age" in {column for column, _ in found(judge(table(age=ages), champion=contract))}


def test_a_category_that_became_a_number_is_found(judge: Any, contract: str) -> None:
    codes = np.random.default_rng(0).integers(1, 3, 200)
    assert "city" in {column for column, _ in found(judge(table(city=codes), champion=contract))}


def test_a_renamed_column_is_found_by_both_names(judge: Any, contract: str) -> None:
    renamed = table().replace("city", "town", 1)
    assert {("city", "SCHEMA_MISSING_COLUMN"), ("town", "SCHEMA_NEW_COLUMN")} <= found(
        judge(renamed, champion=contract)
    )


def test_columns_in_another_order_are_the_same_columns(judge: Any, contract: str) -> None:
    rows = [line.split(",") for line in table(seed=1).splitlines()]
    turned = "\n".join(",".join((label, city, age)) for age, city, label in rows)
    assert judge(turned, champion=contract).document.anomalies == ()


def champion_of(model: Model, contract: str, out: Path) -> Ref:
    with write_artifact(out) as work:
        made = save(work / "model", model)
        (work / "schema.pbtxt").write_text(contract)
        seal(work, Baseline(name="test", present=True, model_version=1, model=made.digest))
    return Ref(out)


def model_of(*columns: Column) -> Model:
    """A champion that reads these columns."""
    return Model(
        name="test",
        architecture=Architecture(name="mlp", parameters=1),
        input=InputSpec(modality="tabular", shape=(len(columns),), dtype="float32", columns=columns),
        classes=("no", "yes"),
        threat=ThreatModel(norm="linf", epsilon="1/4", unit="any"),
        recipe={},
        seed=0,
        threads=1,
        device="cpu",
        best_epoch=1,
        clean=Count(k=1, n=1),
        robust=Count(k=1, n=1),
    )


AGE, CITY = Column(name="age", kind="number"), Column(name="city", kind="category", categories=("Bonn", "Ulm"))


def test_a_number_that_was_a_date_for_the_champion_is_found(
    take: Take, write: Write, contract: str, tmp_path: Path
) -> None:
    old = model_of(AGE.model_copy(update={"datetime": True}), CITY)
    baseline = champion_of(old, contract, tmp_path / "baseline")
    report = schema(Ref(take(write(table())).folder), tmp_path / "out", config=SchemaConfig(), baseline=baseline)
    (anomaly,) = report.document.anomalies
    assert (anomaly.column, anomaly.detail) == ("age", "'age' is a number, for the champion a date")
    assert report.document.verdict is Verdict.FAIL


def test_a_delivery_without_missing_cells_keeps_the_champions_schema(take: Take, write: Write, tmp_path: Path) -> None:
    ages = np.random.default_rng(0).integers(20, 60, 200).astype(object)
    ages[::10] = ""
    first = take(write(table(age=ages)), missing="indicator")
    inferred = schema(Ref(first.folder), tmp_path / "first", config=SchemaConfig(), baseline=None)
    contract = inferred.open("schema.pbtxt").read().decode()
    baseline = champion_of(model_of(*first.document.columns), contract, tmp_path / "baseline")
    whole = take(write(table(seed=1)), missing="indicator")
    assert len(whole.document.columns) == len(first.document.columns) - 1
    report = schema(Ref(whole.folder), tmp_path / "out", config=SchemaConfig(), baseline=baseline)
    assert report.document.anomalies == ()


def test_what_only_the_held_out_rows_show_is_found(
    take: Take, write: Write, tmp_path: Path, contract: str, judge: Any
) -> None:
    taken = take(write(table()), test=str(write(table(age=np.full(200, 900)), "held.csv")))
    path = write(contract, "schema.pbtxt")
    config = SchemaConfig(path=str(path), reviewed_by="A. Person")
    report = schema(Ref(taken.folder), tmp_path / "out", config=config, baseline=None).document
    assert [(a.column, a.detail.startswith("held-out rows: ")) for a in report.anomalies] == [("age", True)]
    assert (report.source, report.reviewed_by) == ("given", "A. Person")
    assert set(report.inputs) == {"snapshot", "schema"}


def test_a_given_schema_goes_before_the_champions(judge: Any, contract: str, write: Write) -> None:
    path = write(contract, "schema.pbtxt")
    assert judge(table(), champion="", path=str(path)).document.source == "given"


def test_an_empty_schema_lets_nothing_pass(judge: Any) -> None:
    assert {kind for _, kind in found(judge(table(), champion=""))} == {"SCHEMA_NEW_COLUMN"}


def test_images_outside_the_value_range_are_found(take: Take, save_npz: Write, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 17, (100, 12, 12), dtype=np.uint8)
    y = np.arange(100) % 2
    clean = take(save_npz(x=x, y=y), "image", range=(0, 16))
    assert not schema(Ref(clean.folder), tmp_path / "a", config=SchemaConfig(), baseline=None).document.anomalies
    x[3, 5, 5] = 17  # one value of one image: its cell's mean stays inside, the image's highest does not
    broken = take(save_npz(x=x, y=y), "image", range=(0, 16))
    report = schema(Ref(broken.folder), tmp_path / "b", config=SchemaConfig(), baseline=None)
    assert found(report) == {("highest", "FLOAT_TYPE_BIG_FLOAT")}


def test_messages_are_judged_by_their_kinds_of_characters(take: Take, write: Write, tmp_path: Path) -> None:
    lines = "".join(f"{label}\tmessage number {i}\n" for i, label in enumerate(["ham", "spam"] * 20))
    taken = take(write(lines, "sms.tsv"), "text", columns=("label", "text"), text="text")
    report = schema(Ref(taken.folder), tmp_path / "out", config=SchemaConfig(), baseline=None).document
    assert (report.columns, report.verdict) == (8, Verdict.PASS)


def test_what_is_written_is_what_tfdv_reads(judge: Any, tmp_path: Path) -> None:
    report = judge(table())
    tfdv = library()
    statistics = tfdv.load_stats_binary(str(report.path("statistics.pb")))
    assert [part.name for part in statistics.datasets] == ["train", "test"]
    assert [feature.name for feature in tfdv.load_schema_text(str(report.path("schema.pbtxt"))).feature] == [
        "age",
        "city",
        "label",
    ]
    assert not tfdv.load_anomalies_text(str(report.path("anomalies.pbtxt"))).anomaly_info


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"feature { name: ", "schema.pbtxt: expected a TFMD schema in text form, found"),
        (b"no_such_field: 1", "found .*no_such_field"),
        (b"\xff\xfe", "expected a TFMD schema in text form, found 'utf-8' codec"),
        (b"feature { struct_domain { " * 20_000, "expected a TFMD schema in text form, found"),
    ],
)
def test_a_schema_that_cannot_be_read_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_schema(text, "schema.pbtxt")


def test_a_schema_without_end_is_refused() -> None:
    with pytest.raises(LimitError, match="expected a schema of at most 1048576 bytes, found more"):
        parse_schema(b"#" * 2_000_000, "schema.pbtxt")


def test_a_schema_file_that_is_not_there_is_named(judge: Any) -> None:
    with pytest.raises(InputError, match="absent.pbtxt: expected a schema, found none that can be read"):
        judge(table(), path="absent.pbtxt")


def test_unusual_column_names_are_no_anomaly(judge: Any) -> None:
    content = table().replace("age", "a.b (c) 'd' <é>", 1)
    assert judge(content).document.anomalies == ()
