"""A rollout on a cluster as one screen of text."""

import time

from holdfast.cli.rollout.view import words
from holdfast.kubernetes.objects import Json, moment
from holdfast.rendering.text import Row, columns
from holdfast.serving.rollout.cluster.remote import Remote
from holdfast.serving.rollout.cluster.store import Wall
from holdfast.serving.rollout.engine.machine import State


def text(seen: Remote, wall: Wall = time.time) -> str:
    """One screen."""
    step = f", step {seen.step + 1}" if seen.state == State.CANARY else ""
    rows: list[Row] = [("state", f"{seen.state}{step}"), ("because", seen.reason or "-"), *seen.weights]
    rows[2:2] = words(seen.cause)
    if seen.subject:
        digest, _, decision = seen.subject.partition("@")
        rows.append(("candidate", f"{digest[:12]}… under decision {decision[:12]}"))
    rows.append(("driver", _driver(seen, wall())))
    for arm, (failed, answered) in (("candidate", seen.candidate), ("champion", seen.champion)):
        rows.append((f"{arm} failed", f"{failed} of {answered}"))
    told = [f"{line.get('t', '')}  {line.get('kind', '')}  {_line(line)}".rstrip() for line in seen.history[-12:]]
    return "\n".join([seen.name, "", *columns(rows), *(["", *told] if told else [])])


def _driver(seen: Remote, now: float) -> str:
    if seen.ended:
        return f"ended (fence {seen.fence})"
    at = moment(seen.expires_at) if seen.expires_at else None
    if at is None:
        return f"fence {seen.fence}; nothing to renew"
    left = at - now
    if left < 0:
        return f"GONE (fence {seen.fence}): should have renewed {-left:.0f} s ago; the watchdog takes the candidate out"
    return f"fence {seen.fence}; renews, {left:.0f} s before the watchdog would act"


def _line(line: Json) -> str:
    moved = f"{line['before']} -> {line['after']}: " if "before" in line and "after" in line else ""
    return f"{moved}{line.get('reason', '')}"
