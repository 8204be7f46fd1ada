"""Which request a run may answer."""

from datetime import UTC, datetime

import pytest

from holdfast.artifacts.documents import RetrainRequest
from holdfast.artifacts.folder import Ref, save
from holdfast.attestation.keys import make_key, read_signer
from holdfast.attestation.sign import attest
from holdfast.attestation.trust import starter
from holdfast.errors import RefusedError, WorkloadError
from holdfast_pipelines.answering import answered
from holdfast_pipelines.cluster import ClusterSettings
from holdfast_pipelines.parameters import read
from holdfast_pipelines.submit import submit
from tests.pipelines.test_submit import WORKLOAD, kubeflow  # noqa: F401


@pytest.fixture
def request_(tmp_path):
    document = RetrainRequest(
        inputs={"report": "7" * 64}, name="toy", model="a" * 64, reason="labels: evidence above the limit",
        asked="2026-03-10T00:00:00Z", older_than="2026-03-08T00:00:00Z", cooldown_days=7,
    )  # fmt: skip
    return save(tmp_path / "requests" / "1", document)


def workload(tmp_path, text=WORKLOAD):
    path = tmp_path / "toy.yaml"
    path.write_text(text)
    return path


def test_a_request_about_another_workload_is_refused(request_, tmp_path):
    other = workload(tmp_path, WORKLOAD.replace("name: toy", "name: others"))
    with pytest.raises(WorkloadError, match="expected a request about others, found toy"):
        answered(Ref(request_.folder), read(other), reviews=tmp_path)


def test_rows_in_quarantine_must_stay_out(request_, tmp_path):
    plan = read(workload(tmp_path))
    with pytest.raises(WorkloadError, match="toy: expected data.review with --because"):
        answered(Ref(request_.folder), plan)
    assert answered(Ref(request_.folder), plan, reviews=tmp_path).digest == request_.digest


def test_with_a_trust_policy_the_request_is_signed_by_the_data_owner(request_, tmp_path):
    for role in ("data-owner", "trainer"):
        make_key(tmp_path / f"{role}.pem")
    (tmp_path / "trust.yaml").write_text(starter({"data-owner": "data-owner.pub", "trainer": "trainer.pub"}))
    given = {"workload": read(workload(tmp_path)), "reviews": tmp_path, "trust": tmp_path / "trust.yaml"}
    folder = request_.folder.parent / "attestations"
    attest(request_, read_signer(str(tmp_path / "trainer.pem")), folder, run="", at=datetime.now(UTC))
    with pytest.raises(
        RefusedError, match="expected a signer who may sign .* retrain-request/toy, found the role trainer"
    ):
        answered(Ref(request_.folder), **given)
    attest(request_, read_signer(str(tmp_path / "data-owner.pem")), folder, run="", at=datetime.now(UTC))
    assert answered(Ref(request_.folder), **given).digest == request_.digest


def test_a_submitted_run_gets_the_request_as_text(kubeflow, request_, tmp_path):  # noqa: F811
    text = WORKLOAD.replace("'sklearn:digits'}", "'sklearn:digits', review: /data/reviews}")
    settings = ClusterSettings(volumes=({"claim": "data", "path": "/data"},))
    path, because = workload(tmp_path, text), Ref(request_.folder)
    submit(kubeflow.url, path, tracking="http://mlflow:5000", settings=settings, because=because)
    (run,) = kubeflow.runs
    assert '"older_than":"2026-03-08T00:00:00Z"' in run["runtime_config"]["parameters"]["because"].replace(": ", ":")
