"""`holdfast gate`."""

from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.options import ModelRef, Out, SnapshotRef, ref, step_command

if TYPE_CHECKING:
    from holdfast.artifacts.documents import GateDecision
    from holdfast.artifacts.folder import Artifact, Ref

CODES = {"pass": 0, "fail": 3, "inconclusive": 4}
"""Exit code by verdict."""


@step_command
def gate(
    model: ModelRef,
    snapshot: SnapshotRef,
    out: Out,
    evidence: "dict[str, Ref]",
    policy: Annotated[str, typer.Option(help="Name in gates/policies, a file, or JSON.")] = "default",
    enforce: Annotated[bool, typer.Option(help="Exit with 3 (fail) or 4 (inconclusive).")] = False,
) -> "tuple[Artifact[GateDecision], int]":
    """Judge a model by its evidence under a policy; missing or stale evidence is not a pass."""
    from holdfast_gates.policy import find
    from holdfast_gates.step import gate as step

    artifact = step(find(policy), out, model=ref(model), snapshot=ref(snapshot), evidence=evidence)
    return artifact, CODES[artifact.document.verdict] if enforce else 0


COMMANDS = {"gate": gate}
"""What `holdfast` runs by these names."""
