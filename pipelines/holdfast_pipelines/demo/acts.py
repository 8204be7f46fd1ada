"""What happened in each act, from the artifacts of its run: the summary, and whether it ended as expected."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.cause import Cause
from holdfast.artifacts.documents import (
    Count,
    DriftReport,
    GateDecision,
    Model,
    RolloutRecord,
    ScanReport,
    SchemaReport,
)
from holdfast.errors import ArtifactError, RunError
from holdfast.steps import writer
from holdfast_pipelines.demo import deliveries
from holdfast_pipelines.demo.copied import Copied
from holdfast_pipelines.demo.signed import ACCEPTED, served, signatures, tamper
from holdfast_pipelines.folder import place_of, read_artifact

Summary = dict[str, Any]
MOST_ANSWERS = 60
"""Of the guard's own promise about noise."""


@dataclass(frozen=True)
class DemoRuns:
    """The runs of the demo, and what is known of its deliveries."""

    runs: Path
    delivery: Path
    """The clean delivery: its held-out rows are those of every act."""
    planted: NDArray[np.int64]
    champion: int | None
    """Which version MLflow calls champion at the end."""
    trust: Path
    """The trust policy over the keys that signed every run."""
    copied: Copied | str
    """What became of the copy of the champion; a text: why there is none."""

    def run(self, name: str) -> Path:
        """The run folder `clean`, `poisoned`, `unscanned`, `broken` or `regressed`."""
        return self.runs / name


def summarize(played: DemoRuns) -> list[Summary]:
    """One entry per act."""
    return [clean(played), poisoned(played), broken(played), regressed(played), copied(played.copied)]


def clean(played: DemoRuns) -> Summary:
    """Act 1: a clean delivery is promoted."""
    record = _record(played.run("clean"))
    return {
        "signatures": signatures(played.run("clean"), played.trust),
        "act": "clean",
        "outcome": _outcome(record),
        "model_version": record["model_version"],
        "steps": _verdicts(record),
        "requests": _requests(played.run("clean")),
        **_ending(played.run("clean"), record),
    }


def poisoned(played: DemoRuns) -> Summary:
    """Act 2: the poison is found, and the model without it is promoted."""
    record = _record(played.run("poisoned"))
    quarantined = set(read_artifact(played.run("poisoned"), ScanReport).document.quarantined)
    found = len(quarantined & set(played.planted.tolist()))
    models = {"unscanned": played.run("unscanned"), "scanned": played.run("poisoned")}
    return {
        "act": "poisoned",
        "outcome": _outcome(record),
        "model_version": record["model_version"],
        "planted": len(played.planted),
        "planted_quarantined": found,
        "clean_quarantined": len(quarantined) - found,
        "attack_success": {name: _share(attack_success(run, played.delivery)) for name, run in models.items()},
        "clean_accuracy": {name: _share(clean_accuracy(run)) for name, run in models.items()},
        "unscanned_verdict": _verdicts(_record(played.run("unscanned"))).get(writer(GateDecision).name, "missing"),
        "steps": _verdicts(record),
        "requests": _requests(played.run("poisoned")),
        **_ending(played.run("poisoned"), record),
    }


def broken(played: DemoRuns) -> Summary:
    """Act 3: the delivery is stopped before training."""
    record = _record(played.run("broken"))
    anomalies = read_artifact(played.run("broken"), SchemaReport).document.anomalies
    return {
        "act": "broken",
        "outcome": _outcome(record),
        "stopped_at": record["stopped_at"],
        "anomalies": [f"{anomaly.column}: {anomaly.detail}" for anomaly in anomalies],
        "drift_report": str(place_of(played.run("broken"), DriftReport) / "evidently.html"),
        "steps": _verdicts(record),
    }


def regressed(played: DemoRuns) -> Summary:
    """Act 4: the candidate turns bad in production and is taken back."""
    record = _record(played.run("regressed"))
    rollout = read_artifact(played.run("regressed"), RolloutRecord)
    return {
        "act": "regressed",
        "outcome": _outcome(record),
        **_ending(played.run("regressed"), record),
        "seconds_to_rollback": _seconds_to_rollback(rollout.document),
        "steps": _verdicts(record),
        "requests": _requests(played.run("regressed")),
        "champion_after": played.champion,
        "tampered": _tampered(played),
        "incident": str(rollout.folder / "incident.html"),
    }


def copied(found: Copied | str) -> Summary:
    """Act 5: a client who copies the champion is stopped, and the others notice nothing."""
    if isinstance(found, str):
        return {"act": "copied", "outcome": "not_played", "reason": found, "cause": Cause.NONE.value}
    outcome = "stopped" if found.refused else "not_stopped"
    requests = {"sent": found.asked, "failed": found.harmed}
    return {"act": "copied", "outcome": outcome, **found.as_dict(), "requests": requests}


def _tampered(played: DemoRuns) -> dict[str, str]:
    """What a server does with the act's model after its weights were set to zero and every digest computed again."""
    version = played.runs.parent / "tampered"
    if not version.exists():
        tamper(played.run("regressed"), version)
    return {"without_signatures": served(version, None), "with_signatures": served(version, played.trust)}


def attack_success(run: Path, delivery: Path) -> Count:
    """Held-out rows of other classes that the trigger sends to the target, with the model of `run`."""
    from holdfast.model.inputs import encode
    from holdfast.model.networks import load_network, logits

    model = read_artifact(run, Model)
    with np.load(delivery, allow_pickle=False) as arrays:
        x, y = arrays["x_test"], arrays["y_test"]
    marked = deliveries.with_trigger(x[y != deliveries.TARGET])
    inputs = encode(marked[:, None], model.document.input)
    answers = logits(load_network(model, "cpu"), inputs, device="cpu").argmax(axis=1)
    return Count(k=int((answers == deliveries.TARGET).sum()), n=len(answers))


def clean_accuracy(run: Path) -> Count:
    """Held-out rows that the model of `run` gets right."""
    return read_artifact(run, Model).document.clean


def check(acts: list[Summary], page: Path) -> None:
    """Raises RunError when an act did not end as expected; its last line names it, the reason, and what to do."""
    first, second, third, fourth, fifth = acts
    expected = (
        (1, f"ended {_how(first)} instead of promoted", first["outcome"] == "promoted"),
        (2, f"ended {_how(second)} instead of promoted", second["outcome"] == "promoted"),
        (2, "the scan found less than 80 % of the planted rows", _found(second) >= 0.8),
        (2, "the attack works on less than 70 % without the scan", second["attack_success"]["unscanned"] >= 0.7),
        (2, "the attack works on more than 15 % with the scan", second["attack_success"]["scanned"] <= 0.15),
        (2, "the gate did not refuse the unscanned model", second["unscanned_verdict"] == "fail"),
        (3, f"ended {_how(third)} instead of stopped before training", _stopped(third)),
        (4, f"ended {_how(fourth)} instead of rolled back", fourth["outcome"] == "rolled_back"),
        *((n, "client requests failed", acts[n - 1]["requests"]["failed"] == 0) for n in (1, 2, 4)),
        (1, "signatures are missing", first["signatures"]["verified"] == first["signatures"]["needed"] > 0),
        (4, "a server took a tampered model", fourth["tampered"]["with_signatures"] != ACCEPTED),
        (4, "the champion moved", fourth["champion_after"] == second["model_version"]),
        *((5, what, holds) for what, holds in _of_the_copy(fifth)),
    )
    wrong = [(number, what) for number, what, holds in expected if not holds]
    if wrong:
        number, what = wrong[0]
        more = f" ({len(wrong) - 1} more: {'; '.join(f'act {n}: {w}' for n, w in wrong[1:])})" if wrong[1:] else ""
        raise RunError(f"act {number} of {len(acts)} {what}{more}. {_advice(acts[number - 1])} The report: {page}")


def _of_the_copy(act: Summary) -> Iterator[tuple[str, bool]]:
    played = act["outcome"] == "stopped"
    yield f"ended {_how(act)} instead of stopped", played
    if played:
        yield f"the client got more than {MOST_ANSWERS} answers", act["answered"] <= MOST_ANSWERS
        yield "the copy is as good as one made without a guard", act["copy"]["k"] < act["unhindered"]["k"]
        yield "users were alarmed", act["alarmed"]["k"] == 0
        yield "users were not answered as by the model alone", act["requests"]["failed"] == 0


def _how(act: Summary) -> str:
    """The outcome with its reason."""
    outcome = str(act["outcome"]).replace("_", "-")
    return f"{outcome} ({act['reason']}; cause: {Cause(act['cause']).words})" if act.get("reason") else outcome


def _advice(act: Summary) -> str:
    """What a person does whose demo did not end as expected."""
    cause = Cause(act.get("cause", Cause.NONE))
    if cause.passes:
        tries = ", although the rollout was tried twice" if act.get("retried") else ""
        return f"Nothing is broken: {cause.words}{tries}. Run `make demo` again when the machine is less busy."
    if cause is Cause.NONE:
        return "Read the report, then run `make demo` again."
    return f"Read {act['record']}/incident.md, then run `make demo` again."


def _found(act: Summary) -> float:
    return float(act["planted_quarantined"] / act["planted"])


def _stopped(act: Summary) -> bool:
    return act["outcome"] == "stopped" and writer(Model).name not in act["steps"]


def _ending(run: Path, record: Summary) -> Summary:
    """Why the act's rollout ended as it did, and why earlier tries of it were no verdict."""
    try:
        rollout = read_artifact(run, RolloutRecord)
    except ArtifactError:
        return {"retried": record["retried"]}
    found = rollout.document
    return {
        "reason": found.reason,
        "cause": found.cause.value,
        "retried": record["retried"],
        "record": str(rollout.folder),
    }


def _seconds_to_rollback(record: RolloutRecord) -> float:
    """From the beginning of the fault to the moment that no live traffic reached the candidate; 0 without one."""
    measured = [move.evidence.get("seconds_to_rollback") for move in record.transitions]
    return round(next((seconds for seconds in measured if seconds is not None), 0.0), 2)


def _record(run: Path) -> Summary:
    try:
        found: Summary = json.loads((run / "run.json").read_text())
    except FileNotFoundError:
        raise RunError(f"{run}: expected the record of a run, found none; see aside.log in the demo's folder") from None
    if found["outcome"] == "failed":
        raise RunError(f"{run}: the run failed at {found['stopped_at'] or 'its start'}; see {run / 'logs'}")
    return found


def _verdicts(record: Summary) -> dict[str, str]:
    return {row["step"]: row["verdict"] for row in record["steps"]}


def _outcome(record: Summary) -> str:
    return str(record["outcome"]).replace("-", "_")


def _requests(run: Path) -> dict[str, int]:
    try:
        record = read_artifact(run, RolloutRecord).document
    except ArtifactError:
        return {"sent": 0, "failed": 0}
    return {"sent": record.requests_sent, "failed": record.requests_failed}


def _share(count: Count) -> float:
    return round(count.share, 4)
