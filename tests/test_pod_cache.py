"""What a pod reuses was made from the same inputs, by the same code, and kept by a pod with the cluster's key."""

import json
import shutil

import pytest
import typer
from typer.testing import CliRunner

from holdfast import pod_cache
from holdfast.artifacts.documents import Count, DriftReport, Snapshot, Verdict
from holdfast.artifacts.folder import DOCUMENT, Ref, canonical_json, load_any, save
from holdfast.options import Config, Out, Seed, SnapshotRef, step_command
from holdfast.pod_cache import PodCache
from holdfast.steps import STEPS

SECRET = "a key of the cluster, 32 characters"
SNAPSHOT = Snapshot(
    name="toy", modality="image", root="0" * 64, sources=(), label="y", classes=("a", "b"), train_rows=8, test_rows=2,
    train_per_class=(4, 4), test_per_class=(1, 1), shape=(1, 8, 8),
)  # fmt: skip


@pytest.fixture
def pod(tmp_path, monkeypatch):
    """Runs the step `drift` as a pod does; gives what it wrote and whether it computed."""
    monkeypatch.setenv(pod_cache.FOLDER, str(tmp_path / "volume"))
    monkeypatch.setenv(pod_cache.SECRET, SECRET)
    monkeypatch.setenv(pod_cache.IMAGE, "registry.example/holdfast/data:1")
    computed = []

    @step_command
    def drift(snapshot: SnapshotRef, config: Config, out: Out, seed: Seed = 0):
        computed.append(out)
        report = DriftReport(
            reference="held-out", stage_one=(), drifted=Count(k=1, n=4), reason="", verdict=Verdict.PASS,
            inputs={"snapshot": load_any(Ref.parse(snapshot)).digest},
        )  # fmt: skip
        return save(out, report, {"evidently.html": b"<p>drift</p>"})

    app = typer.Typer(add_completion=False)
    app.command()(drift)

    def run(name, *, config="{}", seed=0, rows=8, pinned=True):
        data = save(tmp_path / f"{name}-minio", SNAPSHOT.model_copy(update={"train_rows": rows}))
        at = f"@{data.digest}" if pinned else ""
        out = tmp_path / name / "artifact"
        words = [f"--snapshot={data.folder}{at}", f"--config={config}", f"--seed={seed}", f"--out={out}"]
        words += [f"--digest-file={tmp_path / name / 'digest'}", f"--page-file={tmp_path / name / 'page'}"]
        before = len(computed)
        ended = CliRunner().invoke(app, words, catch_exceptions=False)
        run.said.append(ended.output)
        assert ended.exit_code == 0, ended.output
        assert (tmp_path / name / "digest").read_text() == load_any(out).digest
        assert (tmp_path / name / "page").read_bytes() == b"<p>drift</p>"
        return len(computed) > before

    run.said = []
    return run


@pytest.fixture
def entry(tmp_path):
    """The folder of the only entry."""

    def find():
        (found,) = (path for path in (tmp_path / "volume" / "steps").iterdir() if not path.name.startswith("."))
        return found

    return find


def test_the_same_inputs_from_another_folder_are_reused_with_the_same_bytes(pod, tmp_path):
    assert pod("first")
    assert not pod("second")
    one, other = (load_any(tmp_path / name / "artifact") for name in ("first", "second"))
    assert one.digest == other.digest
    assert other.path("evidently.html").read_bytes() == b"<p>drift</p>"
    assert f"drift: reused {one.digest[:12]}" in pod.said[-1]


@pytest.mark.parametrize(
    "changed", [{"config": '{"alpha": 0.1}'}, {"seed": 1}, {"rows": 9}], ids=["section", "seed", "input"]
)
def test_other_inputs_are_computed(pod, changed):
    assert pod("first")
    assert pod("second", **changed)


@pytest.mark.parametrize("variable", [pod_cache.IMAGE, "HOLDFAST_GPUS"])
def test_another_image_or_another_device_is_computed(pod, monkeypatch, variable):
    assert pod("first")
    monkeypatch.setenv(variable, "2")
    assert pod("second")


def test_other_code_or_other_packages_are_computed(pod, monkeypatch):
    assert pod("first")
    with monkeypatch.context() as patch:
        patch.setattr(pod_cache, "code_digest", lambda own: "other code")
        assert pod("second")
    with monkeypatch.context() as patch:
        patch.setattr(pod_cache, "environment_digest", lambda python: "other packages")
        assert pod("third")
    assert not pod("fourth")


def test_a_file_that_the_section_names_counts_by_its_bytes(pod, tmp_path):
    contract = tmp_path / "contract.pbtxt"
    contract.write_text("one")
    config = json.dumps({"path": str(contract), "more": [1, {"deep": "text"}]})
    assert pod("first", config=config)
    assert not pod("second", config=config)
    contract.write_text("two")
    assert pod("third", config=config)
    contract.unlink()
    assert pod("fourth", config=config)
    assert f"drift runs: {contract} is no file" in pod.said[-1]


def test_the_users_own_code_counts_by_its_bytes(pod, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ownattack.py").write_text("a = 1\n")
    config = json.dumps({"own": ["ownattack:strongest"]})
    assert pod("first", config=config)
    assert not pod("second", config=config)
    (tmp_path / "ownattack.py").write_text("a = 2\n")
    monkeypatch.setattr("holdfast.reuse._package_digest", lambda name: name)
    assert pod("third", config=config)
    assert pod("fourth", config='{"own": ["nowhere_at_all:strongest"]}')
    assert "drift runs: no module nowhere_at_all" in pod.said[-1]


def test_what_the_users_code_imports_from_its_package_counts_too(pod, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "ownattacks"
    package.mkdir()
    for name, text in {"__init__": "", "strong": "from ownattacks.steps import size\n", "steps": "size = 1\n"}.items():
        (package / f"{name}.py").write_text(text)
    config = json.dumps({"own": ["ownattacks.strong:attack"]})
    assert pod("first", config=config)
    assert not pod("second", config=config)
    (package / "steps.py").write_text("size = 2\n")
    assert pod("third", config=config)


def test_an_input_without_a_digest_is_computed(pod):
    assert pod("first", pinned=False)
    assert pod("second", pinned=False)
    assert "drift runs: --snapshot has no digest" in pod.said[-1]


def test_a_planted_report_is_refused_even_with_digests_that_fit(pod, entry, tmp_path):
    assert pod("first")
    place = entry()
    document = load_any(place / "artifact").document
    forged = document.model_copy(update={"drifted": Count(k=0, n=4)})
    made = save(tmp_path / "forged", forged, {"evidently.html": b"<p>none</p>"})
    shutil.rmtree(place / "artifact")
    shutil.copytree(made.folder, place / "artifact")
    (place / "outputs.json").write_text(json.dumps({"digest": made.digest}))
    assert pod("second")
    assert load_any(tmp_path / "second" / "artifact").document.drifted.k == 1
    assert "reuse: refused what was kept" in pod.said[-1]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda place: (place / "artifact" / "evidently.html").write_bytes(b"<p>d0ift</p>"),
        lambda place: (place / "artifact" / "stray").write_text("?"),
        lambda place: (place / "artifact" / DOCUMENT).write_bytes(canonical_json(SNAPSHOT)),
        lambda place: (place / "seal").unlink(),
        lambda place: (place / "outputs.json").write_text("[]"),
    ],
    ids=["page", "stray", "document", "seal", "outputs"],
)
def test_an_entry_that_was_altered_is_refused_and_made_again(pod, entry, spoil):
    assert pod("first")
    spoil(entry())
    assert pod("second")
    assert "reuse: refused what was kept" in pod.said[-1]
    assert not pod("third")


def test_an_entry_that_is_altered_while_it_is_copied_is_not_handed_on(pod, entry, monkeypatch, tmp_path):
    assert pod("first")
    copy = pod_cache.copy_artifact

    def altering(source, out):
        copy(source, out)
        (out / "evidently.html").write_bytes(b"<p>d0ift</p>")

    with monkeypatch.context() as patch:
        patch.setattr(pod_cache, "copy_artifact", altering)
        assert pod("second")
    assert "its copy on the volume cannot be used" in pod.said[-1]


def test_a_pod_without_the_cluster_s_key_uses_nothing_and_keeps_nothing(pod, monkeypatch, tmp_path):
    monkeypatch.setenv(pod_cache.SECRET, "short")
    assert pod("first")
    assert pod("second")
    assert not (tmp_path / "volume").exists()
    assert "HOLDFAST_CACHE_KEY: expected at least 32 characters, found 5: drift runs" in pod.said[-1]


def test_what_a_pod_with_another_key_kept_is_refused(pod, monkeypatch):
    assert pod("first")
    monkeypatch.setenv(pod_cache.SECRET, SECRET[::-1])
    assert pod("second")


def test_a_volume_that_cannot_be_written_to_costs_only_the_reuse(pod, tmp_path):
    (tmp_path / "volume").write_text("no folder")
    assert pod("first")
    assert "drift: not kept for reuse" in pod.said[-1]


def test_only_steps_that_read_artifacts_and_nothing_else_look_into_the_cache(tmp_path):
    env = {pod_cache.FOLDER: str(tmp_path), pod_cache.SECRET: SECRET}
    found = {step.name for step in STEPS if PodCache.of(step.name, {"config": "{}"}, env)}
    assert found == {"schema", "drift", "scan", "train", "backdoor", "attack", "certify"}
    assert PodCache.of("drift", {"config": "{}"}, {}) is None
