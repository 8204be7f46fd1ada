"""What a network's answers mean. Light: numpy alone."""

import numpy as np
from numpy.typing import NDArray


def softmax(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities float64[N, classes] of logits."""
    shifted = np.exp(values.astype(np.float64) - values.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return shares
