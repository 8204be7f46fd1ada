import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.artifacts.documents import Baseline, Model, RobustnessReport, Snapshot, ThreatModel, Verdict
from holdfast.artifacts.folder import Artifact, Ref, save, seal, write_artifact
from holdfast.compute import Compute
from holdfast.errors import IntegrityError, ModelError
from holdfast.model.attack import step
from holdfast.model.attack.step import attack
from holdfast.model.inputs import read_split
from holdfast.model.networks import load_network, logits
from holdfast.model.train.step import train
from holdfast.workload.schema import AttackConfig, NetworkConfig, RecipeConfig, TrainConfig

SETTINGS = Compute(seed=0, device="cpu", threads=1)
CONFIG = AttackConfig(examples=120)
FAST = AttackConfig(examples=60, second_opinion=False)


def report(
    model: Artifact[Model],
    data: Artifact[Snapshot],
    out: Path,
    config: AttackConfig = FAST,
    baseline: Ref | None = None,
) -> Artifact[RobustnessReport]:
    return attack(
        Ref(model.folder, model.digest), Ref(data.folder), out, config=config, baseline=baseline, settings=SETTINGS
    )


def champion(model: Artifact[Model], out: Path) -> Ref:
    with write_artifact(out) as work:
        shutil.copytree(model.folder, work / "model")
        seal(work, Baseline(name="digits", present=True, model_version=1, model=model.digest))
    return Ref(out)


def test_a_plain_model_falls_and_a_hardened_one_stands(
    robust: Artifact[Model], plain: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path
) -> None:
    hard = report(robust, digits, tmp_path / "hard", CONFIG).document
    soft = report(plain, digits, tmp_path / "soft", CONFIG).document
    assert soft.clean.share > 0.9
    assert soft.worst_case.share < 0.6
    assert hard.worst_case.share > 0.75
    assert {check.name: check.verdict for check in hard.masking if check.verdict is not Verdict.PASS} == {}
    assert [a.name for a in hard.attacks] == ["fgsm", "pgd-ce", "pgd-margin", "square", "pgd-ce"]
    assert hard.attacks[-1].library.startswith("adversarial-robustness-toolbox")
    assert hard.no_second_opinion is None


def test_the_worst_case_is_counted_per_example(
    robust: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path
) -> None:
    made = report(robust, digits, tmp_path / "r")
    with np.load(made.open("flags.npz"), allow_pickle=False) as flags:
        every = np.stack([flags[a.name] for a in made.document.attacks])
        assert (flags["clean"] & every.all(axis=0)).tolist() == flags["worst"].tolist()
        # The sample comes first; after it are more examples of classes that have less than their share of it.
        assert made.document.worst_case.k == flags["worst"][:60].sum()
        assert len(set(flags["index"])) == len(flags["index"]) == 60 + 11
        assert flags["index"].max() < 360


def test_the_classes_counts_are_those_of_the_examples(
    robust: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path
) -> None:
    made = report(robust, digits, tmp_path / "r")
    rows = read_split(digits, "test", robust.document.input)
    with np.load(made.open("flags.npz"), allow_pickle=False) as flags:
        y = rows.y[flags["index"]]
        assert flags["label"].tolist() == y.tolist()
        for found, right, answers in (
            (made.document.clean_performance, flags["clean"], flags["answer"]),
            (made.document.worst_case_performance, flags["worst"], flags["worst_answer"]),
        ):
            assert found is not None
            recalls = [(one.recall.k, one.recall.n) for one in found.classes]
            assert recalls == [(int(right[y == label].sum()), int((y == label).sum())) for label in range(10)]
            assert min(n for _, n in recalls) == 6
            assert [one.answers for one in found.classes] == np.bincount(answers, minlength=10).tolist()
            assert [one.precision.n for one in found.classes] == np.bincount(answers[:60], minlength=10).tolist()
            assert (answers == y).tolist() == right.tolist()
            assert found.roc_auc is None


def test_the_champion_is_compared_in_every_class(
    robust: Artifact[Model], plain: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path
) -> None:
    made = report(robust, digits, tmp_path / "r", baseline=champion(plain, tmp_path / "baseline")).document
    ours = made.worst_case_performance
    theirs = report(plain, digits, tmp_path / "alone").document.worst_case_performance
    assert ours is not None
    assert theirs is not None
    for found, mine, other in zip(made.champion_classes, ours.classes, theirs.classes, strict=True):
        pairs = found.worst_case
        assert found.name == mine.name
        assert pairs.both + pairs.only_candidate == mine.recall.k
        assert pairs.both + pairs.only_champion == other.recall.k
        assert pairs.both + pairs.only_candidate + pairs.only_champion + pairs.neither == mine.recall.n


def test_accuracy_falls_along_the_curve(robust: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path) -> None:
    made = report(robust, digits, tmp_path / "r").document
    assert [p.epsilon for p in made.curve] == [Fraction(n, 20) for n in range(5)]
    held = [p.survived.k for p in made.curve]
    assert held == sorted(held, reverse=True)
    assert held[0] == made.clean.k


def test_twice_the_same_bytes(robust: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path) -> None:
    assert report(robust, digits, tmp_path / "a").digest == report(robust, digits, tmp_path / "b").digest


def test_the_champion_meets_the_same_attacks_on_the_same_examples(
    robust: Artifact[Model], plain: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path
) -> None:
    old = champion(plain, tmp_path / "baseline")
    made = report(robust, digits, tmp_path / "r", baseline=old).document
    alone = report(plain, digits, tmp_path / "alone").document
    paired = made.champion_worst_case
    assert paired is not None
    assert paired.both + paired.only_candidate == made.worst_case.k
    assert paired.both + paired.only_champion == alone.worst_case.k
    assert paired.both + paired.only_candidate + paired.only_champion + paired.neither == 60
    assert set(made.inputs) == {"model", "snapshot", "baseline"}


def test_a_model_that_is_the_champion_is_measured_once(
    robust: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, named = champion(robust, tmp_path / "baseline"), []
    observe = step.observe

    def watched(*given: Any) -> Any:
        table = observe(*given)
        named.extend(sorted({name.partition("/")[0] for name in table}))
        return table

    monkeypatch.setattr(step, "observe", watched)
    made = report(robust, digits, tmp_path / "r", baseline=old).document
    # The sample, and more examples of rare classes.
    assert named == ["candidate", "sample", "candidate"]
    clean, paired = made.champion_clean, made.champion_worst_case
    assert clean is not None
    assert paired is not None
    assert (clean.both, clean.only_candidate, clean.only_champion) == (made.clean.k, 0, 0)
    assert (paired.both, paired.only_candidate, paired.only_champion) == (made.worst_case.k, 0, 0)


def test_the_champion_measured_anew_gives_what_the_candidate_gave(
    robust: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path
) -> None:
    # The same network under another digest (its recipe says something else): measured a second time, and equal.
    with write_artifact(tmp_path / "twin") as work:
        shutil.copytree(robust.folder, work, dirs_exist_ok=True)
        (work / "artifact.json").unlink()
        twin = seal(work, robust.document.model_copy(update={"seed": robust.document.seed + 1, "files": {}}))
    assert twin.digest != robust.digest
    old = champion(Artifact(tmp_path / "twin", twin.document, twin.digest), tmp_path / "baseline")
    made = report(robust, digits, tmp_path / "r", baseline=old).document
    same = report(robust, digits, tmp_path / "s", baseline=champion(robust, tmp_path / "itself")).document
    assert (made.champion_clean, made.champion_worst_case) == (same.champion_clean, same.champion_worst_case)


def test_a_champion_whose_bytes_were_changed_is_refused(
    robust: Artifact[Model], plain: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path
) -> None:
    old = champion(plain, tmp_path / "baseline")
    path = old.folder / "model" / "artifact.json"
    path.write_bytes(path.read_bytes().replace(b'"seed":0', b'"seed":1'))
    with pytest.raises(IntegrityError, match="expected artifact"):
        report(robust, digits, tmp_path / "r", baseline=old)
    assert not (tmp_path / "r").exists()


def test_no_champion_no_comparison(robust: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path) -> None:
    none = save(tmp_path / "baseline", Baseline(name="digits", present=False))
    made = report(robust, digits, tmp_path / "r", baseline=Ref(none.folder)).document
    assert made.champion_worst_case is None


def test_the_release_tier_runs_the_members_of_autoattack_on_what_stands(
    robust: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path
) -> None:
    config = AttackConfig(examples=20, tier="release", second_opinion=False)
    made = report(robust, digits, tmp_path / "r", config).document
    assert [a.name for a in made.attacks if a.cumulative] == ["apgd-ce", "apgd-dlr-targeted", "fmn", "square"]
    standing = [a.survived.k for a in made.attacks if a.cumulative]
    assert standing == sorted(standing, reverse=True)
    assert made.worst_case.k == standing[-1]


def test_the_nightly_tier_adds_auto_pgd_to_pgd(
    robust: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path
) -> None:
    config = AttackConfig(examples=20, tier="nightly", second_opinion=False)
    made = report(robust, digits, tmp_path / "r", config).document
    assert [a.name for a in made.attacks] == ["fgsm", "pgd-ce", "apgd-dlr", "square"]


@pytest.fixture(scope="module")
def reader(messages: Artifact[Snapshot], tmp_path_factory: pytest.TempPathFactory) -> Artifact[Model]:
    """A network that reads messages."""
    config = TrainConfig(
        name="messages",
        network=NetworkConfig(architecture="text"),
        threat=ThreatModel(norm="edits", epsilon="2", unit="characters"),
        train=RecipeConfig(epochs=10, batch=32, learning_rate=0.01),
    )
    out = tmp_path_factory.mktemp("models") / "reader"
    return train(Ref(messages.folder), out, scan=None, config=config, settings=SETTINGS, checkpoint=None)


def test_messages_meet_character_flips(reader: Artifact[Model], messages: Artifact[Snapshot], tmp_path: Path) -> None:
    made = report(reader, messages, tmp_path / "r", AttackConfig(examples=60)).document
    assert [a.name for a in made.attacks] == ["hotflip-at-once", "hotflip", "random-edits"]
    assert [str(p.epsilon) for p in made.curve] == ["0", "1", "2", "3", "4"]
    assert made.worst_case.share > 0.8
    assert made.no_second_opinion == (
        "the Adversarial Robustness Toolbox has no attack that changes the characters of a message"
    )


def kept(made: Artifact[RobustnessReport]) -> dict[str, np.ndarray]:
    with np.load(made.open("attacks.npz"), allow_pickle=False) as arrays:
        return dict(arrays)


def fooled(model: Artifact[Model], rows: dict[str, np.ndarray]) -> np.ndarray:
    """Which of the rows a model answers wrongly, asked one by one on one CPU thread, as a server is."""
    net = load_network(model, "cpu")
    labels = [int(logits(net, rows["x"][i : i + 1], device="cpu").argmax()) for i in range(len(rows["x"]))]
    return np.asarray(labels) != rows["y"]


def test_the_same_model_falls_for_exactly_the_kept_examples_that_are_marked(
    robust: Artifact[Model], plain: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path
) -> None:
    for name, model, other in (("plain", plain, robust), ("robust", robust, plain)):
        rows = kept(report(model, digits, tmp_path / name))
        assert (fooled(model, rows) == rows["fooled"]).all()
        assert fooled(other, rows).sum() != rows["fooled"].sum()


def test_an_altered_model_does_not_reproduce_what_was_kept(
    robust: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path
) -> None:
    rows, net = kept(report(robust, digits, tmp_path / "r")), load_network(robust, "cpu")
    with torch.no_grad():
        for weights in net.parameters():
            weights += 0.05 * weights.std() * torch.randn(weights.shape, generator=torch.Generator().manual_seed(0))
    found = logits(net, rows["x"], device="cpu").argmax(axis=1) != rows["y"]
    assert (found != rows["fooled"]).any()


def test_the_kept_examples_are_the_first_of_the_report_inside_the_ball(
    plain: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path
) -> None:
    made = report(plain, digits, tmp_path / "r", AttackConfig(examples=200, second_opinion=False))
    rows = kept(made)
    with np.load(made.open("flags.npz"), allow_pickle=False) as flags:
        index, worst = flags["index"][:128], flags["worst"][:128]
    original = read_split(digits, "test", plain.document.input).take(index)
    assert (rows["x"].dtype, rows["y"].dtype, rows["fooled"].dtype) == (np.float32, np.int64, np.bool_)
    assert 120 <= len(rows["x"]) <= 128
    # Each is one of the first examples of its class, moved by at most 1/10 in every pixel.
    away = np.abs(rows["x"][:, None] - original.x[None]).max(axis=(2, 3, 4))
    away[rows["y"][:, None] != original.y[None]] = np.inf
    assert away.min(axis=1).max() <= 0.1 + 1e-6
    assert (away.min(axis=1) > 0.05).mean() > 0.9
    # Nearly all are in the set; those between two classes are not, and the others count as in the report.
    assert abs(int(rows["fooled"].sum()) - int((~worst).sum())) <= 128 - len(rows["x"])


def test_messages_are_kept_as_character_ids(
    reader: Artifact[Model], messages: Artifact[Snapshot], tmp_path: Path
) -> None:
    rows = kept(report(reader, messages, tmp_path / "r"))
    assert rows["x"].dtype == np.int64
    assert rows["x"].shape[1:] == reader.document.input.shape
    assert (fooled(reader, rows) == rows["fooled"]).all()


def test_a_model_of_other_classes_is_refused(
    robust: Artifact[Model], breast_cancer: Artifact[Snapshot], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="expected the classes .*malignant.*, found"):
        report(robust, breast_cancer, tmp_path / "r")
