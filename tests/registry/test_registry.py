import contextlib
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest

from holdfast import registry
from holdfast.artifacts.documents import (
    Architecture,
    Check,
    Count,
    GateDecision,
    InputSpec,
    Model,
    ThreatModel,
    Verdict,
)
from holdfast.artifacts.folder import save
from holdfast.artifacts.policies import shipped_digests
from holdfast.errors import ArtifactError, IntegrityError, RefusedError, RegistryError
from holdfast.registry.client import connected, locked

THREAT = ThreatModel(norm="linf", epsilon="1/10", unit="input units [0, 1]")


@pytest.fixture(scope="module")
def empty_mlflow(tmp_path_factory):
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    registry.set_up(f"sqlite:///{path}")
    return path


@pytest.fixture
def tracking(empty_mlflow, tmp_path):
    shutil.copyfile(empty_mlflow, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def add(tracking, tmp_path):
    """Registers a small bundle as the next version of `toy`; the weights tell versions apart."""

    def make(weights=b"one", *, verdict=Verdict.PASS, judged=None, env=None):
        package = tmp_path / f"package-{weights.decode()}"
        bundle = package / registry.PACKAGED
        shutil.rmtree(package, ignore_errors=True)
        model = save(bundle / "model", _model(), {"weights.safetensors": weights})
        decision = save(bundle / "decision", _decision(judged or model.digest, verdict))
        (bundle / "replay.npz").write_bytes(b"rows")
        (package / "MLmodel").write_text("flavors: {}\n")
        reports = tmp_path / "reports"
        reports.mkdir(exist_ok=True)
        (reports / "decision.md").write_text("# table\n")
        tags = {
            "holdfast.model_digest": model.digest,
            "holdfast.decision_digest": decision.digest,
            "holdfast.bundle_digest": registry.seal_bundle(bundle),
            "holdfast.verdict": str(verdict),
        }
        entry = registry.Entry(
            name="toy", model_digest=model.digest, tags=tags, description="# table\n", about="a toy",
            parent=registry.EnclosingRun.of(env or {}),
        )  # fmt: skip
        return registry.register(tracking, entry, package=package, reports=reports)

    return make


def _model():
    return Model(
        name="toy",
        architecture=Architecture(name="mlp", parameters=1),
        input=InputSpec(modality="tabular", shape=(1,), dtype="float32"),
        classes=("a", "b"),
        threat=THREAT,
        recipe={},
        seed=0,
        threads=1,
        device="cpu",
        best_epoch=0,
        clean=Count(k=1, n=1),
        robust=Count(k=1, n=1),
    )


def _decision(model_digest, verdict):
    return GateDecision(
        inputs={"model": model_digest},
        name="toy",
        policy=next(iter(shipped_digests())),
        policy_name="default",
        alpha=0.05,
        checks=(Check(name="x", required="x", verdict=verdict),),
        verdict=verdict,
    )


def _client(tracking):
    from mlflow import MlflowClient

    return MlflowClient(tracking, tracking)


# --- versions and aliases ---------------------------------------------------------------------------------------------


def test_registering_twice_makes_one_version(add, tracking):
    assert add() == add()
    assert [v.version for v in _client(tracking).search_model_versions("name='toy'")] == [1]


def test_a_crash_before_the_version_was_made_is_made_good(add, tracking, monkeypatch):
    from mlflow import MlflowClient

    class Died(BaseException):
        """Stands for the process ending at that call."""

    def die(*_, **__):
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", die)
        with pytest.raises(Died):
            add()
    assert add().version == 1
    assert len(_client(tracking).search_model_versions("name='toy'")) == 1


def test_a_crash_in_the_upload_leaves_no_run_that_seems_to_go_on(add, tracking, monkeypatch):
    from mlflow import MlflowClient

    class Died(BaseException):
        """Stands for the process ending at that call."""

    def die(*_, **__):
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_model_artifacts", die)
        with pytest.raises(Died):
            add()
    add()
    client = _client(tracking)
    runs = client.search_runs([client.get_experiment_by_name("toy").experiment_id])
    assert sorted(run.info.status for run in runs) == ["FINISHED", "KILLED"]


def test_a_crash_before_the_alias_is_made_good(add, tracking, monkeypatch):
    from mlflow import MlflowClient

    class Died(BaseException):
        """Stands for the process ending at that call."""

    def die(*_, **__):
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", die)
        with pytest.raises(Died):
            add()
    assert add().version == 1
    assert registry.aliases(tracking, "toy") == {"candidate": 1}


def test_promoting_moves_champion_to_previous_and_twice_changes_nothing(add, tracking):
    add(b"one")
    registry.promote(tracking, "toy", 1)
    assert registry.aliases(tracking, "toy") == {"champion": 1}
    add(b"two")
    assert registry.aliases(tracking, "toy") == {"champion": 1, "candidate": 2}
    for _ in range(2):
        registry.promote(tracking, "toy", 2)
        assert registry.aliases(tracking, "toy") == {"previous": 1, "champion": 2}


def test_the_champion_registered_again_does_not_become_a_candidate(add, tracking):
    add()
    registry.promote(tracking, "toy", 1)
    add()
    assert registry.aliases(tracking, "toy") == {"champion": 1}


@pytest.mark.parametrize("version", [1, 7])
def test_only_a_version_that_passed_is_promoted(add, tracking, version):
    add(verdict=Verdict.FAIL)
    with pytest.raises(RefusedError, match="expected the verdict pass, found (fail|no version)"):
        registry.promote(tracking, "toy", version)
    assert "champion" not in registry.aliases(tracking, "toy")


def test_an_alias_can_be_set_by_hand(add, tracking):
    add()
    registry.set_alias(tracking, "toy", "previous", 1)
    assert registry.aliases(tracking, "toy")["previous"] == 1


def test_a_model_is_found_by_its_digest(add, tracking, tmp_path):
    done = add()
    digest = registry.fetch(tracking, "toy", 1, tmp_path / "got").model.digest
    assert registry.find(tracking, "toy", digest) == done
    assert registry.find(tracking, "toy", "0" * 64) is None


# --- fetching ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, "candidate"])
def test_a_version_is_fetched_by_number_or_alias(add, tracking, tmp_path, version):
    add()
    bundle = registry.fetch(tracking, "toy", version, tmp_path / "got")
    assert (bundle.name, bundle.version, bundle.folder) == ("toy", 1, tmp_path / "got")
    assert bundle.path("replay.npz").read_bytes() == b"rows"
    assert (bundle.folder / "model" / "weights.safetensors").read_bytes() == b"one"


def test_fetching_again_replaces_the_folder(add, tracking, tmp_path):
    add()
    registry.fetch(tracking, "toy", 1, tmp_path / "got")
    (tmp_path / "got" / "replay.npz").write_bytes(b"other")
    assert registry.fetch(tracking, "toy", 1, tmp_path / "got").path("replay.npz").read_bytes() == b"rows"
    assert not list(tmp_path.glob(".got.*"))


@pytest.mark.parametrize(("name", "version"), [("toy", "champion"), ("toy", 2), ("other", "champion"), ("other", 1)])
def test_what_is_not_registered_is_none(add, tracking, tmp_path, name, version):
    add()
    assert registry.fetch(tracking, name, version, tmp_path / "got") is None
    assert not (tmp_path / "got").exists()


def test_without_a_database_nothing_is_registered_and_none_is_made(tmp_path):
    tracking = f"sqlite:///{tmp_path / 'none.db'}"
    assert registry.fetch(tracking, "toy", "champion", tmp_path / "got") is None
    assert registry.aliases(tracking, "toy") == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "file", ["model/weights.safetensors", "model/artifact.json", "decision/artifact.json", "replay.npz", "bundle.json"]
)
def test_a_byte_altered_in_the_store_is_refused(add, tracking, tmp_path, file):
    add()
    path = next((tmp_path / "artifacts").rglob(f"bundle/{file}"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=file):
        registry.fetch(tracking, "toy", 1, tmp_path / "got")
    assert not (tmp_path / "got").exists()


def test_a_file_added_to_the_store_is_refused(add, tracking, tmp_path):
    add()
    next((tmp_path / "artifacts").rglob("bundle/model")).joinpath("evil.py").write_text("")
    with pytest.raises(IntegrityError, match=r"difference at model/evil.py"):
        registry.fetch(tracking, "toy", 1, tmp_path / "got")


def test_a_model_swapped_together_with_its_manifest_is_refused(add, tracking, tmp_path):
    add(b"one")
    bundle = next((tmp_path / "artifacts").rglob("data/bundle"))
    shutil.rmtree(bundle / "model")
    save(bundle / "model", _model(), {"weights.safetensors": b"evil"})
    registry.seal_bundle(bundle)
    with pytest.raises(IntegrityError, match="bundle.json: expected sha256"):
        registry.fetch(tracking, "toy", 1, tmp_path / "got")


@pytest.mark.parametrize(
    ("file", "text"),
    [("MLmodel", "flavors: {python_function: {loader_module: evil, code: code}}\n"), ("code/evil.py", "print()\n"),
     ("conda.yaml", "dependencies: [evil]\n"), ("data/evil.py", ""), ("MLmodel", None)],
)  # fmt: skip
def test_what_mlflow_reads_around_the_bundle_is_pinned_too(add, tracking, tmp_path, file, text):
    add()
    path = next((tmp_path / "artifacts").rglob("MLmodel")).parent / file
    if text is None:
        path.unlink()
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    with pytest.raises(IntegrityError, match=r"toy version 1: expected the files .*; MLmodel, or what it names"):
        registry.fetch(tracking, "toy", 1, tmp_path / "got")
    assert not (tmp_path / "got").exists()


def test_a_link_around_the_bundle_is_refused(add, tracking, tmp_path):
    add()
    package = next((tmp_path / "artifacts").rglob("MLmodel")).parent
    (package / "code").symlink_to(tmp_path)
    with pytest.raises(IntegrityError, match="code: expected a file, found none that can be read"):
        registry.package_digest(package)
    with pytest.raises((IntegrityError, RegistryError), match=r"code: expected a file|outside the artifact directory"):
        registry.fetch(tracking, "toy", 1, tmp_path / "got")
    assert not (tmp_path / "got").exists()


def test_what_mlflow_notes_about_a_download_is_no_change(add, tracking, tmp_path):
    add()
    package = next((tmp_path / "artifacts").rglob("MLmodel")).parent
    (package / "registered_model_meta").write_text("model_name: toy\nmodel_version: '1'\n")
    assert registry.fetch(tracking, "toy", 1, tmp_path / "got")


@pytest.mark.parametrize("gone", registry.PINS)
def test_a_version_without_one_of_the_tags_that_pin_it_is_refused(add, tracking, tmp_path, gone):
    add()
    _client(tracking).delete_model_version_tag("toy", "1", gone)
    with pytest.raises(IntegrityError, match=rf"toy version 1: expected the tag {gone} .*; register the model again"):
        registry.fetch(tracking, "toy", 1, tmp_path / "got")
    assert not (tmp_path / "got").exists()


def test_a_version_that_somebody_made_by_hand_has_no_such_tags(add, tracking, tmp_path):
    add()
    package = next((tmp_path / "artifacts").rglob(registry.PACKAGED)).parents[1]
    _client(tracking).create_model_version("toy", str(package))
    with pytest.raises(IntegrityError, match="toy version 2: expected the tag"):
        registry.fetch(tracking, "toy", 2, tmp_path / "got")


def test_a_version_whose_decision_is_about_another_model_is_refused(add, tracking, tmp_path):
    add(judged="0" * 64)
    with pytest.raises(RefusedError, match="expected a decision about model"):
        registry.fetch(tracking, "toy", 1, tmp_path / "got")


def test_a_version_that_did_not_pass_is_refused(add, tracking, tmp_path):
    add(verdict=Verdict.INCONCLUSIVE)
    with pytest.raises(RefusedError, match="expected the verdict pass, found inconclusive"):
        registry.fetch(tracking, "toy", 1, tmp_path / "got")


def test_a_file_that_the_bundle_does_not_hold_is_named(add, tracking, tmp_path):
    add()
    with pytest.raises(ArtifactError, match=r"expected a file schema.pbtxt, found none"):
        registry.fetch(tracking, "toy", 1, tmp_path / "got").path("schema.pbtxt")


def test_what_was_registered_elsewhere_is_refused(tracking, tmp_path):
    client = _client(tracking)
    client.create_registered_model("toy")
    (tmp_path / "plain").mkdir()
    client.create_model_version("toy", str(tmp_path / "plain"))
    with pytest.raises(IntegrityError, match="was it made elsewhere"):
        registry.fetch(tracking, "toy", 1, tmp_path / "got")


# --- MLflow that does not answer --------------------------------------------------------------------------------------


@contextlib.contextmanager
def silent_server():
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        yield server.getsockname()[1]


@contextlib.contextmanager
def closed_port():
    """Bound, so that nobody else can take it, and not listening: connecting is refused."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_a_closed_port_is_one_line_within_seconds(tmp_path):
    with closed_port() as port:
        started = time.monotonic()
        with pytest.raises(
            RegistryError, match=r"^http://127.0.0.1:\d+: expected MLflow to answer, found: .*Connection refused"
        ) as caught:
            registry.fetch(f"http://someone:secret@127.0.0.1:{port}", "toy", "champion", tmp_path / "got")
    assert time.monotonic() - started < 15
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_server_that_hangs_is_one_line_within_the_users_own_timeout(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with silent_server() as port:
        started = time.monotonic()
        with pytest.raises(RegistryError, match="expected MLflow to answer, found: .*timed out"):
            registry.aliases(f"http://127.0.0.1:{port}", "toy")
    assert time.monotonic() - started < 10


def test_a_server_that_answers_nonsense_is_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_answer_nonsense, args=(server,), daemon=True).start()
        with pytest.raises(RegistryError, match="expected MLflow to answer"):
            registry.aliases(f"http://127.0.0.1:{server.getsockname()[1]}", "toy")


def _answer_nonsense(server):
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(
                    b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\nConnection: close\r\n\r\n<html>no\n"
                )


def test_a_file_that_is_no_database_is_one_line_at_once(tmp_path):
    (tmp_path / "mlflow.db").write_text("this is not a database, " * 100)
    with pytest.raises(RegistryError, match="expected a SQLite database, found another kind of file"):
        registry.aliases(f"sqlite:///{tmp_path / 'mlflow.db'}", "toy")


def test_a_folder_that_is_missing_is_one_line_at_once(tmp_path):
    with pytest.raises(RegistryError, match="expected the folder .*/nowhere, found none"):
        registry.set_alias(f"sqlite:///{tmp_path}/nowhere/mlflow.db", "toy", "champion", 1)


def test_the_users_own_tracking_uri_and_settings_are_left_alone(add, tracking, monkeypatch):
    import os

    import mlflow

    mlflow.set_tracking_uri("sqlite:////elsewhere.db")
    try:
        add()
        assert mlflow.get_tracking_uri() == "sqlite:////elsewhere.db"
        assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ
    finally:
        mlflow.set_tracking_uri(None)


def test_a_description_is_cut_at_a_line(tmp_path):
    assert registry.shorten("short\n") == "short\n"
    long = registry.shorten("0123456789\n" * 1000)
    assert len(long) < 5000
    assert long.endswith("0123456789\n\n… the rest is in `decision.md`")


# --- notes about versions ---------------------------------------------------------------------------------------------


def test_versions_are_listed_with_their_tags_and_aliases(add, tracking):
    before = time.time()
    add(b"one")
    add(b"two")
    registry.promote(tracking, "toy", 1)
    first, second = registry.versions(tracking, "toy")
    assert (first.number, first.aliases, second.aliases) == (1, ("champion",), ("candidate",))
    assert before - 1 <= first.decided <= second.decided <= time.time() + 1
    assert first.tags["holdfast.verdict"] == "pass"
    assert registry.versions(tracking, "nobody") == ()


def test_a_tag_is_set_once_however_often_and_only_where_there_is_a_version(add, tracking):
    add()
    assert registry.tag(tracking, "toy", 1, "holdfast.rollout.1", "x")
    assert registry.tag(tracking, "toy", 1, "holdfast.rollout.1", "x")
    assert registry.versions(tracking, "toy")[0].tags["holdfast.rollout.1"] == "x"
    assert not registry.tag(tracking, "toy", 2, "holdfast.rollout.1", "x")


def test_a_registry_that_is_gone_takes_no_tag(tmp_path):
    with pytest.raises(RegistryError, match="found no database"):
        registry.tag(f"sqlite:///{tmp_path / 'gone.db'}", "toy", 1, "a", "b")


SET_UP = "import sys; from holdfast import registry; registry.set_up(sys.argv[1])"


def test_processes_that_make_one_new_database_at_once_all_succeed(tmp_path):
    uri = f"sqlite:///{tmp_path}/new % store/mlflow.db"
    command = [sys.executable, "-c", SET_UP, uri]
    made = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=240)[1] for process in made]
    assert [process.returncode for process in made] == [0, 0, 0], said
    with connected(uri) as client:
        assert [found.name for found in client.search_experiments()] == ["Default"]
    assert [path.name for path in (tmp_path / "new % store").iterdir()] == ["mlflow.db"]


def test_a_lock_that_another_holds_for_too_long_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("holdfast.registry.client.LOCK_SECONDS", 0.2)
    said = "the store to itself within 0.2 s, found another"
    with locked(tmp_path), pytest.raises(RegistryError, match=said), locked(tmp_path):
        pytest.fail("expected one holder of the lock, found two")
    with locked(tmp_path):
        pass


@pytest.fixture
def pipeline_run(tracking):
    """The run that Kubeflow's plugin for MLflow opens for a run of the pipeline, as its pods have it."""
    with connected(tracking) as client:
        experiment = client.create_experiment("kubeflow")
        return {"MLFLOW_RUN_ID": client.create_run(experiment).info.run_id, "MLFLOW_EXPERIMENT_ID": experiment}


def test_a_registration_inside_kubeflow_s_own_run_is_a_run_below_it(add, tracking, pipeline_run):
    import mlflow

    made = add(env=pipeline_run)
    with connected(tracking) as client:
        found = client.get_run(made.run_id)
        assert found.info.experiment_id == pipeline_run["MLFLOW_EXPERIMENT_ID"]
        assert client.get_run(pipeline_run["MLFLOW_RUN_ID"]).info.status == "RUNNING"
        # MLflow's own word for a run below another one.
        mlflow.set_tracking_uri(tracking)
        mlflow.start_run(run_id=pipeline_run["MLFLOW_RUN_ID"])
        theirs = mlflow.start_run(nested=True, experiment_id=pipeline_run["MLFLOW_EXPERIMENT_ID"])
        mlflow.end_run()
        mlflow.end_run()
        theirs = client.get_run(theirs.info.run_id)
        below = {one.info.run_id for one in client.search_runs(
            [found.info.experiment_id], f"tags.`mlflow.parentRunId` = '{pipeline_run['MLFLOW_RUN_ID']}'"
        )}  # fmt: skip
    assert below == {made.run_id, theirs.info.run_id}
    assert found.data.tags["mlflow.parentRunId"] == theirs.data.tags["mlflow.parentRunId"]


@pytest.mark.parametrize(
    "wrong", [{"MLFLOW_RUN_ID": "0" * 32}, {"MLFLOW_EXPERIMENT_ID": "0"}], ids=["no such run", "another experiment"]
)
def test_a_run_that_this_server_does_not_have_is_named_and_the_model_is_registered(
    add, tracking, pipeline_run, wrong, capsys
):
    made = add(env=pipeline_run | wrong)
    with connected(tracking) as client:
        found = client.get_run(made.run_id)
        assert client.get_experiment(found.info.experiment_id).name == "toy"
    assert "mlflow.parentRunId" not in found.data.tags
    assert "(MLFLOW_RUN_ID), found none: registered without" in capsys.readouterr().err


def test_without_kubeflow_s_run_nothing_is_below_anything(add, tracking):
    with connected(tracking) as client:
        assert "mlflow.parentRunId" not in client.get_run(add().run_id).data.tags
    assert registry.EnclosingRun.of({"MLFLOW_EXPERIMENT_ID": "3"}) is None
