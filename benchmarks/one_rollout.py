"""`python -m benchmarks.one_rollout SPEC OUT`: one rollout as `holdfast rollout start` makes it, without a registry.

SPEC is JSON: `champion` and `candidate` (bundles), `plan`, `seed`, `game_day` (or null). The controller is this
process; the site, its two MLServers, Envoy and the traffic are processes that it starts. The record goes to OUT.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from holdfast.errors import HoldfastError
from holdfast.serving.rollout.contract.served_arm import served_arm
from holdfast.serving.rollout.matchup import Matchup
from holdfast.serving.rollout.step import run_rollout
from holdfast.workload.schema import RolloutPlan
from tests.faults.live.bundles import NAME


def carry_out(spec: Mapping[str, object], out: Path) -> None:
    """From the first server's start to the record."""
    candidate, game_day = Path(str(spec["candidate"])), spec["game_day"]
    matchup = Matchup(
        served_arm(NAME, 2, candidate, None if game_day is None else str(game_day)),
        served_arm(NAME, 1, Path(str(spec["champion"]))),
        candidate / "replay.npz",
    )
    plan = RolloutPlan.model_validate(spec["plan"])
    run_rollout(matchup, out, config=plan, seed=int(str(spec["seed"])), promote=lambda: None)


def main() -> int:
    """The exit code; with one line when there was no rollout."""
    try:
        carry_out(json.loads(sys.argv[1]), Path(sys.argv[2]))
    except HoldfastError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
