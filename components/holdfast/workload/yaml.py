"""Files that people edit: YAML into closed pydantic models, with errors that name the line and the key meant."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from holdfast.artifacts.regular import read_at_most
from holdfast.errors import WorkloadError
from holdfast.wording import without_credentials

MAX_BYTES = 2**20
MAX_VALUES = 100_000
"""Of one file, aliases counted as often as they are used."""
MAX_SEPARATORS = 50_000
"""Lines and commas: each costs a fraction of a millisecond before its value can be counted."""
MAX_DIGITS = 1_000
"""Characters of a number."""
M = TypeVar("M", bound=BaseModel)
_TEXT, _NULL = "tag:yaml.org,2002:str", "tag:yaml.org,2002:null"
_NUMBERS = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})
Location = tuple[int | str, ...]


def read_yaml(path: Path, model: type[M]) -> M:
    """Reads one YAML file into `model`.

    Raises:
        WorkloadError: unreadable, not YAML, or against the model; the message names the file and the line.
    """
    return parse_yaml(_text(path), model, name=str(path))


def top_keys(path: Path) -> frozenset[str]:
    """The keys of a YAML file's first level; none when it is no YAML file.

    Raises:
        WorkloadError: unreadable.
    """
    try:
        node = yaml.compose(_text(path), Loader=_Loader)
    except (yaml.YAMLError, RecursionError, _TooManyError, ValueError):
        return frozenset()
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return frozenset(str(key.value) for key, _ in pairs)


def parse_yaml(text: str, model: type[M], *, name: str) -> M:
    """As `read_yaml`, for text that came from elsewhere; `name` is what error messages call it."""
    node, value = _constructed(text, name, model)
    if not isinstance(value, dict):
        raise WorkloadError(f"{name}:1: expected keys and values, found {type(value).__name__}")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        # A key that is misspelt is also missing: the misspelling is the better message.
        problems = sorted(error.errors(), key=lambda problem: problem["type"] == "missing")[:3]
        raise WorkloadError("; ".join(_explain(problem, node, model, name) for problem in problems)) from None


def line_of(text: str, location: Location) -> int:
    """The line (from 1) of the deepest part of `location` that a YAML text has; 1 where it has none of it."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    has_first = isinstance(node, yaml.MappingNode) and any(key.value == location[0] for key, _ in node.value)
    return _line(node, location) if has_first else 1


def parse_plain(text: str, *, name: str) -> Any:
    """YAML of another program, as lists, dicts and scalars; `name` is what error messages call it.

    Raises:
        WorkloadError: not YAML, a key given twice, or more than `MAX_VALUES` values.
    """
    return _constructed(text, name, Any)[1]


class _Loader(yaml.SafeLoader):
    """Stops at more values than a file may have: a mebibyte of commas is half a minute's work."""

    values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node."""
        self.values += 1
        if self.values > MAX_VALUES:
            raise _TooManyError
        return super().compose_node(parent, index)


class _TooManyError(Exception):
    """More values than a file may have."""


def _constructed(text: str, name: str, annotation: Any) -> tuple[yaml.Node | None, Any]:
    if (found := text.count(",") + text.count("\n")) > MAX_SEPARATORS:
        raise WorkloadError(f"{name}:1: expected at most {MAX_SEPARATORS} lines and commas, found {found}")
    try:
        node = yaml.compose(text, Loader=_Loader)
        if _expanded(node, set(), {}) > MAX_VALUES:
            raise _TooManyError
        _refuse_duplicates(node, name)
        _refuse_odd(node, name)
        _keep_texts(node, annotation)
        return node, yaml.constructor.SafeConstructor().construct_document(node) if node is not None else None
    except _TooManyError:
        problem = f"expected at most {MAX_VALUES} values, found more; aliases repeat theirs"
        raise WorkloadError(f"{name}:1: {problem}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"{mark.line + 1}" if mark else "1"
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise WorkloadError(f"{name}:{line}: expected YAML, found {problem}") from None
    except RecursionError:
        raise WorkloadError(f"{name}:1: expected YAML, found nesting without end") from None
    except (ValueError, OverflowError, LookupError, AttributeError, TypeError) as error:
        # A number or a date that Python does not take, or PyYAML's constructors, where a tag does not fit its value.
        raise WorkloadError(f"{name}:1: expected YAML, found a value that is none ({str(error)[:80]})") from None


def _expanded(node: yaml.Node | None, around: set[int], known: dict[int, int]) -> int:
    """How many values a node becomes, where every alias repeats what it names; more than `MAX_VALUES` for a cycle."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) in around:
        return MAX_VALUES + 1
    if id(node) not in known:
        around.add(id(node))
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_expanded(part, around, known) for part in parts)
        around.discard(id(node))
    return known[id(node)]


def _text(path: Path) -> str:
    data = read_at_most(path, MAX_BYTES, "a YAML file", error=WorkloadError)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise WorkloadError(f"{path}: expected UTF-8, found byte {data[error.start]:#04x} at {error.start}") from None


def _explain(problem: Any, node: yaml.Node | None, model: type[BaseModel], name: str) -> str:
    location: Location = problem["loc"]
    line = _line(node, location)
    key = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        known = _keys(model, location[:-1])
        close = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"{name}:{line}: unknown key {key!r}; {hint}"
    if problem["type"] == "missing":
        return f"{name}:{line}: expected a key {key!r}, found none"
    found, what = without_credentials(str(problem["input"]))[:60], problem["msg"].removeprefix("Value error, ")
    return f"{name}:{line}: {key}: {what[:1].lower()}{what[1:]}, found {found!r}"


def _line(node: yaml.Node | None, location: Location) -> int:
    """The line (from 1) of the deepest part of `location` that the file has."""
    line = node.start_mark.line + 1 if node is not None else 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    line, node = key.start_mark.line + 1, value
                    break
            else:
                return line
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line


def _refuse_duplicates(node: yaml.Node | None, name: str) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise WorkloadError(
                    f"{name}:{key.start_mark.line + 1}: expected a name as a key, found a list or a mapping"
                )
            if key.value in seen:
                raise WorkloadError(f"{name}:{key.start_mark.line + 1}: the key {key.value!r} is given twice")
            seen.add(key.value)
            _refuse_duplicates(value, name)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_duplicates(value, name)


def _refuse_odd(node: yaml.Node | None, name: str) -> None:
    """NUL, and numbers that cannot be printed or are in base 60, of which each place costs as much as all before."""
    parts = [] if node is None else [node]
    while parts:
        one = parts.pop()
        if isinstance(one, yaml.CollectionNode):
            parts += one.value if isinstance(one, yaml.SequenceNode) else [part for pair in one.value for part in pair]
        elif "\0" in one.value:
            raise WorkloadError(f"{name}:{one.start_mark.line + 1}: expected text, found a NUL")
        elif one.tag in _NUMBERS and len(one.value) > MAX_DIGITS:
            found = f"found a value that is none (a number of {len(one.value)} characters)"
            raise WorkloadError(f"{name}:{one.start_mark.line + 1}: expected YAML, {found}")


def _keep_texts(node: yaml.Node | None, annotation: Any) -> None:
    """Scalars stay the text that was written where `annotation` takes text: YAML 1.1 reads no, on and 1.0 otherwise."""
    options = _options(annotation)
    if isinstance(node, yaml.ScalarNode):
        if node.style is None and _is_text(node, options):
            node.tag = _TEXT
    elif isinstance(node, yaml.SequenceNode):
        items = next((get_args(one)[0] for one in options if get_origin(one) in (tuple, list)), None)
        for child in node.value:
            _keep_texts(child, items)
    elif isinstance(node, yaml.MappingNode):
        _keep_texts_of_mapping(node, options)


def _keep_texts_of_mapping(node: yaml.MappingNode, options: Sequence[Any]) -> None:
    model = next((one for one in options if isinstance(one, type) and issubclass(one, BaseModel)), None)
    values = next((get_args(one)[1] for one in options if get_origin(one) is dict), None)
    fields = {} if model is None else _by_key(model)
    for key, value in node.value:
        if model is None and values is not None and isinstance(key, yaml.ScalarNode) and key.value != "<<":
            key.tag = _TEXT
        _keep_texts(value, values if model is None else fields.get(key.value))


def _is_text(node: yaml.ScalarNode, options: Sequence[Any]) -> bool:
    """Whether a plain scalar is a text: where nothing but texts fit, or when it is no number where numbers fit, too."""
    if str not in options or bool in options or (node.tag == _NULL and (type(None) in options or node.value == "")):
        return False
    return node.tag not in _NUMBERS or not {int, float} & set(options)


def _options(annotation: Any) -> list[Any]:
    """The members of a union, without their constraints."""
    if get_origin(annotation) is Annotated:
        return _options(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [option for one in get_args(annotation) for option in _options(one)]
    return [annotation]


def _keys(model: type[BaseModel], location: Location) -> list[str]:
    """The keys that `model` knows at `location`, as the file spells them."""
    current: Any = model
    for part in location:
        fields = _by_key(current)
        if part not in fields:
            return []
        current = _model_in(fields[part])
        if current is None:
            return []
    return [str(key) for key in _by_key(current)]


def _by_key(model: type[BaseModel]) -> dict[int | str, Any]:
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return next((kind for kind in options if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
