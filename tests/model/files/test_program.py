"""Exported programs: what torch.export.load would run is refused before it is asked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import corpus
import pytest
import torch
from torch import nn

from holdfast.errors import InputError, ModelError
from holdfast.model.files.judge import judge
from holdfast.model.files.program import CONFIGS, GRAPH, SAMPLES, check
from holdfast.model.train.export import export_program

WEIGHTS, CONSTANTS = CONFIGS


@pytest.fixture(scope="module")
def good() -> bytes:
    return corpus.program()


def altered(data: bytes, member: str, change: Callable[[Any], object]) -> bytes:
    """The program with one JSON member changed in place."""
    import io
    import zipfile

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        value = json.loads(archive.read(f"archive/{member}"))
    change(value)
    return corpus.rezipped(data, {f"archive/{member}": json.dumps(value).encode()})


def nodes(program: Any) -> Any:
    return program["graph_module"]["graph"]["nodes"]


def signature(program: Any) -> Any:
    return program["graph_module"]["module_call_graph"][0]["signature"]


def size(program: Any) -> Any:
    return program["graph_module"]["graph"]["tensor_values"]["input"]["sizes"][0]["as_expr"]


def test_what_holdfast_exports_passes(good: bytes) -> None:
    check(good)


def test_a_network_with_attention_mixed_precision_and_computed_sizes_passes() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.last = nn.BatchNorm2d(1), nn.Linear(4, 2)
            self.attention = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)

        def forward(self, x: Any) -> Any:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                scaled = x.matmul(x).float()
            rows = self.norm(scaled).reshape(x.shape[0] * 2, 2)
            return self.last(self.attention(rows.reshape(x.shape[0], 1, 4))[:, 0])

    check(corpus.program(Net().eval()))


def test_a_program_is_only_read_from_a_model_artifact(good: bytes) -> None:
    found = judge(good, "program.pt2")
    assert (found.kind, found.verdict) == ("program", "refused")
    assert found.reason.endswith("found an exported program, which is read only from a model artifact")


IMPORT = (
    "[1, "
    + json.dumps({"type": "builtins.dict", "context": '[{"__enum__": true, "fqn": "os:x"}]', "children_spec": []})
    + "]"
)


@pytest.mark.parametrize(
    ("member", "change", "message"),
    [
        (WEIGHTS, lambda c: c["config"]["1.bias"].update(use_pickle=True), "as plain numbers, found a pickle"),
        (WEIGHTS, lambda c: c["config"]["1.bias"].update(path_name="../x"), "expected a plain path_name, found '../x'"),
        (CONSTANTS, lambda c: c["config"].update(a={"path_name": "opaque_obj_0"}), "as plain numbers"),
        (GRAPH, lambda p: p.update(guards_code=["print(1)"]), "expected no guards, found code"),
        (GRAPH, lambda p: nodes(p)[0].update(target="torch.os.system"), "expected a plain target, found 'torch.os.sy"),
        (GRAPH, lambda p: nodes(p)[0].update(target="torch.ops.aten.from_file.default"), "expected a plain target"),
        (GRAPH, lambda p: nodes(p)[0].update(target="torch.ops.aten.__init__.x"), "expected a plain target"),
        (GRAPH, lambda p: nodes(p)[0].update(target="_operator.methodcaller"), "expected a plain target"),
        (GRAPH, lambda p: nodes(p)[0].update(name="x=print(1)"), "expected a plain name, found 'x=print(1)'"),
        (GRAPH, lambda p: signature(p).update(forward_arg_names=["x=print(1)"]), "expected a plain forward_arg_names"),
        (GRAPH, lambda p: signature(p).update(in_spec=IMPORT), "expected inputs in tuples, lists and dictionaries"),
        (GRAPH, lambda p: size(p).update(expr_str="__import__('os').system('x')"), "expected the arithmetic of a size"),
        (GRAPH, lambda p: size(p).update(expr_str="open('x')"), "expected the arithmetic of a size, found \"open('x')"),
        (GRAPH, lambda p: size(p).update(expr_str="9**9**9"), "expected the arithmetic of a size"),
        (GRAPH, lambda p: nodes(p)[0]["inputs"][0].update(arg={"as_operator": "torch.os.system"}), "found as_operator"),
        (GRAPH, lambda p: p["range_constraints"].update({"open('x')": {}}), "expected a plain name"),
    ],
)  # fmt: skip
def test_whatever_torch_would_run_is_refused(
    good: bytes, member: str, change: Callable[[Any], object], message: str
) -> None:
    with pytest.raises(InputError, match="expected") as refused:
        check(altered(good, member, change))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "member",
    ["data/aotinductor/model/x.so", "data/weights/model.pt", "data/constants/opaque_obj_0", "extra/x", "version"],
)
def test_members_that_torch_would_load_otherwise_are_refused(good: bytes, member: str) -> None:
    with pytest.raises(InputError, match="expected the members of an exported program"):
        check(corpus.rezipped(good, {f"archive/{member}": b"x"}))


def test_sample_inputs_with_a_call_are_refused_and_not_run(good: bytes, tmp_path: Path) -> None:
    payload = corpus.torch_zip(((corpus.payloads(tmp_path / "ran")["os.system"],), {}))
    with pytest.raises(InputError, match=r"weights_only=True\) loads, found a call of posix"):
        check(corpus.rezipped(good, {f"archive/{SAMPLES}": payload}))
    assert not (tmp_path / "ran").exists()


def test_a_key_that_stands_twice_is_refused(good: bytes) -> None:
    with pytest.raises(InputError, match="found a key that occurs twice"):
        check(corpus.rezipped(good, {f"archive/{CONSTANTS}": b'{"config": {}, "config": {}}'}))


def test_a_network_that_needs_other_operators_is_refused_when_it_is_exported() -> None:
    class Wide(nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.ops.quantized.max_pool1d(x, [2], [2], [0], [1], False)

    from holdfast.artifacts.documents import InputSpec

    with pytest.raises(ModelError, match="cannot"):
        export_program(Wide(), InputSpec(modality="image", shape=(1, 2), dtype="float32"))
