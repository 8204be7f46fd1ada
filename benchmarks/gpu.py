"""One GPU: the card, adversarial training of a PreAct ResNet-18, the nightly tier and smoothing; plain loops too.

`python -m benchmarks.gpu --minutes 8` needs torch, numpy, pydantic, safetensors and PyYAML alone. Each part gets its
share of the minutes that are left and does less when they are few; the rows are written after each part, so that a
run that is stopped keeps what it measured. `--toy --device cpu` runs every part on a CPU within seconds.

Operations of a network are counted by torch on its convolutions and linear layers, a multiplication with its addition
as two. A step of an attack runs the network forwards, and backwards to the input, which costs as much again.
"""

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.scenes import Bench, Images, default_folder
from benchmarks.table import RESULTS, Row, record, shown
from holdfast.artifacts.documents import ThreatModel
from holdfast.compute import Compute, Device
from holdfast.errors import HoldfastError, InputError
from holdfast.modality.ball import Ball
from holdfast.model.attack.kinds import plans
from holdfast.model.attack.losses import climb_direction
from holdfast.model.attack.losses import cross_entropy as climbed
from holdfast.model.attack.plan import AttackPlan, Tier
from holdfast.model.attack.suite import Measured, correct_in_batches, measure, survivors
from holdfast.model.certify import smoothing
from holdfast.model.inputs import Arrays
from holdfast.model.train.adversarial import Training
from holdfast.workload.schema import RecipeConfig

Part = Literal["card", "speed", "fgsm-rs", "fgsm-rs release", "pgd", "pgd release", "nightly", "smoothing", "compile"]
PLAN: dict[Part, float] = {
    "card": 10,
    "speed": 15,
    "fgsm-rs": 50,
    "fgsm-rs release": 50,
    "pgd": 115,
    "pgd release": 50,
    "nightly": 45,
    "smoothing": 20,
    "compile": 80,
}
"""Seconds of each part when there are eight minutes, and how the parts share what is left."""
RESERVE = 0.1
"""Share of the minutes that nothing is planned for."""
SHORT = 0.5
"""A part with less than this share of its planned seconds takes a quarter of its images."""
SIGMA = 0.25
AGAIN = 10.0
PRECISION = "float32 (TF32 convolutions on a GPU)"
RECIPES = {
    "fgsm-rs": RecipeConfig(recipe="fgsm-rs", fast_steps=2, learning_rate=2e-3, average=0.995),
    "pgd": RecipeConfig(recipe="pgd", attack_steps=10, learning_rate=2e-3, average=0.995),
}


@dataclass(frozen=True)
class Size:
    """How large the parts are."""

    matrix: int = 8192
    copied: int = 2**32
    """Bytes of the array that is copied."""
    rows: int = 60_000
    width: int = 64
    batch: int = 512
    selection: int = 608
    """Rows set apart: 59,392 are left, which batches of 256, 512 and 1,024 divide."""
    epochs: int = 30
    """At most; fewer where the time is short."""
    steps: int = 20
    """Batches that are timed."""
    tested: int = 10_000
    attacked: int = 1000
    nightly: int = 512
    smoothed: int = 32
    copies: int = 10_000
    strong: Tier = "release"
    """The tier that judges a training."""
    timed: Tier = "nightly"
    """The tier that is timed."""


TOY = Size(
    matrix=64,
    copied=2**16,
    rows=160,
    width=4,
    batch=32,
    selection=32,
    epochs=1,
    steps=2,
    tested=32,
    attacked=4,
    nightly=4,
    smoothed=2,
    copies=40,
    strong="pr",
    timed="pr",
)


class _TooSlowError(RuntimeError):
    """The compiler did not come to an end in its time."""


class Clock:
    """What is left of the minutes, and each part's share of it."""

    def __init__(self, minutes: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._end = now() + 60 * minutes * (1 - RESERVE)

    def left(self) -> float:
        """Seconds."""
        return max(0.0, self._end - self._now())

    def budget(self, part: Part) -> float:
        """Seconds of a part: as much of what is left as the plan gives it among itself and the parts after it."""
        names = list(PLAN)
        return self.left() * PLAN[part] / sum(PLAN[name] for name in names[names.index(part) :])

    def short(self, part: Part) -> bool:
        """Whether the part has far less than its planned seconds."""
        return self.budget(part) < SHORT * PLAN[part]


@dataclass
class Scene:
    """What every part gets, and what one leaves for the next."""

    images: Images
    device: str
    clock: Clock
    size: Size = field(default_factory=Size)
    compile: bool = True
    peak: float = 0.0
    """Operations per second of the matrix products."""
    speeds: dict[str, float] = field(default_factory=dict)
    """Images per second by recipe, steps alone."""

    @cached_property
    def ball(self) -> Ball:
        """What the attacker reaches: epsilon in each of the three channels."""
        threat = ThreatModel(norm="linf", epsilon=self.images.epsilon, unit="input units [0, 1]")
        return Ball.of(threat, self.images.spec, self.device)

    @cached_property
    def net(self) -> nn.Module:
        """The one network of all parts: torch.compile knows it by its identity."""
        return self.images.network("benchmarks.resnet:preact_resnet18", width=self.size.width).to(self.device)

    @cached_property
    def initial(self) -> dict[str, Tensor]:
        """The weights to begin each training with."""
        return {name: value.clone() for name, value in self.net.state_dict().items()}

    def test(self, count: int) -> tuple[Tensor, Tensor]:
        """The first held-out rows, on the device."""
        x, y = self.images.tensors(count)
        return x.to(self.device), y.to(self.device)

    def wait(self) -> None:
        """Returns when the device has nothing to do."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object]) -> float:
        """Wall time of `work` to its end on the device."""
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def training(self, recipe: str, *, epochs: int, compiled: bool) -> Training:
        """A training from the initial weights."""
        size, changes = self.size, {"epochs": epochs, "compile": compiled}
        self.net.load_state_dict(self.initial)
        changes |= {"batch": size.batch, "selection_rows": size.selection}
        config = RECIPES[recipe].model_copy(update=changes)
        return Training(self.net, self.images.train, self.ball, config, seed=0)


def coloured(images: Images, size: Size) -> Images:
    """Grey images float32[N, 1, 28, 28] as float32[N, 3, 32, 32]: a black border of 2, the same in all channels."""
    parts = (images.train.take(np.arange(min(size.rows, len(images.train)))), images.test)
    train, test = (Arrays(_padded(part.x), part.y) for part in parts)
    return Images(f"{images.name} at 3 x 32 x 32", train, test, images.epsilon)


def measured(scene: Scene, tell: Callable[[list[Row]], None]) -> list[Row]:
    """All rows; `tell` gets those that there are after each part."""
    rows: list[Row] = []
    parts: dict[Part, Callable[[Scene], list[Row]]] = {
        "card": card,
        "speed": speed,
        "fgsm-rs": lambda scene: trained(scene, "fgsm-rs"),
        "pgd": lambda scene: trained(scene, "pgd"),
        "nightly": nightly,
        "smoothing": smoothed,
        "compile": with_compiler,
    }
    for name, part in parts.items():
        start = time.monotonic()
        rows += part(scene)
        _say(f"gpu: {name}: {time.monotonic() - start:.0f} s, {scene.clock.left():.0f} s left")
        tell(rows)
    return rows


def card(scene: Scene) -> list[Row]:
    """What it is, and the two ceilings: matrix products and copies."""
    n, size = scene.size.matrix, scene.size
    a, b = (torch.randn(n, n, device=scene.device).bfloat16() for _ in range(2))
    source = torch.randn(size.copied // 4, device=scene.device)
    target = torch.empty_like(source)
    product = _median(scene, lambda: a @ b)
    copy = _median(scene, lambda: target.copy_(source))
    scene.peak = 2 * n**3 / product
    return [
        shown("card", _card(scene.device), "as the driver names it"),
        shown(f"bf16 matrix product {n} x {n} x {n}, TFLOP/s", scene.peak / 1e12, "random data, median of 10"),
        shown("copy on the device, GB/s", 2 * 4 * source.numel() / copy / 1e9, "bytes read and written, median of 10"),
    ]


def speed(scene: Scene) -> list[Row]:
    """Steps of training without torch.compile."""
    scene.speeds = {recipe: _speed(scene, recipe, compiled=False) for recipe in RECIPES}
    return [row for recipe, found in scene.speeds.items() for row in _speed_rows(scene, recipe, found, "")]


def with_compiler(scene: Scene) -> list[Row]:
    """Steps of training with torch.compile: last, because a compiler can take longer than it has."""
    what, how = "adversarial training, steps alone, torch.compile", "not measured"
    if not scene.compile:
        return [shown(what, how, "switched off")]
    try:
        with _limit(max(1.0, scene.clock.budget("compile"))):
            found = {recipe: _speed(scene, recipe, compiled=True) for recipe in RECIPES}
    except RuntimeError as error:
        return [shown(what, how, f"{(str(error).splitlines() or [type(error).__name__])[0][:200]}")]
    return [row for recipe in RECIPES for row in _speed_rows(scene, recipe, found[recipe], ", torch.compile")]


def trained(scene: Scene, recipe: str) -> list[Row]:
    """One training in the time that there is, and what its network withstands."""
    part: Part = "pgd" if recipe == "pgd" else "fgsm-rs"
    budget = scene.clock.budget(part)
    possible = int(0.85 * budget * scene.speeds[recipe] / len(scene.images.train))
    training = scene.training(recipe, epochs=max(1, min(scene.size.epochs, possible)), compiled=False)
    _forget_peak(scene)
    fitted: list[int] = []
    seconds = scene.seconds(lambda: fitted.append(_finish(training, scene.clock, 1.5 * budget)))
    epochs = training.state.epoch + training.state.batch / training.batches
    notes = "; ".join(training.notes) or "no collapse"
    how = f"{_how(scene, recipe)}, {epochs:.3g} epochs of {len(training.y)} rows; {notes}"
    what = _what(scene, recipe)
    rows = [
        shown(f"{what}, images/s with judging the epochs", fitted[0] / seconds, how),
        shown(f"{what}, seconds", seconds, how),
        *_memory(scene, f"{what}, peak memory, GiB", how),
    ]
    return [*rows, *_withstood(scene, training, f"{part} release", what, how)]  # type: ignore[arg-type]


def nightly(scene: Scene) -> list[Row]:
    """The nightly tier, compared with the same attacks, each on every image to the end, PGD written by hand."""
    count = scene.size.nightly // (4 if scene.clock.short("nightly") else 1)
    x, y = scene.test(count)
    chosen = plans(scene.size.timed, "linf", scene.images.classes, embedding=False)
    found: dict[str, Tensor] = {}

    def ours() -> None:
        found["holdfast"] = measure(scene.net, x, y, scene.ball, chosen, seed=0).worst

    def plain() -> None:
        found["plain"] = _plain_nightly(scene, x, y, chosen)

    times = {"holdfast": scene.seconds(ours), "plain": scene.seconds(plain)}
    if scene.clock.left() > 1.2 * sum(times.values()) + PLAN["smoothing"] + PLAN["compile"]:
        times = {
            "holdfast": min(times["holdfast"], scene.seconds(ours)),
            "plain": min(times["plain"], scene.seconds(plain)),
        }
    share = {name: round(float(flags.float().mean()), 4) for name, flags in found.items()}
    how = f"{count} images; plain: {_names(chosen)}, each on all images to the end; {PRECISION}; {share}"
    what = f"worst case of the {scene.size.timed} tier"
    return [
        shown(f"{what}, speed, times that of a plain loop", times["plain"] / times["holdfast"], how),
        shown(f"{what}, seconds", times["holdfast"], how),
        shown(f"{what}, accuracy above that of the plain loop", share["holdfast"] - share["plain"], how),
        *_new_size(scene),
    ]


def smoothed(scene: Scene) -> list[Row]:
    """Noisy copies per second of the certificate, of a plain loop and of the network alone."""
    size = scene.size
    count = max(1, size.smoothed // (4 if scene.clock.short("smoothing") else 1))
    x, _ = scene.test(count)
    batch = smoothing.BATCH[scene.device]
    generator = torch.Generator(scene.device).manual_seed(0)
    draw = smoothing.gaussian(SIGMA, torch.ones((), device=scene.device), generator)
    rows = x[:1].expand(min(batch, size.copies), *x.shape[1:]).contiguous()
    ways: dict[str, Callable[[], object]] = {
        "holdfast": lambda: smoothing.answers(scene.net, x, size.copies, draw=draw, batch=batch),
        "plain": lambda: _plain_smoothing(scene.net, x, size.copies, scene.images.classes),
        "network": lambda: _alone(scene.net, rows, count * size.copies),
    }
    few = max(1, min(size.copies, batch // smoothing.TOGETHER))
    smoothing.answers(scene.net, x, few, draw=draw, batch=batch)
    _plain_smoothing(scene.net, x[:1], min(1000, size.copies), scene.images.classes)
    per_second = {name: count * size.copies / scene.seconds(way) for name, way in ways.items()}
    how = f"{count} images, {size.copies} copies of each, sigma {SIGMA}, {PRECISION}"
    what = "smoothing, fixed N, noisy forwards per second"
    ours = per_second["holdfast"]
    return [
        shown(what, ours, how),
        shown(f"{what}, times those of a plain loop", ours / per_second["plain"], f"{how}; plain: batches of 1,000"),
        shown(f"{what}, times those of the network alone", ours / per_second["network"], how),
    ]


def run(bench: Bench) -> list[Row]:
    """Eight minutes on the GPU.

    Raises:
        InputError: there is none.
    """
    if not torch.cuda.is_available():
        raise InputError(
            "gpu: expected a CUDA device, found none; `python -m benchmarks.gpu --toy --device cpu` tries it"
        )
    scene = Scene(coloured(bench.images, Size()), "cuda", Clock(8))
    return measured(scene, lambda rows: record("gpu", rows, RESULTS / "gpu.json"))


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 with one line about what is missing."""
    asked = _parser().parse_args(arguments)
    size = TOY if asked.toy else Size()
    device: Device = asked.device
    try:
        where = Compute(seed=0, device=device, threads=1).prepare()
        images = coloured(Images.read(asked.images, Fraction(asked.epsilon)), size)
        scene = Scene(images, where, Clock(asked.minutes), size, asked.compile == "auto")
        measured(scene, lambda rows: record("gpu", rows, asked.out))
    except HoldfastError as error:
        sys.stderr.write(f"gpu: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--minutes", type=float, default=8.0, help="wall time of all parts together")
    parser.add_argument(
        "--images", type=Path, default=default_folder() / "fashion_mnist.npz", help="NPZ of 28 x 28 images"
    )
    parser.add_argument("--epsilon", default="1/10", help="linf budget, input units [0, 1], as a fraction")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the rows: benchmarks/results/gpu.json")
    parser.add_argument(
        "--compile", choices=("auto", "off"), default="auto", help="auto: steps with torch.compile are timed, too"
    )
    parser.add_argument("--toy", action="store_true", help="tiny sizes: whether it runs, not how fast")
    return parser


def _padded(
    x: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]",
) -> "np.ndarray[tuple[int, ...], np.dtype[np.generic]]":
    side = 32 - x.shape[2]
    framed = np.pad(x, ((0, 0), (0, 0), (side // 2, side - side // 2), (side // 2, side - side // 2)))
    return np.repeat(framed, 3, axis=1)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _card(device: str) -> str:
    if device != "cuda":
        return "none: a CPU"
    found = torch.cuda.get_device_properties(0)
    size = f"{found.total_memory / 2**30:.1f} GiB, {found.multi_processor_count} multiprocessors"
    return f"{found.name}, {size}, driver {_driver()}, CUDA {torch.version.cuda}, torch {torch.__version__}"


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"


def _median(scene: Scene, work: Callable[[], object]) -> float:
    """Seconds of `work`, the median of ten after three."""
    return median([scene.seconds(work) for _ in range(13)][3:])


def _speed(scene: Scene, recipe: str, *, compiled: bool) -> float:
    """Images per second over some batches, after some that load, plan and compile."""
    training = scene.training(recipe, epochs=1000, compiled=compiled)

    def advance(count: int) -> None:
        for _ in range(count):
            training.advance()

    advance(max(2, scene.size.steps // 4))
    return scene.size.steps * scene.size.batch / scene.seconds(lambda: advance(scene.size.steps))


def _speed_rows(scene: Scene, recipe: str, found: float, way: str) -> list[Row]:
    """Images per second, and their share of the roofline."""
    what, work = f"{_what(scene, recipe)}, steps alone{way}", operations(scene, recipe)
    how = f"batches of {scene.size.batch}, the mean of {scene.size.steps}, bf16 autocast on a GPU"
    ceiling = f"{work / 1e9:.4g} GFLOP per image over the matrix product's"
    return [
        shown(f"{what}, images/s", found, how),
        shown(f"{what}, share of the roofline", found * work / scene.peak, ceiling),
    ]


def operations(scene: Scene, recipe: str) -> float:
    """Floating-point operations of one image in one batch of the recipe: its attack, and forwards and backwards."""
    config, net = RECIPES[recipe], scene.net.train()
    x = torch.zeros(2, *scene.images.spec.shape, device=scene.device)
    steps = config.attack_steps if recipe == "pgd" else config.fast_steps
    with FlopCounterMode(display=False) as forwards:
        out = net(x)
    with FlopCounterMode(display=False) as backwards:
        out.sum().backward()
    net.zero_grad(set_to_none=True)
    once = forwards.get_total_flops() / len(x)
    return float(2 * once * steps + once + backwards.get_total_flops() / len(x))


def _finish(training: Training, clock: Clock, seconds: float) -> int:
    """Trains to the end, or for so many seconds; how many rows were fitted."""
    stop, fitted = clock.left() - seconds, 0
    while not training.finished and clock.left() > stop:
        training.advance()
        fitted += len(training.y) // training.batches
    return fitted


def _withstood(scene: Scene, training: Training, part: Part, what: str, how: str) -> list[Row]:
    """Accuracy of the kept weights on the held-out rows, and under as much of the tier as the time allows."""
    scene.net.load_state_dict(training.state.best or scene.net.state_dict())
    scene.net.eval()
    for parameter in scene.net.parameters():
        parameter.requires_grad_(False)
    budget = scene.clock.budget(part)
    clean = correct_in_batches(scene.net, *scene.test(scene.size.tested))
    x, y = scene.test(scene.size.attacked // (4 if scene.clock.short(part) else 1))
    chosen = plans(scene.size.strong, "linf", scene.images.classes, embedding=False)
    found = measure(scene.net, x, y, scene.ball, _while(chosen, scene.clock, budget), seed=0)
    for parameter in scene.net.parameters():
        parameter.requires_grad_(True)
    return [
        shown(f"{what}, clean", float(clean.float().mean()), how),
        shown(
            f"{what}, robust accuracy, {scene.size.strong} tier",
            float(found.worst.float().mean()),
            f"{_ran(found, chosen, len(y))}; {how}",
        ),
    ]


def _while(chosen: Sequence[AttackPlan], clock: Clock, seconds: float) -> Iterator[AttackPlan]:
    """The attacks, until the seconds are gone; the first always."""
    stop = clock.left() - seconds
    for index, plan in enumerate(chosen):
        if index and clock.left() <= stop:
            return
        yield plan


def _ran(found: Measured, chosen: Sequence[AttackPlan], rows: int) -> str:
    left = [plan.name for plan in chosen[len(found.outcomes) :]]
    missing = f"NOT RUN for want of time: {', '.join(left)}" if left else "all its attacks"
    return f"{rows} images, {missing}, {PRECISION}"


def _what(scene: Scene, recipe: str) -> str:
    config = RECIPES[recipe]
    name = f"PGD-{config.attack_steps}" if recipe == "pgd" else f"fgsm-rs, {config.fast_steps} steps"
    return f"adversarial training, {name}, PreAct ResNet-18, {scene.images.name}, eps {scene.images.epsilon}"


def _how(scene: Scene, recipe: str) -> str:
    return f"{recipe} training, batches of {scene.size.batch}, bf16 autocast on a GPU, mean of the weights"


def _forget_peak(scene: Scene) -> None:
    if scene.device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _memory(scene: Scene, target: str, how: str) -> list[Row]:
    if scene.device != "cuda":
        return []
    return [shown(target, torch.cuda.max_memory_allocated() / 2**30, f"{how}; the images lie on the GPU as float32")]


def _plain_nightly(scene: Scene, x: Tensor, y: Tensor, chosen: Sequence[AttackPlan]) -> Tensor:
    """bool[N]: right under PGD by hand and under the tier's other attacks, each on every image."""
    remaining = correct_in_batches(scene.net, x, y)
    for plan in chosen:
        if plan.name != "pgd-ce":
            remaining &= survivors(scene.net, x, y, scene.ball, plan, seed=0)
            continue
        for _ in range(plan.restarts):
            moved = _plain_pgd(scene.net, x, y, epsilon=scene.ball.epsilon, steps=plan.steps)
            remaining &= correct_in_batches(scene.net, moved, y)
    return remaining


def _names(chosen: Sequence[AttackPlan]) -> str:
    return ", ".join(f"{plan.name} ({plan.steps} x {plan.restarts})" for plan in chosen)


def _plain_pgd(net: nn.Module, x: Tensor, y: Tensor, *, epsilon: float, steps: int) -> Tensor:
    moved, size = (x + epsilon * (2 * torch.rand_like(x) - 1)).clamp(0, 1), 2.5 * epsilon / steps
    for _ in range(steps):
        moved = moved.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(net(moved), y), moved)
        moved = (x + (moved.detach() + size * gradient.sign() - x).clamp(-epsilon, epsilon)).clamp(0, 1)
    return moved


def _new_size(scene: Scene) -> list[Row]:
    """What a number of images costs that cuDNN has not planned for: why attacks fill their batches up."""
    if scene.device != "cuda":
        return []
    x, y = scene.test(scene.size.nightly)

    def once(count: int) -> float:
        leaf = x[:count].clone().requires_grad_()
        return scene.seconds(lambda: torch.autograd.grad(climbed(scene.net(leaf), y[:count]).sum(), leaf))

    climb_direction(scene.net, x, y, climbed)
    known = median([once(len(x)) for _ in range(5)])
    new = median([once(len(x) - number) for number in range(1, 11)])
    how = f"{len(x)} images forwards and back to the input, against one fewer each time; median of 10"
    return [shown("what the first batch of another size costs above a known one, ms", 1000 * (new - known), how)]


def _plain_smoothing(net: nn.Module, x: Tensor, copies: int, classes: int) -> Tensor:
    """Counts int64[N, classes], image by image, as one writes it by hand."""
    counts = torch.zeros(len(x), classes, dtype=torch.int64)
    with torch.no_grad():
        for number, row in enumerate(x):
            for start in range(0, copies, 1000):
                batch = row.repeat(min(1000, copies - start), 1, 1, 1)
                answers = net(batch + SIGMA * torch.randn_like(batch)).argmax(1).cpu()
                counts[number] += torch.bincount(answers, minlength=classes)
    return counts


def _alone(net: nn.Module, rows: Tensor, copies: int) -> None:
    with torch.inference_mode():
        for _ in range(max(1, round(copies / len(rows)))):
            net(rows)


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Within: an error after so many seconds, and again later: a compiler's own callbacks can lose one."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooSlowError(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    raise SystemExit(main())
