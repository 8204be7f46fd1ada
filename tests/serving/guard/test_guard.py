import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from holdfast.errors import WorkloadError
from holdfast.serving.guard.calibration import Calibration, Samples
from holdfast.serving.guard.command import app
from holdfast.serving.guard.guard import NEW, POOL, Guard, GuardAnswer, GuardLimits
from holdfast.serving.guard.record import KEPT, LastQueries, Record
from holdfast.serving.guard.store import SqliteStore
from tests.serving.guard.conftest import Draw

MODEL = "a" * 64
Make = Callable[..., Guard]


@pytest.fixture
def make(calibration: Calibration, tmp_path: Path) -> Make:
    def guard(*, in_memory: int = 10, **limits: object) -> Guard:
        store = SqliteStore(tmp_path / "state.db", MODEL)
        return Guard(calibration, GuardLimits(**limits), store, in_memory=in_memory)  # type: ignore[arg-type]

    return guard


def ask(guard: Guard, name: str, samples: Samples, *, now: float = 1000.0, first: int = 0) -> list[GuardAnswer]:
    """One request for each row; those that are refused have no judgement."""
    found = []
    for i in range(len(samples)):
        if guard.admit(name, 1, now) is None:
            found.append(guard.judge(name, samples.take(np.array([i])), [first + i], now))
    return found


def test_a_stranger_is_alarmed_once_and_users_meanwhile_are_not(make: Make, draw: Draw) -> None:
    guard = make(mode="flag")
    for count in range(60):
        ask(guard, "user", draw(5, 100 + count), first=5 * count)
        ask(guard, "stranger", draw(1, 900 + count, shift=2.0))
    (flagged,) = ask(guard, "stranger", draw(1, 5, shift=2.0))
    assert (flagged.flagged[0], flagged.action, flagged.alarm) == ("far", "flag", None)
    assert ask(guard, "user", draw(1, 6))[0].action == "none"


@pytest.mark.parametrize(("mode", "action"), [("observe", "observe"), ("flag", "flag"), ("degrade", "degrade")])
def test_an_alarm_is_raised_with_what_led_to_it(make: Make, draw: Draw, mode: str, action: str) -> None:
    found = ask(make(mode=mode), "stranger", draw(60, 3, shift=2.0))
    (alarm,) = [one.alarm for one in found if one.alarm is not None and one.alarm.client != POOL]
    assert (alarm.client, alarm.detector, found[-1].action) == ("stranger", "far", action)
    assert alarm.rows <= 25
    assert alarm.log_far > np.log(1e4) > alarm.log_near


def test_one_who_is_refused_gets_no_more_answers(make: Make, draw: Draw) -> None:
    guard = make(mode="refuse")
    found = ask(guard, "stranger", draw(60, 3, shift=2.0))
    assert len(found) <= 25
    assert found[-1].action == "refuse"
    refusal = guard.admit("stranger", 1, 1e9)
    assert refusal is not None
    assert (refusal.status, refusal.retry_after, refusal.detector) == (422, None, "far")


def test_a_budget_is_per_client_and_full_again_after_its_days(make: Make, draw: Draw) -> None:
    guard = make(mode="refuse", budget=10, seconds=100.0)
    assert len(ask(guard, "a", draw(15, 1))) == 10
    assert len(ask(guard, "b", draw(9, 2))) == 9
    refusal = guard.admit("a", 1, 1030.5)
    assert refusal is not None
    assert (refusal.status, refusal.retry_after) == (429, 70)
    assert guard.admit("b", 2, 1000.0) is not None, "a request is answered whole or not at all"
    assert guard.admit("a", 10, 1100.0) is None


def test_over_the_budget_an_answer_is_marked_where_it_is_not_refused(make: Make, draw: Draw) -> None:
    found = ask(make(mode="degrade", budget=10), "a", draw(12, 1))
    assert [one.flagged for one in found[9:]] == [(), ("budget",), ("budget",)]


def test_many_names_with_few_strange_queries_each_are_seen_together(make: Make, draw: Draw) -> None:
    guard, alarms = make(mode="refuse"), []
    for name in range(60):
        alarms += [one.alarm for one in ask(guard, f"sybil{name}", draw(3, name, shift=1.5)) if one.alarm is not None]
    assert [alarm.detector for alarm in alarms] == ["pooled"]
    assert ask(guard, "someone new", draw(1, 7))[0].action == "flag", "new users are marked, never locked out"


def test_new_users_together_raise_no_alarm(make: Make, draw: Draw) -> None:
    guard = make()
    for name in range(40):
        assert not [one for one in ask(guard, str(name), draw(NEW, 200 + name)) if one.alarm is not None]


def test_wealth_is_the_same_with_one_place_in_memory_as_with_many(
    calibration: Calibration, draw: Draw, tmp_path: Path
) -> None:
    wealths = []
    for places in (1, 100):
        store = SqliteStore(tmp_path / f"{places}.db", MODEL)
        guard = Guard(calibration, GuardLimits(), store, in_memory=places)
        for turn in range(12):
            for name in range(5):
                ask(guard, str(name), draw(1, 10 * turn + name, shift=0.4), first=turn)
        guard.close()
        wealths.append([store.get(str(name)) for name in range(5)])
    for one, other in zip(*wealths, strict=True):
        assert one is not None
        assert other is not None
        assert one.far.tolist() == other.far.tolist()
        assert one.near.tolist() == other.near.tolist(), "twelve queries are among those that are kept"
        assert one.last.digests.tolist() == other.last.digests.tolist() == list(range(12))


def test_an_alarm_outlives_eviction_and_a_new_server(make: Make, draw: Draw) -> None:
    first = make(mode="flag", in_memory=1)
    ask(first, "stranger", draw(60, 3, shift=2.0))
    ask(first, "user", draw(3, 4))
    assert ask(first, "stranger", draw(1, 5))[0].flagged == ("far",)
    again = make(mode="flag")
    assert again.alarmed == first.alarmed
    assert ask(again, "stranger", draw(1, 6))[0].flagged == ("far",)


def test_a_person_can_release_a_client_while_the_server_runs(make: Make, draw: Draw, tmp_path: Path) -> None:
    guard = make(mode="refuse")
    ask(guard, "stranger", draw(60, 3, shift=2.0))
    before = guard.alarmed
    assert SqliteStore(tmp_path / "state.db", MODEL).release("stranger")
    assert guard.admit("stranger", 1, 1000.0) is None
    assert guard.alarmed == before - 1


def test_the_alarm_of_all_new_clients_can_be_taken_back_too(make: Make, draw: Draw, tmp_path: Path) -> None:
    guard = make(mode="flag")
    for name in range(60):
        ask(guard, f"sybil{name}", draw(3, name, shift=1.5))
    assert ask(guard, "new", draw(1, 7))[0].flagged == ("pooled",)
    assert CliRunner().invoke(app, ["release", str(tmp_path / "state.db"), "--new-clients"]).exit_code == 0
    assert ask(guard, "newer", draw(1, 8))[0].flagged == ()


def test_the_person_on_call_lists_alarms_and_takes_one_back(make: Make, draw: Draw, tmp_path: Path) -> None:
    ask(make(mode="flag"), "header:str\x1b[31manger", draw(60, 3, shift=2.0), now=1e9)
    place = str(tmp_path / "state.db")
    listed = CliRunner().invoke(app, ["list", place])
    (line,) = [one for one in listed.output.splitlines() if "all new clients" not in one]
    assert line.startswith("2001-09-09T01:46:40Z  far")
    assert "\x1b" not in listed.output
    found = json.loads(CliRunner().invoke(app, ["list", place, "--json"]).output)
    (client,) = [one["client"] for one in found if one["client"]]
    assert CliRunner().invoke(app, ["release", place, "--client", client]).exit_code == 0
    again = CliRunner().invoke(app, ["release", place, "--client", client])
    assert "found none of that name" in str(again.exception)


@pytest.mark.parametrize("words", [["release"], ["release", "--client", "a", "--new-clients"]])
def test_a_release_names_one_client_or_the_pool(words: list[str], make: Make, tmp_path: Path) -> None:
    make()
    assert CliRunner().invoke(app, [words[0], str(tmp_path / "state.db"), *words[1:]]).exit_code == 2


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="expected the state of a guard, found no file"):
        SqliteStore(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()


def test_what_a_killed_server_decided_is_still_decided(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nimport numpy as np\n"
        "from holdfast.serving.guard.store import SqliteStore\nfrom holdfast.serving.guard.record import Record\n"
        f"store = SqliteStore(Path(sys.argv[1]), {MODEL!r})\n"
        "store.put('x', Record(np.full(19, 3.0), np.zeros(19), (7, 5), 9, 2.0, 9, 'near'), 3.0)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "state.db"
    done = subprocess.run([sys.executable, "-c", code, path], check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    found = SqliteStore(path, MODEL).get("x")
    assert found is not None
    assert (found.far[0], found.seen, found.asked, found.alarmed_by) == (3.0, (7, 5), 9, "near")


def test_the_state_of_another_model_is_refused(make: Make, tmp_path: Path) -> None:
    make()
    with pytest.raises(WorkloadError, match="name a file for each model"):
        SqliteStore(tmp_path / "state.db", "b" * 64)
    (tmp_path / "other.db").write_text("no database, but some text of more than sixteen bytes")
    with pytest.raises(WorkloadError, match="expected the state of a guard"):
        SqliteStore(tmp_path / "other.db", MODEL)


def test_too_many_names_push_out_the_oldest_but_no_alarm(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db", MODEL, most=1000)
    store.put("bad", Record(alarmed_by="far", rows=1), 0.0)
    store.put(POOL, Record(rows=1), 0.0)
    for number in range(2500):
        store.put(str(number), Record(rows=1), 1.0 + number)
    assert store.get("bad") is not None
    assert store.get(POOL) is not None
    assert store.get("0") is None
    assert store.get("2499") is not None


def test_only_the_last_queries_are_kept(calibration: Calibration, make: Make, draw: Draw, tmp_path: Path) -> None:
    guard = make()
    ask(guard, "a", draw(KEPT + 20, 1))
    guard.close()
    found = SqliteStore(tmp_path / "state.db", MODEL).get("a")
    assert found is not None
    assert found.last.digests.tolist() == list(range(20, KEPT + 20))
    assert LastQueries.of(found.client(calibration)).digests.tolist() == found.last.digests.tolist()
