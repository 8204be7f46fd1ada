"""Parts and their merge: byte for byte what one process gives."""

import shutil
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from holdfast.artifacts.documents import AttackPart, Baseline, Certificate, CertifyPart, Model, Snapshot, ThreatModel
from holdfast.artifacts.folder import Artifact, Ref, load, save, seal, write_artifact
from holdfast.attestation.keys import make_key, read_signer
from holdfast.attestation.predicates import Occasion
from holdfast.attestation.sign import signer_for, statements
from holdfast.attestation.trust import may_sign
from holdfast.compute import Compute
from holdfast.errors import HoldfastError, InputError, IntegrityError, WorkloadError
from holdfast.modality import MODALITIES
from holdfast.model.attack import scene
from holdfast.model.attack import step as attacking
from holdfast.model.certify import step as certifying
from holdfast.model.shards import ExampleBlock, Shard, blocks
from holdfast.model.train.step import train
from holdfast.steps import Role
from holdfast.workload.schema import AttackConfig, CertifyConfig, NetworkConfig, RecipeConfig, TrainConfig

SETTINGS = Compute(seed=3, device="cpu", threads=1)
ATTACK = AttackConfig(examples=36, second_opinion=False)
SECONDED = AttackConfig(examples=17)
"""Images are attacked by another library too."""
FEW = AttackConfig(examples=17, second_opinion=False)
CERTIFY = CertifyConfig(noise=0.3, samples=60, selection_samples=20, examples=40, radii=(0.0, 0.1))
BLOCK = certifying.BLOCK
CHANGES: dict[tuple[str, str], dict[str, Any]] = {
    ("image", "attack"): {"config": SECONDED, "baseline": None},
    ("text", "attack"): {"config": FEW, "baseline": None},
}
COUNTS = (1, 2, 3, 7)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of few examples."""
    monkeypatch.setattr(scene, "BLOCK", {"cpu": 16, "cuda": 16})
    monkeypatch.setattr(certifying, "BLOCK", 16)


def small(snapshot: Artifact[Snapshot], out: Path, modality: str) -> Artifact[Model]:
    """A network that was trained for two epochs."""
    architecture, norm, epsilon = {
        "image": ("cnn", "linf", Fraction(1, 20)),
        "tabular": ("mlp", "linf", Fraction(1, 10)),
        "text": ("text", "edits", Fraction(2)),
    }[modality]
    config = TrainConfig(
        name="small",
        network=NetworkConfig(architecture=architecture),
        threat=ThreatModel(norm=norm, epsilon=epsilon, unit=MODALITIES[modality].unit),
        train=RecipeConfig(epochs=2, attack_steps=1, learning_rate=0.01),
    )
    return train(Ref(snapshot.folder), out, scan=None, config=config, settings=SETTINGS, checkpoint=None)


class Work:
    """Attack and certify on one network, whole and in parts."""

    def __init__(self, model: Artifact[Model], snapshot: Artifact[Snapshot], champion: Artifact[Model], out: Path):
        self.given = Ref(model.folder, model.digest), Ref(snapshot.folder, snapshot.digest)
        self.baseline = _baseline(champion, out / "baseline")
        self.out = out

    def whole(self, step: str, **changes: Any) -> Artifact[Any]:
        run = {"attack": attacking.attack, "certify": certifying.certify}[step]
        return self._run(step, run, f"{step}-whole", **changes)

    def part(self, step: str, shard: str, **changes: Any) -> Ref:
        run = {"attack": attacking.attack_part, "certify": certifying.certify_part}[step]
        name = f"{step}-{shard.replace('/', '-of-')}-{len(list(self.out.iterdir()))}"
        made = self._run(step, run, name, shard=Shard.parse(shard), **changes)
        return Ref(made.folder, made.digest)

    def merged(self, step: str, parts: Sequence[Ref], **changes: Any) -> Artifact[Any]:
        run = {"attack": attacking.merge, "certify": certifying.merge}[step]
        return self._run(step, run, f"{step}-merged", parts=parts, **changes)

    def _run(self, step: str, run: Callable[..., Artifact[Any]], name: str, **given: Any) -> Artifact[Any]:
        options = {"config": CERTIFY, "settings": SETTINGS}
        if step == "attack":
            options = {"config": ATTACK, "settings": SETTINGS, "baseline": self.baseline}
        return run(*self.given, self.out / name, **{**options, **given})


def _baseline(model: Artifact[Model], out: Path) -> Ref:
    with write_artifact(out) as work:
        shutil.copytree(model.folder, work / "model")
        seal(work, Baseline(name="small", present=True, model_version=1, model=model.digest))
    return Ref(out)


@pytest.fixture(scope="module")
def make(
    digits: Artifact[Snapshot],
    breast_cancer: Artifact[Snapshot],
    messages: Artifact[Snapshot],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Work]:
    """Work on a network and its champion, made once for each modality."""
    data, made = {"image": digits, "tabular": breast_cancer, "text": messages}, {}

    def work(modality: str) -> Work:
        if modality not in made:
            out = tmp_path_factory.mktemp(modality)
            model = small(data[modality], out / "model", modality)
            with write_artifact(out / "champion") as place:
                shutil.copytree(model.folder, place, dirs_exist_ok=True)
                (place / "artifact.json").unlink()
                champion = seal(place, model.document.model_copy(update={"seed": 9, "files": {}}))
            other = Artifact(out / "champion", champion.document, champion.digest)
            made[modality] = Work(model, data[modality], other, out)
        return made[modality]

    return work


@pytest.mark.parametrize("step", ["attack", "certify"])
@pytest.mark.parametrize("modality", ["image", "tabular", "text"])
def test_any_number_of_parts_gives_the_bytes_of_one_process(
    make: Callable[[str], Work], modality: str, step: str
) -> None:
    work = make(modality)
    changes = CHANGES.get((modality, step), {})
    whole = work.whole(step, **changes)
    for count in COUNTS if step == "certify" or modality == "tabular" else (2,):
        parts = [work.part(step, f"{number}/{count}", **changes) for number in range(1, count + 1)]
        merged = work.merged(step, parts[::-1], **changes)
        assert merged.digest == whole.digest
        assert merged.document == whole.document
        files = [path.name for path in sorted(whole.folder.iterdir())]
        assert [(merged.folder / name).read_bytes() for name in files] == [
            (whole.folder / name).read_bytes() for name in files
        ]


def test_bounds_are_proven_in_parts_too(make: Callable[[str], Work]) -> None:
    work, bounds = make("image"), CertifyConfig(method="bounds", examples=20, radii=(0.0, 0.01))
    whole = certifying.certify(*work.given, work.out / "bounds", config=bounds, settings=SETTINGS)
    parts = [work.part("certify", f"{number}/2", config=bounds) for number in (1, 2)]
    assert work.merged("certify", parts, config=bounds).digest == whole.digest


def test_more_parts_than_blocks_leave_empty_parts(make: Callable[[str], Work]) -> None:
    work, few = make("tabular"), AttackConfig(examples=10, second_opinion=False)
    whole = attacking.attack(*work.given, work.out / "few", config=few, baseline=work.baseline, settings=SETTINGS)
    parts = [work.part("attack", f"{number}/7", config=few) for number in range(1, 8)]
    # Two blocks: the sample, and more examples of a class that is rare in it.
    assert [load(part, AttackPart).document.blocks for part in parts] == [(0,), (1,), (), (), (), (), ()]
    assert work.merged("attack", parts, config=few).digest == whole.digest


@pytest.fixture(scope="module")
def certified(make: Callable[[str], Work]) -> tuple[Work, list[Ref]]:
    """Certify in two parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certifying, "BLOCK", 16)
        return make("image"), [make("image").part("certify", f"{number}/2") for number in (1, 2)]


def refused(work: Work, parts: Sequence[Ref], match: str, error: type[HoldfastError] = InputError) -> None:
    shutil.rmtree(work.out / "certify-merged", ignore_errors=True)
    with pytest.raises(error, match=match):
        work.merged("certify", parts)
    assert not (work.out / "certify-merged").exists()


def test_a_part_that_is_missing_is_refused(certified: tuple[Work, list[Ref]]) -> None:
    work, parts = certified
    refused(work, parts[:1], "expected the parts 1 to 2 of 2, each once, found 1$")


def test_a_part_that_is_there_twice_is_refused(certified: tuple[Work, list[Ref]]) -> None:
    work, parts = certified
    refused(work, [*parts, parts[0]], "expected the parts 1 to 2 of 2, each once, found 1, 1, 2")


def test_a_part_of_another_division_is_refused(certified: tuple[Work, list[Ref]]) -> None:
    work, parts = certified
    refused(work, [parts[0], work.part("certify", "2/3")], "expected a part of the same work .* shards 2, found 3")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"settings": Compute(seed=4, device="cpu", threads=1)}, "seed 3, found 4"),
        ({"config": CERTIFY.model_copy(update={"samples": 61})}, "configuration.samples 60, found 61"),
        ({"settings": Compute(seed=3, device="cpu", threads=2)}, "threads 1, found 2"),
    ],
)
def test_a_part_that_was_made_in_another_way_is_refused(
    certified: tuple[Work, list[Ref]], changes: dict[str, Any], found: str
) -> None:
    work, parts = certified
    other = work.part("certify", "2/2", **changes)
    refused(work, [parts[0], other], f"expected a part of the same work as .*, with {found}")


def test_parts_that_agree_but_are_of_another_model_are_refused(
    make: Callable[[str], Work], certified: tuple[Work, list[Ref]]
) -> None:
    work, own = certified
    foreign = []
    for part in own:
        document = load(part, CertifyPart).document
        changed = document.model_copy(update={"inputs": document.inputs | {"model": "0" * 64}, "files": {}})
        files = {"rows.npz": (part.folder / "rows.npz").read_bytes()}
        made = save(work.out / f"foreign-{document.shard}", changed, files)
        foreign.append(Ref(made.folder))
    refused(work, foreign, "the same work as this step, with inputs.model [0-9a-f]{12}…, found 000000000000…")


def test_a_part_of_another_step_is_refused(make: Callable[[str], Work], certified: tuple[Work, list[Ref]]) -> None:
    work, parts = certified
    with pytest.raises(HoldfastError, match="expected a attack-part, found a certify-part"):
        work.merged("attack", parts)


def test_a_part_whose_bytes_were_changed_is_refused(certified: tuple[Work, list[Ref]], tmp_path: Path) -> None:
    work, parts = certified
    shutil.copytree(parts[1].folder, tmp_path / "part")
    rows = tmp_path / "part" / "rows.npz"
    rows.write_bytes(rows.read_bytes()[:-1] + b"\1")
    refused(work, [parts[0], Ref(tmp_path / "part")], "the file was altered", IntegrityError)


def test_a_block_that_belongs_to_another_part_is_refused(certified: tuple[Work, list[Ref]]) -> None:
    work, parts = certified
    document = load(parts[0], CertifyPart).document
    relabelled = document.model_copy(update={"shard": 2, "files": {}})
    made = save(work.out / "moved", relabelled, {"rows.npz": (parts[0].folder / "rows.npz").read_bytes()})
    refused(work, [parts[0], Ref(made.folder)], r"expected the blocks \(1, 3\), found \(0, 2\)")


def test_blocks_cover_every_example_once_and_do_not_mix_sample_and_rest() -> None:
    found = blocks(40, 47, 16, seed=5)
    assert [(one.start, one.stop, one.sampled) for one in found] == [
        (0, 16, True),
        (16, 32, True),
        (32, 40, True),
        (40, 47, False),
    ]
    assert found[0].seed == 5
    assert len({one.seed for one in found}) == 4


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_block_belongs_to_exactly_one_shard(count: int) -> None:
    found = blocks(500, 560, 64, seed=0)
    taken: list[ExampleBlock] = [block for number in range(1, count + 1) for block in Shard(number, count).take(found)]
    assert sorted(taken, key=lambda block: block.number) == list(found)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "1/65", "a/b", "-1/2", "1/2/3"])
def test_a_shard_is_i_of_n(text: str) -> None:
    with pytest.raises(WorkloadError, match="--shard: expected I/N"):
        Shard.parse(text)


def test_a_part_is_signed_in_the_role_of_its_step_and_in_no_other(certified: tuple[Work, list[Ref]]) -> None:
    work, parts = certified
    part = load(parts[0], CertifyPart)
    for role in ("attacker", "gate"):
        make_key(work.out / f"{role}.pem")
    keys: dict[Role, Any] = {role: read_signer(str(work.out / f"{role}.pem")) for role in ("attacker", "gate")}
    assert signer_for(part.document, keys) is keys["attacker"]
    (statement,) = statements(part.document, part.digest, Occasion("run", datetime.now(UTC)))
    assert statement.subject[0].name == "certify-part"
    assert may_sign("attacker", statement)
    assert not may_sign("gate", statement)


@pytest.mark.nightly
def test_compiled_parts_on_this_machine_give_the_bytes_of_one_step(make: Callable[[str], Work], tmp_path: Path) -> None:
    dsl = pytest.importorskip("kfp.dsl", reason="pipelines need kfp (environment .venv)")
    from holdfast import containers
    from holdfast.model.certify.component import certify
    from holdfast_pipelines.cluster import ClusterSettings
    from holdfast_pipelines.local import Machine
    from holdfast_pipelines.wiring import Pods

    model, snapshot = make("image").given
    config = CertifyConfig(noise=0.3, samples=40, selection_samples=10, examples=130, radii=(0.0, 0.1))

    @dsl.pipeline(name="parts")
    def parts(model_uri: str, model_digest: str, snapshot_uri: str, snapshot_digest: str) -> None:
        read = dsl.importer(artifact_uri=model_uri, artifact_class=dsl.Model)
        rows = dsl.importer(artifact_uri=snapshot_uri, artifact_class=dsl.Dataset)
        given = {"model": read.output, "model_digest": model_digest}
        given |= {"snapshot": rows.output, "snapshot_digest": snapshot_digest}
        given |= {"config": config.model_dump_json(), "seed": 3, "device": "cpu", "threads": 1}
        Pods(ClusterSettings(shards={"certify": 2})).shared(certify, given, "8G")

    machine = Machine(out=tmp_path / "run", pythons={containers.MODEL: Path(sys.executable)})
    given = {"model_uri": model.folder, "model_digest": model.digest, "snapshot_uri": snapshot.folder}
    machine.run(parts, {name: str(value) for name, value in given.items()} | {"snapshot_digest": str(snapshot.digest)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certifying, "BLOCK", BLOCK)
        whole = certifying.certify(model, snapshot, tmp_path / "whole", config=config, settings=SETTINGS)
    joined = load(tmp_path / "run" / "steps" / "certify", Certificate)
    assert joined.digest == whole.digest
