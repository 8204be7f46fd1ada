"""The numbers and matrices that MLflow and Kubeflow show are those of the documents and their files."""

import io

import numpy as np
import pytest

from holdfast.artifacts.documents import (
    Cause,
    ClassResult,
    Count,
    Performance,
    RobustnessReport,
    RolloutRecord,
    Verdict,
)
from holdfast.artifacts.folder import save
from holdfast.measured import MOST_CLASSES, confusion_matrices, measured, page_of

CLASSES = ("cat", "dog", "owl")
LABEL, ANSWER, WORST = (np.array(one) for one in ([0, 0, 1, 2, 2, 1, 0], [0, 1, 1, 2, 0, 1, 0], [1, 1, 0, 2, 0, 1, 0]))
SAMPLE = 6
"""The last example is one of a rare class that was added for what is counted by class."""


def attacked(folder, *, classes=CLASSES, **arrays):
    count = Count(k=4, n=SAMPLE)
    one = [ClassResult(name=name, recall=count, answers=1, precision=Count(k=0, n=0)) for name in classes]
    report = RobustnessReport(
        tier="pr", seed=0, clean=count, attacks=(), worst_case=Count(k=2, n=SAMPLE), masking=(),
        clean_performance=Performance(classes=tuple(one), best_constant=count),
    )  # fmt: skip
    stream = io.BytesIO()
    np.savez(stream, **{"label": LABEL, "answer": ANSWER, "worst_answer": WORST, **arrays})
    return save(folder, report, {"flags.npz": stream.getvalue()})


def test_the_matrices_of_an_attack_are_those_of_scikit_learn_on_its_sample(tmp_path):
    metrics = pytest.importorskip("sklearn.metrics")
    found = confusion_matrices(attacked(tmp_path / "a"))
    for name, answers in {"confusion_matrix": ANSWER, "confusion_matrix_under_attack": WORST}.items():
        assert found[name].classes == CLASSES
        expected = metrics.confusion_matrix(LABEL[:SAMPLE], answers[:SAMPLE], labels=[0, 1, 2])
        assert [list(row) for row in found[name].rows] == expected.tolist()


def test_flags_without_the_classes_of_the_examples_give_no_matrix(tmp_path):
    made = attacked(tmp_path / "a")
    stream = io.BytesIO()
    np.savez(stream, answer=ANSWER, worst_answer=WORST)
    assert confusion_matrices(save(tmp_path / "b", made.document, {"flags.npz": stream.getvalue()})) == {}


def test_with_very_many_classes_there_is_no_matrix(tmp_path):
    names = tuple(map(str, range(MOST_CLASSES + 1)))
    assert confusion_matrices(attacked(tmp_path / "a", classes=names)) == {}


def test_the_numbers_of_an_attack_are_those_of_its_document(tmp_path):
    numbers = measured(attacked(tmp_path / "a").document)
    assert numbers["clean_accuracy"] == pytest.approx(4 / 6)
    assert numbers["robust_accuracy"] == pytest.approx(2 / 6)
    assert {name for name in numbers if name.startswith("recall/")} == {"recall/cat", "recall/dog", "recall/owl"}
    assert not [name for name in numbers if name.startswith("precision/")], "nothing was answered: there is no rate"


def test_a_rollout_that_was_promoted_has_no_incident_and_a_page_all_the_same(tmp_path):
    record = RolloutRecord(
        name="toy", candidate_version=2, champion_version=1, transitions=(), requests_sent=9, requests_failed=0,
        outcome="promoted", reason="no <worse> than the champion", cause=Cause.NONE, verdict=Verdict.PASS,
    )  # fmt: skip
    assert b"no &lt;worse&gt; than the champion" in page_of(save(tmp_path / "promoted", record))
    back = record.model_copy(update={"outcome": "rolled-back", "verdict": Verdict.FAIL})
    assert page_of(save(tmp_path / "back", back, {"incident.html": b"<p>why</p>"})) == b"<p>why</p>"
