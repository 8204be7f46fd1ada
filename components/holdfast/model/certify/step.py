"""The certify step: how many held-out examples no attacker inside a radius can change."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.arrays import npz
from holdfast.artifacts.documents import Certificate, CertifiedAt, CertifyPart, Count, Model, Norm, Snapshot
from holdfast.artifacts.folder import Artifact, Ref, load, save
from holdfast.compute import Compute
from holdfast.errors import WorkloadError
from holdfast.modality import modality_of
from holdfast.modality.norms import BOXES
from holdfast.modality.protocol import Certification
from holdfast.model.examples import draw
from holdfast.model.shards import (
    ExampleBlock,
    Shard,
    Table,
    blocks,
    check_same,
    measured,
    read_parts,
    save_part,
    tables_of,
    work,
)
from holdfast.steps import by_role
from holdfast.workload.schema import CertifyConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from holdfast.model.certify.smoothing import Certified, Draw, RadiusOf, Sampling

    _Sampled = Callable[[nn.Module, Model, CertifyConfig, torch.Generator], Callable[[Tensor], Sequence[Certified]]]

Method = Certification | Literal["ibp", "crown"]
Radii = NDArray[np.float64]
BLOCK = 64
"""Examples that are certified together, and share their noise."""


def certify(model: Ref, snapshot: Ref, out: Path, *, config: CertifyConfig, settings: Compute) -> Artifact[Certificate]:
    """Certifies the first `examples` of a permutation of the held-out rows and writes the certificate to `out`.

    Raises:
        ModelError: the model does not fit the data, does not return finite logits, or has a layer unknown to bounds.
        WorkloadError: a share of kept characters above 1, or bounds for another norm than linf.
    """
    scene = _scene(load(model, Model), load(snapshot, Snapshot), config, settings)
    table = measured(scene.blocks, lambda block: _certify_block(scene, block), "certify")
    return _certificate(scene, table, out, settings)


def certify_part(
    model: Ref, snapshot: Ref, out: Path, *, config: CertifyConfig, settings: Compute, shard: Shard
) -> Artifact[CertifyPart]:
    """Certifies the examples of one shard and writes what it found to `out`; `merge` joins all parts.

    Raises:
        ModelError, WorkloadError: as `certify`.
    """
    scene = _scene(load(model, Model), load(snapshot, Snapshot), config, settings)
    common = work(by_role(scene.judged, scene.data), config.configuration, settings)
    part = CertifyPart.model_validate({**common, "shard": shard.number, "shards": shard.of, "device": scene.device})
    return save_part(out, part, shard.take(scene.blocks), lambda block: _certify_block(scene, block), "certify")


def merge(
    model: Ref, snapshot: Ref, out: Path, *, config: CertifyConfig, settings: Compute, parts: Sequence[Ref]
) -> Artifact[Certificate]:
    """Writes the certificate that `certify` would have written, byte for byte, from the parts of all shards.

    Raises:
        ModelError, WorkloadError: as `certify`.
        InputError: a part is missing, there twice, or made of other inputs, with another seed or configuration.
    """
    judged, data, found = load(model, Model), load(snapshot, Snapshot), read_parts(parts, CertifyPart)
    check_same(found[0], work(by_role(judged, data), config.configuration, settings), "this step")
    # Nothing is certified here: a GPU would be idle.
    scene = _scene(judged, data, config, Compute(settings.seed, "cpu", settings.threads))
    return _certificate(scene, tables_of(found, scene.blocks), out, settings)


def _certificate(scene: "_Scene", table: Table, out: Path, settings: Compute) -> Artifact[Certificate]:
    """Counts what was proven."""
    config, document = scene.config, scene.judged.document
    radii = np.where(table["label"] == scene.y, table["radius"], -1.0)
    sampled, abstained = config.method == "smoothing", table["abstained"][: scene.sampled]
    certificate = Certificate(
        method=_method(document, config, table),
        norm=scene.norm,
        unit=document.threat.unit,
        noise=config.noise if sampled else 0.0,
        alpha=config.alpha if sampled else 0.0,
        samples=config.samples if sampled else 0,
        selection_samples=config.selection_samples if sampled else 0,
        mode=config.mode if sampled else "fixed",
        forwards=int(table["forwards"].sum()),
        seed=settings.seed,
        certified=tuple(_certified_at(scene, radii, radius, document.classes) for radius in config.radii),
        abstained=Count(k=int(abstained.sum()), n=len(abstained)),
        configuration=config.configuration,
        inputs=by_role(scene.judged, scene.data),
    )
    return save(out, certificate, {"radii.npz": npz(index=scene.index, radius=radii, label=table["label"])})


@dataclass(frozen=True)
class _Scene:
    """What is certified, and how."""

    judged: Artifact[Model]
    data: Artifact[Snapshot]
    config: CertifyConfig
    x: "Tensor"
    y: NDArray[np.int64]
    index: NDArray[np.int64]
    sampled: int
    """The first so many rows are the sample; the others fill up classes that are rare in it."""
    blocks: tuple[ExampleBlock, ...]
    """Examples that are certified together."""
    device: str
    norm: Norm
    certifier: "Callable[[torch.Generator], Callable[[Tensor], Sequence[Certified]]]"
    """From the noise of a block to what certifies its examples."""


def _scene(judged: Artifact[Model], data: Artifact[Snapshot], config: CertifyConfig, settings: Compute) -> _Scene:
    import torch

    drawn = draw(judged, data, config.examples, settings)
    norm, _ = _certifier(drawn.net, judged.document, config, torch.Generator(drawn.device))
    x, _ = drawn.rows.tensors(drawn.device)
    return _Scene(
        judged=judged,
        data=data,
        config=config,
        x=x,
        y=drawn.rows.y,
        index=drawn.index,
        sampled=drawn.sampled,
        blocks=blocks(drawn.sampled, len(x), BLOCK, settings.seed),
        device=drawn.device,
        norm=norm,
        certifier=lambda noise: _certifier(drawn.net, judged.document, config, noise)[1],
    )


def _certify_block(scene: _Scene, block: ExampleBlock) -> Table:
    """`label`, `radius`, `abstained`, `forwards`, and `crown`: whether a bound above IBP was needed."""
    import torch

    noise = torch.Generator(scene.device).manual_seed(block.seed)
    found = scene.certifier(noise)(scene.x[block.rows])
    return {
        "label": np.array([c.label for c in found], dtype=np.int64),
        "radius": np.array([c.radius for c in found], dtype=np.float64),
        "abstained": np.array([c.abstained for c in found], dtype=np.bool_),
        "forwards": np.array([c.forwards for c in found], dtype=np.int64),
        "crown": np.array([getattr(c, "bound", "ibp") != "ibp" for c in found], dtype=np.bool_),
    }


def _certifier(
    net: "nn.Module", document: Model, config: CertifyConfig, generator: "torch.Generator"
) -> "tuple[Norm, Callable[[Tensor], Sequence[Certified]]]":
    if config.method == "bounds":
        return document.threat.norm, _bounded(net, document, config, str(generator.device))
    norm, sampled = _SAMPLED[modality_of(document.input.modality).certification]
    return norm, sampled(net, document, config, generator)


def _bounded(
    net: "nn.Module", document: Model, config: CertifyConfig, device: str
) -> "Callable[[Tensor], Sequence[Certified]]":
    from holdfast.modality.ball import Ball
    from holdfast.model.certify import bounds

    if document.threat.norm not in BOXES:
        expected = " or ".join(BOXES)
        raise WorkloadError(f"certify.method bounds: expected threat.norm {expected}, found {document.threat.norm}")
    ball = Ball.of(document.threat, document.input, device)
    return lambda x: bounds.certify_radii(net, x, ball, config.radii)


def _smoothed(
    net: "nn.Module", document: Model, config: CertifyConfig, generator: "torch.Generator"
) -> "Callable[[Tensor], Sequence[Certified]]":
    from holdfast.modality.ball import Ball
    from holdfast.model.certify import sequential, smoothing

    ball = Ball.of(document.threat, document.input, str(generator.device))
    draw = smoothing.gaussian(config.noise, ball.scale * ball.mutable, generator)
    sampling = _sampling(config, generator.device.type)
    if config.mode == "fixed":
        return _fixed(net, draw, sampling, lambda _: smoothing.gaussian_radius(config.noise))
    tests = sequential.table(sequential.gaussian_threshold(config.noise), config.radii, sampling)
    return lambda x: sequential.certify_table(net, x, draw=draw, table_of=lambda _: tests, sampling=sampling)


def _ablated(
    net: "nn.Module", document: Model, config: CertifyConfig, generator: "torch.Generator"
) -> "Callable[[Tensor], Sequence[Certified]]":
    from holdfast.model.certify import ablation, sequential

    share, sampling = config.noise, _sampling(config, generator.device.type)
    if share > 1:
        raise WorkloadError(f"certify.noise: expected the share of characters kept, at most 1, found {share}")
    draw = ablation.ablation(share, generator)
    if config.mode == "fixed":
        return _fixed(net, draw, sampling, lambda ids: ablation.ablation_radius(share, ids))

    def table_of(ids: "Tensor") -> sequential.RadiusTests:
        return sequential.table(ablation.ablation_threshold(share, ids), config.radii, sampling)

    return lambda ids: sequential.certify_table(net, ids, draw=draw, table_of=table_of, sampling=sampling)


_SAMPLED: "dict[Certification, tuple[Norm, _Sampled]]" = {
    "randomized-smoothing": ("l2", _smoothed),
    "randomized-ablation": ("edits", _ablated),
}
"""What sampling proves: in which norm, and how."""


def _fixed(
    net: "nn.Module", draw: "Draw", sampling: "Sampling", radius_of: "Callable[[Tensor], RadiusOf]"
) -> "Callable[[Tensor], Sequence[Certified]]":
    from holdfast.model.certify.smoothing import certify_all

    return lambda x: certify_all(net, x, draw=draw, radius_of=radius_of, sampling=sampling)


def _method(document: Model, config: CertifyConfig, table: Table) -> Method:
    if config.method == "bounds":
        return "crown" if table["crown"].any() else "ibp"
    return modality_of(document.input.modality).certification


def _sampling(config: CertifyConfig, device: str) -> "Sampling":
    from holdfast.model.certify.smoothing import BATCH, Sampling

    return Sampling(n0=config.selection_samples, n=config.samples, alpha=config.alpha, batch=BATCH[device])


def _certified_at(scene: _Scene, radii: Radii, radius: float, classes: Sequence[str]) -> CertifiedAt:
    """Examples that are correct and proven to stay so within `radius`; abstentions and wrong classes are not."""
    held, y = radii >= radius, scene.y
    sample = held[: scene.sampled]
    by_class = {
        name: Count(k=int(held[y == index].sum()), n=int((y == index).sum())) for index, name in enumerate(classes)
    }
    return CertifiedAt(radius=radius, certified=Count(k=int(sample.sum()), n=len(sample)), classes=by_class)
