"""The guard inside the predictor: in one process, and in a real MLServer that is asked as clients ask."""

import asyncio
import json
import sqlite3
import sys
import urllib.error
import urllib.request

import aiohttp
import numpy as np
import pytest

from holdfast.artifacts.arrays import npz
from holdfast.artifacts.documents import (
    Count,
    ExtractionCurve,
    ExtractionPoint,
    ExtractionReport,
    GuardCalibration,
    Model,
)
from holdfast.artifacts.folder import Ref, load, save
from holdfast.errors import RefusedError, WorkloadError
from holdfast.processes import children, reserved_ports, start, wait_ready
from holdfast.serving.guard.calibration import calibrate
from holdfast.serving.guard.features import see
from holdfast.serving.guard.packing import pack
from holdfast.serving.guard.step import FILE
from holdfast.serving.predictor.core import Answer, load_predictor
from holdfast.serving.predictor.guarding import (
    Asker,
    GuardedPredictor,
    NoRecordsError,
    NotAnsweredError,
    degraded,
    digests,
)
from holdfast.serving.predictor.settings import GuardParameters, Served, read_guard, write_settings
from holdfast.serving.protocol import body
from holdfast.serving.rollout.local.servers import server_ready
from holdfast.workload.schema import GuardOutputs
from tests.serving.conftest import write_bundle

USER, STRANGER = Asker("user", None), Asker("stranger", None)


def users(rows, seed):
    """Grey pictures with a little noise; a stranger's have all of it."""
    return (0.5 + 0.1 * (np.random.default_rng(seed).random((rows, 1, 8, 8)) - 0.5)).astype(np.float32)


def strangers(rows, seed):
    return np.random.default_rng(seed).random((rows, 1, 8, 8), dtype=np.float32)


@pytest.fixture(scope="module")
def predictor(bundle):
    return load_predictor(Ref(bundle / "model"), Ref(bundle / "decision"))


@pytest.fixture(scope="module")
def calibration(predictor, tmp_path_factory):
    """A calibration of the bundle's model, as the step writes it."""
    reference, held_out = (see(predictor.network, predictor.spec, users(n, n), "cpu") for n in (600, 1500))
    made = calibrate(reference, held_out, 10, seed=0, delta=0.01)
    document = GuardCalibration(
        inputs={"model": predictor.model.digest}, name="tiny", features="penultimate", reference_rows=600,
        held_out_rows=1500, near_rows=1500, alpha=1e-4, confidence=0.99, least_p=0.01, seed=0,
        benign=Count(k=0, n=0), streams=(),
    )  # fmt: skip
    return save(tmp_path_factory.mktemp("guard") / "calibration", document, {FILE: npz(**pack(made))}).folder


@pytest.fixture
def guarded(predictor, calibration, tmp_path):
    made = []

    def make(**config):
        parameters = GuardParameters(Ref(calibration), tmp_path / "state", config)
        made.append(GuardedPredictor(predictor, parameters))
        return made[-1]

    yield make
    for one in made:
        one.close()


def ask(guarded, who, x):
    return [guarded.ask(who, row[None]) for row in x]


def test_answers_to_users_are_those_of_the_predictor(guarded, predictor):
    x = users(40, 7)
    found = ask(guarded(mode="refuse"), USER, x)
    assert [one.flag for one in found] == [None] * 40
    expected = predictor.answer(x)
    assert [int(one.answer.label[0]) for one in found] == expected.label.tolist()
    np.testing.assert_allclose(
        np.concatenate([one.answer.probabilities for one in found]), expected.probabilities, 1e-5
    )


def test_a_stranger_is_marked_degraded_or_refused_and_an_alarm_is_one_line_of_json(guarded, capsys):
    watching = guarded(mode="degrade", outputs={"round": 1})
    found = ask(watching, STRANGER, strangers(60, 1))
    assert found[-1].flag == "far"
    assert (found[-1].answer.probabilities == found[-1].answer.probabilities.round(1)).all()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (event,) = [line for line in lines if line["client"] == "header:stranger"]
    assert (event["event"], event["identified_by"], event["detector"]) == ("holdfast_guard_alarm", "header", "far")
    assert event["rows"] <= 30
    assert event["log_wealth"]["far"] > 9.2


def test_in_mode_observe_nothing_changes_but_the_counts(guarded, predictor):
    x = strangers(60, 2)
    found = ask(guarded(), STRANGER, x)
    assert {one.flag for one in found} == {None}
    np.testing.assert_allclose(found[-1].answer.probabilities[0], predictor.answer(x[-1:]).probabilities[0], 1e-5)


def test_one_who_is_refused_is_refused_by_the_next_server_too(guarded):
    first = guarded(mode="refuse")
    with pytest.raises(NotAnsweredError):
        ask(first, STRANGER, strangers(60, 3))
    first._guard.close()
    first._lock = _released(first._lock)
    with pytest.raises(NotAnsweredError) as refused:
        ask(guarded(mode="refuse"), STRANGER, users(1, 3))
    assert refused.value.status == 422


def _released(lock):
    import fcntl
    import os

    fcntl.flock(lock, fcntl.LOCK_UN)
    return os.dup(lock)


def test_two_servers_do_not_keep_the_same_records(guarded):
    guarded()
    with pytest.raises(WorkloadError, match="expected records that no other server keeps, found them in use"):
        guarded()


def test_without_records_a_server_that_refuses_answers_nobody_and_others_go_on(guarded, monkeypatch):
    refusing = guarded(mode="refuse")

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(refusing._guard._store, "put", full)
    with pytest.raises(NoRecordsError, match="the guard cannot keep its records: database or disk is full"):
        ask(refusing, USER, users(1, 0))
    object.__setattr__(refusing, "config", refusing.config.model_copy(update={"mode": "flag"}))
    assert ask(refusing, USER, users(1, 0))[0].flag is None


def test_a_calibration_of_another_model_is_refused(calibration, tmp_path):
    other = write_bundle(tmp_path / "other", seed=1)
    predictor = load_predictor(Ref(other / "model"), Ref(other / "decision"))
    with pytest.raises(RefusedError, match="expected a calibration for model"):
        GuardedPredictor(predictor, GuardParameters(Ref(calibration), tmp_path, {}))


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"mode": "watch"}, "guard.mode: Input should be 'observe'"),
        ({"budgets": 3}, "guard.budgets: Extra inputs are not permitted"),
        ({"client_header": "x client"}, "guard.client_header"),
    ],
)
def test_settings_without_meaning_are_refused(guarded, given, match):
    with pytest.raises(WorkloadError, match=match):
        guarded(**given)


@pytest.mark.parametrize("given", ["{", 5, "[]", {"calibration": "x"}, {"state": "x"}])
def test_a_guard_without_calibration_or_state_is_refused(given):
    with pytest.raises(WorkloadError, match="^(guard|calibration|state): expected"):
        GuardParameters.parse(given)


def test_a_client_is_named_by_the_header_else_by_the_peer(guarded):
    watching = guarded(client_header="X-Client")
    assert watching.asker({"x-client": "a"}, "10.0.0.1").name == "header:a"
    assert watching.asker({"other": "a"}, "10.0.0.1").name == "peer:10.0.0.1"
    assert watching.asker({}, None).name == "unknown"
    long = watching.asker({"x-client": "a" * 5000}, None).name
    assert long.startswith("header-sha256:")
    assert len(long) < 100


def test_without_a_header_in_the_settings_none_is_believed(guarded):
    assert guarded().asker({"x-client": "a"}, "10.0.0.1").name == "peer:10.0.0.1"


def test_top_1_leaves_the_largest_and_shares_the_rest():
    answer = Answer(np.array([1]), np.array([[0.16, 0.64, 0.2]], dtype=np.float32))
    found = degraded(answer, GuardOutputs(round=2, top1=True)).probabilities
    assert found.tolist() == [[0.18, 0.64, 0.18]]


def test_digests_are_of_the_bytes_of_a_row():
    x = users(3, 0)
    assert digests(x) == digests(x.copy())
    assert len(set(digests(x))) == 3


def test_a_file_of_settings_has_its_folders_next_to_it_and_goes_on_to_a_server(tmp_path):
    path = tmp_path / "guard.json"
    path.write_text('{"calibration": "c", "state": "s", "mode": "flag"}')
    served = Served("tiny", 1, Ref(tmp_path), Ref(tmp_path), guard=read_guard(path))
    found = GuardParameters.parse(Served.from_json(served.as_json()).guard)
    assert (found.calibration.folder, found.state, found.config) == (tmp_path / "c", tmp_path / "s", {"mode": "flag"})
    path.write_text("[]")
    with pytest.raises(WorkloadError, match="guard: expected an object with calibration and state, found"):
        read_guard(path)


@pytest.fixture
def extraction(predictor, tmp_path):
    """A report that allows 20 queries of this model."""
    points = [ExtractionPoint(queries=q, agreed=Count(k=k, n=200)) for q, k in ((20, 60), (100, 199))]
    document = ExtractionReport(
        inputs={"model": predictor.model.digest}, name="tiny", agreement_at_most=0.8, alpha=0.05, seed=0, budget=20,
        curves=(ExtractionCurve(strategy="random", outputs="full", points=tuple(points)),), budget_reason="",
    )  # fmt: skip
    return save(tmp_path / "extraction", document, {})


def test_a_budget_is_what_the_extraction_report_allows(predictor, calibration, extraction, tmp_path):
    path = tmp_path / "guard.json"
    settings = {"calibration": str(calibration), "state": "s", "mode": "refuse", "budget": "auto"}
    path.write_text(json.dumps(settings))
    with pytest.raises(
        WorkloadError, match="guard.budget: auto: expected `extraction`, a report of `holdfast extract`"
    ):
        GuardedPredictor(predictor, GuardParameters.parse(read_guard(path)))
    path.write_text(json.dumps(settings | {"extraction": f"extraction@{extraction.digest}"}))
    watching = GuardedPredictor(predictor, GuardParameters.parse(read_guard(path)))
    with pytest.raises(NotAnsweredError, match="expected at most 20 rows in 2592000 s, found more"):
        ask(watching, USER, users(21, 8))
    watching.close()


# --- a real server ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(bundle, calibration, tmp_path_factory):
    """REST, gRPC and metrics port, and the log, of a server that refuses."""
    folder, model = tmp_path_factory.mktemp("guarded"), load(bundle / "model", Model)

    async def ready(child, port):
        async with aiohttp.ClientSession() as session:
            await wait_ready(child, lambda: server_ready(session, port, "tiny"))

    with children() as started, reserved_ports(3) as (rest, grpc, page):
        given = {"calibration": str(calibration), "state": "state", "mode": "refuse", "client_header": "x-client"}
        (folder / "guard.json").write_text(json.dumps({**given, "budget": 45}))
        guard = read_guard(folder / "guard.json")
        served = Served("tiny", 1, Ref(bundle / "model"), Ref(bundle / "decision"), guard=guard)
        spec, classes = model.document.input, len(model.document.classes)
        write_settings(folder, served, spec, classes, rest=rest, grpc=grpc, metrics=page)
        command = [sys.executable, "-m", "holdfast.serving.predictor", str(folder)]
        started.append(start("guarded", command, folder))
        asyncio.run(ready(started[0], rest))
        yield rest, grpc, page, started[0].log


def post(port, row, client):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v2/models/tiny/infer",
        data=body(row),
        headers={"content-type": "application/json", **({"x-client": client} if client else {})},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.loads(response.read()), response.headers
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read()), error.headers


def test_a_client_who_clones_is_stopped_and_users_are_answered_meanwhile(server):
    statuses = []
    for stranger, user in zip(strangers(40, 11), users(40, 12), strict=True):
        statuses.append(post(server[0], stranger, "clone")[0])
        assert post(server[0], user, "user")[0] == 200
    stopped = statuses.index(422)
    assert stopped <= 30
    assert set(statuses[stopped:]) == {422}
    assert "not those of a user" in post(server[0], users(1, 0)[0], "clone")[1]["error"]
    assert '"client": "header:clone"' in server[3].read_text()


def test_a_budget_is_a_429_that_names_when_to_come_again(server):
    answers = [post(server[0], row, "eager") for row in users(46, 13)]
    assert [status for status, _, _ in answers] == [200] * 45 + [429]
    assert 29 * 86_400 < int(answers[-1][2]["retry-after"]) <= 30 * 86_400


def test_without_the_header_the_address_is_the_client(server):
    assert post(server[0], users(1, 14)[0], None)[0] == 200
    with sqlite3.connect(f"file:{next(server[3].parent.glob('state/*.db'))}?mode=ro", uri=True) as file:
        names = {name for (name,) in file.execute("SELECT name FROM clients")}
    assert "peer:127.0.0.1" in names


def test_over_grpc_it_is_the_same_client_and_the_same_refusal(server):
    import grpc
    from mlserver.grpc.converters import ModelInferRequestConverter
    from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
    from mlserver.types import InferenceRequest

    for row in strangers(40, 15):
        post(server[0], row, "both")
    row = users(1, 16)[0]
    request = ModelInferRequestConverter.from_types(InferenceRequest.model_validate_json(body(row)), model_name="tiny")
    with grpc.insecure_channel(f"127.0.0.1:{server[1]}") as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert len(stub.ModelInfer(request, timeout=10, metadata=(("x-client", "other"),)).outputs) == 2
        with pytest.raises(grpc.RpcError) as error:
            stub.ModelInfer(request, timeout=10, metadata=(("x-client", "both"),))
    assert error.value.code() == grpc.StatusCode.FAILED_PRECONDITION


def test_the_metrics_are_on_the_page_that_is_scraped(server):
    for row in strangers(40, 17):
        post(server[0], row, "counted")
    with urllib.request.urlopen(f"http://127.0.0.1:{server[2]}/metrics", timeout=10) as response:
        page = response.read().decode()
    lines = dict(line.rsplit(" ", 1) for line in page.splitlines() if line.startswith("holdfast_guard"))
    assert float(lines['holdfast_guard_flagged_total{action="refuse",detector="far"}']) >= 10
    assert float(lines["holdfast_guard_clients_alarmed"]) >= 1
    assert float(lines["holdfast_guard_seconds_count"]) >= 10
