"""The MLflow server's pod is started as it is written: with its login, on SQLite and on a real PostgreSQL."""

import base64
import json
import os
import subprocess
import urllib.error
import urllib.request

import pytest

from tests.manifests.kubelet import Cluster, Pod, local, skip_without_an_engine
from tests.manifests.postgres import postgres_at
from tests.manifests.rendered import of_kind, pods_of
from tests.manifests.test_pods_run import answered, free_port, running

AUTH = """[mlflow]
default_permission = READ
database_uri = {auth}
admin_username = holdfast
admin_password = a-long-password
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


@pytest.fixture(scope="module", autouse=True)
def image():
    skip_without_an_engine()
    name = local("registry.invalid/holdfast/mlflow:0.1.0")
    if subprocess.run(
        [os.environ["HOLDFAST_ENGINE"], "image", "inspect", name], capture_output=True, check=False
    ).returncode:
        pytest.skip(f"needs the image {name} (manifests/components/mlflow/Containerfile)")


@pytest.fixture
def postgres(tmp_path_factory):
    """The address of an empty database of a real PostgreSQL."""
    with postgres_at(tmp_path_factory.mktemp("postgres")) as address:
        yield address


@pytest.fixture
def database(request):
    if request.param == "PostgreSQL":
        return (request.getfixturevalue("postgres"),) * 2
    return "sqlite:////var/lib/mlflow/mlflow.db", "sqlite:////var/lib/mlflow/auth.db"


@pytest.mark.parametrize("database", ["SQLite", "PostgreSQL"], indirect=True)
def test_it_comes_up_asks_for_a_login_and_answers_to_its_own_names_only(tmp_path, database):
    for path in (tmp_path, *tmp_path.parents[:3]):
        path.chmod(path.stat().st_mode | 0o055)
    store, auth = database
    settings = {key: body["data"] for key, body in of_kind("dev", "ConfigMap").items()}
    secret = {"backend-store-uri": store, "session-key": "s" * 32, "auth.ini": AUTH.format(auth=auth)}
    cluster = Cluster(tmp_path, "models", settings, {"holdfast-mlflow-server": secret})
    (spec,) = pods_of(of_kind("dev", "Deployment")["holdfast-mlflow"])
    port, container = free_port(), spec["containers"][0]
    args = [f"--port={port}" if word == "--port=5000" else word for word in container["args"]]
    made = Pod(cluster, spec, {**container, "args": args}, network="host")
    url = f"http://127.0.0.1:{port}"
    with running(made) as (process, log):
        answered(f"{url}/health", seconds=180)
        assert status(url, "/health", host=f"10.1.2.3:{port}") == 200  # a probe
        assert status(url, EXPERIMENTS) == 401
        assert status(url, EXPERIMENTS, login="holdfast:a-long-password", host="holdfast-mlflow.models:5000") == 200
        assert status(url, EXPERIMENTS, login="holdfast:a-long-password", host="evil.example") == 403
        made_one = json.dumps({"name": "one"}).encode()
        assert status(url, "/api/2.0/mlflow/experiments/create", made_one, login="holdfast:a-long-password") == 200
    assert "Traceback" not in log.read_text()
    assert process.returncode is not None


EXPERIMENTS = "/api/2.0/mlflow/experiments/search?max_results=1"


def status(url, path, body=None, *, login=None, host="holdfast-mlflow:5000"):
    headers = {"Content-Type": "application/json", "Host": host}
    if login:
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}{path}", body, headers), timeout=30) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code
