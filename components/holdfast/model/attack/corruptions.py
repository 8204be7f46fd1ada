"""Images as cameras and transmission spoil them: Hendrycks and Dietterich 2019, https://arxiv.org/abs/1903.12261.

Noise, blur and loss of contrast at severities 1 to 5. They are no attack: they show whether a network that holds
against attacks also holds where no one intends harm.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

Corruption = Literal["gaussian-noise", "gaussian-blur", "contrast"]
CORRUPTIONS: tuple[Corruption, ...] = ("gaussian-noise", "gaussian-blur", "contrast")
SEVERITIES = (1, 3, 5)
EVERY = tuple((name, severity) for name in CORRUPTIONS for severity in SEVERITIES)
_NOISE = (0.04, 0.06, 0.08, 0.09, 0.10)
"""Standard deviation in input units; the paper's for images of 32 pixels (CIFAR-10-C)."""
_BLUR = (0.4, 0.6, 0.7, 0.8, 1.0)
"""Standard deviation in pixels at 32 pixels; it grows with the image."""
_CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)
"""Share of the contrast that is left."""
_SIDE = 32


def corrupt(x: Tensor, name: Corruption, severity: int, generator: torch.Generator) -> Tensor:
    """Images float32[N, C, H, W] in [0, 1] after a corruption of severity 1 to 5."""
    makers: dict[Corruption, Callable[[], Tensor]] = {
        "gaussian-noise": lambda: _noise(x, _NOISE[severity - 1], generator),
        "gaussian-blur": lambda: _blur(x, _BLUR[severity - 1] * min(x.shape[2:]) / _SIDE),
        "contrast": lambda: _flat(x, _CONTRAST[severity - 1]),
    }
    return makers[name]().clamp(0, 1)


def _noise(x: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    return x + deviation * torch.randn(x.shape, generator=generator, device=x.device)


def _blur(x: Tensor, deviation: float) -> Tensor:
    reach = max(1, round(3 * deviation))
    at = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    line = torch.exp(-(at**2) / (2 * deviation**2))
    kernel = (line / line.sum()).expand(x.shape[1], 1, -1)
    wide = pad(x, (reach, reach, reach, reach), mode="reflect")
    rows = conv2d(wide, kernel[:, :, None, :], groups=x.shape[1])
    return conv2d(rows, kernel[:, :, :, None], groups=x.shape[1])


def _flat(x: Tensor, left: float) -> Tensor:
    mean = x.mean(dim=(2, 3), keepdim=True)
    return (x - mean) * left + mean
