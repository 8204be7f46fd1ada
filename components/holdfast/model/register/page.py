"""What the MLflow pages of a registered model say; pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast import measured as measuring
from holdfast.artifacts.contract import columns_for_clients
from holdfast.artifacts.documents import AnswerTimes, Document, GateDecision, Model, Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.measured import BATCH, SINGLE, measured
from holdfast.registry import MAX_DESCRIPTION, Point
from holdfast.wording import listed, markdown_text

MOST_COLUMNS = 30
"""Columns of a row that the page lists."""
_COLUMNS = "A row of the latest version has these columns, by name, in any order:"
CURVE = "curve"
"""Metrics of the training curve start with this word."""


def tags(model: Artifact[Model], decision: Artifact[GateDecision], snapshot: Artifact[Snapshot]) -> dict[str, str]:
    """What ties a version to its evidence; `fetch` holds the bytes against the digests."""
    threat = model.document.threat
    return {
        "holdfast.workload": model.document.name,
        "holdfast.modality": model.document.input.modality,
        "holdfast.threat": f"{threat.norm} {threat.epsilon} {threat.unit}",
        "holdfast.verdict": str(decision.document.verdict),
        "holdfast.model_digest": model.digest,
        "holdfast.snapshot_digest": snapshot.digest,
        "holdfast.decision_digest": decision.digest,
        "holdfast.policy": decision.document.policy_name,
        "holdfast.policy_digest": decision.document.policy,
        **waived(decision.document),
        **operating_point(model.document),
    }


def waived(decision: GateDecision) -> dict[str, str]:
    """Which checks were waived by whom until when, as one tag, of a decision that rests on waivers."""
    shown = ", ".join(f"{one.check} by {markdown_text(one.owner)} until {one.until}" for one in decision.waivers)
    return {"holdfast.waivers": shown[:MAX_DESCRIPTION]} if shown else {}


def operating_point(model: Model) -> dict[str, str]:
    """The operating point as one tag (JSON), of a model that has one."""
    point = model.operating_point
    return {} if point is None else {"holdfast.operating_point": point.published}


def params(model: Model) -> dict[str, str]:
    """How the network was built and trained."""
    arguments = {f"network.{name}": str(value) for name, value in model.architecture.arguments.items()}
    return {
        "network": model.architecture.name,
        "network.parameters": str(model.architecture.parameters),
        **arguments,
        "input": f"{model.input.dtype}[N, {', '.join(map(str, model.input.shape))}]",
        "classes": str(len(model.classes)),
        "threat.norm": model.threat.norm,
        "threat.epsilon": str(model.threat.epsilon),
        "seed": str(model.seed),
        "threads": str(model.threads),
        "device": model.device,
        "best_epoch": str(model.best_epoch),
        **_decided(model),
        **{f"recipe.{name}": str(value) for name, value in model.recipe.items()},
    }


def _decided(model: Model) -> dict[str, str]:
    point = model.operating_point
    if point is None:
        return {}
    return {
        "decision.positive": point.positive,
        "decision.threshold": f"{point.threshold:g}",
        "decision.rule": point.rule,
    }


def metrics(evidence: Sequence[Document], curve: Sequence[Mapping[str, object]]) -> list[Point]:
    """What the steps measured, as rates, and the training curve by epoch."""
    found = [Point(name, value) for document in evidence for name, value in measured(document).items()]
    for epoch, row in enumerate(curve):
        step = row.get("epoch", epoch)
        number = step if isinstance(step, int) else epoch
        found += [Point(f"{CURVE}/{key}", value, number) for key, value in _numbers(row).items() if key != "epoch"]
    return found


def latency(found: AnswerTimes | None) -> list[Point]:
    """How long the network takes to answer, in milliseconds, where that was measured."""
    return [Point(name, value) for name, value in measuring.answer_times(found).items()]


def answer_times(metrics: Mapping[str, float]) -> AnswerTimes | None:
    """What `latency` wrote; None where nothing was measured."""
    batch = next((name for name in metrics if name.startswith(BATCH)), None)
    if batch is None or SINGLE not in metrics:
        return None
    rows = int(batch.removeprefix(BATCH))
    return AnswerTimes(single_row_ms=metrics[SINGLE], batch_ms=metrics[batch], batch_rows=rows)


def about(model: Model) -> str:
    """The registered model's page."""
    threat = model.threat
    classes = ", ".join(map(markdown_text, model.classes[:20])) + (", …" if len(model.classes) > 20 else "")
    return f"""**{model.name}**: {model.input.modality} model with {len(model.classes)} classes ({classes}),
kept robust by Holdfast against changes of at most {threat.epsilon} ({threat.norm}, {threat.unit}).

Every version here passed the gate. Its page holds the gate's table; its tags hold the digests of model, data,
policy and decision.

| alias | means |
|---|---|
| `champion` | serves |
| `candidate` | passed the gate, waits for its rollout |
| `previous` | served before, for going back |

{_rows(model)}
```python
holdfast.load_model("models:/{model.name}@champion").predict(rows)
```

`mlflow.pyfunc.load_model` gives the same answers, and trusts the store: it imports what the version's `MLmodel` names.
"""


def _rows(model: Model) -> str:
    """The columns of a row, as a table; empty where there are none."""
    columns = columns_for_clients(model.input)
    if not columns:
        return ""
    more = f"\n\nand {len(columns) - MOST_COLUMNS} more: `contract.json`" if len(columns) > MOST_COLUMNS else ""
    lines = [f"| {markdown_text(one['name'])} | {one['kind']} | {_values(one)} |" for one in columns[:MOST_COLUMNS]]
    return "\n".join([_COLUMNS, "", "| column | kind | values |", "|---|---|---|", *lines]) + more + "\n"


def _values(column: Mapping[str, Any]) -> str:
    return markdown_text(listed(column.get("categories", ())))


def description(decision: GateDecision, table: str) -> str:
    """The version's page: one line that lists show, then the gate's table."""
    rates = [
        f"{check.name.replace('_', ' ')} {check.measured:.3f}"
        for check in decision.checks
        if check.count is not None and check.measured is not None and check.lower is not None
    ]
    names = [f"waived: {', '.join(one.check for one in decision.waivers)}"] if decision.waivers else []
    return f"{', '.join([f'verdict {decision.verdict}', *names, *rates])}\n\n{table}"


def _numbers(row: Mapping[str, object]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            numbers[key] = float(value)
        elif isinstance(value, Mapping) and isinstance(value.get("n"), int) and value["n"]:
            numbers[key] = float(value["k"]) / float(value["n"])
    return numbers
