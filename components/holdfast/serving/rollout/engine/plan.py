"""From what a user asked for (`RolloutPlan`) to what the state machine carries out."""

from holdfast.artifacts.documents import Count
from holdfast.serving.rollout.engine.analysis import MIN_PAIRS, Limits
from holdfast.serving.rollout.engine.machine import Plan, PlanStep
from holdfast.workload.schema import RolloutPlan, RolloutStep


def plan_of(config: RolloutPlan, *, classes: int, attacks: Count | None, probation: bool, probed: bool = True) -> Plan:
    """The plan of one rollout.

    Args:
        config: what the user asked for.
        classes: of the model.
        attacks: how many adversarial rows fooled the candidate when the gate's evidence was made; None: there are none.
        probation: there is no champion.
        probed: whether probes send one row to both arms; without them, no step waits for them.
    """
    limits = Limits(
        alpha=config.alpha,
        margin=config.margin,
        max_errors=config.max_errors,
        max_disagreement=config.max_disagreement,
        max_drift=config.max_drift,
        classes=classes,
        max_attack=attacks.k / attacks.n + config.max_attack_excess if attacks and attacks.n else None,
        slow_ms=config.latency_limit_ms,
        floor_ms=config.latency_floor_ms,
        min_pairs=MIN_PAIRS if probed else 0,
        hold_without_champion=config.hold_without_champion,
        probation=probation,
    )
    shadow = PlanStep(0, config.shadow_requests, config.min_step_seconds, config.max_step_seconds)
    return Plan(
        limits,
        tuple(_step(step, config) for step in config.steps),
        shadow if config.shadow_requests else None,
        config.max_blind_seconds,
        config.approval,
        config.approval_seconds,
    )


def _step(step: int | RolloutStep, config: RolloutPlan) -> PlanStep:
    own = RolloutStep(weight=step) if isinstance(step, int) else step
    return PlanStep(
        own.weight,
        config.step_requests if own.requests is None else own.requests,
        config.min_step_seconds if own.min_seconds is None else own.min_seconds,
        config.max_step_seconds if own.max_seconds is None else own.max_seconds,
    )
