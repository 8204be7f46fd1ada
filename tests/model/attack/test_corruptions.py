import pytest
import torch

from holdfast.model.attack.corruptions import CORRUPTIONS, Corruption, corrupt


def images() -> torch.Tensor:
    return 0.3 + 0.4 * torch.rand(50, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def spoiled(name: Corruption, severity: int) -> torch.Tensor:
    return corrupt(images(), name, severity, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_moves_images_farther_and_keeps_them_images(name: Corruption) -> None:
    moved = [float((spoiled(name, severity) - images()).abs().mean()) for severity in range(1, 6)]
    assert moved == sorted(moved)
    assert moved[0] > 0
    assert 0 <= float(spoiled(name, 5).min()) <= float(spoiled(name, 5).max()) <= 1


def test_noise_has_the_deviation_of_the_paper() -> None:
    # CIFAR-10-C, severity 5: 0.10.
    assert float((spoiled("gaussian-noise", 5) - images()).std()) == pytest.approx(0.10, rel=0.02)


def test_contrast_keeps_the_mean_and_leaves_the_stated_share() -> None:
    x, found = images(), spoiled("contrast", 5)
    assert torch.allclose(found.mean((2, 3)), x.mean((2, 3)), atol=1e-6)
    assert float(found.std() / x.std()) == pytest.approx(0.15, rel=0.05)


def test_blur_keeps_a_flat_image_and_spreads_a_point_by_its_deviation() -> None:
    flat = torch.full((1, 1, 32, 32), 0.5)
    generator = torch.Generator()
    assert torch.allclose(corrupt(flat, "gaussian-blur", 5, generator), flat)
    point = torch.zeros(1, 1, 32, 32)
    point[0, 0, 16, 16] = 1
    spread = corrupt(point, "gaussian-blur", 5, generator)[0, 0].sum(0)
    # Variance of a discrete Gaussian of deviation 1: about 1.
    assert float((spread * (torch.arange(32) - 16) ** 2).sum()) == pytest.approx(1.0, rel=0.05)
