"""A network as a program: torch.export with any batch size, so that its code is not needed to run it."""

import io
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from holdfast.artifacts.documents import InputSpec
from holdfast.errors import InputError, ModelError
from holdfast.model.files.program import check
from holdfast.model.networks import PROGRAM, WEIGHTS


def network_files(net: nn.Module, weights: Mapping[str, Tensor], spec: InputSpec) -> dict[str, bytes]:
    """The files of a model's network by name: its weights, and the program that needs no code; moves `net` to the CPU.

    Raises:
        ModelError: as `export_program`.
    """
    from safetensors.torch import save

    return {
        WEIGHTS: save({name: tensor.cpu().contiguous() for name, tensor in weights.items()}),
        PROGRAM: export_program(net, spec),
    }


def export_program(net: nn.Module, spec: InputSpec) -> bytes:
    """The bytes of a `.pt2` archive taking `dtype[N, *shape]` for any N; the same network gives the same bytes.

    Raises:
        ModelError: torch.export cannot follow the network's forward, or the program needs more than ATen operators.
    """
    dtype = torch.float32 if spec.dtype == "float32" else torch.int64
    example = torch.ones(3, *spec.shape, dtype=dtype)
    try:
        program = torch.export.export(net.cpu().eval(), (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    except (RuntimeError, TypeError, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"train: torch.export cannot export {type(net).__name__}: {lines[0]}") from None
    _forget_paths(program)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    _check_readable(buffer.getvalue(), type(net).__name__)
    return buffer.getvalue()


def _check_readable(data: bytes, name: str) -> None:
    """Raises now the error that every later step would raise when it loads the program."""
    try:
        check(data)
    except InputError as error:
        raise ModelError(f"train: {name} cannot be served as an exported program: {error}") from None


def _forget_paths(program: torch.export.ExportedProgram) -> None:
    """Drops the source lines that torch notes on each node: they name files of this machine."""
    graphs = [module.graph for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    for node in (node for graph in graphs for node in graph.nodes):
        node.meta.pop("stack_trace", None)
