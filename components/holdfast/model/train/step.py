"""The train step: a snapshot's rows become a model that holds fast."""

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.artifacts.contract import unknown_categories
from holdfast.artifacts.documents import (
    Architecture,
    Baseline,
    Count,
    InputSpec,
    Model,
    OperatingPoint,
    ScanReport,
    Snapshot,
    ThreatModel,
)
from holdfast.artifacts.folder import DOCUMENT, Artifact, Ref, load, save
from holdfast.compute import Compute
from holdfast.errors import InputError, IntegrityError, ModelError
from holdfast.model.champion import champion_of
from holdfast.model.inputs import Arrays, read_spec, read_split, rows_digest, without
from holdfast.model.train import workers
from holdfast.processes import stopped_by
from holdfast.progress import say
from holdfast.steps import by_role, made_from
from holdfast.waiting import poll
from holdfast.wording import quoted
from holdfast.workload.fit import enough_training_rows
from holdfast.workload.schema import TrainConfig

if TYPE_CHECKING:
    from torch import nn

    from holdfast.modality.ball import Ball
    from holdfast.model.train.adversarial import Epoch, Training
    from holdfast.model.train.ranks import Ranks

APPEARS_SECONDS = 120.0
"""So long a volume of the network may not show a file that another node wrote."""


def train(
    snapshot: Ref,
    out: Path,
    *,
    scan: Ref | None,
    config: TrainConfig,
    settings: Compute,
    checkpoint: Path | None,
    baseline: Ref | None = None,
) -> Artifact[Model]:
    """Trains on the rows that the scan left and writes the model of the best epoch to `out`.

    With a `baseline` the columns of a table keep the places and categories of the champion's input. The champion gives
    nothing else, and the model's own input shows it: the same rows give the same model, whichever champion serves.
    The recipe `finetune` alone starts from the champion's weights: the baseline is then an input of the model.

    With a `checkpoint` folder the state is kept after each epoch and at SIGTERM, and a later call goes on from there to
    the same weights, bit for bit on the same CPU with the same threads.

    With several workers, this process starts them and writes nothing itself, unless it is one of them.

    Raises:
        StoppedError: SIGTERM came; the state is in `checkpoint`.
        IntegrityError: the scan was made on other rows.
        ModelError: the network does not fit the data, its loss is not finite, or a worker ended.
        InputError: the recipe is `finetune`, and there is no champion, or one with another network.
    """
    if config.train.workers > 1 and not workers.is_worker():
        refs = workers.TrainInputs(snapshot, scan, baseline)
        given = workers.words(refs, out, config=config, settings=settings, checkpoint=checkpoint)
        workers.train_together(given, config.train.workers)
        return load(out, Model)
    workers.check_count(config.train.workers)
    data, report = load(snapshot, Snapshot), None if scan is None else load(scan, ScanReport)
    device = settings.prepare()
    champion = _champion(baseline)
    known = None if champion is None else champion.document.input
    spec = read_spec(data, known, new_categories=config.allow_new_contract)
    start = _start_of(config, champion, spec, data.document.classes)
    _say_unknown(spec, data.document)
    rows = read_clean_rows(data, report, spec)
    with _ranks(device) as ranks:
        training = _start(config, spec, data.document.classes, rows, settings, device, ranks, start)
        read = by_role(data, report, None if baseline is None or start is None else load(baseline, Baseline))
        return _train(training, spec, data, read, out, config=config, settings=settings, checkpoint=checkpoint)


def _champion(baseline: Ref | None) -> Artifact[Model] | None:
    """The champion; None: there is none."""
    return None if baseline is None else champion_of(load(baseline, Baseline))


def _start_of(
    config: TrainConfig, champion: Artifact[Model] | None, spec: InputSpec, classes: tuple[str, ...]
) -> Artifact[Model] | None:
    """The model whose weights a training starts from; None: it starts from random ones."""
    if config.train.recipe != "finetune":
        return None
    if champion is None:
        raise InputError(
            "train.recipe finetune: expected a champion to start from, found none; train the first model with another "
            "recipe"
        )
    network, found = config.network, champion.document
    asked = (network.architecture, network.arguments, spec.shape, classes)
    if asked != (found.architecture.name, found.architecture.arguments, found.input.shape, found.classes):
        raise InputError(
            f"train.recipe finetune: expected the champion's network {found.architecture.name!r} with "
            f"{dict(found.architecture.arguments)}, inputs {found.input.shape} and {len(found.classes)} classes, found "
            f"{network.architecture!r} with {dict(network.arguments)}, {spec.shape} and {len(classes)}, or other names"
        )
    return champion


def _say_unknown(spec: InputSpec, data: Snapshot) -> None:
    """Names the categories of the delivery that have no place in the champion's input."""
    places = {column.name: column for column in spec.columns}
    for column in data.columns:
        unknown = unknown_categories(places[column.name], column)
        if unknown:
            say(
                f"train: {column.name!r}: the champion does not know {quoted(unknown)}, which are read as none of its "
                "categories; gate.allow_new_contract: true gives them places of their own"
            )


def _train(
    training: "Training",
    spec: InputSpec,
    data: Artifact[Snapshot],
    inputs: dict[str, str],
    out: Path,
    *,
    config: TrainConfig,
    settings: Compute,
    checkpoint: Path | None,
) -> Artifact[Model]:
    """Runs the training to its end; the first of several processes writes, the others read what it wrote."""
    device = training.ball.scale.device.type
    kept = None if checkpoint is None else _Checkpoint(checkpoint, _identity(config, spec, inputs, settings, device))
    _run(training, kept)
    if not training.ranks.leads:
        training.ranks.wait()
        return written_elsewhere(out)
    artifact = _finish(training, spec, data, out, config=config, settings=settings, inputs=inputs)
    training.ranks.wait()
    if kept is not None:
        kept.forget()
    return artifact


def written_elsewhere(out: Path) -> Artifact[Model]:
    """The model that another process wrote; a volume of the network may show it late."""
    poll((out / DOCUMENT).exists, bool, APPEARS_SECONDS, 0.5)
    return load(out, Model)


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
    """The training rows without quarantine, after they were found to be the very rows that the scan left.

    Rows that an earlier scan set aside and that no reviewer has decided are never among them, with a scan or without.

    Raises:
        IntegrityError: the scan is about other rows, or left an undecided row in.
    """
    rows, undecided = read_split(data, "train", spec), data.document.undecided.train
    if report is None:
        return without(rows, undecided)
    found = made_from(report.document, Snapshot)
    if found != data.digest:
        raise IntegrityError(
            f"{report.folder}: expected a scan of {data.digest[:12]}…, found one of {str(found)[:12]}…"
        )
    if left_in := sorted(set(undecided) - set(report.document.left_out)):
        raise IntegrityError(
            f"{report.folder}: expected a scan that leaves out the {len(undecided)} undecided rows of "
            f"{data.digest[:12]}…, found row {left_in[0]} left in"
        )
    kept = without(rows, report.document.left_out)
    digest = rows_digest(kept if spec.columns == data.document.columns else _as_scanned(data, report.document))
    if digest != report.document.clean_rows:
        raise IntegrityError(
            f"{report.folder}: expected training rows {report.document.clean_rows[:12]}… after quarantine, "
            f"found {digest[:12]}…"
        )
    return kept


def _as_scanned(data: Artifact[Snapshot], report: ScanReport) -> Arrays:
    """The rows that the scan left, with the columns in the order in which it read them."""
    rows = read_split(data, "train", read_spec(data))
    return without(rows, report.left_out)


def _start(
    config: TrainConfig,
    spec: InputSpec,
    classes: tuple[str, ...],
    rows: Arrays,
    settings: Compute,
    device: str,
    ranks: "Ranks",
    start: Artifact[Model] | None,
) -> "Training":
    from holdfast.modality.ball import Ball
    from holdfast.model.networks import start_from
    from holdfast.model.operating import check_rows
    from holdfast.model.train.adversarial import Training

    enough_training_rows(len(rows), len(classes))
    if config.decision is not None:
        config.decision.index_in(classes)
    net = _untrained(config, spec, len(classes), rows, settings.seed)
    if start is not None:
        start_from(net, start)
    ball, second = Ball.of(config.threat, spec, device), _second_ball(config, spec, device)
    engine = Training
    if config.train.engine == "art":
        from holdfast.model.train.art_trainers import ArtTraining

        engine = ArtTraining
    training = engine(net, rows, ball, config.train, seed=settings.seed, second=second, ranks=ranks, classes=classes)
    if config.decision is not None:
        check_rows(config.decision, classes, training.apart[1].cpu().numpy())
    return training


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


def _identity(config: TrainConfig, spec: InputSpec, inputs: dict[str, str], settings: Compute, device: str) -> str:
    """What must be equal for a checkpoint to lead to the same weights."""
    import torch

    columns = [column.model_dump(mode="json") for column in spec.columns]
    # The weights do not depend on how the threshold is chosen afterwards.
    facts = [
        config.model_dump(mode="json", exclude={"decision"}),
        columns,
        inputs,
        settings.seed,
        settings.threads,
        device,
        torch.__version__,
    ]
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
    spec: InputSpec,
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
    decided = _decide(training, data.document.classes, config)
    document = _document(training, spec, data, decided, config=config, settings=settings, inputs=inputs)
    curve = json.dumps([asdict(row) for row in training.state.curve], indent=1).encode() + b"\n"
    # Copies, because networks may use one tensor in two places.
    weights = {name: value.clone() for name, value in training.net.state_dict().items()}
    return save(out, document, network_files(training.net, weights, document.input) | {"curve.json": curve})


def _decide(
    training: "Training", classes: tuple[str, ...], config: TrainConfig
) -> "tuple[OperatingPoint | None, Epoch]":
    """Gives the network its operating point, where one is asked for; how it then answers the rows set apart."""
    if config.decision is None:
        return None, training.best_epoch
    from holdfast.model.operating import set_operating_point

    training.net, point = set_operating_point(training.net, *training.apart, decision=config.decision, classes=classes)
    say(
        f"train: {point.positive!r} is answered above a margin of {point.threshold:.4g}: on the rows set apart "
        f"{point.misses.k} of {point.misses.n} missed, {point.false_alarms.k} of {point.false_alarms.n} false alarms"
    )
    return point, training.judged()


def _document(
    training: "Training",
    spec: InputSpec,
    data: Artifact[Snapshot],
    decided: "tuple[OperatingPoint | None, Epoch]",
    *,
    config: TrainConfig,
    settings: Compute,
    inputs: dict[str, str],
) -> Model:
    from holdfast.model.networks import parameters

    best = training.best_epoch
    point, judged = decided
    return Model(
        name=config.name,
        architecture=Architecture(
            name=config.network.architecture, arguments=config.network.arguments, parameters=parameters(training.net)
        ),
        input=spec,
        classes=data.document.classes,
        threat=ThreatModel(**config.threat.model_dump()),
        recipe=config.train.scalars,
        seed=settings.seed,
        threads=settings.threads,
        device=training.ball.scale.device.type,
        best_epoch=best.epoch,
        clean=_clean(training, read_split(data, "test", spec), len(data.document.classes), config),
        robust=Count(k=judged.robust, n=judged.rows),
        operating_point=point,
        inputs=inputs,
    )


def _clean(training: "Training", held_out: Arrays, classes: int, config: TrainConfig) -> Count:
    from holdfast.model.networks import check_logits, logits

    found = logits(training.net, held_out.x, device=training.ball.scale.device.type)
    check_logits(found, classes, name=f"network {config.network.architecture!r}")
    right = int((found.argmax(axis=1) == held_out.y).sum())
    if len(held_out) == 0:
        raise ModelError("train: expected held-out rows, found none")
    return Count(k=right, n=len(held_out))
