from math import pi, sqrt

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from holdfast.artifacts.documents import Norm
from holdfast.errors import ModelError
from holdfast.modality.ball import Ball
from holdfast.modality.norms import ball_class
from holdfast.model.certify.bounds import certified, margins
from holdfast.model.networks import Cnn
from holdfast.model.train.interval import interval_loss, interval_schedule, interval_start, worst_margins


def ball_of(epsilon: float, norm: Norm = "linf") -> Ball:
    lower, upper, one = (torch.tensor(v) for v in (-9.0, 9.0, 1.0))
    return ball_class(norm)(epsilon=epsilon, lower=lower, upper=upper, scale=one, mutable=one)


def net_and_batch() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    return net, torch.randn(32, 4), torch.randint(3, (32,))


def test_without_a_ball_the_loss_is_the_plain_cross_entropy() -> None:
    net, x, y = net_and_batch()
    expected = cross_entropy(net(x), y).item()
    for kappa in (0.0, 0.4, 1.0):
        assert interval_loss(net, x, y, ball_of(0.0), kappa=kappa).item() == pytest.approx(expected, rel=1e-4)


def test_the_loss_is_above_that_of_every_point_in_the_ball() -> None:
    net, x, y = net_and_batch()
    bound = interval_loss(net, x, y, ball_of(0.2), kappa=0.0).item()
    for seed in range(20):
        step = torch.sign(torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)))
        assert cross_entropy(net(x + 0.2 * step), y).item() <= bound


def test_kappa_mixes_clean_and_worst() -> None:
    net, x, y = net_and_batch()
    worst, half, clean = (interval_loss(net, x, y, ball_of(0.2), kappa=k).item() for k in (0.0, 0.5, 1.0))
    assert half == pytest.approx((worst + clean) / 2, rel=1e-5)
    assert worst > clean


def test_the_training_and_the_certificate_speak_of_the_same_bounds() -> None:
    net, x, y = net_and_batch()
    proven = margins(net, x, y, ball_of(0.1)).float()
    assert torch.allclose(worst_margins(net, x, y, ball_of(0.1)), proven, atol=1e-3)


def test_gradients_reach_every_parameter() -> None:
    net, x, y = net_and_batch()
    interval_loss(net, x, y, ball_of(0.1), kappa=0.0).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in net.parameters())


def test_a_few_steps_certify_what_plain_training_does_not() -> None:
    shares = []
    for epsilon in (0.0, 0.3):
        net, x, _ = net_and_batch()
        y = (x[:, 0] > 0).long() + (x[:, 0] > 1).long()
        optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
        for _ in range(200):
            optimizer.zero_grad()
            interval_loss(net, x, y, ball_of(epsilon), kappa=0.0).backward()
            optimizer.step()
        shares.append(certified(net, x, y, ball_of(0.3)).float().mean())
    assert shares[1] > shares[0] + 0.2


def test_the_schedule_starts_plain_ends_whole_and_never_goes_back() -> None:
    found = [interval_schedule(i / 100) for i in range(101)]
    shares, kappas = zip(*found, strict=True)
    assert found[0] == (0.0, 1.0)
    assert shares[-1] == 1.0
    assert list(shares) == sorted(shares)
    assert list(kappas) == sorted(kappas, reverse=True)
    assert shares[60] == 1.0


def test_the_start_keeps_a_boxs_width_where_the_usual_one_lets_it_grow() -> None:
    # Shi et al. 2021: weights N(0, 2 pi / n^2) make E[sum |w_i|] = n sqrt(2 pi) / n sqrt(2 / pi) = 2, halved by ReLU.
    net = interval_start(Cnn((1, 28, 28), 10), torch.Generator().manual_seed(0))
    last = net.get_submodule("penultimate")
    assert isinstance(last, nn.Linear)
    assert last.weight.detach().std().item() == pytest.approx(sqrt(2 * pi) / last.in_features, rel=0.02)
    assert all(bool((b == 0).all()) for name, b in net.named_parameters() if name.endswith("bias"))
    x, y = torch.rand(8, 1, 28, 28), torch.zeros(8, dtype=torch.long)
    widths = [-worst_margins(n, x, y, ball_of(0.1)).detach().mean().item() for n in (net, Cnn((1, 28, 28), 10))]
    assert widths[0] < 1 < widths[1]


def test_equal_generators_give_equal_starts() -> None:
    nets = [interval_start(Cnn((1, 8, 8), 2), torch.Generator().manual_seed(3)) for _ in range(2)]
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_another_norm_is_refused() -> None:
    net, x, y = net_and_batch()
    with pytest.raises(ModelError, match="expected the norm linf, found l2"):
        interval_loss(net, x, y, ball_of(0.1, "l2"), kappa=0.0)
