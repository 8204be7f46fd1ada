"""Certified training by interval bounds, compared with twenty-five lines of plain IBP and ART's trainer."""

import contextlib
import io
import logging
import warnings

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from benchmarks.scenes import Bench, Images
from benchmarks.table import Row, at_least, at_most, cpu_seconds, shown
from holdfast.model.attack.kinds import plans
from holdfast.model.attack.suite import measure
from holdfast.model.certify import bounds
from holdfast.model.inputs import Arrays
from holdfast.model.train.adversarial import Training
from holdfast.workload.schema import RecipeConfig

EPOCHS, BATCH, LEARNING_RATE = 40, 128, 1e-2
FEW_ROWS, FEW_EPOCHS = 3000, 12
"""What ART's trainer gets: it is slow."""
ATTACKED, CROWNED = 500, 1000


def run(bench: Bench) -> list[Row]:
    """Clean, certified and attacked accuracy of the full training; the peers' and ours at equal rows and epochs."""
    images = bench.images

    def full() -> nn.Module:
        return _train(images, images.train, EPOCHS)

    net, seconds = images.trained(f"interval-{EPOCHS}x{BATCH}", full, images.network())
    plain, _ = images.trained("interval-baseline", lambda: _baseline(images), images.network())
    ours, theirs = _certified(images, net), _certified(images, plain)
    name = f"IBP, eps {float(images.epsilon)}, full training set, {images.name}"
    how = f"{EPOCHS} epochs x {len(images.train):,} rows; {len(images.test):,} held-out images, IBP"
    return [
        at_least(f"{name}: certified accuracy, over the twenty-five-line baseline's {theirs:.4f}", ours, theirs, how),
        at_most(f"{name}: CPU-minutes of training", seconds / 60, 10.0, f"{EPOCHS} epochs, one thread"),
        *_quality(images, net, name),
        shown(f"{name}: clean accuracy", _clean(images, net), how),
        shown(f"{name}: baseline's clean accuracy", _clean(images, plain), "12 epochs x 20,000 rows"),
        *_beside_art(images, name),
    ]


def _train(images: Images, rows: Arrays, epochs: int) -> nn.Module:
    """The recipe `ibp`, as the train step runs it."""
    config = RecipeConfig(
        recipe="ibp", epochs=epochs, batch=BATCH, learning_rate=LEARNING_RATE, weight_decay=0.0, selection_rows=500
    )
    training = Training(images.network(), rows, images.ball, config, seed=0)
    while not training.finished:
        training.advance()
    training.net.load_state_dict(training.state.best)
    return training.net.eval()


def _baseline(images: Images) -> nn.Module:
    """Gowal et al. 2018 in twenty-five lines: linear ramps, kappa from 1 to 1/2, Adam, no elision, 12 x 20,000."""
    net = images.network()
    layers = [*net.body, net.penultimate, nn.ReLU(), net.last]  # type: ignore[misc]
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    x, y = torch.from_numpy(images.train.x[:20_000]), torch.from_numpy(images.train.y[:20_000])
    for epoch in range(12):
        for i, part in enumerate(torch.randperm(len(y), generator=torch.Generator().manual_seed(epoch)).split(128)):
            t = min(1.0, (epoch + i * 128 / len(y)) / 6)
            low, high = ((x[part] + sign * t * float(images.epsilon)).clamp(0, 1) for sign in (-1, 1))
            for layer in layers:
                low, high = _plain_interval(layer, low, high)
            true = one_hot(y[part], images.classes) == 1
            worst = cross_entropy(torch.where(true, low, high), y[part])
            loss = (1 - t / 2) * cross_entropy(net(x[part]), y[part]) + t / 2 * worst
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()


def _plain_interval(layer: nn.Module, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        return layer(low), layer(high)
    c, r = layer((low + high) / 2), (high - low) / 2
    weight = layer.weight.abs()
    if isinstance(layer, nn.Linear):
        spread = nn.functional.linear(r, weight)
    else:
        spread = nn.functional.conv2d(r, weight, None, layer.stride, layer.padding)
    return c - spread, c + spread


def _certified(images: Images, net: nn.Module) -> float:
    """The share of all held-out images that IBP certifies, and that are correct."""
    x, y = images.tensors(len(images.test))
    parts = zip(x.split(1000), y.split(1000), strict=True)
    found = sum(int(bounds.certified(net, rows, labels, images.ball).sum()) for rows, labels in parts)
    return found / len(y)


def _clean(images: Images, net: nn.Module) -> float:
    x, y = images.tensors(len(images.test))
    with torch.no_grad():
        return int((net(x).argmax(1) == y).sum()) / len(y)


def _quality(images: Images, net: nn.Module, name: str) -> list[Row]:
    x, y = images.tensors(CROWNED)
    proven = bounds.prove(net, x, y, images.ball)
    tight, quick = sum(b is not None for b in proven), sum(b == "ibp" for b in proven)
    x, y = images.tensors(ATTACKED)
    attacks = plans("nightly", "linf", images.classes, embedding=False)
    found = measure(net, x, y, images.ball, attacks, seed=0)
    inside = [b is not None for b in proven[:ATTACKED]]
    broken = int((torch.tensor(inside) & ~found.worst).sum())
    how = f"first {CROWNED} held-out images"
    return [
        shown(f"{name}: certified by IBP or CROWN", tight / CROWNED, how),
        shown(f"{name}: certified by IBP", quick / CROWNED, how),
        shown(f"{name}: worst case under the nightly suite", float(found.worst.float().mean()), f"first {ATTACKED}"),
        shown(f"{name}: clean", float(found.clean.float().mean()), f"first {ATTACKED}"),
        at_most(f"{name}: certified images that the nightly suite breaks", broken, 0, f"first {ATTACKED}"),
    ]


def _beside_art(images: Images, name: str) -> list[Row]:
    """ART's trainer and ours on the same rows, for the same epochs."""
    try:
        from art.defences.trainer import ibp_certified_trainer_pytorch as art  # noqa: F401
    except ImportError as error:
        return [shown(f"{name}: ART's trainer", "not run", str(error))]
    rows = images.train.take(np.arange(FEW_ROWS))
    nets: list[nn.Module] = []
    theirs = cpu_seconds(lambda: nets.append(_art(images, rows)))
    ours = cpu_seconds(lambda: nets.append(_train(images, rows, FEW_EPOCHS)))
    shares = [_certified(images, net) for net in nets]
    how = f"{FEW_EPOCHS} epochs x {FEW_ROWS:,} rows, the same network, in turns; ART as it comes, Adam 1e-3"
    return [
        at_least(f"{name}: speed per epoch, times ART's", theirs / ours, 8.0, how),
        at_least(f"{name}: certified accuracy at ART's rows and epochs, over ART's", shares[1] - shares[0], 0.0, how),
        shown(f"{name}: ART's certified accuracy", shares[0], how),
        shown(f"{name}: ART's clean accuracy", _clean(images, nets[0]), how),
        shown(f"{name}: ours at ART's rows and epochs", shares[1], how),
    ]


class _InLine(nn.Module):
    """The network as ART reads it: its layers as children in order, without a module that flattens."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        layers = [*net.body, net.penultimate, nn.ReLU(), net.last]  # type: ignore[misc]
        for i, layer in enumerate(layer for layer in layers if not isinstance(layer, nn.Flatten)):
            self.add_module(f"layer{i}", layer)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = layer(x.flatten(1) if isinstance(layer, nn.Linear) else x)
        return x


def _art(images: Images, rows: Arrays) -> nn.Module:
    """The network that ART's trainer leaves, with its weights put back into ours."""
    from art.defences.trainer.ibp_certified_trainer_pytorch import AdversarialTrainerCertifiedIBPPyTorch
    from art.estimators.certification.interval.pytorch import PyTorchIBPClassifier

    logging.getLogger("art").setLevel(logging.ERROR)
    net = images.network()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        shape = tuple(images.train.x.shape[1:])
        loss, limits = nn.CrossEntropyLoss(), (0.0, 1.0)
        judged = PyTorchIBPClassifier(
            _InLine(net), loss, shape, images.classes, optimizer=optimizer, clip_values=limits, device_type="cpu"
        )
        trainer = AdversarialTrainerCertifiedIBPPyTorch(judged, bound=float(images.epsilon), batch_size=128)
        trainer.fit(rows.x, rows.y, limits=[0.0, 1.0], nb_epochs=FEW_EPOCHS, verbose=False)
    return _put_back(net, judged.model.ops)


def _put_back(net: nn.Module, ops: nn.ModuleList) -> nn.Module:
    ours = [layer for layer in [*net.body, net.penultimate, net.last] if isinstance(layer, nn.Conv2d | nn.Linear)]  # type: ignore[misc]
    theirs = [op for op in ops if hasattr(op, "conv") or hasattr(op, "weight")]
    for layer, op in zip(ours, theirs, strict=True):
        convolution = getattr(op, "conv", None)
        weight, bias = (op.weight, op.bias) if convolution is None else (convolution.weight, op.bias_to_grad)
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        assert layer.bias is not None
        with torch.no_grad():
            layer.weight.copy_(weight.reshape(layer.weight.shape))
            layer.bias.copy_(bias.flatten())
    return net.eval()
