"""How well a network separates the classes: recall and precision of each, and two areas where there are two."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import ClassResult, Count, Errors, OperatingPoint, OperatingResult, Performance

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


def operating_result(
    point: OperatingPoint,
    classes: Sequence[str],
    y: Labels,
    *,
    clean: NDArray[np.float32],
    worst: NDArray[np.float32],
    positives: Count,
) -> OperatingResult:
    """The wrong answers of both kinds to examples of the classes y `int64[N]`, from logits `float32[N, 2]`.

    Args:
        point: of the network; its threshold is inside the logits.
        classes: their names.
        y: of the examples.
        clean: the logits without any attack.
        worst: the logits under every attack.
        positives: held-out rows of the positive class, of all.
    """
    positive = classes.index(point.positive)
    back = np.where(np.arange(2) == positive, point.threshold, 0.0)
    return OperatingResult(
        point=point,
        other=classes[1 - positive],
        positives=positives,
        clean=_errors(y == positive, clean.argmax(axis=1) == positive),
        worst_case=_errors(y == positive, worst.argmax(axis=1) == positive),
        without_threshold=_errors(y == positive, (clean + back).argmax(axis=1) == positive),
    )


def _errors(own: NDArray[np.bool_], answered: NDArray[np.bool_]) -> Errors:
    return Errors(
        misses=Count(k=int((own & ~answered).sum()), n=int(own.sum())),
        false_alarms=Count(k=int((~own & answered).sum()), n=int((~own).sum())),
    )


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
