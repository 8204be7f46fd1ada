"""`holdfast gate`."""

from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.options import (
    AsJson,
    DigestFile,
    ModelRef,
    Out,
    SnapshotRef,
    VerdictFile,
    finish,
    ref,
    with_evidence,
)

if TYPE_CHECKING:
    from holdfast.artifacts.folder import Ref


@with_evidence
def gate(
    model: ModelRef,
    snapshot: SnapshotRef,
    out: Out,
    evidence: "dict[str, Ref]",
    policy: Annotated[str, typer.Option(help="Name in gates/policies, a file, or JSON.")] = "default",
    enforce: Annotated[bool, typer.Option(help="Exit with 3 (fail) or 4 (inconclusive).")] = False,
    digest_file: DigestFile = None,
    verdict_file: VerdictFile = None,
    as_json: AsJson = False,
) -> None:
    """Judge a model by its evidence under a policy; missing or stale evidence is not a pass."""
    from holdfast_gates.policy import find
    from holdfast_gates.step import gate as step

    artifact = step(find(policy), out, model=ref(model), snapshot=ref(snapshot), evidence=evidence)
    finish(artifact, digest_file, verdict_file, as_json)
    if enforce and artifact.document.verdict != "pass":
        raise typer.Exit(3 if artifact.document.verdict == "fail" else 4)


COMMANDS = {"gate": gate}
"""What `holdfast` runs by these names."""
