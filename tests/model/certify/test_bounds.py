from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from holdfast.artifacts.documents import Feature, InputSpec, ThreatModel
from holdfast.errors import ModelError
from holdfast.modality import MODALITIES
from holdfast.modality.ball import Ball
from holdfast.modality.l2 import L2
from holdfast.modality.linf import Linf
from holdfast.model.attack.kinds import plans
from holdfast.model.attack.suite import measure
from holdfast.model.certify.bounds import Bound, box, certified, certify_radii, margins
from holdfast.model.certify.layers import read_chain
from holdfast.model.networks import Cnn, Mlp, build
from holdfast.workload.schema import NetworkConfig

BOUNDS: list[Bound] = ["ibp", "crown-ibp", "crown"]


def ball_of(epsilon: float, **changed: Tensor) -> Ball:
    ones = {"lower": torch.tensor(-9.0), "upper": torch.tensor(9.0), "scale": torch.tensor(1.0)}
    return Linf(epsilon=epsilon, **{**ones, "mutable": torch.tensor(1.0), **changed})


def small(seed: int, *, hidden: tuple[int, ...] = (8, 8), inputs: int = 2, classes: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    widths = (inputs, *hidden)
    parts = [part for pair in zip(widths, widths[1:], strict=False) for part in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*parts, nn.Linear(widths[-1], classes)).eval()


def all_margins(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """z_y - z_j for every other class j, float[N, classes - 1]."""
    z = net(x)
    rest = one_hot(y, z.shape[1]) == 0
    return (z.gather(1, y[:, None]) - z)[rest].reshape(len(x), -1).double()


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("seed", range(4))
def test_no_point_of_a_fine_grid_lies_outside_the_bounds(seed: int, bound: Bound) -> None:
    # Brute force: 201 x 201 points of a two-dimensional box.
    net, x, y = small(seed), torch.tensor([[0.3, -0.2]]), torch.tensor([1])
    for epsilon in (0.0, 0.05, 0.3, 1.0):
        side = torch.linspace(-epsilon, epsilon, 201)
        grid = x + torch.cartesian_prod(side, side)
        least = all_margins(net, grid, y.expand(len(grid))).amin(0)
        found = margins(net, x, y, ball_of(epsilon), bound)[0]
        assert (found <= least).all()
        assert epsilon > 0 or torch.allclose(found, least, atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_tighter_bounds_prove_no_less(seed: int) -> None:
    net, x = small(seed, inputs=4), torch.randn(20, 4)
    y = net(x).argmax(1)
    ibp, mixed, crown = (margins(net, x, y, ball_of(0.1), bound) for bound in BOUNDS)
    assert (ibp <= mixed + 1e-6).all()
    assert (mixed.mean(), crown.mean()) > (ibp.mean(), mixed.mean() - 1e-6)


def test_a_linear_network_is_bounded_exactly() -> None:
    # The least of w.x + b over a box is w.c + b - |w|.r, in closed form.
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    x, y, epsilon = torch.randn(5, 2, 3), torch.tensor([0, 1, 2, 0, 1]), 0.2
    W, b = net[1].weight, net[1].bias
    for bound in BOUNDS:
        found = margins(net, x, y, ball_of(epsilon), bound)
        for i, label in enumerate(y.tolist()):
            w = torch.stack([W[label] - W[j] for j in range(3) if j != label])
            shift = torch.stack([b[label] - b[j] for j in range(3) if j != label])
            assert torch.allclose(found[i].float(), w @ x[i].flatten() + shift - epsilon * w.abs().sum(1), atol=1e-3)


def test_the_box_keeps_limits_immutable_entries_and_values_that_lie_outside() -> None:
    x = torch.tensor([[0.05, 0.5, 2.0]])
    limits = {"lower": torch.tensor(0.0), "upper": torch.tensor(1.0)}
    ball = ball_of(0.1, **limits, scale=torch.tensor([1.0, 2.0, 1.0]), mutable=torch.tensor([1.0, 1.0, 0.0]))
    c, r = box(ball, x)
    assert torch.allclose(c - r, torch.tensor([[0.0, 0.3, 2.0]]), atol=1e-5)
    assert torch.allclose(c + r, torch.tensor([[0.15, 0.7, 2.0]]), atol=1e-5)
    assert r[0, 2] == 0


def test_another_norm_is_refused() -> None:
    ball = L2(0.1, *(torch.tensor(v) for v in (0.0, 1.0, 1.0, 1.0)))
    with pytest.raises(ModelError, match="expected the norm linf, found l2"):
        margins(small(0), torch.zeros(1, 2), torch.tensor([0]), ball)


@pytest.mark.parametrize(
    ("layer", "name"), [(nn.Sigmoid(), "1: Sigmoid"), (nn.MaxPool1d(2), "MaxPool1d"), (nn.Softmax(1), "Softmax")]
)
def test_a_layer_that_bounds_do_not_know_is_named(layer: nn.Module, name: str) -> None:
    net = nn.Sequential(nn.Linear(2, 4), layer)
    with pytest.raises(ModelError, match=f"expected linear, convolution, ReLU .*{name}"):
        read_chain(net, torch.zeros(1, 2))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inside(x)


class Beside(Residual):
    def forward(self, x: Tensor) -> Tensor:
        return self.inside(x) * torch.relu(x)


class Piece(Residual):
    def forward(self, x: Tensor) -> Tensor:
        return self.inside(x[:, :2])


class InPlace(Residual):
    """What it does after the first layer is seen only in the memory of its tensors."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.inside(x)
        flat = h.flatten(1)
        h.sigmoid_()
        return flat


class Twice(Residual):
    def forward(self, x: Tensor) -> Tensor:
        return torch.add(self.inside(x), 1.0, alpha=2)


class Random(Residual):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(self.inside(x), 0.5, training=True)


@pytest.mark.parametrize(
    ("net", "found"),
    [
        (Residual(), "add"),
        (Beside(), "mul"),
        (Piece(), "output"),
        (InPlace(), "sigmoid_"),
        (Twice(), "add"),
        (Random(), "dropout"),
    ],
)
def test_layers_that_are_not_in_one_line_are_refused(net: nn.Module, found: str) -> None:
    with pytest.raises(ModelError, match=f"expected linear, .* found {found}"):
        read_chain(net, torch.zeros(1, 2))


class Own(nn.Module):
    """A user's network: arithmetic with constants, functions instead of modules, normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4)
        self.last = nn.Linear(4 * 16, 3)
        self.register_buffer("mean", torch.tensor(0.4))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.conv((x - self.mean) / 0.3)))
        return 2 * self.last(h.view(h.size(0), -1))


@pytest.mark.parametrize("exported", [False, True])
def test_a_users_network_is_read_as_it_was_written_and_as_it_was_exported(exported: bool) -> None:
    torch.manual_seed(0)
    own = Own()
    own(torch.rand(64, 1, 8, 8))
    own.eval()
    x = torch.rand(3, 1, 8, 8)
    batch = {0: torch.export.Dim("N", min=1, max=512)}
    net = torch.export.export(own, (x,), dynamic_shapes=(batch,)).module() if exported else own
    y = own(x).argmax(1)
    # At epsilon 0 the bounds are the margins themselves.
    assert torch.allclose(margins(net, x, y, ball_of(0.0), "crown"), all_margins(own, x, y), atol=1e-2)
    moved = x + 0.01 * torch.sign(torch.randn(50, 3, 1, 8, 8))
    least = torch.stack([all_margins(own, rows, y) for rows in moved]).amin(0)
    assert (margins(net, x, y, ball_of(0.01), "crown-ibp") <= least).all()


def test_the_networks_that_holdfast_builds_are_read() -> None:
    features = tuple(Feature(name=str(i), mean=i, scale=i + 1.0, lower=-50, upper=50) for i in range(4))
    table = InputSpec(modality="tabular", shape=(4,), dtype="float32", features=features)
    for net, x in ((Mlp(table, 2), torch.randn(6, 4)), (Cnn((1, 12, 12), 2), torch.rand(6, 1, 12, 12))):
        y = net(x).argmax(1)
        assert torch.allclose(margins(net, x, y, ball_of(0.0)), all_margins(net, x, y), atol=1e-3)


@pytest.fixture(scope="module")
def digits_nets(digits) -> tuple[list[nn.Module], Tensor, Tensor, Ball]:  # type: ignore[no-untyped-def]
    """A plainly trained and a certifiably trained network."""
    from holdfast.model.inputs import read_spec, read_split
    from holdfast.model.train.interval import interval_loss, interval_schedule, interval_start

    spec = read_spec(digits)
    rows, held = read_split(digits, "train", spec), read_split(digits, "test", spec)
    ball = Ball.of(ThreatModel(norm="linf", epsilon=Fraction(1, 20), unit=MODALITIES["image"].unit), spec, "cpu")
    x, y = torch.from_numpy(rows.x), torch.from_numpy(rows.y)
    nets = []
    for most in (0.0, 1.0):
        net = interval_start(build(NetworkConfig(architecture="cnn"), spec, 10, 0), torch.Generator().manual_seed(0))
        optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
        for step in range(100):
            share, kappa = interval_schedule(step / 100)
            part = torch.from_numpy(np.random.default_rng(step).permutation(len(y))[:128])
            loss = interval_loss(net, x[part], y[part], ball.resized(share * most * 0.05), kappa=kappa)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        nets.append(net.eval().requires_grad_(False))
    return nets, torch.from_numpy(held.x[:60]), torch.from_numpy(held.y[:60]), ball


def test_no_attack_inside_a_certified_ball_ever_succeeds(
    digits_nets: tuple[list[nn.Module], Tensor, Tensor, Ball],
) -> None:
    nets, x, y, ball = digits_nets
    for net in nets:
        for epsilon in (0.01, 0.05):
            there = ball.resized(epsilon)
            found = measure(net, x, y, there, plans("pr", "linf", 10, embedding=False), seed=0)
            proven = certified(net, x, y, there, "crown-ibp")
            assert not (proven & ~found.worst).any()
            assert proven.sum() <= found.worst.sum() <= found.clean.sum()


def test_certified_training_proves_more_and_the_table_of_radii_agrees(
    digits_nets: tuple[list[nn.Module], Tensor, Tensor, Ball],
) -> None:
    (plain, certifiable), x, y, ball = digits_nets
    assert certified(certifiable, x, y, ball).float().mean() > 0.6
    assert certified(plain, x, y, ball).float().mean() < 0.1
    found = certify_radii(certifiable, x[:30], ball, (0.05, 0.0, 0.2))
    assert {one.radius for one in found} <= {-1.0, 0.0, 0.05, 0.2}
    within = certified(certifiable, x[:30], torch.tensor([one.label for one in found]), ball)
    assert all(one.radius >= 0.05 for one, holds in zip(found, within.tolist(), strict=True) if holds)
    assert all(one.forwards == 0 for one in found)


class TwoFaced(nn.Module):
    """Leaves its first layer out in training."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x if self.training else torch.relu(self.first(x)))


def test_a_network_is_read_in_the_mode_that_it_is_in() -> None:
    net, x = TwoFaced(), torch.zeros(1, 2)
    assert len(read_chain(net.train(), x).layers) == 1
    assert len(read_chain(net.eval(), x).layers) == 3
    assert len(read_chain(net.train(), x).layers) == 1
