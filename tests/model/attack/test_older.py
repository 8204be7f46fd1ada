"""Poisoned new rows, the held-out ones too: the challenger is better on them, and does not win."""

import io
from pathlib import Path

import numpy as np
import pytest

from holdfast.artifacts.documents import Baseline, ChampionComparison, Model, Snapshot, Verdict
from holdfast.artifacts.folder import Artifact, Ref, load, save, seal, write_artifact
from holdfast.model.attack.older import OLDER, older_rows
from holdfast_gates.champion import not_inferior
from holdfast_gates.policy import Margin
from tests.model.attack.conftest import trained
from tests.model.attack.test_attack_step import champion

ASKED = {"request": "9" * 64, "older_than": "2026-03-08T00:00:00Z"}


def poisoned(snapshot: Artifact[Snapshot], out: Path) -> Artifact[Snapshot]:
    """Threes are called eights, in the training rows and in the held-out ones."""
    files = {}
    for name in ("train.npz", "test.npz"):
        with np.load(snapshot.open(name)) as held:
            x, y = held["x"], held["y"].copy()
        y[y == 3] = 8
        buffer = io.BytesIO()
        np.savez_compressed(buffer, x=x, y=y)
        files[name] = buffer.getvalue()
    return save(out, snapshot.document.model_copy(update={"files": {}}), files)


def with_older(model: Artifact[Model], out: Path, rows: tuple[np.ndarray, np.ndarray] | None) -> Artifact[Baseline]:
    """A baseline of a run that a monitor asked for, with these rows of the champion's delivery."""
    made = champion(model, out / "plain")
    with write_artifact(out / "asked") as work:
        (made.folder / "model").rename(work / "model")
        if rows is not None:
            np.savez(work / OLDER, x=rows[0], y=rows[1])
        seal(work, load(made, Baseline).document.model_copy(update={**ASKED, "files": {}}))
    return load(Ref(out / "asked"), Baseline)


@pytest.fixture(scope="module")
def held_out(digits: Artifact[Snapshot]) -> tuple[np.ndarray, np.ndarray]:
    with np.load(digits.open("test.npz")) as held:
        return held["x"].astype(np.float32) / 16, held["y"].astype(np.int64)


def test_a_challenger_of_a_poisoned_delivery_is_worse_on_rows_from_before(
    plain: Artifact[Model], digits: Artifact[Snapshot], held_out: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    data = poisoned(digits, tmp_path / "delivery")
    challenger = trained(tmp_path / "model", data, recipe="standard", epochs=10)
    fresh = held_out[0], np.where(held_out[1] == 3, 8, held_out[1])
    compared = ChampionComparison(model_version=1)

    new, _ = older_rows(challenger, compared, with_older(plain, tmp_path / "new", fresh))
    assert new is not None
    assert new.pairs is not None
    assert new.pairs.only_candidate > new.pairs.only_champion + 10

    old, files = older_rows(challenger, compared, with_older(plain, tmp_path / "old", held_out))
    assert old is not None
    assert old.pairs is not None
    assert (old.request, old.older_than) == (ASKED["request"], ASKED["older_than"])
    assert not_inferior(new.pairs, Margin(margin=0.02), 0.05).verdict is Verdict.PASS
    assert not_inferior(old.pairs, Margin(margin=0.02), 0.05).verdict is Verdict.FAIL
    assert set(files) == {OLDER}


def test_an_honest_challenger_is_as_good_on_them(
    plain: Artifact[Model], robust: Artifact[Model], held_out: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    found, _ = older_rows(robust, ChampionComparison(model_version=1), with_older(plain, tmp_path, held_out))
    assert found is not None
    assert found.pairs is not None
    assert found.pairs.n == len(held_out[1])
    assert not_inferior(found.pairs, Margin(margin=0.05), 0.05).verdict is Verdict.PASS


def test_without_such_rows_it_is_not_compared_and_the_reason_is_named(
    plain: Artifact[Model], robust: Artifact[Model], tmp_path: Path
) -> None:
    found, files = older_rows(robust, ChampionComparison(model_version=1), with_older(plain, tmp_path, None))
    assert found is not None
    assert (found.pairs, found.not_compared, files) == (None, "no rows of earlier deliveries", {})
