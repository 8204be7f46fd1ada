"""The attacker's copy: a small model that learns from answers, and goes on learning when there are more."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from holdfast.artifacts.documents import InputSpec
from holdfast.modality.text import decode_text
from holdfast.model.extract.queries import X
from holdfast.model.learners import BATCH, LEARNING_RATE, SmallNetwork
from holdfast.model.networks import build, logits

Answers = NDArray[np.float64]
"""float64[N, classes]: what the attacker was given for each row; rows sum to 1."""
LEAST_VISITS, MOST_VISITS = 3_000, 30_000
"""Rows that one stage of the training looks at."""


class Surrogate(Protocol):
    """A copy in the making."""

    def learn(self, x: X, answers: Answers) -> None:
        """Goes on from what it learned before, from all rows that were answered so far."""

    def labels(self, x: X) -> NDArray[np.int64]:
        """int64[N]: the classes that it gives rows."""


@dataclass(frozen=True)
class NetworkSettings:
    """A built-in network, and how it is trained."""

    architecture: str
    spec: InputSpec
    classes: int
    epochs: int
    device: str


class NetworkSurrogate:
    """A built-in network that learns probabilities by cross-entropy."""

    def __init__(self, settings: NetworkSettings, seed: int) -> None:
        self.settings, self._chance = settings, np.random.default_rng(seed)
        name, device = SmallNetwork(settings.architecture), settings.device
        self.net = build(name, settings.spec, settings.classes, seed).to(device)
        self._optimizer = torch.optim.Adam(self.net.parameters(), lr=LEARNING_RATE, fused=True)

    def learn(self, x: X, answers: Answers) -> None:
        """Looks at each row `epochs` times, at few rows more often, at many less."""
        device = self.settings.device
        rows = torch.from_numpy(np.ascontiguousarray(x)).to(device)
        wanted = torch.from_numpy(answers.astype(np.float32)).to(device)
        visits = min(max(self.settings.epochs * len(x), LEAST_VISITS), MOST_VISITS)
        self.net.train()
        for batch in self._batches(len(x), visits):
            self._optimizer.zero_grad()
            torch.nn.functional.cross_entropy(self.net(rows[batch]), wanted[batch]).backward()
            self._optimizer.step()
        self.net.eval()

    def labels(self, x: X) -> NDArray[np.int64]:
        """int64[N]: the classes that it gives rows."""
        found: NDArray[np.int64] = logits(self.net, x, device=self.settings.device).argmax(1)
        return found

    def slope(self, x: X) -> NDArray[np.float32]:
        """float32[N, ...]: how the logit of the class that it gives each row grows with the row's values."""
        rows = torch.from_numpy(np.ascontiguousarray(x)).to(self.settings.device).requires_grad_()
        largest = self.net(rows).amax(1).sum()
        (found,) = torch.autograd.grad(largest, rows)
        slopes: NDArray[np.float32] = found.cpu().numpy()
        return slopes

    def _batches(self, rows: int, visits: int) -> list[torch.Tensor]:
        """Positions of rows, batch by batch, each row as often as any other but for one."""
        rounds = -(-visits // rows)
        order = np.concatenate([self._chance.permutation(rows) for _ in range(rounds)])[:visits]
        return list(torch.from_numpy(order).to(self.settings.device).split(BATCH))


class TextSurrogate:
    """Logistic regression on tf-idf of word 1-3-grams; fitted from the start each time, which takes a second."""

    def __init__(self, classes: int, seed: int) -> None:
        self._classes, self._seed = classes, seed
        self._predict: Callable[[list[str]], NDArray[np.int64]] = lambda texts: np.zeros(len(texts), np.int64)

    def learn(self, x: X, answers: Answers) -> None:
        """From each message once for every class, with the weight of the answer."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        row, label = np.nonzero(answers > 0)
        if len(set(label.tolist())) == 1:
            only = int(label[0])
            self._predict = lambda texts: np.full(len(texts), only, np.int64)
            return
        words = TfidfVectorizer(ngram_range=(1, 3), token_pattern=r"(?u)\b\w+\b|\S", sublinear_tf=True)
        seen = words.fit_transform(decode_text(x.astype(np.int64)))
        model = LogisticRegression(C=20, max_iter=200, random_state=self._seed)
        model.fit(seen[row], label, sample_weight=answers[row, label])
        self._predict = lambda texts: model.predict(words.transform(texts))

    def labels(self, x: X) -> NDArray[np.int64]:
        """int64[N]: the classes that it gives messages."""
        return self._predict(decode_text(x.astype(np.int64)))
