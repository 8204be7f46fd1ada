"""Whether a model may be served at all: its very bytes, and a gate decision that passed them. Light: no numpy."""

from holdfast.artifacts import admission
from holdfast.artifacts.admission import NotPassed, Objection, OtherBytes
from holdfast.artifacts.documents import Model
from holdfast.artifacts.folder import Artifact, Ref
from holdfast.errors import ArtifactError, RefusedError


def admit(model: Ref, decision: Ref) -> Artifact[Model]:
    """The model artifact, after all its bytes were checked and the decision was found to be a pass for them.

    Raises:
        RefusedError: altered bytes, no decision, another model's decision, or a verdict other than pass.
    """
    try:
        judged = admission.read(model, decision)
    except ArtifactError as error:
        raise RefusedError(f"{error}; the model is not served") from error
    wrong = judged.objection()
    if wrong is not None:
        raise RefusedError(f"{decision.folder}: {_text(wrong)}")
    return judged.model


def _text(wrong: Objection) -> str:
    match wrong:
        case OtherBytes(given=given, judged=judged):
            found = (judged or "no model")[:12]
            return f"expected a decision on model {given[:12]}…, found one on {found}…; the model is not served"
        case NotPassed(verdict=verdict):
            return f"expected verdict pass, found {verdict}; not served"
