"""A sample of a table is the rows that the whole table has there, and no other rows are kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from holdfast.artifacts.documents import Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.modality import frames
from holdfast.tables import read_table, sample_table, table_blocks

Take = Callable[..., Artifact[Snapshot]]
Write = Callable[..., Path]


@pytest.fixture(params=["tabular", "text"])
def taken(take: Take, write: Write, request: pytest.FixtureRequest) -> Artifact[Snapshot]:
    rng = np.random.default_rng(0)
    lines = [f"{rng.normal():.4f} 😀{'!' * (i % 7)},{i}.5,{'ab'[i % 2]}" for i in range(900)]
    more: dict[str, Any] = {"text": "words"} if request.param == "text" else {"drop": ("words",)}
    return take(write("\n".join(["words,n,label", *lines])), request.param, **more)


def test_a_sample_has_the_rows_of_the_whole_table(taken: Artifact[Snapshot], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_table(taken, "train")
    chosen = np.sort(np.random.default_rng(3).choice(len(whole), 50, replace=False))
    monkeypatch.setattr(frames, "BLOCK_CELLS", 100)
    pd.testing.assert_frame_equal(sample_table(taken, "train", 50, np.random.default_rng(3)), whole.iloc[chosen])
    pd.testing.assert_frame_equal(sample_table(taken, "train", 720, np.random.default_rng(3)), whole)


def test_the_blocks_of_a_table_are_its_rows(taken: Artifact[Snapshot], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_table(taken, "train")
    monkeypatch.setattr(frames, "BLOCK_CELLS", 100)
    blocks = list(table_blocks(taken, "train"))
    assert len(blocks) > 10
    pd.testing.assert_frame_equal(pd.concat(blocks, ignore_index=True), whole)
