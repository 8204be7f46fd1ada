"""Takes a survey through the workload, every step of the model environment, the served function and the predictor."""

import sys
from pathlib import Path

import numpy as np
import pytest

from holdfast.artifacts.documents import Snapshot
from holdfast.artifacts.folder import Ref, load
from holdfast.compute import Compute
from holdfast.data.schema.domains import NumberDomain, domains
from holdfast.data.snapshot.inspection.starter import TEMPLATE
from holdfast.data.snapshot.step import snapshot
from holdfast.errors import InputError
from holdfast.modality import modality_of
from holdfast.model.attack.step import attack
from holdfast.model.backdoor.step import backdoor
from holdfast.model.certify.step import certify
from holdfast.model.networks import load_network
from holdfast.model.register.pyfunc import PyfuncModel, signature
from holdfast.model.scan.step import scan
from holdfast.model.train.step import train
from holdfast.quarantine.step import read_quarantine
from holdfast.serving.predictor.core import check_rows
from holdfast.tables import read_table
from holdfast.workload.schema import Workload
from holdfast.workload.yaml import parse_yaml
from holdfast_gates.policy import CheckConfig

NAME, SETTINGS = "survey", Compute(0, "cpu")


def write_answers(path: Path) -> None:
    """240 people with four answers each, which are higher where the label is yes."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 240)
    answers = np.clip(rng.integers(1, 4, (240, 4)) + 2 * y[:, None], 1, 5)
    lines = [",".join([*map(str, row), "yes" if one else "no"]) for row, one in zip(answers, y, strict=True)]
    path.write_text("a,b,c,d,label\n" + "\n".join(lines) + "\n")


def workload(source: Path) -> Workload:
    """What `holdfast init` would write."""
    starter = modality_of(NAME).starter
    text = TEMPLATE.format(
        out="w.yaml",
        name=NAME,
        modality=NAME,
        source=source,
        data=starter.data.format(label="label"),
        architecture=starter.network,
        threat=starter.threat,
        certify=starter.certify,
        train="  epochs: 2\n",
    )
    return parse_yaml(text, Workload, name="w.yaml")


def main(out: Path) -> None:
    """Fails where a step does not know what to do."""
    write_answers(out / "survey.csv")
    w, ref, model = workload(out / "survey.csv"), Ref(out / "snapshot"), Ref(out / "model")
    snapshot(w.snapshot_config, ref.folder)
    data = load(ref, Snapshot)
    table = read_table(data, "train")
    found = domains(data.document, {name: table[name].to_numpy() for name in table})
    assert found["a"] == NumberDomain(1.0, 5.0)

    held = scan(ref, out / "scan", config=w.scan, settings=SETTINGS)
    assert len(read_quarantine(out / "scan", ref.folder).rows) == len(held.document.quarantined)
    trained = train(
        ref, model.folder, scan=Ref(out / "scan"), config=w.train_config, settings=SETTINGS, checkpoint=None
    )
    few = w.backdoor.model_copy(update={"steps": 5})
    assert backdoor(model, ref, out / "backdoor", config=few, settings=SETTINGS).document.method == "neural-cleanse"
    report = attack(model, ref, out / "attack", config=w.attack, baseline=None, settings=SETTINGS).document
    assert report.corruptions == ()
    few_samples = w.certify.model_copy(update={"examples": 8, "samples": 50})
    proof = certify(model, ref, out / "certify", config=few_samples, settings=SETTINGS).document
    assert (proof.method, proof.norm) == ("randomized-smoothing", "l2")
    assert {trained.document.threat.unit, report.attacks[0].threat.unit, proof.unit} == {"points"}

    example = modality_of(NAME).example(data, trained.document.input, 3)
    assert len(PyfuncModel(load_network(trained, "cpu"), trained.document).predict(example)) == 3
    assert signature(trained.document, example).inputs.input_names() == list("abcd")
    with pytest.raises(InputError, match=r"expected values in \[0, 1\]"):
        check_rows(np.full((1, 4), 1.5, dtype=np.float32), trained.document.input)
    assert NAME in CheckConfig().applies_to


if __name__ == "__main__":
    main(Path(sys.argv[1]))
