from dataclasses import replace

import numpy as np
import pytest

from holdfast import registry
from holdfast.artifacts.documents import Model, Snapshot
from holdfast.artifacts.folder import Ref, load
from holdfast.attestation.keys import make_key
from holdfast.attestation.trust import starter
from holdfast.compute import Compute
from holdfast.errors import IntegrityError, RefusedError, RegistryError
from holdfast.model.baseline.step import baseline
from holdfast.model.inputs import read_split
from holdfast.model.networks import load_network, logits
from holdfast.model.register.step import register

SETTINGS = Compute(seed=0, device="cpu")


def crown(chain, tmp_path, tracking):
    """Registers the model of `chain` and makes it champion."""
    parts = {"decision": chain.decision, "snapshot": chain.snapshot, "evidence": chain.evidence}
    done = register(chain.model, tmp_path / "registration", **parts, tracking=tracking).document
    registry.promote(tracking, done.name, done.model_version)
    return done


def fetch(chain, tmp_path, tracking, name="demo-image"):
    return baseline(chain.snapshot, tmp_path / "baseline", name=name, tracking=tracking, settings=SETTINGS)


def test_without_a_champion_the_artifact_says_so_and_no_database_is_made(chain, tmp_path):
    found = fetch(chain(), tmp_path, f"sqlite:///{tmp_path / 'none.db'}").document
    assert (found.present, found.model, dict(found.files)) == (False, None, {})
    assert not (tmp_path / "none.db").exists()


def test_without_a_registry_there_is_no_champion(chain, tmp_path):
    found = fetch(chain(), tmp_path, "").document
    assert (found.present, found.model_version, dict(found.files)) == (False, None, {})


def test_a_candidate_is_not_a_champion(chain, tmp_path, tracking):
    one = chain()
    parts = {"decision": one.decision, "snapshot": one.snapshot, "evidence": one.evidence}
    register(one.model, tmp_path / "registration", **parts, tracking=tracking)
    assert not fetch(one, tmp_path, tracking).document.present


def test_the_champion_comes_with_its_model_schema_reference_and_scores(chain, tmp_path, tracking):
    one = chain()
    crown(one, tmp_path, tracking)
    found = fetch(one, tmp_path, tracking)
    assert (found.document.present, found.document.model_version) == (True, 1)
    model = load(Ref(found.folder / "model", found.document.model), Model)
    assert model.digest == one.model.digest
    assert {"model/weights.safetensors", "schema.pbtxt", "reference.parquet", "scores.npz"} <= set(found.document.files)
    x = read_split(load(one.snapshot, Snapshot), "train", model.document.input).x
    values = logits(load_network(model, "cpu"), x, device="cpu").astype(np.float64)
    with np.load(found.open("scores.npz")) as scores:
        assert scores["reference_confidence"].shape == (20,)
        # Independent route: 1 / sum(exp(z - max)) is the largest softmax.
        expected = 1 / np.exp(values - values.max(1, keepdims=True)).sum(1)
        np.testing.assert_allclose(scores["current_confidence"], expected, rtol=1e-12)


def test_a_champion_without_the_signatures_that_are_asked_for_is_refused(chain, tmp_path, tracking):
    one = chain()
    crown(one, tmp_path, tracking)
    make_key(tmp_path / "gate.pem")
    trust = tmp_path / "trust.yaml"
    trust.write_text(starter({"gate": "gate.pub"}))
    with pytest.raises(RefusedError, match="expected a"):
        baseline(
            one.snapshot, tmp_path / "baseline", name="demo-image", tracking=tracking, settings=SETTINGS, trust=trust
        )
    assert not (tmp_path / "baseline").exists()


def test_rows_that_the_champion_cannot_read_leave_its_confidence_out(chain, tmp_path, tracking):
    crown(chain("tabular"), tmp_path, tracking)
    found = fetch(chain("text"), tmp_path, tracking, name="demo-tabular")
    with np.load(found.open("scores.npz")) as scores:
        assert scores.files == ["reference_confidence"]


def test_fetching_twice_gives_the_same_bytes(chain, tmp_path, tracking):
    one = chain()
    crown(one, tmp_path, tracking)
    assert fetch(one, tmp_path, tracking).digest == fetch(one, tmp_path, tracking).digest


def test_an_altered_champion_is_refused_and_leaves_nothing(chain, tmp_path, tracking):
    one = chain()
    crown(one, tmp_path, tracking)
    path = next((tmp_path / "artifacts").rglob("confidence.npz"))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(IntegrityError, match="confidence.npz: .*altered after the model was registered"):
        fetch(one, tmp_path, tracking)
    assert not (tmp_path / "baseline").exists()


def test_an_unreachable_registry_is_not_taken_for_no_champion(chain, tmp_path, unused_port):
    with pytest.raises(RegistryError, match="expected MLflow to answer"):
        fetch(replace(chain()), tmp_path, f"http://127.0.0.1:{unused_port}")
    assert not (tmp_path / "baseline").exists()


@pytest.fixture
def unused_port(monkeypatch):
    import socket

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        # Bound and not listening: nobody else can take it, and connecting to it is refused.
        yield taken.getsockname()[1]
