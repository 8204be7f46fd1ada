"""`holdfast rollout status`: what a person sees of a rollout that runs, whose driver is dead, or that ended."""

import json
import os
import re
from dataclasses import replace

import pytest

from holdfast.artifacts.folder import save
from holdfast.cli.rollout import view
from holdfast.cli.rollout.table import page
from holdfast.cli.rollout.view import DriverStatus
from holdfast.errors import RolloutError
from holdfast.serving.rollout.engine import machine
from holdfast.serving.rollout.engine.analysis import ALPHA_SHARES
from holdfast.serving.rollout.engine.journal import state_folder
from holdfast.serving.rollout.reporting import status
from holdfast.serving.rollout.reporting.status import DriverProcess


def seen(told, out):
    return view.see(out, told.state)


def flushed(told):
    """Looks are written at most four times a second; a page is written at once."""
    told.everybody.paged(told.rollout, "look here")


def test_the_state_lies_where_the_step_keeps_it(told, out):
    assert told.state == state_folder(out)


def test_a_rollout_that_runs_shows_weight_counts_tests_and_what_it_waits_for(in_canary, out):
    flushed(in_canary)
    found = seen(in_canary, out)
    screen = view.text(found)
    assert found.driver_status is DriverStatus.RUNS
    assert found.status.driver.pid == os.getpid()
    for said in (
        "tiny version 2 against champion version 1",
        "20 % of live traffic",
        "of the candidate's own answers are missing",
        f"process {os.getpid()}, fence 3",
        "1234 sent, 2 failed",
        "Shadow -> Canary 20 %",
        "PAGE",
    ):
        assert said in screen
    counts = in_canary.rollout.total
    assert re.search(rf"candidate +{counts.candidate.answered} +{counts.candidate.failed} +0\n", screen)


def test_each_test_says_what_it_needs(in_canary, out):
    flushed(in_canary)
    found = {one.name: one.needed for one in seen(in_canary, out).status.tests}
    # By definition: a test with a share s of alpha ends the rollout at 1 / (alpha * s). No attack rows: no such test.
    expected = {name: 1 / (0.05 * share) for name, share in ALPHA_SHARES.items() if name != "attack"}
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_dead_driver_is_said_to_be_dead(in_canary, out):
    dead = replace(
        DriverProcess.here(3), ticks=DriverProcess.here().ticks - 1
    )  # a process that had our number before us
    in_canary.status.status = replace(in_canary.status.status, driver=dead)
    flushed(in_canary)
    found = seen(in_canary, out)
    assert found.driver_status is DriverStatus.GONE
    assert "DEAD" in view.text(found)
    assert "its lease ends after 3 s and the weight is taken back" in view.text(found)


def test_a_verdict_whose_driver_is_gone_has_ended(in_canary, out):
    gone = DriverProcess(2**22 + 1, 1, 3)  # above Linux's largest process number
    in_canary.status.status = replace(in_canary.status.status, driver=gone)
    turned = machine.abort(in_canary.rollout, "release freeze")
    in_canary.move(turned)
    in_canary.move(machine.confirm(turned))
    assert seen(in_canary, out).driver_status is DriverStatus.ENDED
    assert view.line(seen(in_canary, out)) == "Inconclusive, weight 0 %; driver ended"


def test_after_the_end_the_record_speaks(out, record):
    save(out, record)
    found = view.see(out, state_folder(out))
    screen = view.text(found)
    assert (found.driver_status, found.status) == (DriverStatus.ENDED, None)
    assert re.search(r"outcome +rolled-back\n", screen)
    assert re.search(r"serves now +version 1\n", screen)
    assert "Shadow -> RollingBack" in screen
    assert json.loads(view.as_json(found))["record"]["outcome"] == "rolled-back"


def test_without_state_and_record_there_is_nothing_to_see(out):
    with pytest.raises(RolloutError, match="expected a rollout that runs, or its record, found neither"):
        view.see(out, state_folder(out))


def test_while_models_are_fetched_it_says_so(told, out):
    starting = replace(told.status.status, driver=DriverProcess.here(), champion=None)
    status.write(told.state / status.FILE, starting)
    screen = view.text(seen(told, out))
    assert "models are fetched" in screen
    assert "champion" not in screen.splitlines()[0]


@pytest.mark.parametrize(("data", "found"), [(b"{", "expected a status"), (b" " * 262145, "at most 262144 bytes")])
def test_a_status_that_has_no_meaning_is_one_line(told, out, data, found):
    (told.state / status.FILE).write_bytes(data)
    with pytest.raises(RolloutError, match=found):
        seen(told, out)


def test_a_status_that_cannot_be_written_ends_nothing(in_canary):
    in_canary.status.file = in_canary.state / "not-there" / status.FILE
    in_canary.look()
    flushed(in_canary)
    assert not in_canary.status.file.exists()


def test_looks_are_written_a_few_times_a_second_and_transitions_at_once(in_canary):
    file = in_canary.state / status.FILE
    moments = set()
    for _ in range(50):
        in_canary.look(candidate=(0, 0))
        moments.add(file.stat().st_mtime_ns)
    assert len(moments) <= 2
    in_canary.move(machine.abort(in_canary.rollout, "enough"))
    assert status.read(file).state == "RollingBack"
    assert file.stat().st_size < 8192


def test_an_act_under_way_and_its_retries_are_seen(in_canary, out):
    in_canary.status.keeps("intent", {"before": "Canary 20 %", "after": "RollingBack", "reason": "too slow"})
    assert "Canary 20 % -> RollingBack" in view.text(seen(in_canary, out))
    for attempt in (1, 2):
        in_canary.status.keeps("retry", {"attempt": attempt, "reason": "the site does not answer"})
    assert "trying again (2): the site does not answer" in view.text(seen(in_canary, out))


def test_the_live_table_shows_the_same(in_canary, out):
    from rich.console import Console

    flushed(in_canary)
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(page(seen(in_canary, out)))
    screen = console.export_text()
    for said in ("tiny version 2 against champion version 1", "disagreement", "ends at", "░ 20 %", "look here"):
        assert said in screen


def test_a_line_per_change_and_not_per_look(in_canary, out, capsys):
    from holdfast.cli.rollout.table import _Lines

    lines = _Lines()
    for _ in range(3):
        in_canary.look(candidate=(1, 0))
        lines.show(seen(in_canary, out))
    in_canary.move(machine.abort(in_canary.rollout, "enough"))
    lines.show(seen(in_canary, out))
    told = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].strip() for line in told] == ["Canary 20 %, weight 20 %", "RollingBack, weight 0 %"]
