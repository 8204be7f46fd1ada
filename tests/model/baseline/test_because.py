"""A run that a monitor asked for: the champion is the one that was watched, and its held-out rows come with it."""

import numpy as np
import pytest

from holdfast import registry
from holdfast.artifacts.documents import RetrainRequest
from holdfast.artifacts.folder import save
from holdfast.artifacts.requests import read_request, request_text
from holdfast.errors import ArtifactError, RefusedError
from holdfast.model.baseline.step import baseline
from tests.model.baseline.test_step import SETTINGS, crown


def asked(out, model, **changes):
    document = RetrainRequest(
        inputs={"report": "7" * 64}, name="demo-image", model=model, reason="labels: evidence above the limit",
        asked="2026-03-10T00:00:00Z", older_than="2026-03-08T00:00:00Z", cooldown_days=7,
    )  # fmt: skip
    return save(out, document.model_copy(update=changes))


def fetch(chain, tmp_path, tracking, because):
    out = tmp_path / "baseline"
    return baseline(chain.snapshot, out, name="demo-image", tracking=tracking, settings=SETTINGS, because=because)


def test_the_held_out_rows_of_the_champions_delivery_come_with_it(chain, tmp_path, tracking):
    one = chain()
    crown(one, tmp_path, tracking)
    request = asked(tmp_path / "request", one.model.digest)
    found = fetch(one, tmp_path, tracking, request)
    assert (found.document.request, found.document.older_than) == (request.digest, "2026-03-08T00:00:00Z")
    with np.load(found.open("older.npz")) as rows:
        assert rows["x"].shape == (20, 1, 8, 8)


def test_a_request_about_another_model_than_the_champion_is_refused(chain, tmp_path, tracking):
    one = chain()
    crown(one, tmp_path, tracking)
    with pytest.raises(RefusedError, match="expected the champion 000000000000…, which was watched, found"):
        fetch(one, tmp_path, tracking, asked(tmp_path / "request", "0" * 64))
    assert not (tmp_path / "baseline").exists()


def test_without_a_champion_there_is_nothing_to_compare_with(chain, tmp_path, tracking):
    one = chain()
    with pytest.raises(RefusedError, match="which was watched, found none"):
        fetch(one, tmp_path, tracking, asked(tmp_path / "request", one.model.digest))


def test_a_request_is_answered_once(chain, tmp_path, tracking):
    one = chain()
    done = crown(one, tmp_path, tracking)
    request = asked(tmp_path / "request", one.model.digest)
    registry.tag(tracking, "demo-image", done.model_version, registry.RETRAIN_REQUEST, request.digest)
    with pytest.raises(RefusedError, match="expected a request that no version answers, found version 1"):
        fetch(one, tmp_path, tracking, request)


def test_a_champion_without_held_out_rows_is_refused_in_one_line(chain, tmp_path, tracking, monkeypatch):
    one = chain()
    crown(one, tmp_path, tracking)
    monkeypatch.setattr("holdfast.model.baseline.step._older", lambda bundle: None)
    with pytest.raises(RefusedError, match="expected held-out rows of the champion's delivery to compare on"):
        fetch(one, tmp_path, tracking, asked(tmp_path / "request", one.model.digest))


def test_a_pod_gets_the_same_request_as_text(tmp_path):
    request = asked(tmp_path / "request", "a" * 64)
    found = read_request(request_text(request))
    assert (found.document, found.digest) == (request.document, request.digest)
    with pytest.raises(ArtifactError, match="expected a retrain-request"):
        read_request('{"kind": "model"}')
