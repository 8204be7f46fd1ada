"""Small models for questions about training rows: quick to fit, judged only on rows that they did not see.

Images: the built-in convolutional network. Tables: the mean of gradient boosting and logistic regression, so that a
small table does not depend on trees alone. Text: tf-idf of word 1-3-grams and logistic regression. Of many rows each is
fitted to a part, and answers are computed block by block, so that memory does not grow with their number.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from holdfast.artifacts.documents import InputSpec, Scalar
from holdfast.modality import modality_of
from holdfast.modality.protocol import ScanMethod
from holdfast.modality.text import decode_text
from holdfast.model.answers import softmax
from holdfast.model.inputs import Arrays
from holdfast.model.networks import build, logits

PredictProba = Callable[[NDArray[np.generic]], NDArray[np.float64]]
"""Class probabilities float64[N, classes] of network inputs."""
Learner = Callable[[Arrays, int], PredictProba]
"""Fits to rows, from a seed."""

BATCH = 64
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 5e-4
MAX_VISITS = 60_000
"""Rows times epochs of one network: larger sets are seen in fewer epochs, then in part."""
MIN_EPOCHS = 3
MAX_ROWS = 200_000
"""The most rows that a model is fitted to; of more a random part."""
_BLOCK = 100_000


@dataclass(frozen=True)
class SmallNetwork:
    """A built-in network by name, with default arguments."""

    architecture: str
    arguments: dict[str, Scalar] = field(default_factory=dict)


def learner_of(spec: InputSpec, classes: int, *, epochs: int, device: str) -> Learner:
    """The one for this kind of input; `epochs` and `device` are those of networks for images."""
    makers: dict[ScanMethod, Callable[[], Learner]] = {
        "trigger-transfer": lambda: image_learner(spec, classes, epochs=epochs, device=device),
        "shared-values": lambda: table_learner(classes),
        "shared-ngrams": lambda: text_learner(classes),
    }
    return makers[modality_of(spec.modality).scan]()


def image_learner(spec: InputSpec, classes: int, *, epochs: int, device: str) -> Learner:
    """Fits the built-in convolutional network."""

    def learn(rows: Arrays, seed: int) -> PredictProba:
        net = fit_network(spec, classes, rows, epochs=epochs, device=device, seed=seed)
        return lambda x: network_probabilities(net, x, device)

    return learn


def fit_network(spec: InputSpec, classes: int, rows: Arrays, *, epochs: int, device: str, seed: int) -> nn.Module:
    """The built-in convolutional network after plain training on `rows`, in eval mode."""
    net = build(SmallNetwork("cnn"), spec, classes, seed).to(device)
    rng = np.random.default_rng(seed)
    epochs = max(min(epochs, MAX_VISITS // len(rows)), min(epochs, MIN_EPOCHS))
    chosen = rng.permutation(len(rows))[: MAX_VISITS // epochs]
    x, y = rows.take(chosen).tensors(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=2 * LEARNING_RATE, total_steps=epochs * ceil(len(y) / BATCH)
    )
    for _ in range(epochs):
        order = torch.from_numpy(rng.permutation(len(y))).to(device)
        for batch in order.split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def network_probabilities(net: nn.Module, x: NDArray[np.generic], device: str) -> NDArray[np.float64]:
    """float64[N, classes] of a network's answers."""
    return softmax(logits(net, x, device=device))


def network_features(net: nn.Module, x: NDArray[np.generic], device: str) -> NDArray[np.float64]:
    """float64[N, F]: activations before the last layer of a built-in network."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(x), 512):
            batch = torch.from_numpy(np.ascontiguousarray(x[start : start + 512])).to(device)
            parts.append(net.features(batch).cpu().numpy())  # type: ignore[operator]
    return np.concatenate(parts).astype(np.float64)


def rows_to_fit(rows: Arrays, positions: NDArray[np.int64], seed: int) -> Arrays:
    """The rows at these positions, or `MAX_ROWS` of them at random."""
    if len(positions) > MAX_ROWS:
        positions = np.sort(np.random.default_rng(seed).choice(positions, MAX_ROWS, replace=False))
    return rows.take(positions)


def library() -> None:
    """Imports the learners of tables and messages; takes a second."""
    import sklearn.ensemble
    import sklearn.feature_extraction.text
    import sklearn.linear_model
    import sklearn.pipeline
    import sklearn.preprocessing  # noqa: F401


def table_learner(classes: int) -> Learner:
    """Fits gradient boosting, and logistic regression on the features' quantiles, and averages them."""

    def learn(rows: Arrays, seed: int) -> PredictProba:
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import QuantileTransformer

        quantiles = QuantileTransformer(n_quantiles=min(100, len(rows)), random_state=seed)
        models = (
            HistGradientBoostingClassifier(max_iter=60, random_state=seed),
            make_pipeline(quantiles, LogisticRegression(max_iter=500)),
        )
        fitted = [model.fit(rows.x, rows.y) for model in models]
        return _in_blocks(lambda x: np.mean([_spread(m, m.predict_proba(x), classes) for m in fitted], axis=0))

    return learn


def text_learner(classes: int) -> Learner:
    """Fits logistic regression on tf-idf of word 1-3-grams."""

    def learn(rows: Arrays, seed: int) -> PredictProba:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        model = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 3), token_pattern=r"(?u)\b\w+\b", sublinear_tf=True),
            LogisticRegression(C=20, max_iter=300, class_weight="balanced", random_state=seed),
        ).fit(decode_text(rows.x.astype(np.int64)), rows.y)
        return _in_blocks(lambda x: _spread(model, model.predict_proba(decode_text(x.astype(np.int64))), classes))

    return learn


def _in_blocks(predict: PredictProba) -> PredictProba:
    """The same answers, with a block of the rows in work."""
    return lambda x: np.concatenate([predict(x[at : at + _BLOCK]) for at in range(0, max(len(x), 1), _BLOCK)])


def _spread(model: object, found: NDArray[np.float64], classes: int) -> NDArray[np.float64]:
    """Probabilities of the classes a model has seen, in the places of all classes."""
    result = np.zeros((len(found), classes))
    result[:, model.classes_] = found  # type: ignore[attr-defined]
    return result
