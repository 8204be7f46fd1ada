"""The rows of the benchmark `local`, from measurements whose ratios are known, and from real small processes."""

import os
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from benchmarks import local
from benchmarks.load import Kind, Load
from benchmarks.local import BEFORE, OURS, checkout, play, rows
from benchmarks.records import Records
from holdfast.errors import InputError

PROGRAM = """#!{python}
import sys
if "--out" not in " ".join(sys.argv): raise SystemExit("expected an --out")
if "demo" in sys.argv:
    print("demo of seed", [word for word in sys.argv if word.startswith("--seed")][0])
    raise SystemExit({code})
import time
again = __import__("pathlib").Path("was-here")
until = 0.2 if again.exists() else 0.8
again.touch()
while time.process_time() < until: pass
"""
"""In place of the Python of a checkout: a run burns 0.8 s of CPU, the second one in the same folder 0.2 s."""


def small(root: Path, name: str, code: int = 0) -> local.Checkout:
    for environment in (".venv", ".venv-data"):
        python = root / environment / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(PROGRAM.format(python=sys.executable, code=code))
        python.chmod(0o755)
    return checkout(name, root)


def record(name: str, job: str, wall: float, cpu: float, **more: object) -> dict[str, object]:
    facts = {"checkout": name, "commit": "1234567", "job": job, "wall": wall, "cpu": cpu, "code": 0, "left": []}
    return {**facts, "last_line": "", "seed": 0, "load": None, "wanted_core": 1.0, **more}


def row(found, beginning: str):
    (only,) = [row for row in found if row.target.startswith(beginning)]
    return only


def test_a_ratio_is_the_median_over_the_rounds_and_not_of_sums():
    walls = [(100, 40), (200, 100), (10, 9)]  # ratios 0.4, 0.5, 0.9 by hand
    kept = [r for before, ours in walls for r in (record(BEFORE, "demo", before, 10), record(OURS, "demo", ours, 6))]
    wall, cpu = row(rows(kept), "make demo: wall"), row(rows(kept), "make demo: CPU")
    assert (wall.measured, wall.required, wall.met) == (0.5, 0.5, True)
    assert (cpu.measured, cpu.met) == (0.6, False)


def test_a_round_in_which_one_of_the_two_failed_is_no_measurement():
    kept = [record(BEFORE, "again", 100, 100, code=2), record(OURS, "again", 1, 1)]
    ratio = row(rows(kept), "unchanged second breast-cancer run: seconds, share")
    assert (ratio.measured, ratio.met) == ("not run yet", False)


def test_what_was_not_measured_is_not_met():
    assert {row.met for row in rows([])} == {False}


def test_a_demo_under_load_counts_when_it_ends_as_told_and_leaves_nothing():
    kept = [record(OURS, "demo", 9, 9, seed=seed, load="a") for seed in range(3)]
    kept += [record(OURS, "demo", 9, 9, seed=3, load="a", code=2, last_line="act 2 was rolled back")]
    kept += [record(OURS, "demo", 9, 9, seed=4, load="a", left=["mlserver"])]
    found = row(rows(kept), "make demo under load (a)")
    assert (found.measured, found.required, found.met) == (3, 5, False)
    assert "seed 3: exit code 2: act 2 was rolled back" in found.note
    assert "left: mlserver" in found.note


def test_jobs_run_in_a_new_folder_with_the_checkouts_own_python(tmp_path):
    records = Records.of("local", "code", root=tmp_path)
    play(records, small(tmp_path / "a", OURS), "run")
    run, again = records.read()
    # Oracle: the program itself burns 0.8 and 0.2 s by its own clock; starting Python costs some on top.
    assert (run["job"], again["job"]) == ("run", "again")
    assert 0.8 <= run["cpu"] < 1.6
    assert 0.2 <= again["cpu"] < 0.8
    assert not (tmp_path / "was-here").exists()


def test_the_demo_gets_its_seed_and_its_load(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "keep_failed", lambda folder, name: (tmp_path / name).mkdir())
    records = Records.of("local", "code", root=tmp_path)
    play(records, small(tmp_path / "a", OURS, code=2), "demo", seeds=(3,), load=Kind.A)
    (found,) = records.read()
    assert (found["code"], found["load"], found["last_line"]) == (2, "a", "demo of seed --seed=3")
    assert (tmp_path / "this-demo-a-3").is_dir(), "what failed is kept for a person to read"


def test_several_seeds_share_one_load_and_each_is_kept_once(tmp_path, monkeypatch):
    loads: list[int] = []
    ours = small(tmp_path / "a", OURS)
    monkeypatch.setattr(local, "checkout", lambda name, root: ours)
    monkeypatch.setattr(local, "loaded", lambda kind, seed: (loads.append(seed), nullcontext(Load()))[1])
    records = Records.of("local", "code", root=tmp_path)
    for _ in range(2):
        local.under_load(records, Kind.B, 5, 2)
    assert [record["last_line"] for record in records.read()] == [f"demo of seed --seed={n}" for n in range(5)]
    assert loads == [0, 2, 4]


def test_both_checkouts_take_turns(tmp_path, monkeypatch):
    turns: list[tuple[str, str]] = []
    monkeypatch.setattr(local, "checkout", lambda name, root: local.Checkout(name, root))
    monkeypatch.setattr(local, "play", lambda records, one, part: turns.append((part, one.name)))
    local.compare(Records.of("local", "code", root=tmp_path), tmp_path, 2, ["demo"])
    assert turns == [("demo", BEFORE), ("demo", OURS)] * 2


def test_a_folder_without_environments_is_named(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path}{os.sep}.venv.*expected a checkout with its environments"):
        checkout(BEFORE, tmp_path)
