import json
from pathlib import Path

import pytest

from holdfast.artifacts.documents import Decision, Review
from holdfast.artifacts.folder import Artifact, save
from holdfast.errors import ArtifactError, WorkloadError
from holdfast.workload.schema import Workload
from holdfast_pipelines.cluster import ClaimMount, ClusterSettings, SecretVariables
from holdfast_pipelines.parameters import (
    Settings,
    file_pins,
    for_cluster,
    located,
    moves,
    own_code,
    read,
    rollout_parameters,
    with_data,
)


def workload(review: str | None) -> Workload:
    return Workload(
        name="digits",
        modality="image",
        data={"source": "sklearn:digits", "review": review},
        network={"architecture": "cnn"},
        threat={"norm": "linf", "epsilon": "1/10"},
    )


def reviewed(folder: Path, *rows: str) -> Artifact[Review]:
    entries = tuple(Decision(row=row * 64, decision="drop", by="ann", why="patch") for row in rows)
    return save(folder, Review(name="digits", entries=entries))


def test_the_newest_review_of_a_folder_is_pinned_for_the_run(tmp_path: Path) -> None:
    reviewed(tmp_path / "reviews" / "0009", "a")
    newest = reviewed(tmp_path / "reviews" / "0010", "a", "b")
    found = located(workload("reviews"), tmp_path)
    assert found.data.review == f"{tmp_path / 'reviews' / '0010'}@{newest.digest}"
    assert file_pins(found) == {str(tmp_path / "reviews" / "0010"): "review"}


def test_a_review_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="reviews: expected a review or a folder of reviews, found none"):
        located(workload("reviews"), tmp_path)


def test_a_cluster_needs_every_path_on_a_volume_of_the_step_that_reads_it() -> None:
    mounted = ClusterSettings(volumes=(ClaimMount(claim="deliveries", path="/data", steps=("snapshot",)),))
    with pytest.raises(WorkloadError, match=r"data\.review: expected .* found 'reviews'; its volumes: /data"):
        for_cluster(workload("reviews"), mounted)
    with pytest.raises(WorkloadError, match=r"--volume CLAIM:PATH\), found '/data/reviews'; its volumes: none"):
        for_cluster(workload("/data/reviews"), ClusterSettings())
    with pytest.raises(WorkloadError, match="found '/database/reviews'"):
        for_cluster(workload("/database/reviews"), mounted)
    assert for_cluster(workload("/data/reviews"), mounted).data.review == "/data/reviews"


def test_a_cluster_needs_the_digest_of_a_download() -> None:
    plan = workload(None)
    with pytest.raises(WorkloadError, match=r"https://data\.example/x\.npz: expected data\.sha256"):
        for_cluster(with_data(plan, "https://data.example/x.npz"), ClusterSettings())


def test_a_rollout_is_given_the_keys_that_were_asked_so_that_the_policy_fills_the_others(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(
        "name: digits\nmodality: image\ndata: {source: 'sklearn:digits'}\nnetwork: {architecture: cnn}\n"
        "threat: {norm: linf, epsilon: 1/10}\nrollout: {steps: [10, 100]}\n"
    )
    for overrides, expected in (({}, {}), ({"rollout.rate": 50.0}, {"rate": 50.0}), ({"scan.apply": False}, {})):
        parameters = rollout_parameters(read(file, overrides), 3, Settings("sqlite:///x.db"))
        assert json.loads(str(parameters["config"])) == {"steps": [10, 100], **expected}


def test_the_code_of_an_own_attack_is_part_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("my_attacks.py", "mine/walk.py"):
        (tmp_path / name).write_text("")
    plain = Workload.model_validate(
        {"name": "w", "modality": "image", "data": {"source": "sklearn:digits"}, "network": {"architecture": "cnn"},
         "threat": {"norm": "linf", "epsilon": "1/10"}}
    )  # fmt: skip
    own = plain.model_copy(update={"attack": plain.attack.model_copy(update={"own": ("mine.walk:go",)})})
    assert own_code(plain, tmp_path) == []
    assert {path.name for path in own_code(own, tmp_path)} == {"my_attacks.py", "walk.py"}


MOVING = {"name": "%Y-%m-%d/x.npz", "marker": "%Y-%m-%d/_SUCCESS"}


def moving(source: str) -> Workload:
    values = workload(None).model_dump(mode="json", by_alias=True)
    return Workload.model_validate(values | {"data": {"source": source, "newest": MOVING}})


def test_a_source_that_moves_is_a_place_and_no_file_that_is_pinned(tmp_path: Path) -> None:
    found = located(moving("in"), tmp_path)
    assert (found.data.source, file_pins(found), moves(found)) == (str(tmp_path / "in"), {}, True)
    assert not moves(workload(None))
    assert with_data(found, "sklearn:digits").data.newest is None


def test_a_cluster_needs_the_folder_of_deliveries_on_a_volume() -> None:
    mounted = ClusterSettings(volumes=(ClaimMount(claim="deliveries", path="/data", steps=("snapshot",)),))
    assert for_cluster(moving("/data/digits"), mounted).data.source == "/data/digits"
    with pytest.raises(WorkloadError, match=r"data\.source: expected .* found '/elsewhere'; its volumes: /data"):
        for_cluster(moving("/elsewhere"), mounted)


def test_a_cluster_needs_the_credentials_of_a_store() -> None:
    plan = moving("s3://deliveries/digits")
    with pytest.raises(WorkloadError, match="expected the secret with its credentials .* found neither"):
        for_cluster(plan, ClusterSettings())
    secret = SecretVariables(secret="s3", variables={"access": "AWS_ACCESS_KEY_ID"})
    for settings in (ClusterSettings(source_secrets=(secret,)), ClusterSettings(source_identity=True)):
        assert for_cluster(plan, settings) == plan


def test_a_source_with_credentials_is_refused_without_showing_them() -> None:
    with pytest.raises(WorkloadError, match="--data: expected .*, found 'postgresql://…@db/x'") as raised:
        with_data(workload(None), "postgresql://ann:hunter2@db/x")
    assert "hunter2" not in str(raised.value)
    with pytest.raises(WorkloadError, match=r"data\.source s3://b/x\.npz: expected data\.newest or data\.sha256"):
        for_cluster(with_data(workload(None), "s3://b/x.npz"), ClusterSettings(source_identity=True))


def test_a_workload_with_credentials_is_refused_without_showing_them(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text("name: w\nmodality: image\ndata: {source: 'postgresql://ann:hunter2@db/x'}\n")
    with pytest.raises(WorkloadError, match="belongs in an environment variable") as raised:
        read(path)
    assert "hunter2" not in str(raised.value)


def test_a_cluster_needs_the_secret_with_the_url_of_a_database() -> None:
    values = workload(None).model_dump(mode="json", by_alias=True)
    section = {"source": "env:ORDERS", "query": "SELECT * FROM orders", "key": ["id"]}
    plan = Workload.model_validate(values | {"data": section})
    assert moves(plan)
    other = SecretVariables(secret="db", variables={"url": "OTHER"})
    with pytest.raises(WorkloadError, match=r"env:ORDERS: expected the secret with the database's URL"):
        for_cluster(plan, ClusterSettings(source_secrets=(other,)))
    named = SecretVariables(secret="db", variables={"url": "ORDERS"})
    assert for_cluster(plan, ClusterSettings(source_secrets=(named,))) == plan
