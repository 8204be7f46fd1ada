"""The set of inputs that an attacker can reach from x.

Distances are measured in units of `scale` (1 for images, a feature's standard deviation for tables): the attacker
reaches x' with ||(x' - x) / scale||_p <= epsilon on mutable entries, inside [lower, upper]. A held-out value that lies
outside these limits by itself may stay where it is. Text: at most epsilon characters of the message are replaced.

Tables know more. A feature with a budget of its own has scale = budget / epsilon, so that epsilon units are that
budget. A one-sided feature moves up or down only. Whole numbers stay whole, and a category that the attacker may choose
stays one value of its column: attacks walk in the convex `project`, and are judged at `settle`, the nearest row that
exists (Ballet et al. 2019, https://arxiv.org/abs/1911.03274, and Simonetto et al. 2022,
https://arxiv.org/abs/2112.01156, on what a feasible row is).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import inf, prod

import torch
from torch import Tensor

from holdfast.artifacts.documents import Feature, FeatureThreat, InputSpec, Norm, ThreatModel
from holdfast.errors import WorkloadError
from holdfast.model.inputs import PAD, SYMBOLS, TYPED

TOLERANCE = 1e-5
"""Rounding that `contains` allows, in units of scale and relative to the value."""


@dataclass(frozen=True)
class Ball:
    """What an attacker reaches around one example; the tensors are broadcastable to one example."""

    norm: Norm
    epsilon: float
    lower: Tensor
    upper: Tensor
    scale: Tensor
    mutable: Tensor
    down: Tensor | None = None
    """0 where a value cannot fall; None: every mutable value can move both ways."""
    up: Tensor | None = None
    """0 where a value cannot grow."""
    whole: Tensor | None = None
    """bool: where values are whole numbers."""
    choices: tuple[tuple[int, ...], ...] = ()
    """Columns of each category that the attacker may choose: one of them is 1, the others are 0."""
    typing: bool = False
    """Text: whether characters can also be inserted, left out and swapped with their neighbours."""

    @classmethod
    def of(cls, threat: ThreatModel, spec: InputSpec, device: str) -> "Ball":
        """The ball of a threat model around inputs of `spec`.

        Raises:
            WorkloadError: the threat model names a feature that the data does not have, or asks of it what it cannot.
        """
        if spec.features:
            return _of_table(threat, spec, device)

        def number(value: float) -> Tensor:
            return torch.tensor(value, dtype=torch.float32, device=device)

        return cls(
            norm=threat.norm,
            epsilon=float(threat.epsilon),
            lower=number(spec.lower),
            upper=number(spec.upper if spec.modality != "text" else SYMBOLS - 1),
            scale=number(1.0),
            mutable=number(1.0),
            typing=threat.typing,
        )

    def resized(self, epsilon: float) -> "Ball":
        """The same ball with another epsilon."""
        return replace(self, epsilon=epsilon)

    def without_limits(self) -> "Ball":
        """The same ball where inputs have no limits: points in it need not be inputs."""
        return replace(self, lower=torch.full_like(self.lower, -inf), upper=torch.full_like(self.upper, inf))

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """A point of the ball around x near x_adv (`[N, ...]` both); the nearest one for linf and l2 without limits."""
        if self.norm == "edits":
            return self._project_edits(x_adv, x)
        delta = (x_adv - x) / self.scale * self.mutable
        if self.down is not None and self.up is not None:
            delta = delta.clamp_min(0) * self.up - (-delta).clamp_min(0) * self.down
        if self.norm == "linf":
            delta = delta.clamp(-self.epsilon, self.epsilon)
        else:
            delta = delta * (self.epsilon / _norms(delta).clamp_min(1e-12)).clamp_max(1.0)
        return self._limit(x + delta * self.scale, x)

    def within(self, x_adv: Tensor, x: Tensor, bound: Tensor) -> Tensor:
        """A point near x_adv whose distance from x is at most `bound` float32[N], in units of scale; linf and l2."""
        delta, wide = (x_adv - x) / self.scale * self.mutable, _column(bound, x)
        if self.norm == "linf":
            delta = torch.minimum(torch.maximum(delta, -wide), wide)
        else:
            delta = delta * (wide / _norms(delta).clamp_min(1e-12)).clamp_max(1.0)
        if self.down is not None and self.up is not None:
            delta = delta.clamp_min(0) * self.up - (-delta).clamp_min(0) * self.down
        return self._limit(x + delta * self.scale, x)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """float32[N]: how far each x_adv is from x, in units of scale; linf and l2."""
        delta = ((x_adv - x) / self.scale).flatten(1)
        return delta.abs().amax(1) if self.norm == "linf" else delta.norm(dim=1)

    def dual(self, gradient: Tensor) -> Tensor:
        """float32[N]: the dual norm of gradients in units of 1 / scale: l1 for linf, l2 for l2."""
        return gradient.flatten(1).abs().sum(1) if self.norm == "linf" else gradient.flatten(1).norm(dim=1)

    def settle(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The row that exists nearest to a point of the ball around x: whole numbers and categories (`[N, D]` both).

        Where nothing is discrete this is x_adv itself. Its gradient is taken as that of x_adv (straight through).
        """
        if self.whole is None and not self.choices:
            return x_adv
        with torch.no_grad():
            settled = x_adv if self.whole is None else torch.where(self.whole, self._rounded(x_adv, x), x_adv)
            for columns in self.choices:
                settled = _choose(settled, x, columns)
        return settled

    def random_start(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A random point of the ball around each x `[N, ...]`: uniform, then cut to the limits."""
        if self.norm == "edits":
            return random_edits(x, int(self.epsilon), generator)
        if self.norm == "linf":
            delta = torch.rand(x.shape, generator=generator, device=x.device) * 2 - 1
        else:
            direction = torch.randn(x.shape, generator=generator, device=x.device) * self.mutable
            radius = torch.rand(len(x), generator=generator, device=x.device) ** (1 / max(1, prod(x.shape[1:])))
            delta = direction / _norms(direction).clamp_min(1e-12) * _column(radius, x)
        return self.project(x + self.epsilon * delta * self.scale * self.mutable, x)

    def ascend(self, x: Tensor, gradient: Tensor, step: float | Tensor) -> Tensor:
        """Where x comes to when moved by `step` in the norm's direction of steepest ascent.

        `step` is in units of scale: one number, or float32[N] with one per example.
        """
        if self.norm == "edits":
            raise ValueError("a message has no gradient to follow: characters are flipped instead (hotflip.py)")
        if isinstance(step, Tensor):
            step = _column(step, x)
        g = gradient * self.scale * self.mutable
        direction = g.sign() if self.norm == "linf" else g / _norms(g).clamp_min(1e-20)
        moved: Tensor = x + step * direction * self.scale
        return moved

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """bool[N]: whether each x_adv lies in the ball around x, up to rounding."""
        if self.norm == "edits":
            return self._contains_edits(x_adv, x)
        rounding = TOLERANCE * (1 + x.abs() / self.scale)
        delta = (x_adv - x) / self.scale
        low, high = self._limits(x)
        slack = rounding * self.scale
        inside = (x_adv >= low - slack) & (x_adv <= high + slack) & ((self.mutable > 0) | (delta.abs() <= rounding))
        inside = inside & self._allowed(x_adv, x, rounding)
        if self.norm == "linf":
            return (inside & (delta.abs() <= self.epsilon + rounding)).flatten(1).all(1)
        # Rounding of single entries is far below that of their norm's bound.
        length = delta.flatten(1).norm(dim=1)
        within: Tensor = inside.flatten(1).all(1) & (length <= self.epsilon + rounding.flatten(1).amax(1))
        return within

    def _allowed(self, x_adv: Tensor, x: Tensor, rounding: Tensor) -> Tensor:
        """bool[N, ...]: whether directions, whole numbers and categories are kept."""
        delta = (x_adv - x) / self.scale
        kept = torch.ones_like(delta, dtype=torch.bool)
        if self.down is not None and self.up is not None:
            kept &= ((self.up > 0) | (delta <= rounding)) & ((self.down > 0) | (delta >= -rounding))
        if self.whole is not None:
            kept &= ~self.whole | (x_adv == x_adv.round()) | (x_adv == x)
        for columns in self.choices:
            one = (x_adv[:, columns] == 1).sum(1) + (x_adv[:, columns] == 0).sum(1) == len(columns)
            one &= (x_adv[:, columns].sum(1) == 1) | (x_adv[:, columns] == x[:, columns]).all(1)
            kept &= one[:, None]
        return kept

    def _rounded(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Whole numbers inside the ball: towards x for l2, so that the length cannot grow; to the nearest for linf."""
        delta = x_adv - x
        slack = TOLERANCE * (1 + delta.abs())
        towards = x + delta.sign() * (delta.abs() + slack).floor()
        if self.norm == "l2":
            return torch.where(x == x.round(), towards, x)
        near = x_adv.round()
        reached = (near - x).abs() <= self.epsilon * self.scale + slack
        low, high = self._limits(x)
        inside = reached & (near >= low) & (near <= high)
        return torch.where(x == x.round(), torch.where(inside, near, towards), x)

    def _limits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.minimum(self.lower, x), torch.maximum(self.upper, x)

    def _limit(self, x_adv: Tensor, x: Tensor) -> Tensor:
        low, high = self._limits(x)
        return torch.minimum(torch.maximum(x_adv, low), high)

    def _project_edits(self, x_adv: Tensor, x: Tensor) -> Tensor:
        changed = (x_adv != x) & (x != PAD) & (x_adv != PAD)
        allowed = changed & (changed.cumsum(1) <= int(self.epsilon))
        return torch.where(allowed, x_adv, x)

    def _contains_edits(self, x_adv: Tensor, x: Tensor) -> Tensor:
        if self.typing:
            pairs = zip(x_adv.tolist(), x.tolist(), strict=True)
            near = [edit_distance(a, b, most=int(self.epsilon)) <= int(self.epsilon) for a, b in pairs]
            return torch.tensor(near, device=x.device)
        changed = x_adv != x
        legal = ~changed | ((x != PAD) & (x_adv != PAD) & (x_adv >= 0) & (x_adv < SYMBOLS))
        return legal.all(1) & (changed.sum(1) <= int(self.epsilon))


def edit_distance(moved: list[int], ids: list[int], *, most: int) -> int:
    """Insertions, deletions, replacements and swaps of neighbours that lead from `ids` to `moved`, both padded.

    Optimal string alignment (Damerau 1964); anything above `most` is told as `most` + 1. Where the message fills its
    length, what an insertion pushed beyond it is not counted.
    """
    full = PAD not in ids
    a, b = ([i for i in row if i != PAD] for row in (moved, ids))
    far = most + 1
    if abs(len(a) - len(b)) > most:
        return far
    before: list[int] = []
    row = [j if j <= most else far for j in range(len(b) + 1)]
    for i in range(1, len(a) + 1):
        next_row = [i if i <= most else far] + [far] * len(b)
        for j in range(max(1, i - most), min(len(b), i + most) + 1):
            cost = min(row[j] + 1, next_row[j - 1] + 1, row[j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                cost = min(cost, before[j - 2] + 1)
            next_row[j] = min(cost, far)
        before, row = row, next_row
    return min(row[-1 - most :]) if full else row[-1]


def _of_table(threat: ThreatModel, spec: InputSpec, device: str) -> Ball:
    """The ball around rows of a table: what the threat model says about single features goes before its epsilon."""
    features, said = spec.features, _said(threat, spec)
    epsilon = float(threat.epsilon)

    def row(values: Iterable[float]) -> Tensor:
        return torch.tensor(list(values), dtype=torch.float32, device=device)

    rules = [said.get(f.column or f.name) for f in features]
    pairs = list(zip(features, rules, strict=True))
    one_sided = any(r is not None and r.direction != "both" for r in rules)
    whole = torch.tensor([f.integer for f in features], device=device)
    return Ball(
        norm=threat.norm,
        epsilon=epsilon,
        lower=row(f.lower for f in features),
        upper=row(f.upper for f in features),
        scale=row(_unit(f, r, epsilon) for f, r in pairs),
        mutable=row(float(f.mutable or (r is not None and r.choose)) for f, r in pairs),
        down=row(float(r is None or r.direction != "up") for r in rules) if one_sided else None,
        up=row(float(r is None or r.direction != "down") for r in rules) if one_sided else None,
        whole=whole if bool(whole.any()) else None,
        choices=tuple(_columns(spec, name) for name, rule in said.items() if rule.choose),
    )


def _said(threat: ThreatModel, spec: InputSpec) -> dict[str, FeatureThreat]:
    """What the threat model says about each feature, after it was found to be sayable."""
    known = {f.column or f.name: f for f in spec.features}
    said = {rule.name: rule for rule in threat.features}
    for name, rule in said.items():
        if name not in known:
            raise WorkloadError(f"threat.features: expected one of {sorted(known)}, found {name!r}")
        category = bool(known[name].column)
        if category != rule.choose or (category and (rule.budget is not None or rule.direction != "both")):
            wanted = "a category with choose: true alone" if category else "a number with budget and direction"
            raise WorkloadError(f"threat.features.{name}: expected {wanted}, found the other kind's keys")
        if rule.choose and threat.norm != "linf":
            raise WorkloadError(f"threat.features.{name}: expected norm linf where a category is chosen, found l2")
        if not rule.choose and not known[name].mutable:
            raise WorkloadError(f"threat.features.{name}: expected a column that can change, found an immutable one")
    return said


def _unit(feature: Feature, rule: FeatureThreat | None, epsilon: float) -> float:
    """One unit of epsilon: a budget is epsilon of them; a choice may go all the way from 0 to 1."""
    if rule is None:
        return feature.scale
    if rule.choose:
        return 1 / epsilon
    return feature.scale if rule.budget is None else float(rule.budget) / epsilon


def _columns(spec: InputSpec, name: str) -> tuple[int, ...]:
    return tuple(index for index, feature in enumerate(spec.features) if feature.column == name)


def _choose(x_adv: Tensor, x: Tensor, columns: tuple[int, ...]) -> Tensor:
    """The category with the largest value; the row's own where none stands above it."""
    values, own = x_adv[:, columns], x[:, columns]
    best = values.argmax(1)
    stays = values.gather(1, best[:, None])[:, 0] <= (values * own).sum(1)
    chosen = torch.nn.functional.one_hot(best, len(columns)).to(x_adv.dtype)
    result = x_adv.clone()
    result[:, columns] = torch.where(stays[:, None], own, chosen)
    return result


def random_edits(ids: Tensor, edits: int, generator: torch.Generator) -> Tensor:
    """Character ids int64[N, L] with `edits` random characters of each message replaced by typed ones."""
    order = torch.rand(ids.shape, generator=generator, device=ids.device).masked_fill(ids == PAD, -1.0)
    chosen = order.topk(min(edits, ids.shape[1]), dim=1).indices
    typed = torch.tensor(TYPED, device=ids.device)
    symbols = typed[torch.randint(len(TYPED), chosen.shape, generator=generator, device=ids.device)]
    return torch.where(ids == PAD, ids, ids.scatter(1, chosen, symbols))


def _norms(delta: Tensor) -> Tensor:
    """L2 norm of each example, shaped [N, 1, ...]."""
    return _column(delta.flatten(1).norm(dim=1), delta)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *([1] * (like.dim() - 1)))
