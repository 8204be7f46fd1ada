"""What squeezers leave of an input, and which words are repaired."""

import pytest
import torch
from torch import nn

from holdfast.modality.text import decode_text, encode_text
from holdfast.model.detect.autoencoder import RowAutoencoder, trained
from holdfast.model.detect.spelling import Spelling
from holdfast.model.detect.squeezers import BitDepth, FeatureBins, Median, Spelled, Through

KNOWN = ["please claim your prize today", "claim the prize, winner", "see you at home today"]


def test_a_pixel_has_eight_values_of_its_range() -> None:
    x = torch.tensor([0.0, 0.06, 0.08, 0.5, 1.0]).reshape(1, 1, 1, 5)
    assert torch.allclose(BitDepth(0, 1)(x), torch.tensor([0, 0, 1, 4, 7]).reshape(1, 1, 1, 5) / 7)
    assert torch.allclose(BitDepth(-1, 1)(x * 2 - 1), BitDepth(0, 1)(x) * 2 - 1, atol=1e-6)


def test_the_median_takes_single_pixels_away_and_keeps_edges() -> None:
    x = torch.zeros(1, 2, 5, 6)
    x[0, 0, 2, 2], x[0, 1, :, 3:] = 1.0, 1.0
    found = Median()(x)
    assert found.shape == x.shape
    assert found[0, 0].sum() == 0
    assert torch.equal(found[0, 1], x[0, 1])


def test_a_value_becomes_the_middle_of_its_bin() -> None:
    x = torch.stack([torch.arange(1600).float(), (torch.arange(1600) % 2).float()], dim=1)
    found = FeatureBins.of(x)(x)
    assert len(found[:, 0].unique()) == 16
    assert (found[:, 0] - x[:, 0]).abs().max() <= 52
    assert torch.equal(found[:, 1], x[:, 1])
    far = FeatureBins.of(x)(torch.tensor([[-1e6, 0.0], [1e6, 1.0]]))
    assert (far[0, 0], far[1, 0]) == (found[0, 0], found[-1, 0])


@pytest.mark.parametrize(
    ("typed", "repaired"),
    [
        ("claim your prize", "claim your prize"),
        ("c1aim yuor prze!", "claim your prize!"),
        ("claaim, pri ze", "claim, pri ze"),
        ("сlаim the prіze", "claim the prize"),  # Cyrillic letters
        ("cla\u200bim the \uff50rize", "claim the prize"),
        ("hme at zebra", "hme at zebra"),  # three letters are too few to repair
        ("teh xqzzw", "teh xqzzw"),
    ],
)
def test_words_are_spelled_as_in_the_training_messages(typed: str, repaired: str) -> None:
    assert Spelling(KNOWN).repaired(typed) == repaired


def test_messages_keep_their_length_in_characters() -> None:
    ids = encode_text(["c1aim the prize now and for ever", ""], 20)
    found = Spelled(Spelling(KNOWN))(torch.from_numpy(ids)).numpy()
    assert found.shape == ids.shape
    assert decode_text(found) == ["claim the prize now ", ""]


def test_the_gradient_passes_a_squeezer_without_one() -> None:
    network = nn.Flatten()
    x = torch.full((1, 1, 2, 2), 0.3, requires_grad=True)
    behind = Through(network, BitDepth(0, 1))
    assert torch.equal(behind(x), network(BitDepth(0, 1)(x.detach())))
    (gradient,) = torch.autograd.grad(behind(x).sum(), x)
    assert torch.equal(gradient, torch.ones_like(x))


def test_an_autoencoder_takes_noise_away() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 2, generator=generator) @ torch.randn(2, 8, generator=generator)
    noise = x.std(0) * 0.5
    moved = x + noise * torch.randn(x.shape, generator=generator)
    found = trained(lambda: RowAutoencoder(x), x, noise, generator)(moved)
    assert float((found - x).square().mean()) < 0.6 * float((moved - x).square().mean())
    first, second = (trained(lambda: RowAutoencoder(x), x, noise, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first(moved), second(moved))
