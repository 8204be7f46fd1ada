"""The champion that a baseline holds."""

from holdfast.artifacts.documents import Baseline, Model
from holdfast.artifacts.folder import Artifact, Ref, load


def champion_of(baseline: Artifact[Baseline]) -> Artifact[Model] | None:
    """The champion's model, after its document was found to be the one that the baseline names; None without one.

    Raises:
        IntegrityError: another document.
    """
    document = baseline.document
    if not document.present:
        return None
    return load(Ref(baseline.folder / "model", document.model), Model)
