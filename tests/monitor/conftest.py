"""A model with its decision, and logs of its servers."""

import numpy as np
import pytest

from holdfast.artifacts.documents import (
    Architecture,
    Check,
    Count,
    Feature,
    GateDecision,
    InputSpec,
    Model,
    ThreatModel,
    Verdict,
)  # fmt: skip
from holdfast.artifacts.folder import load, save
from holdfast.serving.predictor.core import Answer
from holdfast.serving.predictor.samples import HOUR, SampleLog, SampleLogSettings

NAMES = ("age", "income", "debt")
SPEC = InputSpec(
    modality="tabular", shape=(3,), dtype="float32",
    features=tuple(Feature(name=name, lower=0, upper=1, scale=1) for name in NAMES),
)  # fmt: skip


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """A model and its decision; the network is not needed to watch it."""
    folder = tmp_path_factory.mktemp("served")
    document = Model(
        name="loans", architecture=Architecture(name="mlp", parameters=1), input=SPEC, classes=("no", "yes"),
        threat=ThreatModel(norm="linf", epsilon="1/10", unit="standard deviations"), recipe={}, seed=0, threads=1,
        device="cpu", best_epoch=0, clean=Count(k=0, n=0), robust=Count(k=0, n=0),
    )  # fmt: skip
    model = save(folder / "model", document, {"weights.safetensors": b"none"})
    accuracy = Check(name="clean_accuracy", measured=0.95, lower=0.94, required="at least 0.9", verdict=Verdict.PASS)
    decision = GateDecision(
        inputs={"model": model.digest}, name="loans", policy="1" * 64, policy_name="default", alpha=0.05,
        checks=(accuracy,), verdict=Verdict.PASS,
    )  # fmt: skip
    save(folder / "decision", decision)
    return folder


def write_log(folder, served, hours, *, start=0, shift=0.0, rows=200):
    """Hours of requests; the income moves by `shift` from half-way on."""
    digest = load(served / "model", Model).digest
    rng = np.random.default_rng(start)
    for hour in range(start, start + hours):
        log = SampleLog(SampleLogSettings.parse({"folder": str(folder)}), digest, SPEC)
        x = rng.normal(size=(rows, 3)).astype(np.float32)
        x[:, 1] += shift * (hour - start >= hours // 2)
        yes = 1 / (1 + np.exp(-4 * x[:, 0]))
        probabilities = np.stack([1 - yes, yes], axis=1).astype(np.float32)
        for i in range(rows):
            answer = Answer(probabilities[i : i + 1].argmax(axis=1), probabilities[i : i + 1])
            log.record(f"h{hour}-{i}", x[i : i + 1], answer, now=hour * HOUR + i)
        log.flush()


@pytest.fixture(scope="session")
def quiet_log(served, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quiet")
    write_log(folder, served, 101)
    return folder
