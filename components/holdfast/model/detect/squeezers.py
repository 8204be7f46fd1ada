"""Squeezers: an input with less in it, that means the same. Feature squeezing: Xu et al. 2018, arXiv:1704.01155.

Where the model's answers to an input and to the squeezed input lie apart, the input is suspicious; and the answer to
the squeezed input may be the better one. Tables have bins instead of bit depth, messages the spelling of known words.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from holdfast.model.attack.hotflip import Embedding
from holdfast.model.detect.spelling import Spelling

SqueezerName = Literal["bit-depth", "median", "bins", "spelling", "autoencoder"]
BITS, WINDOW, BINS = 3, 3, 16
"""Bits of a pixel, side of the median's window, and bins of a feature."""


class Squeezer(Protocol):
    """Takes rows `[N, ...]` and returns as many, of the same shape and type."""

    @property
    def name(self) -> SqueezerName:
        """How reports call it."""

    @property
    def smooth(self) -> bool:
        """Whether a gradient passes through it."""

    def __call__(self, x: Tensor) -> Tensor:
        """The squeezed rows."""


@dataclass(frozen=True)
class BitDepth:
    """Images float32[N, C, H, W] with 2^`bits` values between `lower` and `upper`."""

    lower: float
    upper: float
    bits: int = BITS
    name: SqueezerName = "bit-depth"
    smooth: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """The nearest of these values."""
        steps, width = 2**self.bits - 1, self.upper - self.lower
        found: Tensor = ((x - self.lower) / width * steps).round() / steps * width + self.lower
        return found


@dataclass(frozen=True)
class Median:
    """Images float32[N, C, H, W]: the median of each pixel's neighbourhood, mirrored at the border."""

    window: int = WINDOW
    name: SqueezerName = "median"
    smooth: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """The medians, channel by channel."""
        side = self.window // 2
        framed = pad(x, (side, side, side, side), mode="reflect")
        near = framed.unfold(2, self.window, 1).unfold(3, self.window, 1)
        return near.flatten(4).median(4).values


@dataclass(frozen=True)
class FeatureBins:
    """Tables float32[N, D]: each value becomes the middle of its bin; a feature of two values keeps them."""

    edges: Tensor
    """float32[D, BINS - 1], rising: quantiles of the training rows."""
    middles: Tensor
    """float32[D, BINS]: median of the training rows in each bin."""
    name: SqueezerName = "bins"
    smooth: bool = False

    @classmethod
    def of(cls, x: Tensor) -> "FeatureBins":
        """For training rows float32[N, D]."""
        ordered = x.sort(dim=0).values
        share = torch.arange(1, BINS, device=x.device) / BINS
        edges = ordered[(share * (len(x) - 1)).round().long()].T.contiguous()
        middles = torch.stack([_middles(one, own) for one, own in zip(x.T.contiguous(), edges, strict=True)])
        # A bin without training rows lies between two equal edges, or beyond the last one: its value is that edge.
        return cls(edges, middles.where(middles.isfinite(), torch.cat([edges, edges[:, -1:]], 1)))

    def __call__(self, x: Tensor) -> Tensor:
        """The middles of the bins."""
        place = torch.searchsorted(self.edges, x.T.contiguous())
        return self.middles.gather(1, place).T.contiguous()


@dataclass(frozen=True)
class Spelled:
    """Messages int64[N, L]: Unicode normalized, and words that training never saw written as the known word nearby."""

    spelling: Spelling
    name: SqueezerName = "spelling"
    smooth: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """Character ids of the repaired messages."""
        repaired = self.spelling.repair(x.cpu().numpy())
        return torch.from_numpy(repaired).to(x.device)


@dataclass(frozen=True)
class Denoised:
    """Rows as a denoising autoencoder gives them back."""

    network: nn.Module
    lower: Tensor
    upper: Tensor
    """Limits of each place, broadcastable to a row."""
    name: SqueezerName = "autoencoder"
    smooth: bool = True

    def __call__(self, x: Tensor) -> Tensor:
        """Rows of the data that lie near these."""
        found: Tensor = self.network(x)
        return torch.minimum(torch.maximum(found, self.lower), self.upper)


def _middles(values: Tensor, edges: Tensor) -> Tensor:
    """float32[BINS]: the median of the values in each bin; nan where none is."""
    place, bins = torch.searchsorted(edges, values), torch.arange(BINS, device=values.device)
    return values.where(place == bins[:, None], torch.nan).nanmedian(1).values


class Through(nn.Module):
    """The network behind a squeezer. Where no gradient passes the squeezer, that of the identity takes its place
    (BPDA: Athalye et al. 2018, arXiv:1802.00420); a text network still shows its own embedding.
    """

    def __init__(self, network: nn.Module, squeezer: Squeezer) -> None:
        super().__init__()
        self.network, self.squeezer = network, squeezer
        if isinstance(network, Embedding):
            self.embed, self.forward_embedded = network.embed, network.forward_embedded

    def forward(self, x: Tensor) -> Tensor:
        """Logits float32[N, classes] of the squeezed rows."""
        return torch.as_tensor(self.network(passed(self.squeezer, x)))


def passed(squeezer: Squeezer, x: Tensor) -> Tensor:
    """The squeezed rows, with the gradient of the identity where the squeezer has none."""
    if squeezer.smooth or not x.is_floating_point():
        return squeezer(x)
    return x + (squeezer(x.detach()) - x).detach()
