"""PreAct ResNet-18 as trained on 32 x 32 images: what tables of adversarial training name as their network.

He et al. 2016, Identity Mappings in Deep Residual Networks, https://arxiv.org/abs/1603.05027, in the form of Wong, Rice
and Kolter 2020, https://arxiv.org/abs/2001.03994: no pooling before the blocks, and batch norm and a ReLU after them.
A workload names it `benchmarks.resnet:preact_resnet18`.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

WIDTHS, BLOCKS = (64, 128, 256, 512), 2
"""Channels of each stage, at width 64, and how many blocks a stage has."""


class PreActBlock(nn.Module):
    """Two 3 x 3 convolutions, each behind batch norm and a ReLU, added to the identity or a 1 x 1 convolution."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(out)
        self.conv1 = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.shortcut = None
        if stride != 1 or channels != out:
            self.shortcut = nn.Conv2d(channels, out, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """float[N, out, H / stride, W / stride] of float[N, channels, H, W]."""
        active = torch.relu(self.bn1(x))
        identity = x if self.shortcut is None else self.shortcut(active)
        out: Tensor = self.conv2(torch.relu(self.bn2(self.conv1(active)))) + identity
        return out


class PreActResNet(nn.Module):
    """Images float32[N, C, H, W] in [0, 1]; the weights lie with channels last, as tensor cores want them."""

    def __init__(self, channels: int, classes: int, *, width: int) -> None:
        super().__init__()
        widths = [width * share // WIDTHS[0] for share in WIDTHS]
        self.first = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        stages = [_stage(of, out, 1 if of == out else 2) for of, out in pairwise([width, *widths])]
        self.body = nn.Sequential(*stages, nn.BatchNorm2d(widths[-1]), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.last = nn.Linear(widths[-1], classes)

    def features(self, x: Tensor) -> Tensor:
        """float32[N, 8 x width]: activations before the last layer."""
        out: Tensor = self.body(self.first(x)).flatten(1)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Logits float32[N, classes]."""
        out: Tensor = self.last(self.features(x))
        return out


def preact_resnet18(shape: tuple[int, ...], classes: int, *, width: int = 64) -> nn.Module:
    """The network for images of `shape` [C, H, W]; 11.17 million parameters at width 64 and 10 classes."""
    net = PreActResNet(shape[0], classes, width=width)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _stage(channels: int, out: int, stride: int) -> nn.Module:
    first = PreActBlock(channels, out, stride)
    return nn.Sequential(first, *(PreActBlock(out, out, 1) for _ in range(BLOCKS - 1)))
