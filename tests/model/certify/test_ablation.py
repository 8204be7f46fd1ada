from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from holdfast.modality.text import HIDDEN, PAD, encode_text
from holdfast.model.certify.ablation import ablation, ablation_radius, kept, touched
from holdfast.model.certify.smoothing import Sampling, certify


@pytest.mark.parametrize(("m", "k", "r"), [(6, 2, 1), (6, 2, 2), (7, 3, 3), (5, 5, 1), (4, 1, 4)])
def test_the_touch_probability_is_what_counting_says(m: int, k: int, r: int) -> None:
    subsets = list(combinations(range(m), k))
    hit = sum(bool(set(subset) & set(range(r))) for subset in subsets)
    assert touched(m, k, r) == pytest.approx(hit / len(subsets))


def test_copies_keep_exactly_the_share_and_hide_the_rest() -> None:
    ids = torch.from_numpy(encode_text(["hello world"], 20))[0]
    copies = ablation(0.3, torch.Generator().manual_seed(0))(ids[None], 200)[0]
    shown = (copies != HIDDEN) & (copies != PAD)
    assert (shown.sum(dim=1) == kept(0.3, 11)).all()
    assert (copies[:, 11:] == PAD).all()
    assert (copies[shown] == ids.expand(200, -1)[shown]).all()
    assert shown[:, :11].any(dim=0).all()


def test_more_kept_characters_prove_less() -> None:
    ids = torch.from_numpy(encode_text(["x" * 100], 100))[0]
    radii = [ablation_radius(share, ids)(0.999) for share in (0.05, 0.1, 0.25, 0.6)]
    assert radii == sorted(radii, reverse=True)
    assert radii[-1] == 0


def test_the_radius_is_the_largest_that_the_inequality_allows() -> None:
    ids = torch.from_numpy(encode_text(["x" * 50], 64))[0]
    k, p = kept(0.2, 50), 0.95
    r = int(ablation_radius(0.2, ids)(p))
    assert p - touched(50, k, r) > 0.5 >= p - touched(50, k, r + 1)


class SeesLetter(nn.Module):
    """Answers 1 when at least `least` of the visible characters are the letter."""

    def __init__(self, symbol: int, least: int) -> None:
        super().__init__()
        self.symbol, self.least = symbol, least

    def forward(self, ids: Tensor) -> Tensor:
        score = (ids == self.symbol).sum(dim=1).float() - self.least + 0.5
        return torch.stack([-score, score], dim=1)


def test_no_replacement_inside_the_certified_number_changes_the_majority() -> None:
    ids = torch.from_numpy(encode_text(["aaaaaaaaaaaaaaaaaaaabbbbb"], 25))[0]
    net = SeesLetter(int(ids[0]), least=1)
    generator = torch.Generator().manual_seed(0)
    draw, radius_of = ablation(0.2, generator), ablation_radius(0.2, ids)
    found = certify(net, ids, draw=draw, radius_of=radius_of, sampling=Sampling(n0=100, n=2000, alpha=0.001))
    assert found.label == 1
    assert found.radius >= 1
    attacked = ids.clone()
    attacked[: int(found.radius)] = int(ids[-1])
    votes = net(draw(attacked[None], 5000)[0]).argmax(dim=1)
    assert float(votes.float().mean()) > 0.5
