"""TFDV through Beam gives what TFDV in this process gives; pipelines of clusters are built and not run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apache_beam.io.localfilesystem import LocalFileSystem

from holdfast.artifacts.documents import Snapshot
from holdfast.artifacts.folder import Artifact, Ref
from holdfast.data.schema.beam import _places, pipeline, pipeline_options
from holdfast.data.schema.contract import GrowingStatistics, parse_statistics
from holdfast.data.schema.step import schema
from holdfast.errors import InputError
from holdfast.modality import frames
from holdfast.tables import table_blocks
from holdfast.workload.schema import SchemaConfig

Take = Callable[..., Artifact[Snapshot]]
Write = Callable[..., Path]
OPTIONS: dict[Any, dict[str, Any]] = {
    "flink": {"flink_master": "flink:8081", "parallelism": 4, "environment_type": "LOOPBACK"},
    "spark": {"spark_master_url": "spark://spark:7077", "environment_type": "LOOPBACK"},
    "dataflow": {
        "project": "my-project",
        "region": "europe-west1",
        "temp_location": "gs://bucket/temp",
        "experiments": ("a", "b"),
        "dry_run": "true",  # Beam would look for the bucket
    },
}


@pytest.fixture
def taken(take: Take, write: Write) -> Artifact[Snapshot]:
    rng = np.random.default_rng(0)
    rows = zip(
        rng.normal(size=500).round(3), rng.choice(["red", "green"], 500), rng.choice(["a", "b"], 500), strict=True
    )
    return take(write("n,colour,label\n" + "".join(f"{n},{colour},{label}\n" for n, colour, label in rows)))


def told(statistics: Any) -> dict[str, Any]:
    """Per feature: how many values, mean and range of numbers, how often each text occurs."""
    found = {}
    for feature in statistics.features:
        numbers, texts = feature.num_stats, feature.string_stats
        count = (numbers or texts).common_stats.num_non_missing + texts.common_stats.num_non_missing
        ranks = sorted((bucket.label, bucket.sample_count) for bucket in texts.rank_histogram.buckets)
        found[feature.path.step[0]] = (count, round(numbers.mean, 9), numbers.min, numbers.max, ranks)
    return found


def by_blocks(taken: Artifact[Snapshot], split: Any) -> Any:
    growing = GrowingStatistics()
    assert list(growing.passing(table_blocks(taken, split)))
    return growing.statistics(split)


def test_several_blocks_have_the_statistics_of_one(taken: Artifact[Snapshot], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = by_blocks(taken, "train").datasets[0]
    monkeypatch.setattr(frames, "BLOCK_CELLS", 300)
    assert len(list(table_blocks(taken, "train"))) == 4
    assert told(by_blocks(taken, "train").datasets[0]) == told(whole)


def test_beam_on_several_processes_finds_what_this_process_finds(taken: Artifact[Snapshot], tmp_path: Path) -> None:
    ref = Ref(taken.folder, taken.digest)
    own = schema(ref, tmp_path / "own", config=SchemaConfig(), baseline=None)
    options = {"direct_num_workers": 2, "direct_running_mode": "multi_processing"}
    config = SchemaConfig.model_validate({"runner": "direct", "runner_options": options})
    beams = schema(ref, tmp_path / "beams", config=config, baseline=None)
    one, two = (parse_statistics(made.open("statistics.pb").read()).datasets for made in (own, beams))
    assert [dataset.name for dataset in two] == ["train", "test"]
    assert [told(dataset) for dataset in one] == [told(dataset) for dataset in two]
    assert beams.document.verdict == own.document.verdict
    assert not list(tmp_path.glob(".beams*"))


@pytest.mark.parametrize("runner", OPTIONS)
def test_the_pipeline_of_a_cluster_is_built_with_the_options_of_the_workload(runner: Any) -> None:
    options = SchemaConfig.model_validate({"runner": runner, "runner_options": OPTIONS[runner]}).runner_options
    found = pipeline_options(runner, options).get_all_options()
    for key, value in OPTIONS[runner].items():
        assert found[key] == (list(value) if isinstance(value, tuple) else value)
    built = pipeline(runner, options, [("rows.parquet", "statistics.pb")])
    assert (
        type(built.runner).__name__
        == {"flink": "FlinkRunner", "spark": "SparkRunner", "dataflow": "DataflowRunner"}[runner]
    )
    assert {"file 0", "rows 0", "blocks 0", "statistics 0", "write 0"} <= {
        part.full_label for part in built.transforms_stack[0].parts
    }


@pytest.mark.parametrize(
    ("runner", "options", "message"),
    [
        (
            "flink",
            {"flink_mastre": "x"},
            "expected options of Apache Beam, found 'flink_mastre'",
        ),
        (
            "dataflow",
            {key: value for key, value in OPTIONS["dataflow"].items() if key != "project"},
            "schema.runner: dataflow: expected options that suffice, found .*project",
        ),
        ("flink", {"parallelism": "many"}, "schema.runner_options: expected values that Beam takes, found .*many"),
    ],
)
def test_options_that_beam_does_not_take_are_refused_in_one_line(runner: Any, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        pipeline(runner, options, [("rows.parquet", "statistics.pb")])
    assert "\n" not in str(refusal.value)


class Bucket(LocalFileSystem):
    """A file system of other machines: `bucket://` is a folder here."""

    @classmethod
    def scheme(cls) -> str:
        return "bucket"

    def join(self, base: str, *parts: str) -> str:
        return "/".join((base.rstrip("/"), *parts))

    def create(self, path: str, *args: Any, **more: Any) -> Any:
        local = Path(path.removeprefix("bucket:/"))
        local.parent.mkdir(parents=True, exist_ok=True)
        return super().create(str(local), *args, **more)


def test_rows_are_copied_to_where_workers_reach_them(tmp_path: Path) -> None:
    parquet = tmp_path / "train.parquet"
    parquet.write_bytes(b"rows" * 1000)
    options = {"temp_location": f"bucket:/{tmp_path}/far"}
    source, result = _places(options, parquet, tmp_path / "one", "train")
    assert (source, result) == (
        f"{options['temp_location']}/one/train.parquet",
        f"{options['temp_location']}/one/train.pb",
    )
    assert (tmp_path / "far" / "one" / "train.parquet").read_bytes() == parquet.read_bytes()
    near = _places({}, parquet, tmp_path / "one", "train")
    assert near == (str(parquet), str(tmp_path / "one" / "train.pb"))


def test_options_without_a_runner_and_a_runner_without_a_table_are_refused(
    take: Take, save_npz: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="runner_options: expected a runner with them .schema.runner., found none"):
        SchemaConfig.model_validate({"runner_options": {"parallelism": 2}})
    images = take(
        save_npz(x=np.tile(np.arange(0, 256, 4, dtype=np.uint8).reshape(1, 8, 8), (8, 1, 1)), y=np.arange(8) % 2),
        "image",
    )
    with pytest.raises(InputError, match="schema.runner: expected a workload of tables with it, found image"):
        schema(Ref(images.folder), tmp_path / "out", config=SchemaConfig(runner="direct"), baseline=None)
