"""The certify step: how many held-out examples no attacker inside a radius can change."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from holdfast.artifacts.documents import Certificate, CertifiedAt, Count, Model, Norm, Snapshot
from holdfast.artifacts.folder import Artifact, Ref, load, save
from holdfast.errors import ModelError, WorkloadError
from holdfast.model.compute import Compute
from holdfast.model.inputs import read_split
from holdfast.progress import track
from holdfast.workload import CertifyConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from holdfast.model.certify.smoothing import Certified, Sampling

Method = Literal["randomized-smoothing", "randomized-ablation"]


def certify(model: Ref, snapshot: Ref, out: Path, *, config: CertifyConfig, settings: Compute) -> Artifact[Certificate]:
    """Certifies the first `examples` of a permutation of the held-out rows and writes the certificate to `out`.

    Raises:
        ModelError: the model does not fit the data, or does not return finite logits.
        WorkloadError: a share of kept characters above 1.
    """
    judged, data = load(model, Model), load(snapshot, Snapshot)
    scene = _scene(judged, data, config, settings)
    found = [scene.one(x) for x in track(tuple(scene.x), "certify")]
    radii = np.array([c.radius if c.label == y else -1.0 for c, y in zip(found, scene.y, strict=True)])
    certificate = Certificate(
        method=scene.method,
        norm=scene.norm,
        unit=judged.document.threat.unit,
        noise=config.noise,
        alpha=config.alpha,
        samples=config.samples,
        selection_samples=config.selection_samples,
        seed=settings.seed,
        certified=tuple(_certified_at(radii, radius) for radius in config.radii),
        abstained=Count(k=sum(c.abstained for c in found), n=len(found)),
        inputs={"model": judged.digest, "snapshot": data.digest},
    )
    return save(out, certificate, {"radii.npz": _radii(scene, radii, found)})


@dataclass(frozen=True)
class _Scene:
    """What is certified, and how."""

    net: "nn.Module"
    x: "Tensor"
    y: "Sequence[int]"
    index: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    method: Method
    norm: Norm
    one: "Callable[[Tensor], Certified]"


def _scene(judged: Artifact[Model], data: Artifact[Snapshot], config: CertifyConfig, settings: Compute) -> _Scene:
    import torch

    from holdfast.model.networks import check_logits, load_network, logits

    document, device = judged.document, settings.prepare()
    if document.classes != data.document.classes:
        raise ModelError(f"{judged.folder}: expected the classes {data.document.classes}, found {document.classes}")
    net = load_network(judged, device)
    rows = read_split(data, "test", document.input)
    index = np.random.default_rng(settings.seed).permutation(len(rows))[: config.examples]
    chosen = rows.take(index)
    check_logits(logits(net, chosen.x, device=device), len(document.classes), name=str(judged.folder))
    text = document.input.modality == "text"
    generator = torch.Generator(device).manual_seed(settings.seed)
    return _Scene(
        net=net,
        x=torch.from_numpy(chosen.x).to(device),
        y=chosen.y.tolist(),
        index=index,
        method="randomized-ablation" if text else "randomized-smoothing",
        norm="edits" if text else "l2",
        one=_ablated(net, config, generator) if text else _smoothed(net, document, config, generator),
    )


def _smoothed(
    net: "nn.Module", document: Model, config: CertifyConfig, generator: "torch.Generator"
) -> "Callable[[Tensor], Certified]":
    from holdfast.model.certify import smoothing
    from holdfast.model.threat import Ball

    ball = Ball.of(document.threat, document.input, str(generator.device))
    draw = smoothing.gaussian(config.noise, ball.scale * ball.mutable, generator)
    radius_of = smoothing.gaussian_radius(config.noise)
    return lambda x: smoothing.certify(net, x, draw=draw, radius_of=radius_of, sampling=_sampling(config))


def _ablated(net: "nn.Module", config: CertifyConfig, generator: "torch.Generator") -> "Callable[[Tensor], Certified]":
    from holdfast.model.certify import ablation, smoothing

    if config.noise > 1:
        raise WorkloadError(f"certify.noise: expected the share of characters kept, at most 1, found {config.noise}")
    draw = ablation.ablation(config.noise, generator)

    def one(ids: "Tensor") -> "Certified":
        radius_of = ablation.ablation_radius(config.noise, ids)
        return smoothing.certify(net, ids, draw=draw, radius_of=radius_of, sampling=_sampling(config))

    return one


def _sampling(config: CertifyConfig) -> "Sampling":
    from holdfast.model.certify.smoothing import Sampling

    return Sampling(n0=config.selection_samples, n=config.samples, alpha=config.alpha)


def _certified_at(radii: "np.ndarray[tuple[int], np.dtype[np.float64]]", radius: float) -> CertifiedAt:
    """Examples that are correct and proven to stay so within `radius`; abstentions and wrong classes are not."""
    return CertifiedAt(radius=radius, certified=Count(k=int((radii >= radius).sum()), n=len(radii)))


def _radii(scene: _Scene, radii: "np.ndarray[tuple[int], np.dtype[np.float64]]", found: "list[Certified]") -> bytes:
    """`index`, `radius` (-1: not certified, or certified to be wrong), `label`; numpy's zip members carry no clock."""
    buffer = io.BytesIO()
    label = np.array([c.label for c in found], dtype=np.int64)
    np.savez_compressed(buffer, index=scene.index, radius=radii, label=label)
    return buffer.getvalue()
