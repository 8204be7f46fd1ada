"""The benchmark of a GPU, at toy size on a CPU: that it runs, with which packages, and what it counts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gpu
from benchmarks.resnet import preact_resnet18
from benchmarks.scenes import Bench, Images
from benchmarks.table import ROOT, Row, cells
from holdfast.errors import InputError
from holdfast.model.networks import parameters

OTHERS = ("scipy", "sklearn", "pandas", "rich", "typer", "kfp", "mlflow", "art", "pyarrow", "matplotlib")
BLOCKED = f"""
import sys
finders = sys.meta_path[:]
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OTHERS!r}:
            return None
        return next(filter(None, (finder.find_spec(name, path, target) for finder in finders)), None)
sys.meta_path[:] = [Absent()]
from benchmarks.gpu import main
raise SystemExit(main(sys.argv[1:]))
"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Grey noise in the shapes of Fashion-MNIST."""
    rng, path = np.random.default_rng(0), tmp_path / "grey.npz"
    arrays = {f"x_{split}": rng.integers(0, 256, (rows, 28, 28), np.uint8) for split, rows in _ROWS.items()}
    arrays |= {f"y_{split}": np.arange(rows, dtype=np.uint8) % 10 for split, rows in _ROWS.items()}
    np.savez(path, **arrays)
    return path


_ROWS = {"train": 160, "test": 32}


def macs(width: int) -> int:
    """Multiplications of one image in ResNet-18 at 32 x 32, layer by layer from the paper's table."""
    count = 1024 * (27 * width + 4 * 9 * width**2)
    for stage, side in ((1, 16), (2, 8), (3, 4)):
        out, of = width * 2**stage, width * 2 ** (stage - 1)
        count += side**2 * (9 * of * out + 3 * 9 * out**2 + of * out)
    return count + 8 * width * 10


def scene(images: Path) -> gpu.Scene:
    grey = Images.read(images, gpu.Fraction(1, 10))
    return gpu.Scene(gpu.coloured(grey, gpu.TOY), "cpu", gpu.Clock(1), gpu.TOY, compile=False)


def test_every_part_runs_on_a_cpu_without_other_packages(images: Path, tmp_path: Path) -> None:
    out, paths = tmp_path / "rows.json", [ROOT, ROOT / "components", ROOT / "gates"]
    asked = ["--toy", "--device", "cpu", "--compile", "off", "--images", str(images), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run([sys.executable, "-c", BLOCKED, *asked], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [Row(**row) for row in json.loads(out.read_text())["rows"]]
    words = ("TFLOP/s", "GB/s", "fgsm-rs", "PGD-10", "roofline", "robust accuracy", "plain loop", "smoothing")
    assert all(any(word in row.target for row in rows) for word in words)
    assert all(cells(row).count("|") == 6 for row in rows)


def test_images_that_are_missing_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.json"
    code = gpu.main(["--toy", "--device", "cpu", "--images", str(tmp_path / "none.npz"), "--out", str(out)])
    assert code == 1
    assert "expected an NPZ of images, found no file" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_no_row_is_written(images: Path) -> None:
    with pytest.raises(InputError, match="expected a CUDA device, found none"):
        gpu.run(Bench(images, gpu.Fraction(1, 10), images.parent, 1))


def test_the_network_has_the_parameters_of_preact_resnet18() -> None:
    # 11,171,146 in the widely used kuangliu/pytorch-cifar, and 2 x 512 of the batch norm after the blocks.
    assert parameters(preact_resnet18((3, 32, 32), 10)) == 11_171_146 + 2 * 512


def test_operations_are_those_of_the_layers(images: Path) -> None:
    forwards = 2 * macs(gpu.TOY.width)
    # Backwards costs twice as much, but nobody asks for the gradient of the training images.
    backwards = 2 * forwards - 2 * 1024 * 27 * gpu.TOY.width
    steps = gpu.RECIPES["pgd"].attack_steps
    assert gpu.operations(scene(images), "pgd") == steps * 2 * forwards + forwards + backwards


def test_images_get_a_black_border_and_three_equal_channels(images: Path) -> None:
    grey = Images.read(images, gpu.Fraction(1, 10))
    x = gpu.coloured(grey, gpu.TOY).train.x
    assert x.shape == (gpu.TOY.rows, 3, 32, 32)
    assert np.array_equal(x[:, 1, 2:30, 2:30], grey.train.x[: len(x), 0])
    assert x.sum() == pytest.approx(3 * grey.train.x[: len(x)].sum(), rel=1e-5)


def test_the_parts_share_what_is_left_and_nothing_remains_after_the_end() -> None:
    now = [0.0]
    clock = gpu.Clock(8, now=lambda: now[0])
    assert clock.budget("card") == pytest.approx(432 * 10 / sum(gpu.PLAN.values()))
    now[0] = 332.0
    assert clock.budget("smoothing") == pytest.approx(20)
    assert clock.short("pgd")
    now[0] = 500.0
    assert clock.budget("compile") == 0


def test_attacks_stop_when_their_seconds_are_gone() -> None:
    now = [0.0]
    clock = gpu.Clock(8, now=lambda: now[0])
    chosen = gpu.plans("release", "linf", 10, embedding=False)
    ran = []
    for plan in gpu._while(chosen, clock, 50):
        ran.append(plan)
        now[0] += 30
    assert ran == list(chosen[:2])


def test_a_compiler_that_takes_too_long_is_stopped() -> None:
    with pytest.raises(RuntimeError, match="not done after"), gpu._limit(0.05):
        gpu.time.sleep(5)
