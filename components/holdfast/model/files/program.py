"""A torch.export program (`program.pt2`), held to what plain networks need before torch reads it.

`torch.export.load` trusts its file. Besides numbers a `.pt2` may hold pickles that torch opens with
`weights_only=False`, shared libraries that it loads, functions that it finds by any name below `torch`
(`torch.os.system` is one), guards that it compiles as Python, sizes that SymPy evaluates, and names that it writes into
generated code. So the members, the JSON and each text in it must be what the exporter writes for a network of ATen
operators.
"""

import ast
import io
import json
import re
from typing import Any

from holdfast.errors import InputError
from holdfast.model.files.archive import Members, read_members
from holdfast.model.files.pickles import check_zip

GRAPH = "models/model.json"
CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
SAMPLES = "data/sample_inputs/model.pt"
MAX_JSON_BYTES = 64 * 2**20
MAX_EXPRESSION = 4096
_MEMBER = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|models/model\.json"
    r"|data/weights/(weight_[0-9]+|model_weights_config\.json)"
    r"|data/constants/(tensor_[0-9]+|model_constants_config\.json)|data/sample_inputs/model\.pt"
)
_IDENTIFIER, _DOTTED, _WORDS = r"([A-Za-z_]\w*)?", r"[\w.@]*", r"[\w.,:>+\- ]{0,200}"
_TARGET = (
    r"torch\.ops\.aten\.((?!__)\w+|__i?(and|or|xor|lshift|rshift)__)\.[A-Za-z]\w*"
    r"|torch\.ops\.higher_order\.(cond|while_loop|wrap_with_autocast|wrap_with_set_grad_enabled)|torch\._?sym_\w+"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
    r"|math\.(trunc|ceil|floor|sqrt)"
)
_TEXTS = {
    "target": _TARGET, "fqn": _DOTTED, "parameter_name": _DOTTED, "buffer_name": _DOTTED, "as_string": _WORDS,
    "tensor_constant_name": _DOTTED, "as_strings": _WORDS, "torch_version": r"[\w.+]*", "nn_module_stack": r"[ -~]*",
    "torch_fn": r"[ -~]*", "path_name": r"(weight|tensor)_[0-9]+",
}  # fmt: skip
"""Key -> what its text may be; under every other key is an identifier, because torch writes names into code."""
_OF_FILES = re.compile(r"torch\.ops\.aten\.(from_file|save|_print|warn)\.")
"""ATen operators that open files or write to the terminal."""
_REFUSED = frozenset({"as_operator", "as_custom_obj", "class_fqn", "custom_obj", "stack_trace", "custom", "from_node"})
_CALLS = frozenset({
    "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Max", "Min", "Mod", "Abs", "floor", "ceiling", "FloorDiv",
    "ModularIndexing", "PythonMod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv", "IntTrueDiv", "FloatTrueDiv",
    "TruncToInt", "TruncToFloat", "ToFloat", "Identity", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not",
    "Where",
})  # fmt: skip
"""What a size may be made of."""
_ARITHMETIC = (
    ast.Expression, ast.keyword, ast.Load, ast.BinOp, ast.UnaryOp, ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod,
    ast.USub,
)  # fmt: skip
_TREES = (None, "builtins.tuple", "builtins.list", "builtins.dict")


def check(data: bytes) -> None:
    """Refuses a program that asks for anything but tensors, ATen operators and sizes.

    Raises:
        InputError: names the member or the text, and what was expected there.
        LimitError: as `read_members`.
    """
    members = read_members(data)
    strange = sorted(name for name in members if not _MEMBER.fullmatch(name))
    missing = sorted({GRAPH, SAMPLES, *CONFIGS} - members.keys())
    if strange or missing:
        raise InputError(f"expected the members of an exported program, found {(strange or missing)[0][:80]!r} amiss")
    _check_same(data, members)
    for name in CONFIGS:
        _check_config(_json(members, name), name)
    if len(members[SAMPLES]):
        check_zip(bytes(members[SAMPLES]))
    graph = _json(members, GRAPH)
    if graph.get("guards_code"):
        raise InputError(f"{GRAPH}: expected no guards, found code")
    _check_json(graph, "program")


def _check_same(data: bytes, members: Members) -> None:
    """Torch's own reader sees the very members that are checked here."""
    import torch

    try:
        reader = torch._C.PyTorchFileReader(io.BytesIO(data))
        same = set(reader.get_all_records()) == members.keys() and all(
            reader.get_record(name) == members[name] for name in (GRAPH, SAMPLES, *CONFIGS)
        )
    except RuntimeError as error:
        raise InputError(f"expected an archive that torch can read, found {str(error).splitlines()[0][:120]}") from None
    if not same:
        raise InputError("expected one reading of the archive, found two: torch's reader sees other members")


def looks_like(members: Members) -> bool:
    """Whether these are the members of an exported program."""
    return "archive_format" in members and GRAPH in members


def _json(members: Members, name: str) -> dict[str, Any]:
    data = members[name]
    try:
        found = json.loads(bytes(data), object_pairs_hook=_once) if len(data) <= MAX_JSON_BYTES else None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: expected JSON, found {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{name}: expected a JSON object of at most {MAX_JSON_BYTES} bytes, found something else")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key that occurs twice")
    return dict(pairs)


def _check_config(config: dict[str, Any], name: str) -> None:
    entries = config.get("config")
    if config.keys() != {"config"} or not isinstance(entries, dict):
        raise InputError(f"{name}: expected the list of tensors, found something else")
    for tensor, entry in entries.items():
        if not isinstance(entry, dict) or entry.get("use_pickle") is not False:
            raise InputError(f"{name}: expected {tensor[:80]!r} as plain numbers, found a pickle")
        _check_text(tensor, "fqn")
        _check_json(entry, "tensor")


def _check_json(value: Any, key: str) -> None:
    """Every text in it is one of those that stand under its key."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in _REFUSED and inner:
                raise InputError(f"{GRAPH}: expected tensors and ATen operators only, found {name}")
            _check_text(name, "name")
            _check_json(inner, name)
    elif isinstance(value, list):
        for inner in value:
            _check_json(inner, key)
    elif isinstance(value, str):
        _check_text(value, key)


def _check_text(text: str, key: str) -> None:
    if key == "expr_str":
        _check_expression(text)
    elif key in ("in_spec", "out_spec"):
        _check_tree(text)
    elif not re.fullmatch(_TEXTS.get(key, _IDENTIFIER), text, re.ASCII) or _OF_FILES.match(text):
        raise InputError(f"{GRAPH}: expected a plain {key}, found {text[:80]!r}")


def _check_expression(text: str) -> None:
    """A size: numbers, symbols, and arithmetic of SymPy's and torch's by name."""
    try:
        tree = ast.parse(text, mode="eval") if len(text) <= MAX_EXPRESSION else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        tree = None
    if tree is None or not all(_is_arithmetic(node) for node in ast.walk(tree)):
        raise InputError(f"{GRAPH}: expected the arithmetic of a size, found {text[:80]!r}")


def _is_arithmetic(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return name in _CALLS
        case ast.Name(id=name):
            return name in _CALLS or re.fullmatch(r"[a-z]+_?[0-9]+", name) is not None
        case ast.Constant(value=str(text)):
            return re.fullmatch(r"[A-Za-z]\w*", text, re.ASCII) is not None
        case ast.Constant(value=bool() | int() | float()):
            return True
    return isinstance(node, _ARITHMETIC)


def _check_tree(text: str) -> None:
    """How inputs are nested: tuples, lists and dictionaries with plain keys, which import nothing."""
    try:
        protocol, tree = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        protocol, tree = None, None
    if protocol != 1 or not _is_tree(tree, 0):
        raise InputError(f"{GRAPH}: expected inputs in tuples, lists and dictionaries, found {text[:80]!r}")


def _is_tree(tree: Any, depth: int) -> bool:
    if not isinstance(tree, dict) or tree.keys() != {"type", "context", "children_spec"} or depth > 32:
        return False
    children, context = tree["children_spec"], tree["context"]
    plain = context is None or re.fullmatch(r'null|\[("\w*"(, "\w*")*)?\]', str(context), re.ASCII)
    inside = isinstance(children, list) and all(_is_tree(child, depth + 1) for child in children)
    return bool(tree["type"] in _TREES and plain and inside)
