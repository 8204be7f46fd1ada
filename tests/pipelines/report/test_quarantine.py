"""The quarantine's part of a run's page."""

import html
from typing import Any

from holdfast.artifacts.arrays import npz
from holdfast.artifacts.documents import Count, HeldOutLabels, NotJudged, ScanReport, Verdict
from holdfast.quarantine.table import TableRow, write_table
from holdfast_pipelines.report import write_report

ROWS = [TableRow(9, "mail.csv line 11", "<b>spam</b>", 0.97, "n-gram"), TableRow(3, "mail.csv line 5", "ham", 0.4, "x")]


def page(maker: Any, **changes: Any) -> str:
    made = maker(f"table-{len(changes)}")
    made.snapshot(
        modality="text", shape=(200,), classes=("ham", "spam"), train_per_class=(700, 737), test_per_class=(180, 180)
    )
    told = ScanReport(
        inputs=made.made_from("snapshot"), detectors=(), suspects=Count(k=2, n=1437), budget=107, quarantined=(3, 9),
        per_class=(1, 1), clean_rows="0" * 64, verdict=Verdict.PASS, **changes,
    )  # fmt: skip
    files = {"quarantine.csv": write_table(ROWS), "held_out.csv": write_table(ROWS[:1]), "scores.npz": npz()}
    made.add("scan", told, files)
    run = made.finish("failed")
    return html.unescape(write_report(run, run / "report.html").read_text())


def test_the_table_begins_with_the_most_suspect_row_and_names_its_line(maker: Any) -> None:
    text = page(maker)
    assert text.index("mail.csv line 11") < text.index("mail.csv line 5")
    assert "<b>spam</b>" in text
    assert "stay out of every later run, in any delivery, until a reviewer releases them" in text


def test_suspected_held_out_labels_are_counted_and_listed(maker: Any) -> None:
    found = HeldOutLabels(suspects=Count(k=1, n=360), rows=(9,), false_alarm_rate=0.01)
    assert "The labels of 1 of 360 held-out rows look wrong." in page(maker, held_out=found)
    assert "look wrong" not in page(maker)


def test_a_class_that_is_not_judged_is_named(maker: Any) -> None:
    assert "too few rows: 20 are needed" in page(
        maker, not_judged=(NotJudged(name="ham", rows=3, reason="too few rows: 20 are needed"),)
    )
