"""The guard in Seldon's wrapper, in a real process."""

import asyncio
import json
import urllib.error
import urllib.request

import pytest

from holdfast.processes import children, reserved_ports, start, wait_ready
from tests.serving.predictor import test_guarding, test_seldon
from tests.serving.predictor.test_guarding import strangers, users

pytestmark = test_seldon.pytestmark
predictor, calibration = test_guarding.predictor, test_guarding.calibration


@pytest.fixture(scope="module")
def seldon(bundle, calibration, tmp_path_factory):
    """REST port and log of a face that refuses."""
    folder = tmp_path_factory.mktemp("seldon-guarded")
    guard = {"calibration": str(calibration), "state": str(folder / "state"), "mode": "refuse", "budget": 45}
    with children() as started, reserved_ports(2) as (rest, grpc):
        command = test_seldon.face(bundle, rest, grpc, guard=json.dumps({**guard, "client_header": "x-client"}))
        started.append(start("seldon", command, folder))
        asyncio.run(wait_ready(started[0], lambda: test_seldon.face_ready(rest)))
        yield rest, started[0].log


def post(port, row, client):
    data = json.dumps({"data": {"ndarray": row[None].astype(float).tolist()}}).encode()
    headers = {"content-type": "application/json", "x-client": client}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/v1.0/predictions", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


def test_a_client_who_clones_is_stopped_and_a_budget_names_when_to_come_again(seldon):
    port, log = seldon
    statuses = [post(port, row, "clone")[0] for row in strangers(40, 21)]
    assert 422 in statuses[:31]
    assert set(statuses[statuses.index(422) :]) == {422}
    answers = [post(port, row, "eager") for row in users(46, 22)]
    assert [status for status, _ in answers] == [200] * 45 + [429]
    assert int(answers[-1][1]["retry-after"]) > 29 * 86_400
    assert '"client": "header:clone"' in log.read_text()


def test_a_calibration_that_is_none_ends_the_process_before_it_listens(bundle, tmp_path):
    guard = json.dumps({"calibration": str(bundle / "model"), "state": str(tmp_path)})
    done = test_seldon.subprocess.run(
        test_seldon.face(bundle, 1, 1, guard=guard), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode != 0
    assert "expected a guard-calibration, found a model" in done.stderr
