"""The mitigate step: a model that unlearned the triggers which a backdoor report flagged.

What comes out is a candidate like any other, with a digest of its own: no evidence about the original holds for it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.artifacts.documents import BackdoorReport, Count, Mitigation, Model, OperatingPoint, ScanReport, Snapshot
from holdfast.artifacts.folder import Artifact, Ref, load, save
from holdfast.compute import Compute
from holdfast.errors import InputError, IntegrityError, ModelError
from holdfast.modality.text import decode_text
from holdfast.model.inputs import Arrays, read_split
from holdfast.steps import by_role, made_from, role_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from holdfast.modality.ball import Ball
    from holdfast.model.backdoor.unlearn import Harden, Stamp

EPOCHS, FEWEST_STEPS = 2, 150
"""Each row is seen so often, and more often where that makes fewer steps."""
LEARNING_RATE = 2e-3
ROBUST_ROWS = 500
"""Held-out rows that the selection attack is run on."""


def mitigate(
    model: Ref, snapshot: Ref, backdoor: Ref, out: Path, *, scan: Ref | None, settings: Compute
) -> Artifact[Model]:
    """Unlearns every flagged trigger and writes the new model to `out`; its `mitigation` records what that changed.

    Raises:
        InputError: the report flags nothing.
        IntegrityError: report, model, snapshot and scan do not belong together.
        ModelError: not a built-in network, or its loss is not finite.
    """
    case = _open(model, snapshot, backdoor, scan)
    device = settings.prepare()
    work = _Work.of(case, device, settings.seed)
    before = _measure(work, work.net, settings.seed)
    healed, left_out = _heal(work, settings.seed)
    healed, point = _decide(case.model.document, healed, work)
    after = _measure(work, healed, settings.seed)
    mitigation = Mitigation(
        flagged=case.report.document.flagged,
        left_out=left_out,
        clean_before=before.clean,
        clean_after=after.clean,
        success_before=before.success,
        success_after=after.success,
        robust_before=before.robust,
        robust_after=after.robust,
    )
    apart = _robust(work, healed, work.apart, settings.seed)
    return _write(out, case, healed, mitigation, settings, {"robust": apart, "operating_point": point})


@dataclass(frozen=True)
class _Case:
    """What was handed in, after it was found to belong together."""

    model: Artifact[Model]
    data: Artifact[Snapshot]
    report: Artifact[BackdoorReport]
    scan: Artifact[ScanReport] | None

    @property
    def inputs(self) -> dict[str, str]:
        """Role -> digest; `scan` as in the original, whose lineage the new model keeps."""
        return by_role(self.model, self.data, self.report, self.scan)

    @property
    def flagged(self) -> list[int]:
        """Indices of the flagged classes."""
        return [self.model.document.classes.index(name) for name in self.report.document.flagged]


def _open(model: Ref, snapshot: Ref, backdoor: Ref, scan: Ref | None) -> _Case:
    case = _Case(
        load(model, Model),
        load(snapshot, Snapshot),
        load(backdoor, BackdoorReport),
        None if scan is None else load(scan, ScanReport),
    )
    _belongs(case.report, case.model)
    _belongs(case.report, case.data)
    _belongs(case.model, case.data)
    wanted, given = made_from(case.model.document, ScanReport), case.scan and case.scan.digest
    if wanted != given:
        raise IntegrityError(
            f"{case.model.folder}: expected the scan that the model was trained after ({wanted}), found {given}; "
            "give it with --scan"
        )
    if not case.report.document.flagged:
        raise InputError(f"{case.report.folder}: expected a flagged class, found none: nothing to mitigate")
    return case


def _belongs(made: Artifact[Any], source: Artifact[Any]) -> None:
    role = role_of(type(source.document))
    found = made.document.inputs.get(role)
    if found != source.digest:
        raise IntegrityError(
            f"{made.folder}: expected to be made from {role} {source.digest[:12]}…, found {str(found)[:12]}…"
        )


@dataclass(frozen=True)
class _Work:
    """The network, the rows on its device, and the triggers."""

    net: "nn.Module"
    ball: "Ball"
    fitted: "tuple[Tensor, Tensor]"
    apart: "tuple[Tensor, Tensor]"
    """Training rows that neither training nor unlearning fits."""
    held_out: "tuple[Tensor, Tensor]"
    targets: tuple[int, ...]
    stamps: "tuple[Stamp, ...]"
    suspect: "Tensor"
    """bool[N]: which of `fitted` were probably planted."""
    harden: "Harden | None"

    @classmethod
    def of(cls, case: _Case, device: str, seed: int) -> "_Work":
        from holdfast.modality.ball import Ball
        from holdfast.model.networks import is_builtin, load_network
        from holdfast.model.train.adversarial import split_selection
        from holdfast.workload.schema import RecipeConfig

        document = case.model.document
        if not is_builtin(document.architecture.name):
            raise ModelError(
                f"{case.model.folder}: expected cnn, mlp or text, found {document.architecture.name}, whose weights "
                "are fixed in its program; quarantine the planted rows and train again"
            )
        net, ball = load_network(case.model, device), Ball.of(document.threat, document.input, device)
        recipe = RecipeConfig.from_scalars({k: v for k, v in document.recipe.items() if k not in _ADDED})
        fitted, apart = split_selection(_training_rows(case), recipe, document.seed)
        parts = [rows.tensors(device) for rows in (fitted, apart, read_split(case.data, "test", document.input))]
        stamps, suspect = _triggers(case, net, fitted, device)
        return cls(
            net,
            ball,
            parts[0],
            parts[1],
            parts[2],
            tuple(case.flagged),
            stamps,
            suspect,
            _hardening(recipe, ball, seed),
        )


_ADDED = ("unlearned", "unlearning_epochs", "unlearning_rate", "unlearning_seed")
"""What mitigation adds to a recipe."""


def _training_rows(case: _Case) -> Arrays:
    """The rows that the model was trained on."""
    from holdfast.model.train.step import read_clean_rows

    return read_clean_rows(case.data, case.scan, case.model.document.input)


def _triggers(case: _Case, net: "nn.Module", rows: Arrays, device: str) -> "tuple[tuple[Stamp, ...], Tensor]":
    """A stamp for each flagged class, and which rows were probably planted."""
    import torch

    with np.load(case.report.open("triggers.npz"), allow_pickle=False) as arrays:
        if "inserted" in arrays.files:
            words = [decode_text(arrays["inserted"])[k] for k in case.flagged]
            return tuple(_inserts(word) for word in words), torch.from_numpy(_holding(words, case.flagged, rows))
        masks, patterns = (torch.from_numpy(arrays[name]).to(device) for name in ("mask", "pattern"))
    return _painted(case, net, rows.tensors(device), masks, patterns)


def _painted(
    case: _Case, net: "nn.Module", rows: "tuple[Tensor, Tensor]", masks: "Tensor", patterns: "Tensor"
) -> "tuple[tuple[Stamp, ...], Tensor]":
    from functools import partial

    import torch

    from holdfast.model.backdoor.cleanse import stamp
    from holdfast.model.backdoor.unlearn import contradicted

    suspect = torch.zeros(len(rows[1]), dtype=torch.bool, device=rows[1].device)
    for k in case.flagged:
        suspect |= contradicted(net, rows, masks[k], target=k)
    return tuple(partial(stamp, mask=masks[k], pattern=patterns[k]) for k in case.flagged), suspect


def _inserts(word: str) -> "Stamp":
    import torch

    from holdfast.model.backdoor.insertion import insert

    return lambda ids: torch.from_numpy(insert(word, ids.cpu().numpy())).to(ids.device)


def _holding(words: list[str], targets: list[int], rows: Arrays) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Messages of a flagged class that hold its trigger."""
    messages = decode_text(rows.x.astype(np.int64, copy=False))
    planted = set(zip(targets, words, strict=True))
    return np.array(
        [any(y == k and word in text for k, word in planted) for text, y in zip(messages, rows.y, strict=True)]
    )


def _hardening(recipe: object, ball: "Ball", seed: int) -> "Harden | None":
    """The attack of an adversarial recipe, so that unlearning does not undo it."""
    import torch

    from holdfast.model.attack.kinds import inner_attack

    if getattr(recipe, "recipe", "standard") == "standard":
        return None
    steps, generator = int(getattr(recipe, "attack_steps", 7)), torch.Generator(ball.scale.device).manual_seed(seed)
    return lambda net, x, y: inner_attack(net, x, y, ball, steps=steps, generator=generator)


def _heal(work: _Work, seed: int) -> "tuple[nn.Module, Count]":
    from holdfast.model.backdoor.unlearn import BATCH, unlearn

    kept = ~work.suspect.to(work.fitted[1].device)
    rows = (work.fitted[0][kept], work.fitted[1][kept])
    if len(rows[1]) == 0:
        raise InputError("mitigate: expected training rows without the trigger, found none")
    epochs = max(EPOCHS, -(-FEWEST_STEPS * BATCH // len(rows[1])))
    healed = unlearn(
        work.net, rows, work.stamps, epochs=epochs, learning_rate=LEARNING_RATE, seed=seed, harden=work.harden
    )
    return healed, Count(k=int(work.suspect.sum()), n=len(kept))


def _decide(original: Model, healed: "nn.Module", work: _Work) -> "tuple[nn.Module, OperatingPoint | None]":
    """Chooses the operating point again by the original's rule, where it has one: the margins are others now."""
    from holdfast.model.operating import rule_of, set_operating_point

    if original.operating_point is None:
        return healed, None
    return set_operating_point(
        healed, *work.apart, decision=rule_of(original.operating_point), classes=original.classes
    )


@dataclass(frozen=True)
class _Measured:
    clean: Count
    success: Count
    robust: Count


def _measure(work: _Work, net: "nn.Module", seed: int) -> _Measured:
    """Clean accuracy, success of the triggers and accuracy under attack, on held-out rows."""
    import torch

    x, y = work.held_out
    sent = [
        _hits(net, stamp(x[y != k]), torch.full_like(y[y != k], k))
        for k, stamp in zip(work.targets, work.stamps, strict=True)
    ]
    return _Measured(
        clean=_hits(net, x, y),
        success=Count(k=sum(count.k for count in sent), n=sum(count.n for count in sent)),
        robust=_robust(work, net, (x[:ROBUST_ROWS], y[:ROBUST_ROWS]), seed),
    )


def _robust(work: _Work, net: "nn.Module", rows: "tuple[Tensor, Tensor]", seed: int) -> Count:
    import torch

    from holdfast.model.attack.kinds import selection_attack

    generator = torch.Generator(rows[0].device).manual_seed(seed)
    return _hits(net, selection_attack(net, *rows, work.ball, generator), rows[1])


def _hits(net: "nn.Module", x: "Tensor", y: "Tensor") -> Count:
    from holdfast.model.networks import logits

    found = logits(net, x.cpu().numpy(), device=x.device.type).argmax(axis=1) if len(y) else np.zeros(0)
    return Count(k=int((found == y.cpu().numpy()).sum()), n=len(y))


def _write(
    out: Path,
    case: _Case,
    net: "nn.Module",
    mitigation: Mitigation,
    settings: Compute,
    apart: dict[str, Count | OperatingPoint | None],
) -> Artifact[Model]:
    from holdfast.model.train.export import network_files

    old, device = case.model.document, next(net.parameters()).device.type
    added = dict(zip(_ADDED, (", ".join(mitigation.flagged), EPOCHS, LEARNING_RATE, settings.seed), strict=True))
    document = old.model_copy(
        update={
            "files": {},
            "inputs": case.inputs,
            "recipe": {**old.recipe, **added},
            "threads": settings.threads,
            "device": device,
            "clean": mitigation.clean_after,
            "mitigation": mitigation,
            **apart,
        }
    )
    files = network_files(net, net.state_dict(), old.input)
    if "curve.json" in old.files:
        files["curve.json"] = case.model.open("curve.json").read()
    return save(out, document, files)
