"""The bounded log of what was answered."""

import asyncio
import json
import sys

import aiohttp
import numpy as np
import pyarrow.parquet as pq
import pytest

from holdfast.artifacts.documents import Feature, InputSpec, Model
from holdfast.artifacts.folder import Ref, load
from holdfast.errors import WorkloadError
from holdfast.processes import children, reserved_ports, start, wait_ready
from holdfast.serving.predictor.core import Answer
from holdfast.serving.predictor.samples import HOUR, MODEL, SERVED, SampleLog, SampleLogSettings
from holdfast.serving.predictor.settings import Served, write_settings
from holdfast.serving.rollout.local.servers import server_ready

TABLE = InputSpec(
    modality="tabular",
    shape=(2,),
    dtype="float32",
    features=tuple(Feature(name=name, lower=0, upper=1, scale=1) for name in ("age", "income")),
)
NOON = 12 * HOUR


def log(folder, **settings):
    return SampleLog(SampleLogSettings.parse({"folder": str(folder), **settings}), "a" * 64, TABLE)


def record(to, request, first, rows=1, *, now=NOON, flagged=False):
    """Rows whose first value counts up from `first`."""
    x = np.stack([np.arange(first, first + rows), np.zeros(rows)], axis=1).astype(np.float32)
    probabilities = np.tile(np.float32([0.25, 0.75]), (rows, 1))
    to.record(request, x, Answer(np.ones(rows, np.int64), probabilities), flagged=flagged, now=now)


def read(folder):
    (path,) = folder.glob("*.parquet")
    return pq.read_table(path)


def test_what_was_answered_can_be_read_again(tmp_path):
    to = log(tmp_path / "log")
    record(to, "r1", first=5, rows=2)
    to.flush()
    table = read(tmp_path / "log")
    assert table.to_pylist()[1] == {
        "request": "r1", "row": 1, "at": NOON, "label": 1, "probabilities": [0.25, 0.75],
        "flagged": False, "sampled": True, "x.age": 6.0, "x.income": 0.0,
    }  # fmt: skip
    assert table.schema.metadata[MODEL] == b"a" * 64
    assert table.schema.metadata[SERVED] == b"2"


def test_each_row_of_an_hour_is_in_the_sample_with_the_same_chance(tmp_path):
    kept = np.zeros(100)
    for trial in range(150):
        to = log(tmp_path / str(trial), rows=20, flush_seconds=HOUR)
        for i in range(10):
            record(to, f"r{i}", first=10 * i, rows=10)
        to.flush()
        kept[np.array(read(tmp_path / str(trial))["x.age"]).astype(int)] += 1
    # Binomial(150, 0.2): mean 30, standard deviation 4.9; the largest of 100 lies beyond 5 of them once in 20,000.
    assert 30 - 5 * 4.9 < kept.min() <= kept.max() < 30 + 5 * 4.9
    assert kept.sum() == 150 * 20


def test_flagged_rows_are_kept_besides_the_sample_up_to_their_own_bound(tmp_path):
    to = log(tmp_path, rows=5, flagged=10, flush_seconds=HOUR)
    record(to, "good", first=0, rows=500)
    record(to, "bad", first=500, rows=50, flagged=True)
    to.flush()
    table = read(tmp_path).to_pandas()
    assert table["sampled"].sum() == 5
    assert 10 <= table["flagged"].sum() <= 15
    assert len(table) <= 15


def test_redacted_columns_are_never_written(tmp_path):
    to = log(tmp_path, redact=["income", "request", "probabilities"])
    record(to, "secret-id", first=1)
    to.flush()
    assert set(read(tmp_path).column_names) == {"row", "at", "label", "flagged", "sampled", "x.age"}
    assert b"secret-id" not in next(tmp_path.glob("*.parquet")).read_bytes()


def test_a_new_hour_is_a_new_file_and_old_ones_go(tmp_path):
    to = log(tmp_path, hours=3)
    for hour in range(6):
        record(to, "r", first=0, now=NOON + hour * HOUR)
    to.flush()
    assert [path.name[:13] for path in sorted(tmp_path.iterdir())] == [
        "1970-01-01T15",
        "1970-01-01T16",
        "1970-01-01T17",
    ]


def test_the_size_of_all_files_is_bounded(tmp_path):
    to = log(tmp_path, megabytes=1, rows=10_000)
    noise = np.random.default_rng(0)
    for hour in range(8):
        x = noise.random((10_000, 2), dtype=np.float32)
        answer = Answer(np.zeros(10_000, np.int64), noise.random((10_000, 2), dtype=np.float32))
        to.record("r", x, answer, now=NOON + hour * HOUR)
    to.flush()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 10**6


def test_a_disk_that_cannot_be_written_does_not_stop_answers(tmp_path, capsys):
    (tmp_path / "log").write_text("a file where the folder should be")
    to = log(tmp_path / "log", flush_seconds=1)
    for second in range(5):
        record(to, "r", first=0, now=NOON + 2 * second)
    assert capsys.readouterr().err.count("not written") == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("here", "expected an object with folder"),
        ({"rows": 5}, "expected an object with folder"),
        ({"folder": "x", "row": 5}, "expected one of folder, redact, rows"),
        ({"folder": "x", "rows": 0}, r"rows: expected a whole number in \[1, 1000000\], found 0"),
        ({"folder": "x", "rows": True}, "rows: expected a whole number"),
        ({"folder": "x", "redact": "age"}, "expected a list of column names"),
    ],
)
def test_settings_without_a_meaning_are_refused(given, expected):
    with pytest.raises(WorkloadError, match=expected):
        SampleLogSettings.parse(given)


async def ask(child, port, body, headers):
    async with aiohttp.ClientSession() as session:
        await wait_ready(child, lambda: server_ready(session, port, "tiny"))
        url = f"http://127.0.0.1:{port}/v2/models/tiny/infer"
        for one in headers:
            async with session.post(url, json=body, headers=one) as response:
                assert response.status == 200


def test_a_server_keeps_what_clients_asked_and_not_what_was_mirrored(bundle, tmp_path):
    with children() as started, reserved_ports(2) as (rest, grpc):
        served = Served("tiny", 1, Ref(bundle / "model"), Ref(bundle / "decision"))
        document = load(served.model, Model).document
        write_settings(tmp_path, served, document.input, 10, rest=rest, grpc=grpc)
        settings = json.loads((tmp_path / "model-settings.json").read_text())
        settings["parameters"]["extra"]["sample_log"] = {"folder": str(tmp_path / "log"), "flush_seconds": 3600}
        (tmp_path / "model-settings.json").write_text(json.dumps(settings))
        started.append(start("server", [sys.executable, "-m", "holdfast.serving.predictor", str(tmp_path)], tmp_path))
        tensor = {"name": "input", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [0.5] * 64}
        asyncio.run(ask(started[0], rest, {"id": "mine", "inputs": [tensor]}, [{}, {"x-rollout": "mirror"}]))
    rows = read(tmp_path / "log").to_pylist()
    assert [row["request"] for row in rows] == ["mine"]
    assert rows[0]["x"] == [0.5] * 64
