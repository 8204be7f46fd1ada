"""Digits drawn from typefaces, bent and blurred: a second image set of any size that needs no file and no licence.

Most choices in the recipes were made by figures on Fashion-MNIST. Here strokes are nearly white on black, so large
budgets leave the digits readable and networks find other ways to hide their gradients. The steps of `fgsm-rs` were
chosen on earlier draws of such digits: for that recipe this is a second set, and not an unseen one.
"""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from holdfast.model.inputs import Arrays

SIDE, HEIGHT = 28, 20
FAMILIES = ("DejaVuSans", "DejaVuSerif", "STIXGeneral")
"""Of the typefaces that come with matplotlib, which MLflow brings; each in four styles or more."""
TURN, SHEAR, SIZES, BEND = 0.18, 0.2, (0.85, 1.2), 22.0
"""Standard deviations (radians, share), limits, and pixels before smoothing over four."""

Images = NDArray[np.float32]


def digits(rows: int, *, seed: int) -> Arrays:
    """float32[rows, 1, 28, 28] in [0, 1] and their labels, by the seed."""
    rng, drawn = np.random.default_rng(seed), _drawn()
    chosen = rng.integers(len(drawn), size=rows)
    x = np.stack([_bent(drawn[number][0], rng) for number in chosen])
    return Arrays(x[:, None], np.array([drawn[number][1] for number in chosen], dtype=np.int64))


@cache
def _drawn() -> tuple[tuple[Images, int], ...]:
    """Every digit of every typeface, upright in the middle."""
    import matplotlib
    from PIL import ImageFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    files = sorted(
        path for path in folder.glob("*.ttf") if path.name.startswith(FAMILIES) and "Display" not in path.name
    )
    return tuple((_draw(ImageFont.truetype(path, 40), digit), digit) for path in files for digit in range(10))


def _draw(font: object, digit: int) -> Images:
    from PIL import Image, ImageDraw

    sheet = Image.new("L", (80, 80))
    ImageDraw.Draw(sheet).text((20, 15), str(digit), fill=255, font=font)  # type: ignore[arg-type]
    part = sheet.crop(sheet.getbbox())
    scale = HEIGHT / max(part.size)
    part = part.resize((max(3, round(part.width * scale)), max(3, round(part.height * scale))))
    found = Image.new("L", (SIDE, SIDE))
    found.paste(part, ((SIDE - part.width) // 2, (SIDE - part.height) // 2))
    return np.asarray(found, dtype=np.float32) / np.float32(255)


def _bent(image: Images, rng: np.random.Generator) -> Images:
    """Turned, sheared, stretched, moved, bent (Simard et al. 2003, elastic distortion), and as if written again."""
    turn, shear, (wide, high) = rng.normal(0, TURN), rng.normal(0, SHEAR), rng.uniform(*SIZES, 2)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ [[wide, shear * high], [0, high]]
    middle = (SIDE - 1) / 2
    across, down = np.meshgrid(*2 * [np.arange(SIDE) - middle])
    across, down = across - rng.normal(0, 0.7), down - rng.normal(0, 0.7)
    bend = [gaussian_filter(rng.uniform(-1, 1, (SIDE, SIDE)), 4) * BEND for _ in range(2)]
    from_x = matrix[0, 0] * across + matrix[0, 1] * down + middle + bend[0]
    from_y = matrix[1, 0] * across + matrix[1, 1] * down + middle + bend[1]
    found = gaussian_filter(map_coordinates(image, [from_y, from_x], order=1), rng.uniform(0.4, 0.8))
    return np.asarray(np.clip(found * rng.uniform(1.8, 3.0) - 0.1, 0, 1), dtype=np.float32)
