"""Bundles come from MLflow to a store under the digest of their model, and pods serve them from there."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from holdfast import registry
from holdfast.artifacts.documents import Model
from holdfast.artifacts.folder import load
from holdfast.errors import ArtifactError, IntegrityError, RefusedError
from holdfast.processes import reserved_ports
from holdfast.serving.predictor.settings import ModelParameters
from holdfast.serving.store import put, read


@pytest.fixture(scope="module")
def stored(tracking, tmp_path_factory):
    return put(tracking, "tiny", 2, tmp_path_factory.mktemp("store"))


def test_the_address_is_the_digest_and_the_bytes_are_those(stored):
    assert stored.folder.parts[-2:] == ("sha256", stored.digest)
    assert load(stored.folder / "bundle" / "model", Model).digest == stored.digest
    assert read(stored.folder) == stored


def test_other_users_can_read_what_is_stored(stored):
    modes = {path.stat().st_mode & 0o055 for path in stored.folder.rglob("*") if path.is_dir()}
    assert modes == {0o055}
    assert stored.folder.stat().st_mode & 0o055 == 0o055
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in stored.folder.rglob("*"))


def test_twice_changes_nothing_and_leaves_nothing(stored, tracking):
    before = {path: path.stat().st_mtime_ns for path in stored.folder.parent.rglob("*")}
    assert put(tracking, "tiny", 2, stored.folder.parents[1]) == stored
    after = {path: path.stat().st_mtime_ns for path in stored.folder.parent.rglob("*")}
    assert after == before


def test_bytes_altered_in_the_store_are_found_by_the_next_copy_and_by_the_server(tracking, tmp_path):
    made = put(tracking, "tiny", 2, tmp_path)
    with (made.folder / "bundle" / "model" / "weights.safetensors").open("r+b") as file:
        file.write(b"\0" * 8)
    with pytest.raises(IntegrityError, match="altered"):
        put(tracking, "tiny", 2, tmp_path)
    with pytest.raises(IntegrityError, match="altered"):
        read(made.folder)


def test_another_model_at_the_address_is_found(tracking, tmp_path):
    one, two = (put(tracking, "tiny", version, tmp_path) for version in (2, 3))
    shutil.rmtree(one.folder)
    shutil.copytree(two.folder, one.folder)
    with pytest.raises(IntegrityError, match=f"expected the model of this digest, found {two.digest}"):
        put(tracking, "tiny", 2, tmp_path)


def test_a_version_that_is_not_there_or_folders_of_something_else_are_refused(tracking, tmp_path):
    with pytest.raises(RefusedError, match="tiny 9: expected a registered version, found none"):
        put(tracking, "tiny", 9, tmp_path)
    assert list((tmp_path / "sha256").iterdir()) == []
    with pytest.raises(ArtifactError):
        read(tmp_path)
    (tmp_path / "model-settings.json").write_text("{}")
    with pytest.raises(IntegrityError, match="expected the name and version of a model"):
        read(tmp_path)


def test_the_settings_lead_to_the_bundle_from_wherever_the_folder_is_mounted(stored, tmp_path):
    mounted = shutil.copytree(stored.folder, tmp_path / "models")
    extra = json.loads((mounted / "model-settings.json").read_text())["parameters"]["extra"]
    found = ModelParameters.parse(extra, mounted)
    assert (found.model.folder, found.model.digest) == (mounted / "bundle" / "model", stored.digest)


def holdfast(*words):
    command = [sys.executable, "-m", "holdfast", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_first_version_becomes_champion_once(own_tracking, tmp_path):
    words = ("bundle", f"--store={tmp_path / 'store'}", f"--tracking={own_tracking}", "--first")
    refused = holdfast(*words, "models:/tiny/2")
    assert (refused.returncode, registry.aliases(own_tracking, "tiny")["champion"]) == (3, 1)
    assert "expected no champion for --first, found version 1; use a rollout" in refused.stderr
    done = holdfast(*words, "models:/tiny@champion", "--json")
    assert json.loads(done.stdout)["version"] == 1


def answered(url, body=None):
    deadline = time.monotonic() + 90
    asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    while True:
        try:
            with urllib.request.urlopen(asked, timeout=5) as reply:
                return reply.read()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def test_serve_answers_under_its_name_with_metrics_whatever_an_operator_sets(stored, tmp_path):
    environment = {"MLSERVER_MODEL_IMPLEMENTATION": "mlserver_mlflow.MLflowRuntime", "MLSERVER_HTTP_PORT": "1"}
    with reserved_ports(3) as ports:
        names = ("--http-port", "--grpc-port", "--metrics-port")
        options = [f"{name}={port}" for name, port in zip(names, ports, strict=True)]
        command = [sys.executable, "-m", "holdfast", "serve", stored.folder, "--name=classifier", *options]
        with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **environment}) as server:
            try:
                answered(f"http://127.0.0.1:{ports[0]}/v2/models/classifier/ready")
                tensor = {"name": "input", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": [0.5] * 64}
                url = f"http://127.0.0.1:{ports[0]}/v2/models/classifier/infer"
                reply = json.loads(answered(url, json.dumps({"inputs": [tensor]}).encode()))
                metrics = answered(f"http://127.0.0.1:{ports[2]}/metrics").decode()
            finally:
                server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0
    assert (reply["model_name"], reply["model_version"]) == ("classifier", "2")
    assert [output["name"] for output in reply["outputs"]] == ["label", "probabilities"]
    assert 'model_infer_request_success_total{model="classifier",version="None"} 1.0' in metrics


def test_serve_ends_at_once_where_a_byte_was_altered(stored, tmp_path):
    made = shutil.copytree(stored.folder, tmp_path / "models")
    (made / "bundle" / "model" / "more").write_text("more")
    ended = holdfast("serve", made)
    assert (ended.returncode, "more" in ended.stderr, "Traceback" in ended.stderr) == (1, True, False)
