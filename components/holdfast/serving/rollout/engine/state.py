"""A rollout as JSON values and back: what a journal or a cluster object keeps between two drivers."""

import hashlib
import json
from collections.abc import Mapping
from functools import cache

from pydantic import TypeAdapter, ValidationError

from holdfast.errors import RolloutError
from holdfast.serving.rollout.engine.machine import TERMINAL, Plan, Rollout

FORMAT = 1


def dump(rollout: Rollout) -> dict[str, object]:
    """The rollout as JSON values; the plan is named by its digest."""
    values: dict[str, object] = _adapter().dump_python(rollout, mode="json", exclude={"plan"})
    return {"format": FORMAT, "plan": plan_digest(rollout.plan), **values}


def restore(values: Mapping[str, object], plan: Plan) -> Rollout:
    """The rollout that `dump` wrote.

    One that has ended is read under any plan: a driver that comes after a promotion may find the champion, and with it
    what the plan was held to, changed by that very promotion.

    Raises:
        RolloutError: the values are of another plan or format, or have no meaning.
    """
    same = values.get("plan") == plan_digest(plan) or values.get("state") in TERMINAL
    if values.get("format") != FORMAT or not same:
        raise RolloutError(
            f"rollout state: expected format {FORMAT} of plan {plan_digest(plan)[:12]}…, found format "
            f"{values.get('format')!r} of plan {str(values.get('plan'))[:12]}…; it belongs to another rollout"
        )
    fields = {key: value for key, value in values.items() if key not in ("format", "plan")}
    try:
        return _adapter().validate_python({**fields, "plan": plan})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RolloutError(f"rollout state: {place}: {first['msg']}") from None


def plan_digest(plan: Plan) -> str:
    """SHA-256 of the plan as canonical JSON."""
    values = TypeAdapter(Plan).dump_python(plan, mode="json")
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@cache
def _adapter() -> TypeAdapter[Rollout]:
    return TypeAdapter(Rollout)
