import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from holdfast.artifacts.documents import Architecture, Count, Feature, InputSpec, Model, ThreatModel
from holdfast.artifacts.folder import Artifact, save
from holdfast.errors import IntegrityError, ModelError
from holdfast.modality.text import encode_text
from holdfast.model.networks import build, check_logits, load_network, logits, parameters
from holdfast.model.train.export import export_program
from holdfast.workload.schema import NetworkConfig

IMAGE = InputSpec(modality="image", shape=(1, 8, 8), dtype="float32")
TEXT = InputSpec(modality="text", shape=(30,), dtype="int64")


def image(*shape: int) -> InputSpec:
    return InputSpec(modality="image", shape=shape, dtype="float32")


def named(name: str, **arguments: int) -> NetworkConfig:
    return NetworkConfig(architecture=name, arguments=dict(arguments))


def saved(out: Path, net: nn.Module, spec: InputSpec, name: str) -> Artifact[Model]:
    from safetensors.torch import save as save_tensors

    document = Model(
        name="m",
        architecture=Architecture(name=name, parameters=parameters(net)),
        input=spec,
        classes=tuple("abcdefghij"),
        threat=ThreatModel(norm="linf", epsilon="1/10", unit="any"),
        recipe={},
        seed=0,
        threads=1,
        device="cpu",
        best_epoch=1,
        clean=Count(k=0, n=0),
        robust=Count(k=0, n=0),
    )
    files = {"weights.safetensors": save_tensors(dict(net.state_dict())), "program.pt2": export_program(net, spec)}
    return save(out, document, files)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 30), (1, 28, 28), (3, 32, 32), (2, 70, 64)])
def test_the_cnn_takes_any_image_of_at_least_8_by_8(shape: tuple[int, ...]) -> None:
    net = build(named("cnn"), image(*shape), 7, seed=0)
    assert net(torch.rand(3, *shape)).shape == (3, 7)


def test_the_cnn_at_28_by_28_is_the_small_network_of_the_literature() -> None:
    # conv 1->16 (4x4), conv 16->32 (4x4), 32*7*7 -> 100, 100 -> 10, counted by hand with biases.
    by_hand = (16 * 16 + 16) + (32 * 16 * 16 + 32) + (1568 * 100 + 100) + 1010
    assert parameters(build(named("cnn"), image(1, 28, 28), 10, seed=0)) == by_hand


def test_too_small_images_are_refused() -> None:
    with pytest.raises(ModelError, match="expected images of at least 8 x 8, found 7 x 9"):
        build(named("cnn"), image(1, 7, 9), 10, seed=0)


def test_the_seed_alone_decides_the_weights_and_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    one, two, other = (build(named("cnn"), IMAGE, 10, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["last.weight"], other["last.weight"])
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_mlp_sees_standardized_features() -> None:
    feature = Feature(name="f", lower=0, upper=9000, mean=5000, scale=1000)
    spec = InputSpec(modality="tabular", shape=(1,), dtype="float32", features=(feature,))
    net = build(named("mlp"), spec, 2, seed=0)
    plain = InputSpec(
        modality="tabular", shape=(1,), dtype="float32", features=(Feature(name="f", lower=0, upper=1, scale=1),)
    )
    same = build(named("mlp"), plain, 2, seed=0)
    assert torch.allclose(net(torch.tensor([[6000.0]])), same(torch.tensor([[1.0]])))


def test_padding_does_not_change_a_message() -> None:
    net = build(named("text"), TEXT, 2, seed=0).eval()
    short, long = (torch.from_numpy(encode_text(["hello"], length)) for length in (8, 30))
    assert torch.allclose(net(short), net(long), atol=1e-6)


def test_embedded_and_whole_forward_agree() -> None:
    net = build(named("text"), TEXT, 2, seed=0).eval()
    ids = torch.from_numpy(encode_text(["hello", "free cash"], 30))
    assert torch.equal(net(ids), net.forward_embedded(net.embed(ids)))
    assert net.features(ids).shape == (2, 320)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet", "expected cnn, mlp, text or module:function"),
        ("text", "expected text data, found image"),
        ("no_such_module:make", "expected an importable module:function, found No module named"),
        ("math:no_such_function", "expected an importable module:function"),
        ("math:pi", "expected a function, found float"),
        ("own_networks:number", "expected a torch.nn.Module, found int"),
        ("own_networks:eleven", r"expected logits of shape \(N, 10\), found \(2, 11\)"),
        ("own_networks:nan", "expected finite logits, found NaN"),
        ("own_networks:softmax", "expected logits, found probabilities"),
        ("own_networks:spoils", "expected its input to stay as it is, found it changed in place"),
        ("own_networks:flat", r"expected to take float32\[2, 1, 8, 8\], found"),
    ],
)
def test_a_network_that_does_not_behave_is_refused_in_one_line(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent / "networks")
    with pytest.raises(ModelError, match=message) as refused:
        build(named(name), IMAGE, 10, seed=0)
    assert "\n" not in str(refused.value)


def test_own_code_gets_shape_and_classes_and_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent / "networks")
    net = build(named("own_networks:good", width=12), IMAGE, 10, seed=0)
    assert parameters(net) == 64 * 12 + 12 + 12 * 10 + 10


def test_an_unknown_argument_is_one_line() -> None:
    with pytest.raises(ModelError, match="network 'cnn' with {'depth': 3}: .*unexpected keyword argument 'depth'"):
        build(named("cnn", depth=3), IMAGE, 10, seed=0)


def test_a_saved_network_answers_as_before(tmp_path: Path) -> None:
    net = build(named("cnn"), IMAGE, 10, seed=0).eval()
    x = np.random.default_rng(0).random((5, 1, 8, 8), dtype=np.float32)
    found = logits(load_network(saved(tmp_path / "m", net, IMAGE, "cnn"), "cpu"), x, device="cpu", batch=2)
    assert np.allclose(found, net(torch.from_numpy(x)).detach().numpy(), atol=1e-6)


def test_an_own_network_is_loaded_without_its_code(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    loaded = load_network(saved(tmp_path / "m", net, IMAGE, "gone:make"), "cpu")
    x = torch.rand(3, 1, 8, 8, requires_grad=True)
    assert torch.allclose(loaded(x), net(x))
    # The attacks need its gradient: of a linear network it is the weights.
    (gradient,) = torch.autograd.grad(loaded(x)[:, 4].sum(), x)
    assert torch.allclose(gradient[0].flatten(), net[1].weight[4])


@pytest.mark.parametrize(("name", "own"), [("weights.safetensors", "cnn"), ("program.pt2", "gone:make")])
def test_one_flipped_byte_in_the_weights_is_refused(tmp_path: Path, name: str, own: str) -> None:
    artifact = saved(tmp_path / "m", build(named("cnn"), IMAGE, 10, seed=0), IMAGE, own)
    data = bytearray((artifact.folder / name).read_bytes())
    data[-200] ^= 1
    (artifact.folder / name).write_bytes(data)
    with pytest.raises(IntegrityError, match="altered after the artifact was written"):
        load_network(artifact, "cpu")


def test_a_truncated_weights_file_is_refused(tmp_path: Path) -> None:
    artifact = saved(tmp_path / "m", build(named("cnn"), IMAGE, 10, seed=0), IMAGE, "cnn")
    path = artifact.folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(IntegrityError, match="altered after the artifact was written"):
        load_network(artifact, "cpu")


def test_weights_above_the_limit_are_refused_before_they_are_read(tmp_path: Path) -> None:
    artifact = saved(tmp_path / "m", build(named("cnn"), IMAGE, 10, seed=0), IMAGE, "cnn")
    pins = {name: pin.model_copy(update={"bytes": 2**33}) for name, pin in artifact.document.files.items()}
    with (artifact.folder / "weights.safetensors").open("wb") as stream:
        stream.truncate(2**33)
    huge = replace(artifact, document=artifact.document.model_copy(update={"files": pins}))
    with pytest.raises(ModelError, match="weights.safetensors: expected at most 4294967296 bytes, found 8589934592"):
        load_network(huge, "cpu")


@pytest.mark.parametrize(("name", "own"), [("weights.safetensors", "cnn"), ("program.pt2", "gone:make")])
def test_a_file_of_another_kind_is_not_loaded_even_when_its_digest_is_right(
    tmp_path: Path, name: str, own: str
) -> None:
    artifact = saved(tmp_path / "m", build(named("cnn"), IMAGE, 10, seed=0), IMAGE, own)
    pickled = io.BytesIO()
    torch.save(nn.Linear(2, 2), pickled)
    files = {file: artifact.open(file).getvalue() for file in artifact.document.files} | {name: pickled.getvalue()}
    other = save(tmp_path / "other", artifact.document.model_copy(update={"files": {}}), files)
    with pytest.raises(ModelError, match=f"{name}: expected .*; it is not loaded"):
        load_network(other, "cpu")


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    artifact = saved(tmp_path / "m", build(named("cnn", hidden=50), IMAGE, 10, seed=0), IMAGE, "cnn")
    with pytest.raises(ModelError, match="expected the weights of this architecture, found"):
        load_network(artifact, "cpu")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    net = build(named("cnn"), IMAGE, 10, seed=0)
    nn.init.constant_(net.last.bias, float("nan"))
    with pytest.raises(ModelError, match="expected finite weights, found NaN"):
        load_network(saved(tmp_path / "m", net, IMAGE, "cnn"), "cpu")


def test_logits_that_happen_to_be_small_are_not_probabilities() -> None:
    check_logits(np.array([[0.2, 0.3], [0.5, 0.5]], dtype=np.float32), 2, name="m")
