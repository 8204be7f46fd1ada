"""The certify step: how many held-out examples no attacker inside a radius can change."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.arrays import npz
from holdfast.artifacts.documents import Certificate, CertifiedAt, Count, Model, Norm, Snapshot
from holdfast.artifacts.folder import Artifact, Ref, load, save
from holdfast.compute import Compute
from holdfast.errors import WorkloadError
from holdfast.modality import modality_of
from holdfast.modality.norms import BOXES
from holdfast.modality.protocol import Certification
from holdfast.model.examples import draw
from holdfast.progress import track
from holdfast.steps import by_role
from holdfast.workload.schema import CertifyConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from holdfast.model.certify.smoothing import Certified, Draw, RadiusOf, Sampling

    _Sampled = Callable[[nn.Module, Model, CertifyConfig, torch.Generator], Callable[[Tensor], Sequence[Certified]]]

Method = Certification | Literal["ibp", "crown"]
Radii = NDArray[np.float64]
GROUP = 64
"""Examples that are certified side by side."""


def certify(model: Ref, snapshot: Ref, out: Path, *, config: CertifyConfig, settings: Compute) -> Artifact[Certificate]:
    """Certifies the first `examples` of a permutation of the held-out rows and writes the certificate to `out`.

    Raises:
        ModelError: the model does not fit the data, does not return finite logits, or has a layer unknown to bounds.
        WorkloadError: a share of kept characters above 1, or bounds for another norm than linf.
    """
    judged, data = load(model, Model), load(snapshot, Snapshot)
    scene = _scene(judged, data, config, settings)
    found = [one for group in track(scene.groups, "certify") for one in scene.group(group)]
    radii = np.array([c.radius if c.label == y else -1.0 for c, y in zip(found, scene.y, strict=True)])
    sample = found[: scene.sampled]
    sampled = config.method == "smoothing"
    certificate = Certificate(
        method=_method(judged.document, found),
        norm=scene.norm,
        unit=judged.document.threat.unit,
        noise=config.noise if sampled else 0.0,
        alpha=config.alpha if sampled else 0.0,
        samples=config.samples if sampled else 0,
        selection_samples=config.selection_samples if sampled else 0,
        mode=config.mode if sampled else "fixed",
        forwards=sum(c.forwards for c in found),
        seed=settings.seed,
        certified=tuple(_certified_at(scene, radii, radius, judged.document.classes) for radius in config.radii),
        abstained=Count(k=sum(c.abstained for c in sample), n=len(sample)),
        configuration=config.configuration,
        inputs=by_role(judged, data),
    )
    return save(out, certificate, {"radii.npz": _radii(scene, radii, found)})


@dataclass(frozen=True)
class _Scene:
    """What is certified, and how."""

    x: "Tensor"
    y: "Sequence[int]"
    index: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    sampled: int
    """The first so many rows are the sample; the others fill up classes that are rare in it."""
    norm: Norm
    group: "Callable[[Tensor], Sequence[Certified]]"

    @property
    def groups(self) -> "tuple[Tensor, ...]":
        """The rows in groups that are certified side by side; what follows the sample does not change its noise."""
        sample, more = self.x.tensor_split([self.sampled])
        return (*sample.split(GROUP), *more.split(GROUP)) if len(more) else sample.split(GROUP)


def _scene(judged: Artifact[Model], data: Artifact[Snapshot], config: CertifyConfig, settings: Compute) -> _Scene:
    import torch

    drawn = draw(judged, data, config.examples, settings)
    generator = torch.Generator(drawn.device).manual_seed(settings.seed)
    norm, group = _certifier(drawn.net, judged.document, config, generator)
    x, _ = drawn.rows.tensors(drawn.device)
    return _Scene(x=x, y=drawn.rows.y.tolist(), index=drawn.index, sampled=drawn.sampled, norm=norm, group=group)


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


def _method(document: Model, found: "Sequence[Certified]") -> Method:
    from holdfast.model.certify.bounds import Proven

    if any(isinstance(c, Proven) for c in found):
        return "ibp" if all(isinstance(c, Proven) and c.bound == "ibp" for c in found) else "crown"
    return modality_of(document.input.modality).certification


def _sampling(config: CertifyConfig, device: str) -> "Sampling":
    from holdfast.model.certify.smoothing import BATCH, Sampling

    return Sampling(n0=config.selection_samples, n=config.samples, alpha=config.alpha, batch=BATCH[device])


def _certified_at(scene: _Scene, radii: Radii, radius: float, classes: Sequence[str]) -> CertifiedAt:
    """Examples that are correct and proven to stay so within `radius`; abstentions and wrong classes are not."""
    held, y = radii >= radius, np.array(scene.y)
    sample = held[: scene.sampled]
    by_class = {
        name: Count(k=int(held[y == index].sum()), n=int((y == index).sum())) for index, name in enumerate(classes)
    }
    return CertifiedAt(radius=radius, certified=Count(k=int(sample.sum()), n=len(sample)), classes=by_class)


def _radii(scene: _Scene, radii: Radii, found: "list[Certified]") -> bytes:
    """`index`, `radius` (-1: not certified, or certified to be wrong), `label`."""
    return npz(index=scene.index, radius=radii, label=np.array([c.label for c in found], dtype=np.int64))
