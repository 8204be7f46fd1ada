"""Whether a model may be served at all: its very bytes, and a gate decision that passed them. Light: no numpy."""

from holdfast.artifacts.documents import GateDecision, Model, Verdict
from holdfast.artifacts.folder import Artifact, Ref, load
from holdfast.errors import ArtifactError, RefusedError


def admit(model: Ref, decision: Ref) -> Artifact[Model]:
    """The model artifact, after all its bytes were checked and the decision was found to be a pass for them.

    Raises:
        RefusedError: altered bytes, no decision, another model's decision, or a verdict other than pass.
    """
    try:
        artifact = load(model, Model)
        judged = load(decision, GateDecision)
        for name in artifact.document.files:
            artifact.path(name)
    except ArtifactError as error:
        raise RefusedError(f"{error}; the model is not served") from error
    found = judged.document.inputs.get("model")
    if found != artifact.digest:
        raise RefusedError(
            f"{decision.folder}: expected a decision on model {artifact.digest[:12]}…, "
            f"found one on {(found or 'no model')[:12]}…; the model is not served"
        )
    if judged.document.verdict is not Verdict.PASS:
        raise RefusedError(f"{decision.folder}: expected verdict pass, found {judged.document.verdict}; not served")
    return artifact
