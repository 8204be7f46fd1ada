"""The train step: a snapshot's rows become a model that holds fast."""

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.artifacts.documents import (
    Architecture,
    Count,
    InputSpec,
    Model,
    Scalar,
    ScanReport,
    Snapshot,
    ThreatModel,
)
from holdfast.artifacts.folder import Artifact, Ref, load, save
from holdfast.compute import Compute
from holdfast.errors import InputError, IntegrityError, ModelError
from holdfast.model.inputs import Arrays, read_spec, read_split, rows_digest, without
from holdfast.processes import stopped_by
from holdfast.progress import say
from holdfast.steps import by_role, made_from
from holdfast.workload.fit import enough_training_rows
from holdfast.workload.schema import TrainConfig

if TYPE_CHECKING:
    from torch import nn

    from holdfast.modality.ball import Ball
    from holdfast.model.train.adversarial import Epoch, Training
    from holdfast.model.train.ranks import Ranks


def train(
    snapshot: Ref, out: Path, *, scan: Ref | None, config: TrainConfig, settings: Compute, checkpoint: Path | None
) -> Artifact[Model]:
    """Trains on the rows that the scan left and writes the model of the best epoch to `out`.

    With a `checkpoint` folder the state is kept after each epoch and at SIGTERM, and a later call goes on from there to
    the same weights, bit for bit on the same CPU with the same threads.

    Raises:
        StoppedError: SIGTERM came; the state is in `checkpoint`.
        IntegrityError: the scan was made on other rows.
        ModelError: the network does not fit the data, or its loss is not finite.
    """
    data, report = load(snapshot, Snapshot), None if scan is None else load(scan, ScanReport)
    device = settings.prepare()
    spec = read_spec(data)
    rows = read_clean_rows(data, report, spec)
    with _ranks(device) as ranks:
        training = _start(config, spec, data.document.classes, rows, settings, device, ranks)
        return _train(training, data, report, out, config=config, settings=settings, checkpoint=checkpoint)


def _train(
    training: "Training",
    data: Artifact[Snapshot],
    report: Artifact[ScanReport] | None,
    out: Path,
    *,
    config: TrainConfig,
    settings: Compute,
    checkpoint: Path | None,
) -> Artifact[Model]:
    """Runs the training to its end; the first of several processes writes, the others read what it wrote."""
    device = training.ball.scale.device.type
    inputs = by_role(data, report)
    kept = None if checkpoint is None else _Checkpoint(checkpoint, _identity(config, inputs, settings, device))
    _run(training, kept)
    if not training.ranks.leads:
        training.ranks.wait()
        return load(out, Model)
    artifact = _finish(training, data, out, config=config, settings=settings, inputs=inputs)
    training.ranks.wait()
    if kept is not None:
        kept.forget()
    return artifact


@contextmanager
def _ranks(device: str) -> "Iterator[Ranks]":
    """This process among those that torchrun started; alone without it."""
    from holdfast.model.train.ranks import Ranks

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    import torch

    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        torch.distributed.destroy_process_group()


class _Checkpoint:
    """The checkpoint of one training."""

    def __init__(self, folder: Path, identity: str) -> None:
        from holdfast.model.train.checkpoint import place

        self.path = place(folder, identity)
        self.identity = identity

    def save(self, training: "Training") -> None:
        from holdfast.model.train.checkpoint import write

        write(self.path, self.identity, *training.export_state())

    def restore(self, training: "Training") -> None:
        from holdfast.model.train.checkpoint import read

        try:
            found = read(self.path, self.identity)
        except InputError as error:
            say(f"train: {error}; starting from the beginning")
            return
        if found is not None:
            training.restore_state(*found)
            say(f"train: resumes in epoch {training.state.epoch + 1}, batch {training.state.batch + 1}")

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)


def read_clean_rows(data: Artifact[Snapshot], report: Artifact[ScanReport] | None, spec: InputSpec) -> Arrays:
    """The training rows without quarantine, after they were found to be the very rows that the scan left."""
    rows = read_split(data, "train", spec)
    if report is None:
        return rows
    found = made_from(report.document, Snapshot)
    if found != data.digest:
        raise IntegrityError(
            f"{report.folder}: expected a scan of {data.digest[:12]}…, found one of {str(found)[:12]}…"
        )
    rows = without(rows, report.document.quarantined) if report.document.applied else rows
    digest = rows_digest(rows)
    if digest != report.document.clean_rows:
        raise IntegrityError(
            f"{report.folder}: expected training rows {report.document.clean_rows[:12]}… after quarantine, "
            f"found {digest[:12]}…"
        )
    return rows


def _start(
    config: TrainConfig,
    spec: InputSpec,
    classes: tuple[str, ...],
    rows: Arrays,
    settings: Compute,
    device: str,
    ranks: "Ranks",
) -> "Training":
    from holdfast.modality.ball import Ball
    from holdfast.model.train.adversarial import Training

    enough_training_rows(len(rows), len(classes))
    net = _untrained(config, spec, len(classes), rows, settings.seed)
    ball, second = Ball.of(config.threat, spec, device), _second_ball(config, spec, device)
    engine = Training
    if config.train.engine == "art":
        from holdfast.model.train.art_trainers import ArtTraining

        engine = ArtTraining
    return engine(net, rows, ball, config.train, seed=settings.seed, second=second, ranks=ranks, classes=classes)


def _untrained(config: TrainConfig, spec: InputSpec, classes: int, rows: Arrays, seed: int) -> "nn.Module":
    """The network with its first weights, which answers some rows as it should."""
    import torch

    from holdfast.model.networks import build, check_logits

    net = build(config.network, spec, classes, seed).eval()
    with torch.no_grad():
        first = net(torch.from_numpy(rows.x[:8]))
    check_logits(first, classes, name=f"network {config.network.architecture!r}")
    return net


def _second_ball(config: TrainConfig, spec: InputSpec, device: str) -> "Ball | None":
    """The other perturbation set of a recipe with two norms."""
    from holdfast.modality.ball import Ball

    recipe = config.train
    if recipe.second_norm is None or recipe.second_epsilon is None:
        return None
    threat = config.threat.model_copy(update={"norm": recipe.second_norm, "epsilon": recipe.second_epsilon})
    return Ball.of(threat, spec, device)


def _identity(config: TrainConfig, inputs: dict[str, str], settings: Compute, device: str) -> str:
    """What must be equal for a checkpoint to lead to the same weights."""
    import torch

    facts = [config.model_dump(mode="json"), inputs, settings.seed, settings.threads, device, torch.__version__]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _run(training: "Training", kept: _Checkpoint | None) -> None:
    from holdfast.model.train.checkpoint import StoppedError

    if kept is not None:
        kept.restore(training)
    # So that the batch at hand is finished and the state written.
    with stopped_by(signal.SIGTERM) as stop:
        while not training.finished:
            row = training.advance()
            while training.notes:
                say(training.notes.pop(0))
            if row is not None and training.ranks.leads:
                say(_line(row, training.config.epochs))
            stopped = training.ranks.any(stop.is_set(), training.ball.scale.device)
            if kept is not None and (row is not None or stopped) and training.ranks.leads:
                kept.save(training)
            if stopped:
                raise StoppedError(_farewell(training, kept))


def _farewell(training: "Training", kept: _Checkpoint | None) -> str:
    where = f"epoch {training.state.epoch + 1}, batch {training.state.batch + 1}"
    saved = "nothing was kept (no --checkpoint)" if kept is None else f"{kept.path} was written"
    return f"train: stopped by SIGTERM before {where}; {saved}; start it again to go on"


def _line(row: "Epoch", epochs: int) -> str:
    clean, robust = row.clean / row.rows, row.robust / row.rows
    return f"train: epoch {row.epoch}/{epochs}  loss {row.loss:.3f}  clean {clean:.3f}  under attack {robust:.3f}"


def _finish(
    training: "Training",
    data: Artifact[Snapshot],
    out: Path,
    *,
    config: TrainConfig,
    settings: Compute,
    inputs: dict[str, str],
) -> Artifact[Model]:
    """Writes the weights of the best epoch, the program and the curve."""
    from holdfast.model.train.export import network_files

    training.net.eval().load_state_dict(training.state.best)
    document = _document(training, data, config=config, settings=settings, inputs=inputs)
    curve = json.dumps([asdict(row) for row in training.state.curve], indent=1).encode() + b"\n"
    files = network_files(training.net, training.state.best, document.input) | {"curve.json": curve}
    return save(out, document, files)


def _document(
    training: "Training", data: Artifact[Snapshot], *, config: TrainConfig, settings: Compute, inputs: dict[str, str]
) -> Model:
    from holdfast.model.networks import parameters

    spec, best = read_spec(data), training.best_epoch
    return Model(
        name=config.name,
        architecture=Architecture(
            name=config.network.architecture, arguments=config.network.arguments, parameters=parameters(training.net)
        ),
        input=spec,
        classes=data.document.classes,
        threat=ThreatModel(**config.threat.model_dump()),
        recipe=_scalars(config.train.model_dump(mode="json", exclude_none=True)),
        seed=settings.seed,
        threads=settings.threads,
        device=training.ball.scale.device.type,
        best_epoch=best.epoch,
        clean=_clean(training, read_split(data, "test", spec), len(data.document.classes), config),
        robust=Count(k=best.robust, n=best.rows),
        inputs=inputs,
    )


def _scalars(recipe: dict[str, Any]) -> dict[str, Scalar]:
    """The recipe's settings, those by class as `class_weights.NAME`."""
    flat: dict[str, Scalar] = {}
    for name, value in recipe.items():
        flat |= {f"{name}.{key}": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _clean(training: "Training", held_out: Arrays, classes: int, config: TrainConfig) -> Count:
    from holdfast.model.networks import check_logits, logits

    found = logits(training.net, held_out.x, device=training.ball.scale.device.type)
    check_logits(found, classes, name=f"network {config.network.architecture!r}")
    right = int((found.argmax(axis=1) == held_out.y).sum())
    if len(held_out) == 0:
        raise ModelError("train: expected held-out rows, found none")
    return Count(k=right, n=len(held_out))
