from pathlib import Path

import numpy as np
import pytest

from holdfast.artifacts.documents import Certificate, Model, Snapshot
from holdfast.artifacts.folder import Artifact, Ref, load
from holdfast.compute import Compute
from holdfast.errors import WorkloadError
from holdfast.model.certify.step import certify
from holdfast.model.inputs import read_split
from holdfast.model.networks import load_network, logits
from holdfast.workload.schema import CertifyConfig

CONFIG = CertifyConfig(noise=0.1, samples=200, examples=40, radii=(0.0, 0.1, 0.2))


@pytest.fixture
def certificate(trained: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path) -> Artifact[Certificate]:
    return certify(Ref(trained.folder), Ref(digits.folder), tmp_path / "c", config=CONFIG, settings=Compute(0))


def test_counts_fall_with_the_radius_and_agree_with_the_file(certificate: Artifact[Certificate]) -> None:
    document = load(certificate.folder, Certificate).document
    counts = [point.certified.k for point in document.certified]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 20
    with np.load(certificate.open("radii.npz"), allow_pickle=False) as arrays:
        # The sample comes first; after it are more examples of classes that have less than their share of it.
        sample = arrays["radius"][:40]
        assert [int((sample >= point.radius).sum()) for point in document.certified] == counts
        assert len(set(arrays["index"].tolist())) == len(arrays["index"]) == 40 + 7


def test_every_class_is_counted_at_every_radius(
    certificate: Artifact[Certificate], trained: Artifact[Model], digits: Artifact[Snapshot]
) -> None:
    rows = read_split(digits, "test", trained.document.input)
    with np.load(certificate.open("radii.npz"), allow_pickle=False) as arrays:
        y, radius = rows.y[arrays["index"]], arrays["radius"]
    for point in certificate.document.certified:
        found = [(count.k, count.n) for count in point.classes.values()]
        assert list(point.classes) == list(trained.document.classes)
        assert found == [(int((radius[y == c] >= point.radius).sum()), int((y == c).sum())) for c in range(10)]


def test_a_random_step_inside_a_certified_ball_never_wins_the_majority(
    certificate: Artifact[Certificate], trained: Artifact[Model], digits: Artifact[Snapshot]
) -> None:
    net, rows = load_network(trained, "cpu"), read_split(digits, "test", trained.document.input)
    rng = np.random.default_rng(0)
    with np.load(certificate.open("radii.npz"), allow_pickle=False) as arrays:
        index, radius, label = arrays["index"], arrays["radius"], arrays["label"]
    for i, r, answer in [row for row in zip(index, radius, label, strict=True) if row[1] > 0][:8]:
        step = rng.normal(size=rows.x[i].shape)
        x = rows.x[i] + step / np.linalg.norm(step) * r
        noisy = (x + rng.normal(scale=0.1, size=(2000, *x.shape))).astype(np.float32)
        votes = logits(net, noisy, device="cpu").argmax(axis=1)
        assert np.bincount(votes).argmax() == answer


def test_equal_inputs_give_equal_bytes(
    certificate: Artifact[Certificate], trained: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path
) -> None:
    again = certify(Ref(trained.folder), Ref(digits.folder), tmp_path / "d", config=CONFIG, settings=Compute(0))
    assert again.digest == certificate.digest


def test_more_than_all_characters_cannot_be_kept(
    spam_model: Artifact[Model], messages: Artifact[Snapshot], tmp_path: Path
) -> None:
    with pytest.raises(WorkloadError, match="certify.noise: expected the share of characters kept"):
        certify(
            Ref(spam_model.folder),
            Ref(messages.folder),
            tmp_path / "c",
            config=CONFIG.model_copy(update={"noise": 1.5}),
            settings=Compute(0),
        )
    assert not (tmp_path / "c").exists()


def test_the_sequential_mode_says_what_the_fixed_one_says_with_fewer_forwards(
    certificate: Artifact[Certificate], trained: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path
) -> None:
    changed = CONFIG.model_copy(update={"mode": "sequential"})
    again = certify(Ref(trained.folder), Ref(digits.folder), tmp_path / "s", config=changed, settings=Compute(0))
    fixed, quick = certificate.document, again.document
    assert (fixed.mode, quick.mode) == ("fixed", "sequential")
    assert fixed.forwards == 47 * 300 > 1.3 * quick.forwards
    for one, other in zip(fixed.certified, quick.certified, strict=True):
        assert abs(one.certified.k - other.certified.k) <= 6


def test_bounds_certify_the_network_itself(
    trained: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path
) -> None:
    config = CertifyConfig(method="bounds", examples=40, radii=(0.0, 0.005, 0.02))
    found = certify(Ref(trained.folder), Ref(digits.folder), tmp_path / "b", config=config, settings=Compute(0))
    document = load(found.folder, Certificate).document
    assert (document.method, document.norm, document.alpha, document.samples) == ("crown", "linf", 0.0, 0)
    counts = [point.certified.k for point in document.certified]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 30
    assert counts[1] > 0
    assert document.forwards == document.abstained.k == 0


def test_ablation_takes_fewer_samples_in_sequence(
    spam_model: Artifact[Model], messages: Artifact[Snapshot], tmp_path: Path
) -> None:
    found = {
        mode: certify(
            Ref(spam_model.folder),
            Ref(messages.folder),
            tmp_path / mode,
            config=CertifyConfig(noise=0.5, samples=300, examples=20, radii=(0, 1), mode=mode),
            settings=Compute(0),
        ).document
        for mode in ("fixed", "sequential")
    }
    assert found["sequential"].method == "randomized-ablation"
    assert found["sequential"].forwards < found["fixed"].forwards
    assert abs(found["sequential"].certified[0].certified.k - found["fixed"].certified[0].certified.k) <= 3


def test_bounds_are_for_linf(spam_model: Artifact[Model], messages: Artifact[Snapshot], tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="certify.method bounds: expected threat.norm linf, found edits"):
        certify(
            Ref(spam_model.folder),
            Ref(messages.folder),
            tmp_path / "c",
            config=CertifyConfig(method="bounds"),
            settings=Compute(0),
        )
