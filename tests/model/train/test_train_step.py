import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from holdfast.artifacts.documents import Model, ScanReport, Snapshot, ThreatModel, Undecided, Verdict
from holdfast.artifacts.folder import Artifact, Ref, load, save
from holdfast.compute import Compute
from holdfast.errors import IntegrityError
from holdfast.model.inputs import read_spec, read_split, rows_digest, without
from holdfast.model.networks import load_network, logits
from holdfast.model.train.step import train
from holdfast.workload.schema import NetworkConfig, RecipeConfig, TrainConfig

SETTINGS = Compute(seed=1, device="cpu", threads=1)


def config(architecture: str = "cnn", norm: str = "linf", **recipe: float) -> TrainConfig:
    return TrainConfig(
        name="small",
        network=NetworkConfig(architecture=architecture),
        threat=ThreatModel.model_validate({"norm": norm, "epsilon": "2" if norm == "edits" else "1/10", "unit": "any"}),
        train=RecipeConfig.model_validate({"epochs": 2, "batch": 64, "attack_steps": 2} | recipe),
    )


def ref(artifact: Artifact[Snapshot]) -> Ref:
    return Ref(artifact.folder, artifact.digest)


def scan_of(
    snapshot: Artifact[Snapshot],
    out: Path,
    quarantined: tuple[int, ...],
    *,
    undecided: tuple[int, ...] = (),
    applied: bool = True,
) -> Ref:
    rows = read_split(snapshot, "train", read_spec(snapshot))
    left = without(rows, quarantined if applied else undecided)
    report = ScanReport(
        detectors=(),
        suspects={"k": len(quarantined), "n": len(rows)},
        budget=100,
        quarantined=quarantined,
        undecided=undecided,
        per_class=(0,),
        applied=applied,
        clean_rows=rows_digest(left),
        verdict=Verdict.PASS,
        inputs={"snapshot": snapshot.digest},
    )
    return Ref(save(out, report).folder)


def test_the_same_settings_give_the_same_bytes(digits: Artifact[Snapshot], tmp_path: Path) -> None:
    made = [
        train(ref(digits), tmp_path / name, scan=None, config=config(), settings=SETTINGS, checkpoint=None)
        for name in ("one", "two")
    ]
    assert made[0].digest == made[1].digest
    assert sorted(made[0].document.files) == ["curve.json", "program.pt2", "weights.safetensors"]


def test_the_document_counts_what_the_saved_network_answers(digits: Artifact[Snapshot], tmp_path: Path) -> None:
    made = train(ref(digits), tmp_path / "m", scan=None, config=config(), settings=SETTINGS, checkpoint=None)
    rows = read_split(digits, "test", made.document.input)
    found = logits(load_network(made, "cpu"), rows.x, device="cpu").argmax(axis=1)
    assert (made.document.clean.k, made.document.clean.n) == ((found == rows.y).sum(), 360)
    curve = json.loads(made.open("curve.json").read())
    assert [row["epoch"] for row in curve] == [1, 2]


@pytest.mark.parametrize(("kind", "norm"), [("mlp", "linf"), ("mlp", "l2"), ("text", "edits")])
def test_tables_and_messages_are_learned(kind: str, norm: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue("messages" if kind == "text" else "breast_cancer")
    section = config(kind, norm, epochs=12, learning_rate=0.01, batch=32, noise=0.2)
    made = train(ref(data), tmp_path / "m", scan=None, config=section, settings=SETTINGS, checkpoint=None)
    assert made.document.clean.share > 0.9


def test_an_own_network_is_trained_and_runs_without_its_code(
    digits: Artifact[Snapshot], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "networks")
    section = config("own_networks:dropout", epochs=4, learning_rate=0.01)
    made = train(ref(digits), tmp_path / "m", scan=None, config=section, settings=SETTINGS, checkpoint=None)
    monkeypatch.delitem(sys.modules, "own_networks")
    rows = read_split(digits, "test", made.document.input)
    found = logits(load_network(made, "cpu"), rows.x, device="cpu").argmax(axis=1)
    assert (found == rows.y).sum() == made.document.clean.k


def test_quarantined_rows_are_left_out(digits: Artifact[Snapshot], tmp_path: Path) -> None:
    quarantined = tuple(range(0, 1000, 3))
    scan = scan_of(digits, tmp_path / "scan", quarantined)
    made = train(ref(digits), tmp_path / "m", scan=scan, config=config(epochs=1), settings=SETTINGS, checkpoint=None)
    # A fifth of the rows that remain is set apart.
    assert made.document.robust.n == (1437 - len(quarantined)) // 5
    assert set(made.document.inputs) == {"snapshot", "scan"}


def test_a_scan_that_only_reports_leaves_all_rows(digits: Artifact[Snapshot], tmp_path: Path) -> None:
    scan = scan_of(digits, tmp_path / "scan", (1, 2, 3), applied=False)
    made = train(ref(digits), tmp_path / "m", scan=scan, config=config(epochs=1), settings=SETTINGS, checkpoint=None)
    assert made.document.robust.n == 1437 // 5


def test_undecided_rows_are_never_trained_on(digits: Artifact[Snapshot], tmp_path: Path) -> None:
    held = tuple(range(0, 1000, 3))
    document = digits.document.model_copy(update={"undecided": Undecided(train=held)})
    files = {name: digits.open(name).read() for name in digits.document.files}
    data = save(tmp_path / "snapshot", document, files)
    scan = scan_of(data, tmp_path / "scan", (*held, 1436), undecided=held, applied=False)
    section = config(epochs=1)
    for name, given in (("no-scan", None), ("report-only", scan)):
        made = train(ref(data), tmp_path / name, scan=given, config=section, settings=SETTINGS, checkpoint=None)
        assert made.document.robust.n == (1437 - len(held)) // 5
    forgetful = scan_of(data, tmp_path / "forgetful", held[1:])
    with pytest.raises(IntegrityError, match="leaves out the 334 undecided rows of .*, found row 0 left in"):
        train(ref(data), tmp_path / "m", scan=forgetful, config=config(), settings=SETTINGS, checkpoint=None)


def test_a_scan_of_other_rows_is_refused(digits: Artifact[Snapshot], tmp_path: Path) -> None:
    scan = load(scan_of(digits, tmp_path / "scan", (1, 2)), ScanReport)
    forged = save(tmp_path / "forged", scan.document.model_copy(update={"quarantined": (1,)}))
    with pytest.raises(IntegrityError, match="expected training rows .* after quarantine, found"):
        train(ref(digits), tmp_path / "m", scan=Ref(forged.folder), config=config(), settings=SETTINGS, checkpoint=None)
    assert not (tmp_path / "m").exists()


def test_a_scan_of_another_snapshot_is_refused(
    digits: Artifact[Snapshot], breast_cancer: Artifact[Snapshot], tmp_path: Path
) -> None:
    scan = scan_of(breast_cancer, tmp_path / "scan", ())
    with pytest.raises(IntegrityError, match="expected a scan of .*, found one of"):
        train(ref(digits), tmp_path / "m", scan=scan, config=config(), settings=SETTINGS, checkpoint=None)


def test_a_damaged_checkpoint_is_told_and_left(
    digits: Artifact[Snapshot], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    section, kept = config(epochs=4), tmp_path / "kept"
    start_and_stop(digits, tmp_path / "out", kept, section)
    (checkpoint,) = kept.iterdir()
    checkpoint.write_bytes(b"\0" * 1000)
    train(ref(digits), tmp_path / "out", scan=None, config=section, settings=SETTINGS, checkpoint=kept)
    said = capsys.readouterr().err
    assert "expected a whole checkpoint, found altered or missing bytes; starting from the beginning" in said
    assert "epoch 1/4" in said


def test_sigterm_in_the_middle_changes_no_bit_of_the_result(digits: Artifact[Snapshot], tmp_path: Path) -> None:
    section, kept = config(epochs=8), tmp_path / "kept"
    whole = train(ref(digits), tmp_path / "whole", scan=None, config=section, settings=SETTINGS, checkpoint=None)
    for _ in range(2):
        said = start_and_stop(digits, tmp_path / "out", kept, section)
        assert "was written; start it again to go on" in said
        assert not (tmp_path / "out").exists()
    resumed = command(digits, tmp_path / "out", kept, section)
    said = resumed.communicate(timeout=120)[1]
    assert resumed.returncode == 0, said
    assert "train: resumes in epoch" in said
    assert load(Ref(tmp_path / "out"), Model).digest == whole.digest
    assert not any(kept.iterdir())


def command(data: Artifact[Snapshot], out: Path, kept: Path, section: TrainConfig) -> subprocess.Popen[str]:
    options = {
        "--snapshot": f"{data.folder}@{data.digest}",
        "--config": section.model_dump_json(),
        "--out": str(out),
        "--checkpoint": str(kept),
        "--seed": str(SETTINGS.seed),
        "--device": "cpu",
        "--threads": "1",
    }
    arguments = [part for option in options.items() for part in option]
    return subprocess.Popen(
        [sys.executable, "-m", "holdfast", "train", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def start_and_stop(data: Artifact[Snapshot], out: Path, kept: Path, section: TrainConfig) -> str:
    """Starts the step as a container does, waits for the first epoch it finishes, and sends SIGTERM."""
    process = command(data, out, kept, section)
    assert process.stderr is not None
    line = ""
    while "under attack" not in line:
        line = process.stderr.readline()
        assert line, "the step ended before its first epoch did"
    process.send_signal(signal.SIGTERM)
    said = process.stderr.read()
    assert process.wait(timeout=10) == 128 + signal.SIGTERM, said
    return said


def test_the_rows_of_the_snapshot_are_what_is_judged(digits: Artifact[Snapshot], tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="expected artifact 0000"):
        train(
            Ref(digits.folder, "0" * 64), tmp_path / "m", scan=None, config=config(), settings=SETTINGS, checkpoint=None
        )
    assert np.array_equal(sorted(p.name for p in tmp_path.iterdir()), [])
