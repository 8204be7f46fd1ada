from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from holdfast.model.backdoor.convolution import QuickInputGradients


def frozen(net: nn.Module) -> nn.Module:
    return net.eval().requires_grad_(False)


def gradient(net: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, str]:
    """Of the sum of squares, and the name of the last operator."""
    leaf = x.clone().requires_grad_()
    out = net(leaf)
    return torch.autograd.grad(out.square().sum(), leaf)[0], str(out.grad_fn)


@pytest.mark.parametrize(
    ("channels", "arguments"),
    [
        (1, {"kernel_size": 4, "stride": 2, "padding": 1}),
        (3, {"kernel_size": (3, 5), "stride": (1, 2), "padding": (0, 2), "bias": False}),
        (4, {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"}),
    ],
)
def test_few_channels_get_the_gradient_that_torch_computes(channels: int, arguments: dict[str, object]) -> None:
    net, x = frozen(nn.Conv2d(channels, 8, **arguments)), torch.randn(5, channels, 12, 10)  # type: ignore[arg-type]
    with QuickInputGradients():
        found, operator = gradient(net, x)
    expected, _ = gradient(net, x)
    assert "FewChannels" in operator
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "net",
    [
        frozen(nn.Conv2d(8, 8, 3)),
        frozen(nn.Conv2d(4, 8, 3, groups=2)),
        frozen(nn.Conv2d(1, 8, 3, dilation=2)),
        frozen(nn.Conv2d(1, 8, 3, padding="same")),
        nn.Conv2d(1, 8, 3),
        frozen(nn.Conv2d(1, 8, 3)).double(),
    ],
    ids=["many channels", "groups", "dilation", "padding by name", "trained", "double"],
)
def test_any_other_convolution_is_left_to_torch(net: nn.Conv2d) -> None:
    x = torch.randn(5, net.in_channels, 12, 10, dtype=net.weight.dtype)
    with QuickInputGradients():
        found, operator = gradient(net, x)
    assert "FewChannels" not in operator
    torch.testing.assert_close(found, gradient(net, x)[0])


def test_an_exported_program_gets_it_too() -> None:
    x = torch.randn(5, 1, 12, 10)
    program = torch.export.export(frozen(nn.Conv2d(1, 8, 3)), (x,)).module()
    with QuickInputGradients():
        found, operator = gradient(program, x)
    assert "FewChannels" in operator
    torch.testing.assert_close(found, gradient(program, x)[0], rtol=1e-4, atol=1e-4)
