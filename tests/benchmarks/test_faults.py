"""`make faults FAULTS="--only F7 --run 31"` and the table in docs/reliability.md."""

import shutil

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import reliability
from benchmarks.fault_rows import renewed, withdrawn_rows
from benchmarks.faults import main
from benchmarks.table import at_most
from tests.faults.live.withdrawn import Withdrawn
from tests.faults.simulator import virtual
from tests.faults.simulator.checks import Wanted
from tests.faults.simulator.plans import PLAN, Run, played
from tests.faults.simulator.world import World

APP = typer.Typer()
APP.command()(main)


def faults(*words: str):
    return CliRunner().invoke(APP, words)


def test_one_run_is_repeated_by_its_number():
    found = faults("--only", "F10", "--run", "1", "--quick")
    assert found.exit_code == 0, found.output
    assert found.stdout == f"{virtual.one('F10', 1, quick=True)}\n"
    assert found.stdout.startswith("Ended(state='RolledBack', violations=()")


def test_a_run_in_which_a_promise_did_not_hold_fails_the_command(monkeypatch):
    # A healthy candidate is promoted; a run that must not end so is one with a violation.
    wrong = Run("never", 0, lambda seed: played(World(PLAN, seed), Wanted(ends=frozenset())))
    monkeypatch.setattr(virtual, "runs", lambda name, quick: [wrong])
    found = faults("--only", "F10", "--run", "0")
    assert found.exit_code == 1
    assert "ended in Promoted" in found.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "F99"], "found F99"),
        (["--only", "F99", "--run", "1"], "found F99"),
        (["--only", "F10", "--run", "400"], "F10 has the runs 0 to 49, found 400"),
        (["--run", "3"], "expected --only with --run"),
    ],
)
def test_a_fault_or_a_run_that_does_not_exist_is_named(words, message):
    found = faults(*words)
    assert found.exit_code == 2
    assert message in " ".join(found.output.replace("│", " ").split())


def test_the_rows_of_withdrawn_proof_are_renewed_in_their_place():
    old = reliability.kept("faults")
    again = withdrawn_rows([Withdrawn("the gate's key revoked", (True, True), (False, False, True))])
    assert [(row.measured, row.required, row.met) for row in again] == [(2, 2, True), (1, 0, False)]
    found = renewed(old, again)
    assert [row.target for row in found] == [row.target for row in old]
    assert [row for row in found if row in again] == again


def test_only_the_table_between_its_markers_is_replaced(tmp_path):
    page = tmp_path / "reliability.md"
    shutil.copy(reliability.PAGE, page)
    reliability.write_page([at_most("violations", 3, 0, "by hand")], page)
    before, after = reliability.PAGE.read_text(), page.read_text()
    begin, end = reliability.BEGIN, reliability.END
    assert after.partition(begin)[2].partition(end)[0].splitlines()[3:] == ["| violations | 0 | 3 | **no** | by hand |"]
    assert (after.partition(begin)[0], after.partition(end)[2]) == (
        before.partition(begin)[0],
        before.partition(end)[2],
    )
