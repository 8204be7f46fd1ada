import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from holdfast.artifacts.documents import Feature, InputSpec, Norm, ThreatModel
from holdfast.modality.ball import Ball
from holdfast.model.attack.apgd import apgd, checkpoints
from holdfast.model.attack.fgsm import fgsm
from holdfast.model.attack.fmn import fmn
from holdfast.model.attack.kinds import plans
from holdfast.model.attack.losses import FULL_ROWS, Ascent, TargetedDlr, cross_entropy, dlr, filled, margin
from holdfast.model.attack.pgd import _out_of_reach, pgd
from holdfast.model.attack.plan import AttackPlan
from holdfast.model.attack.square import covered, square
from holdfast.model.attack.suite import in_batches, measure, survivors
from holdfast.model.networks import build
from holdfast.workload.schema import NetworkConfig

IMAGE = InputSpec(modality="image", shape=(1, 8, 8), dtype="float32")
TABLE = InputSpec(
    modality="tabular",
    shape=(6,),
    dtype="float32",
    features=tuple(Feature(name=f"f{i}", lower=-50, upper=50, scale=1 + i, mutable=i != 2) for i in range(6)),
)
TEXT = InputSpec(modality="text", shape=(24,), dtype="int64")


def ball(norm: Norm, epsilon: str, spec: InputSpec) -> Ball:
    return Ball.of(ThreatModel(norm=norm, epsilon=epsilon, unit="any"), spec, "cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Linear(nn.Module):
    """Logits (-w.x - b, w.x + b) / 2, so that the margin of class 1 is w.x + b."""

    def __init__(self, w: Tensor, b: float) -> None:
        super().__init__()
        self.w = w
        self.b = b

    def forward(self, x: Tensor) -> Tensor:
        m = (x.flatten(1) @ self.w + self.b) / 2
        return torch.stack([-m, m], dim=1)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 1000),
    case=st.sampled_from(
        [
            ("cnn", "linf", IMAGE),
            ("cnn", "l2", IMAGE),
            ("mlp", "linf", TABLE),
            ("mlp", "l2", TABLE),
            ("text", "edits", TEXT),
        ]
    ),
    epsilon=st.sampled_from(["1/10", "1", "2"]),
    data=st.data(),
)
def test_every_adversarial_example_lies_in_the_ball(
    seed: int, case: tuple[str, Norm, InputSpec], epsilon: str, data: st.DataObject
) -> None:
    name, norm, spec = case
    net = build(NetworkConfig(architecture=name), spec, 4, seed=seed).eval()
    if spec is TEXT:
        x = torch.randint(34, 90, (6, 24), generator=generator(seed))
        x[:, 20:] = 0
    else:
        x = torch.rand(6, *spec.shape, generator=generator(seed)) * (60 if spec is TABLE else 1)
    here = ball(norm, epsilon, spec)
    with torch.no_grad():
        y = net(x).argmax(1)
    plan = data.draw(st.sampled_from(plans("nightly", norm, 4, embedding=True)))
    moved = plan.run(net, x, y, here, generator(seed))
    assert here.contains(moved, x).all()
    assert moved.shape == x.shape
    assert moved.dtype == x.dtype


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "apgd"])
def test_a_linear_model_loses_exactly_epsilon_times_the_dual_norm(attack: str) -> None:
    # Closed form: min over the linf ball of w.x + b is w.x + b - eps * ||w||_1, away from the limits.
    w, here = torch.randn(64, generator=generator(3)), ball("linf", "1/10", IMAGE)
    x, y = 0.3 + 0.4 * torch.rand(8, 1, 8, 8, generator=generator(1)), torch.ones(8, dtype=torch.long)
    net = Linear(w, 100.0)
    moved = {
        "fgsm": lambda: fgsm(net, x, y, here),
        "pgd": lambda: pgd(net, x, y, here, Ascent(margin, 20), generator=generator()),
        "apgd": lambda: apgd(net, x, y, here, Ascent(margin, 30), generator=generator()),
    }[attack]()
    expected = x.flatten(1) @ w + 100 - 0.1 * w.abs().sum()
    # FGSM follows cross-entropy, whose gradient underflows for margins near 100.
    if attack != "fgsm":
        assert torch.allclose(moved.flatten(1) @ w + 100, expected, atol=1e-3)
    near = Linear(w, float(-(x.flatten(1) @ w).min()) + 1.0)
    stepped = fgsm(near, x, y, here)
    assert torch.allclose(stepped.flatten(1) @ w, x.flatten(1) @ w - 0.1 * w.abs().sum(), atol=1e-3)


def test_a_linear_model_loses_epsilon_times_the_l2_norm() -> None:
    w, here = torch.randn(64, generator=generator(3)), ball("l2", "1/4", IMAGE)
    x, y = 0.3 + 0.4 * torch.rand(8, 1, 8, 8, generator=generator(1)), torch.ones(8, dtype=torch.long)
    moved = pgd(Linear(w, 100.0), x, y, here, Ascent(margin, 50), generator=generator())
    lost = (x - moved).flatten(1) @ w / (0.25 * w.norm())
    # Steps of 2.5 eps / 50 turn a random start to within a few degrees of w.
    assert (lost > 0.97).all()
    assert (lost < 1 + 1e-4).all()


def test_immutable_features_count_for_nothing() -> None:
    w, here = torch.ones(6), ball("linf", "1/2", TABLE)
    x, y = torch.zeros(2, 6), torch.ones(2, dtype=torch.long)
    moved = pgd(Linear(w, 100.0), x, y, here, Ascent(margin, 20), generator=generator())
    # Half a scale of every feature but the third: 0.5 * (1 + 2 + 4 + 5 + 6).
    assert (moved @ w).tolist() == pytest.approx([-9.0, -9.0], abs=1e-3)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", "1/10"), ("l2", "1/2")])
def test_fmn_finds_the_nearest_mistake_of_a_linear_model(norm: Norm, epsilon: str) -> None:
    # Closed form: the boundary w.x + b = 0 lies |w.x + b| / ||w||_dual away, well inside the limits here.
    w, here = torch.randn(64, generator=generator(3)), ball(norm, epsilon, IMAGE)
    x, y = torch.full((6, 1, 8, 8), 0.5), torch.ones(6, dtype=torch.long)
    dual = w.abs().sum() if norm == "linf" else w.norm()
    for share, falls in ((0.95, True), (1.05, False)):
        net = Linear(w, float(share * here.epsilon * dual - (x[0].flatten() @ w)))
        moved = fmn(net, x, y, here, steps=100)
        assert bool((moved != x).any()) == falls
        if falls:
            assert (here.distance(moved, x) <= here.epsilon * (1 + 1e-5)).all()


def test_restarts_end_where_they_cannot_reach_a_mistake() -> None:
    # 40 examples whose two restarts differ by 0.1: three times that below 0 is out of reach, nearer is not.
    heights = torch.stack([torch.linspace(-1, -0.1, 40), torch.linspace(-1, -0.1, 40) - 0.1])
    gone = _out_of_reach(heights)
    assert gone.tolist() == [height < -0.3 for height in heights[0].tolist()]
    assert not _out_of_reach(heights[:, :8]).any()


def test_a_batch_that_does_not_fit_the_memory_is_halved() -> None:
    sizes: list[int] = []

    def work(x: Tensor, y: Tensor) -> Tensor:
        sizes.append(len(x))
        if len(x) > 60:
            raise torch.OutOfMemoryError("full")
        return x.flatten(1).sum(1) > y

    x, y = torch.rand(500, 4), torch.full((500,), 2)
    assert torch.equal(in_batches(work, x, y), x.sum(1) > 2)
    assert sizes[:4] == [256, 128, 64, 32]


def test_every_attack_but_the_first_of_a_kind_takes_on_what_stands() -> None:
    net, here = Linear(torch.ones(64), -31.0), ball("linf", "1/10", IMAGE)
    x = torch.linspace(0.4, 0.7, 30)[:, None, None, None].expand(30, 1, 8, 8).contiguous()
    y = torch.ones(30, dtype=torch.long)
    measured = measure(net, x, y, here, plans("release", "linf", 2, embedding=False), seed=0)
    # Margin 64 v - 31 of a flat image v, and 6.4 less under attack: v must exceed 37.4 / 64.
    assert measured.worst.tolist() == [v > 37.4 / 64 for v in x[:, 0, 0, 0].tolist()]
    assert [o.cumulative for o in measured.outcomes] == [False, False, True, True, True, True]


def test_square_reaches_most_of_the_linear_loss_without_gradients() -> None:
    w, here = torch.randn(64, generator=generator(3)), ball("linf", "1/10", IMAGE)
    x, y = torch.full((4, 1, 8, 8), 0.5), torch.ones(4, dtype=torch.long)
    moved = square(Linear(w, 100.0), x, y, here, queries=1500, generator=generator())
    lost = (x - moved).flatten(1) @ w
    assert (lost > 0.8 * 0.1 * w.abs().sum()).all()


def test_examples_that_are_wrong_already_are_left_alone() -> None:
    net, here = Linear(torch.ones(64), -1000.0), ball("linf", "1/10", IMAGE)
    x, y = torch.rand(3, 1, 8, 8), torch.ones(3, dtype=torch.long)
    for plan in plans("nightly", "linf", 2, embedding=False):
        assert torch.equal(plan.run(net, x, y, here, generator()), x)


def test_losses_are_positive_exactly_at_mistakes() -> None:
    z, y = torch.tensor([[3.0, 1.0, 0.0, -1.0], [0.0, 2.0, 1.0, 0.0]]), torch.tensor([0, 2])
    assert margin(z, y).tolist() == [-2.0, 1.0]
    # By hand: (z_other - z_y) / (z_1 - z_3) and, targeted, (z_t - z_y) / (z_1 - (z_3 + z_4) / 2).
    assert dlr(z, y).tolist() == pytest.approx([-2 / 3, 1 / 2])
    toward = TargetedDlr(torch.tensor([2, 3]))(z, torch.tensor([0, 1]))
    assert toward.tolist() == pytest.approx([-3 / 3.5, -2 / 2])
    assert torch.allclose(cross_entropy(z, y), nn.functional.cross_entropy(z, y, reduction="none"))


def test_dlr_does_not_see_a_scale() -> None:
    z, y = torch.randn(5, 6, generator=generator()), torch.tensor([0, 1, 2, 3, 4])
    assert torch.allclose(dlr(z, y), dlr(1000 * z, y), atol=1e-5)


def test_the_checkpoints_of_auto_pgd_are_those_of_the_paper() -> None:
    # Section 3.1 with 100 steps: p = 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99.
    assert checkpoints(100)[:8] == [22, 41, 57, 70, 80, 87, 93, 99]


def test_the_squares_shrink_on_the_schedule_of_the_paper() -> None:
    # p = 0.8, halved at queries 10, 50, 200, 500, ... of 10,000.
    assert [covered(q, 10_000) for q in (0, 11, 51, 201, 501)] == [0.8, 0.4, 0.2, 0.1, 0.05]


def test_a_flip_that_the_gradient_promises_is_found_by_brute_force_too() -> None:
    net = build(NetworkConfig(architecture="text"), TEXT, 2, seed=1).eval()
    ids = torch.randint(34, 60, (5, 24), generator=generator())
    y, here = net(ids).argmax(1), ball("edits", "1", TEXT)
    plan = next(p for p in plans("release", "edits", 2, embedding=True) if p.name == "hotflip")
    found = plan.run(net, ids, y, here, generator())
    from holdfast.modality.text import TYPED

    for row in range(5):
        tried = ids[row].repeat(24 * len(TYPED), 1)
        place = torch.arange(24).repeat_interleave(len(TYPED))
        tried[torch.arange(len(tried)), place] = torch.tensor(TYPED).repeat(24)
        best = margin(net(tried), y[row].expand(len(tried))).max()
        ours = margin(net(found[row : row + 1]), y[row : row + 1])[0]
        assert ours <= best + 1e-5
        # First order and 64 candidates reach at least three quarters of what the best of all flips does.
        start = margin(net(ids[row : row + 1]), y[row : row + 1])[0]
        assert (best > 0) == (ours > 0) or ours - start > 0.75 * (best - start)


def test_an_attack_that_leaves_the_ball_is_a_bug() -> None:
    plan = AttackPlan("cheat", "white-box", 1, 1, lambda net, x, y, ball, generator: x + 1)
    x, y = torch.rand(3, 1, 8, 8), torch.ones(3, dtype=torch.long)
    with pytest.raises(RuntimeError, match="cheat left the ball of linf 0.1"):
        survivors(Linear(torch.ones(64), 0.0), x, y, ball("linf", "1/10", IMAGE), plan, seed=0)


@pytest.mark.parametrize("count", [1, FULL_ROWS - 1, FULL_ROWS, FULL_ROWS + 1])
def test_rows_that_fill_a_batch_come_after_the_others_and_take_no_gradient(count: int) -> None:
    x = torch.rand(count, 1, 2, 2).requires_grad_()
    full = filled(x)
    assert len(full) % FULL_ROWS == 0
    assert len(full) - count < FULL_ROWS
    assert torch.equal(full[:count], x)
    (gradient,) = torch.autograd.grad(full.sum(), x)
    assert torch.equal(gradient, torch.ones_like(x))
