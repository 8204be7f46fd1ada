"""How well a network separates the classes: recall and precision of each, and two areas where there are two."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import ClassResult, Count, Performance

Labels = NDArray[np.int64]


def performance(classes: Sequence[str], y: Labels, logits: NDArray[np.float32], sampled: int) -> Performance:
    """What the logits `float32[N, classes]` answer to examples of the classes y `int64[N]`.

    Args:
        classes: their names.
        y: of the examples; the first `sampled` are a sample, the others fill up classes that are rare in it.
        logits: of the examples.
        sampled: size of the sample, above 0.
    """
    answers = logits.argmax(axis=1)
    results = tuple(_class_result(name, y == c, answers == c, sampled) for c, name in enumerate(classes))
    frequent = int(np.bincount(y[:sampled]).max())
    found = Performance(classes=results, best_constant=Count(k=frequent, n=sampled))
    if len(classes) != 2 or len(np.unique(y[:sampled])) != 2:
        return found
    return found.model_copy(update=_areas(classes, y, logits, sampled))


def _class_result(name: str, own: NDArray[np.bool_], answered: NDArray[np.bool_], sampled: int) -> ClassResult:
    right, sample = own & answered, slice(sampled)
    return ClassResult(
        name=name,
        recall=Count(k=int(right.sum()), n=int(own.sum())),
        answers=int(answered.sum()),
        precision=Count(k=int(right[sample].sum()), n=int(answered[sample].sum())),
    )


def _areas(classes: Sequence[str], y: Labels, logits: NDArray[np.float32], sampled: int) -> dict[str, object]:
    """Those of the class that is rarer in the sample."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    positive = int((y[:sampled] == 1).sum() * 2 <= sampled)
    own, scores = y == positive, logits[:, positive] - logits[:, 1 - positive]
    return {
        "positive": classes[positive],
        "roc_auc": float(roc_auc_score(own, scores)),
        "pr_auc": float(average_precision_score(own[:sampled], scores[:sampled])),
    }
