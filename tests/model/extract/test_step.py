"""The step on real models of real rows, small ones."""

import numpy as np
import pytest
from pydantic import ValidationError

from holdfast.artifacts.documents import Count, ExtractionCurve, ExtractionPoint, ExtractionReport, Model, Snapshot
from holdfast.artifacts.folder import Ref, load, save
from holdfast.compute import Compute
from holdfast.errors import ArtifactError, InputError, RefusedError, WorkloadError
from holdfast.measured import measured
from holdfast.model.extract.step import extract, read_budget
from holdfast.workload.schema import ExtractConfig
from tests.model.conftest import image_snapshot
from tests.serving.guard.test_step import Judged, trained

FEW = ExtractConfig(strategies=("random", "in-distribution"), outputs=("full",), queries=(20, 60, 300), epochs=1)


@pytest.fixture(scope="module")
def of_digits(digits, tmp_path_factory):
    return trained(digits, tmp_path_factory.mktemp("extract") / "model", "digits")


def run(judged: Judged, out, config=FEW, seed=0):
    refs = Ref(judged.model.folder, judged.model.digest), Ref(judged.snapshot.folder)
    return extract(*refs, out, config=config, settings=Compute(seed, "cpu"))


@pytest.fixture(scope="module")
def report(of_digits, tmp_path_factory):
    return run(of_digits, tmp_path_factory.mktemp("extract") / "report")


def test_copies_of_digits_get_better_with_queries_and_end_with_the_attackers_rows(report):
    found = load(report.folder, ExtractionReport).document
    random, real = found.curves
    assert [point.queries for point in random.points] == [20, 60, 300]
    assert [point.queries for point in real.points] == [20, 60, 180]
    assert {point.agreed.n for curve in found.curves for point in curve.points} == {180}
    assert real.points[-1].agreed.share > real.points[0].agreed.share
    assert real.points[-1].agreed.share > 0.7
    (gone,) = found.left_out
    assert (gone.strategy, gone.queries, gone.reason) == (
        "in-distribution", 300, "the attacker has 180 held-out rows"
    )  # fmt: skip
    assert found.configuration["strategies"] == ("random", "in-distribution")
    assert measured(found)["extraction/agreement/in-distribution/full/180"] == real.points[-1].agreed.share


def test_equal_inputs_give_equal_bytes_and_another_seed_others(of_digits, report, tmp_path):
    assert run(of_digits, tmp_path / "again").digest == report.digest
    assert run(of_digits, tmp_path / "other", seed=1).digest != report.digest


def test_the_jacobian_strategy_goes_on_from_few_real_rows(of_digits, tmp_path):
    config = ExtractConfig(strategies=("jacobian",), outputs=("label",), queries=(100, 250), epochs=1)
    (curve,) = run(of_digits, tmp_path / "r", config).document.curves
    assert [point.queries for point in curve.points] == [100, 250]
    assert curve.points[0].agreed.share > 0.6


@pytest.mark.parametrize(("kind", "left_out"), [("breast_cancer", []), ("messages", ["jacobian"])])
def test_tables_and_messages_are_copied_too(kind, left_out, request, tmp_path):
    judged = trained(request.getfixturevalue(kind), tmp_path / "model", kind)
    config = ExtractConfig(strategies=("foreign", "jacobian"), outputs=("rounded",), queries=(25, 200), epochs=1)
    found = run(judged, tmp_path / "report", config).document
    assert [one.strategy for one in found.left_out] == left_out
    assert found.curves[0].points[-1].agreed.share > 0.7
    if left_out:
        with pytest.raises(WorkloadError, match="extract.strategies: none of jacobian fits text data"):
            run(judged, tmp_path / "none", config.model_copy(update={"strategies": ("jacobian",)}))


def test_too_few_held_out_rows_are_refused(of_digits, tmp_path):
    x, y = np.zeros((60, 1, 8, 8), np.uint8), np.arange(60) % 10
    few = image_snapshot(tmp_path / "few", x, y, train=30)
    with pytest.raises(InputError, match="expected at least 40 held-out rows, found 30"):
        run(Judged(of_digits.model, few), tmp_path / "out")


# --- the budget of a guard --------------------------------------------------------------------------------------------


def written(folder, model, agreed=(20, 40), **changed):
    points = tuple(
        ExtractionPoint(queries=q, agreed=Count(k=k, n=200)) for q, k in zip((100, 300), agreed, strict=True)
    )
    document = ExtractionReport(
        inputs={"model": model.digest, "snapshot": "0" * 64}, name="small", agreement_at_most=0.8, alpha=0.05, seed=0,
        curves=(ExtractionCurve(strategy="random", outputs="full", points=points),),
        **{"budget": 300, "budget_reason": "", **changed},
    )  # fmt: skip
    return Ref(save(folder, document, {}).folder)


def test_a_budget_is_that_of_the_counts_for_this_very_model(of_digits, tmp_path):
    model = load(of_digits.model.folder, Model)
    assert read_budget(written(tmp_path / "a", model), model) == 300
    with pytest.raises(RefusedError, match="expected the budget 100 of its counts, found 300"):
        read_budget(written(tmp_path / "b", model, agreed=(20, 190)), model)
    with pytest.raises(RefusedError, match="expected a budget that keeps copies below 0.8, found none"):
        read_budget(written(tmp_path / "c", model, agreed=(199, 199), budget=None), model)
    nobodys = Ref(
        save(
            tmp_path / "d",
            load(written(tmp_path / "e", model).folder, ExtractionReport).document.model_copy(update={"inputs": {}}),
            {},
        ).folder
    )
    with pytest.raises(RefusedError, match="expected a report on model .* run `holdfast extract` for this model"):
        read_budget(nobodys, model)


@pytest.mark.parametrize(
    "change",
    [
        {"budget": 0}, {"agreement_at_most": 1.5}, {"agreement_at_most": float("nan")}, {"alpha": True}, {"curves": []},
        {"curves": [{"strategy": "random", "outputs": "full", "points": []}]},
        {"curves": [{"strategy": "random", "outputs": "full", "points": [{"queries": 9, "agreed": {"k": 3, "n": 2}}]}]},
        {"curves": [{"strategy": "random", "outputs": "full", "points": [
            {"queries": q, "agreed": {"k": 1, "n": 2}} for q in (9, 9)]}]},
        {"curves": [{"strategy": "random", "outputs": "full", "points": [
            {"queries": q, "agreed": {"k": 1, "n": n}} for q, n in ((1, 2), (2, 3))]}]},
        {"curves": 2 * [{"strategy": "random", "outputs": "full", "points": [
            {"queries": 9, "agreed": {"k": 1, "n": 2}}]}]},
        {"surprise": 1},
    ],
)  # fmt: skip
def test_a_hostile_report_is_refused(report, change):
    value = report.document.model_dump(mode="json") | change
    with pytest.raises(ValidationError):
        ExtractionReport.model_validate(value)


def test_a_report_is_read_for_what_it_is(of_digits, tmp_path):
    with pytest.raises(ArtifactError, match="expected"):
        read_budget(Ref(of_digits.snapshot.folder), of_digits.model)
    assert load(of_digits.snapshot.folder, Snapshot).document.kind == "snapshot"


@pytest.mark.parametrize(
    "change", [{"queries": (300, 100)}, {"queries": (5, 5)}, {"strategies": ()}, {"outputs": ("full", "full")}]
)
def test_a_section_without_meaning_is_refused(change):
    with pytest.raises(ValidationError):
        ExtractConfig(**change)
