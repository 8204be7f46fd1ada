"""Measures how the code is built, and fails where it has become worse than the bounds below.

    python3.11 tools/house.py                  # the table
    python3.11 tools/house.py --list circles   # every place that a row counts

The product is the packages that pyproject.toml puts into the wheel; tests, benchmarks and tools are not counted. A
line of source is a line that holds code: no blank line, comment or docstring. What each row counts:

step-files
    A step is a folder with a `component.py`; its name is the decorated function there. A file outside the folder names
    the step when it holds that name as a string literal or imports from the folder. Strings that only repeat the name
    of a definition (in `__all__`, the alias of a field) are none. The value is the median over steps.
conditions
    Comparisons with a norm or a modality (the literals of the aliases `Norm` and `Modality`, and the module names of a
    room `modality/`), or of a tensor's number of dimensions with 4, which is how images are recognised. Comparisons of
    a `kind` are left out: columns and file formats have a kind `text` of their own. In `modality/` all are free.
circles
    Pairs of neighbours that import each other, and longer circles without such a pair. Neighbours are the packages, or
    the modules and rooms of one package, at least one of them a room. Imports inside functions and for types count.
    A command line (`PACKAGE.cli`, `PACKAGE.__main__`) is the uppermost layer and counts as a package of its own.
names
    Public classes and type aliases on a module's top level that are defined in more than one module.
words
    Over-used words (`WORDS`) per 1,000 lines of source, in code, comments and docstrings, whole or as a part of a name.
functions
    Lines from `def` to the end, without decorators and docstring: median, 90th percentile (nearest rank), longest.
repeated
    Different runs of six lines of source that occur more than once, without indentation, trailing comments and imports.
rollout
    Lines of the Python files in `serving/rollout`, of every kind.

A bound is a ratchet: a lower value is welcome (then lower the bound in the same commit), a higher one fails
`make lint`. Standard library only.
"""

from __future__ import annotations

import argparse
import ast
import io
import math
import re
import signal
import sys
import tokenize
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from statistics import median

Values = tuple[float, ...]
Graph = dict[str, set[str]]
Definition = ast.FunctionDef | ast.AsyncFunctionDef

WORDS = ("says", "tells", "stands", "anew", "whatever", "nobody", "beside")
WORD = re.compile(rf"(?<![a-z])(?:{'|'.join(WORDS)})(?![a-z])", re.IGNORECASE)
RUN = 6
"""Lines in a repeated run."""
VOCABULARIES = ("Norm", "Modality")
"""The aliases of `Literal` that hold the words which only `modality/` should compare."""
ENTRY = re.compile(r"\w+\.(?:cli|__main__)(?:\.|$)")
"""The ways into a package, which may import every package."""
LAYOUT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
}  # fmt: skip
"""Tokens that make no line a line of source."""


class HouseError(Exception):
    """The tree cannot be measured."""


@dataclass(frozen=True)
class Bound:
    """The highest values that pass, and the values that are wanted."""

    limit: Values
    target: Values


BOUNDS = {
    "step-files": Bound(limit=(3,), target=(3,)),
    "conditions": Bound(limit=(2,), target=(6,)),
    "circles": Bound(limit=(0,), target=(0,)),
    "names": Bound(limit=(2,), target=(10,)),
    "words": Bound(limit=(0,), target=(2,)),
    "functions": Bound(limit=(5, 14, 40), target=(6, 16, 40)),
    "repeated": Bound(limit=(24,), target=(30,)),
    "rollout": Bound(limit=(9_280,), target=(9_300,)),
}


@dataclass(frozen=True)
class Place:
    """A line of the product, and what was found there."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


@dataclass(frozen=True)
class Measured:
    """A row's values, what they were counted from, and where."""

    values: Values
    counted: str
    places: list[Place] = field(default_factory=list)


@dataclass(frozen=True)
class Module:
    """A Python file of the product."""

    name: str
    """Dotted, as it is imported."""
    path: str
    """From the root of the repository."""
    text: str
    is_package: bool

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed file."""
        return ast.parse(self.text, self.path)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Every node of the parsed file."""
        return list(ast.walk(self.tree))

    @cached_property
    def source(self) -> list[tuple[int, str]]:
        """Number and text of every line that holds code."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        held = {n for token in tokens if token.type not in LAYOUT for n in range(token.start[0], token.end[0] + 1)}
        strings = (node for node in self.nodes if isinstance(node, ast.Expr) and _text(node.value) is not None)
        held -= {n for node in strings for n in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
        return [(n, line) for n, line in enumerate(self.text.splitlines(), 1) if n in held]

    def place(self, node: ast.AST, what: str) -> Place:
        """Where a node is."""
        return Place(self.path, getattr(node, "lineno", 1), what)

    def within(self, package: str) -> bool:
        """Whether the module is the package or a part of it."""
        return f"{self.name}.".startswith(f"{package}.")


@dataclass(frozen=True)
class Product:
    """The modules of the packages that the wheel holds."""

    modules: list[Module]

    @cached_property
    def names(self) -> set[str]:
        """The dotted names of all modules."""
        return {module.name for module in self.modules}

    @cached_property
    def rooms(self) -> set[str]:
        """The dotted names of all packages."""
        return {module.name for module in self.modules if module.is_package}

    @cached_property
    def imports(self) -> list[tuple[Module, str]]:
        """Every module with each module of the product that it imports."""
        return [(module, name) for module in self.modules for name in imported(module, self.names)]


def main(arguments: list[str] | None = None) -> int:
    """Prints the table or one row's places; 1 where a bound is broken, 2 where the tree cannot be measured."""
    parser = argparse.ArgumentParser(description="Measure how the code is built; docstring: what each row counts.")
    parser.add_argument("--list", metavar="ROW", choices=ROWS, help=f"print what a row counts: {', '.join(ROWS)}")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="the repository")
    asked = parser.parse_args(arguments)
    try:
        return _report(read_product(asked.root), asked.list)
    except HouseError as error:
        sys.stderr.write(f"house: {error}\n")
        return 2


def _report(product: Product, row: str | None) -> int:
    if row:
        sys.stdout.writelines(f"{place}\n" for place in ROWS[row](product).places)
        return 0
    measured = {name: measure(product) for name, measure in ROWS.items()}
    sys.stdout.write(table(measured, BOUNDS))
    broken = breaches(measured, BOUNDS)
    sys.stderr.writelines(f"house: {line}\n" for line in broken)
    return 1 if broken else 0


def read_product(root: Path) -> Product:
    """The modules of every package that pyproject.toml puts into the wheel."""
    settings = tomllib.loads((root / "pyproject.toml").read_text())
    packages = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    return Product([module for package in packages for module in _modules(root, root / package)])


def _modules(root: Path, package: Path) -> Iterator[Module]:
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        is_package = path.name == "__init__.py"
        name = ".".join(parts[:-1] if is_package else parts)
        yield Module(name, path.relative_to(root).as_posix(), path.read_text(), is_package)


def table(measured: dict[str, Measured], bounds: dict[str, Bound]) -> str:
    """One line for each row: its values, its bound, its target, what was counted."""
    lines = [("row", "now", "bound", "target", "counted")]
    lines += [
        (name, shown(found.values), shown(bounds[name].limit), shown(bounds[name].target), found.counted)
        for name, found in measured.items()
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "".join(f"{'  '.join(map(str.ljust, line[:4], widths))}  {line[4]}\n" for line in lines)


def breaches(measured: dict[str, Measured], bounds: dict[str, Bound]) -> list[str]:
    """One sentence for each row that is worse than its bound."""
    return [
        f"{name}: expected at most {shown(bounds[name].limit)}, found {shown(found.values)}; "
        f"see tools/house.py --list {name}"
        for name, found in measured.items()
        if any(value > limit for value, limit in zip(found.values, _allowed(bounds[name]), strict=True))
    ]


def _allowed(bound: Bound) -> Values:
    """What has met its target may use all of it."""
    return tuple(map(max, bound.limit, bound.target))


def shown(values: Values) -> str:
    """Values as the table and the messages print them."""
    return " / ".join(f"{value:.10g}" for value in values)


# --- step-files -------------------------------------------------------------------------------------------------------


def step_files(product: Product) -> Measured:
    """How many files outside a step's folder name it: the median over steps."""
    places = {step: _naming(product, step, package) for step, package in steps(product).items()}
    if not places:
        raise HouseError("expected folders with a component.py, found none")
    files = {step: len({place.path for place in found}) for step, found in places.items()}
    counted = ", ".join(f"{step} {count}" for step, count in sorted(files.items()))
    return Measured(
        (median(files.values()),), f"files: {counted}", [place for found in places.values() for place in found]
    )


def steps(product: Product) -> dict[str, str]:
    """Step -> its package: a `component.py` defines one decorated function of the step's name."""
    return {
        node.name: module.name.rpartition(".")[0]
        for module in product.modules
        if module.name.endswith(".component")
        for node in module.tree.body
        if isinstance(node, ast.FunctionDef) and node.decorator_list
    }


def _naming(product: Product, step: str, package: str) -> list[Place]:
    outside = [module for module in product.modules if not module.within(package)]
    literals = [
        module.place(node, f'the literal "{step}"')
        for module in outside
        for node in module.nodes
        if isinstance(node, ast.expr) and _text(node) == step and node not in repetitions(module)
    ]
    importers = [
        Place(module.path, 1, f"imports from {package} ({step})")
        for module in outside
        if any(_inside(name, package) for name in imported(module, product.names))
    ]
    return literals + importers


def repetitions(module: Module) -> set[ast.expr]:
    """The strings that only repeat the name of a definition: in `__all__`, and the alias of a field."""
    exported = [
        element
        for node in module.tree.body
        if isinstance(node, ast.Assign) and "__all__" in _targets(node)
        if isinstance(node.value, ast.List | ast.Tuple)
        for element in node.value.elts
    ]
    aliases = [
        word.value
        for node in module.nodes
        if isinstance(node, ast.Call) and _last_name(node.func) == "Field"
        for word in node.keywords
        if word.arg == "alias"
    ]
    return {*exported, *aliases}


def imported(module: Module, names: set[str]) -> Iterator[str]:
    """The modules among `names` that a module imports, at its top or in a function."""
    for node in module.nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield from (name for name in (inner if inner in names else node.module,) if name in names)


def _inside(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")


# --- conditions -------------------------------------------------------------------------------------------------------


def conditions(product: Product) -> Measured:
    """Comparisons on norm or modality outside the room `modality/`."""
    words = vocabulary(product)
    outside = (module for module in product.modules if "modality" not in module.name.split("."))
    places = [
        module.place(node, ast.unparse(node))
        for module in outside
        for node in module.nodes
        if isinstance(node, ast.Compare | ast.MatchValue) and compares(node, words)
    ]
    return Measured((len(places),), f"comparisons with {', '.join(sorted(words))} or 4 dimensions", places)


def vocabulary(product: Product) -> set[str]:
    """The norms and modalities that the product knows."""
    found = {
        word
        for module in product.modules
        for node in module.tree.body
        if isinstance(node, ast.Assign) and set(_targets(node)) & set(VOCABULARIES)
        for word in _literals(node.value)
    }
    found |= {module.name.rpartition(".")[2] for module in product.modules if ".modality." in module.name}
    if not found:
        raise HouseError(f"expected the aliases {' and '.join(VOCABULARIES)} or a room modality/, found neither")
    return found


def compares(node: ast.Compare | ast.MatchValue, words: set[str]) -> bool:
    """Whether a comparison depends on a norm, a modality or a rank of 4."""
    if isinstance(node, ast.MatchValue):
        return _text(node.value) in words
    sides = [node.left, *node.comparators]
    if words & {word for side in sides for word in _literals(side)}:
        return not any(_last_name(side) == "kind" for side in sides)
    return any(map(_is_rank, sides)) and any(isinstance(side, ast.Constant) and side.value == 4 for side in sides)


def _is_rank(node: ast.expr) -> bool:
    """`x.ndim` or `x.dim()`."""
    called = isinstance(node, ast.Call) and not node.args and _last_name(node.func) == "dim"
    return called or _last_name(node) == "ndim"


def _literals(node: ast.expr) -> set[str]:
    """The strings of a literal, of a collection of literals or of `Literal[...]`."""
    if isinstance(node, ast.Subscript):
        return _literals(node.slice)
    if isinstance(node, ast.Tuple | ast.Set | ast.List):
        return {word for element in node.elts for word in _literals(element)}
    text = _text(node)
    return set() if text is None else {text}


def _text(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


# --- circles ----------------------------------------------------------------------------------------------------------


def circles(product: Product) -> Measured:
    """Neighbours that import each other, and longer circles."""
    places = [place for parent in ("", *sorted(product.rooms)) for place in _circles_in(product, parent)]
    counted = f"pairs and longer circles among the parts of {len(product.rooms)} packages and rooms"
    return Measured((len(places),), counted, places)


def _circles_in(product: Product, parent: str) -> Iterator[Place]:
    graph = neighbours(product, parent)
    pairs = [(a, b) for a, b in combinations(sorted(graph), 2) if b in graph[a] and a in graph[b]]
    kept = [pair for pair in pairs if product.rooms & set(pair)]
    longer = [
        group for group in groups(graph) if product.rooms & group and not any(set(pair) <= group for pair in kept)
    ]
    yield from (_circle(product, parent, members) for members in [*kept, *map(sorted, longer)])


def _circle(product: Product, parent: str, members: Sequence[str]) -> Place:
    """A place for each circle: a module of the first member that imports another one."""
    example = next(
        module
        for module, name in product.imports
        if _part(module.name, parent) == members[0] and _part(name, parent) in members[1:]
    )
    return Place(example.path, 1, f"{' <-> '.join(members)} (in {parent or 'the product'})")


def neighbours(product: Product, parent: str) -> Graph:
    """Which direct parts of a package import which other ones; the packages themselves where `parent` is empty."""
    graph: Graph = defaultdict(set)
    for module, name in product.imports:
        a, b = _part(module.name, parent), _part(name, parent)
        if a and b and a != b:
            graph[a].add(b)
            graph[b] |= set()
    return dict(graph)


def _part(name: str, parent: str) -> str:
    """The direct part of `parent` that holds a module; empty: none does."""
    if not parent and ENTRY.match(name):
        return ".".join(name.split(".")[:2])
    start = f"{parent}." if parent else ""
    return start + name[len(start) :].split(".")[0] if name.startswith(start) and name != parent else ""


def groups(graph: Graph) -> list[set[str]]:
    """The groups of two or more that all reach each other."""
    reached = {node: _reached(graph, node) for node in graph}
    found = {frozenset(a for a in reached[node] if node in reached[a]) for node in graph if node in reached[node]}
    return [set(group) for group in sorted(found, key=sorted) if len(group) > 1]


def _reached(graph: Graph, start: str) -> set[str]:
    """Everything that can be reached by one arrow or more."""
    found: set[str] = set()
    ahead = list(graph[start])
    while ahead:
        node = ahead.pop()
        if node not in found:
            found.add(node)
            ahead += graph[node]
    return found


# --- names, words, functions ------------------------------------------------------------------------------------------


def names(product: Product) -> Measured:
    """Public names with more than one definition."""
    found: dict[str, list[Place]] = defaultdict(list)
    for module in product.modules:
        for name, node in definitions(module):
            found[name].append(module.place(node, name))
    several = {name: places for name, places in found.items() if len({place.path for place in places}) > 1}
    places = [place for name in sorted(several) for place in several[name]]
    return Measured((len(several),), f"of {len(found)} public classes and type aliases", places)


def definitions(module: Module) -> Iterator[tuple[str, ast.AST]]:
    """Public classes and type aliases; `X = other.X` only hands one on."""
    for node in module.tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            handed_on = _last_name(node.value) if node.value else ""
            yield from ((name, node) for name in _targets(node) if _is_alias(name) and name != handed_on)


def _is_alias(name: str) -> bool:
    return name[0].isupper() and not name.isupper()


def _targets(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def words(product: Product) -> Measured:
    """Over-used words per 1,000 lines of source."""
    places = [
        Place(module.path, number, f"{found[0]}: {line.strip()}")
        for module in product.modules
        for number, line in enumerate(module.text.splitlines(), 1)
        for found in WORD.finditer(line)
    ]
    lines = sum(len(module.source) for module in product.modules)
    rate = 1000 * len(places) / max(lines, 1)
    return Measured((round(rate, 1),), f"{len(places)} of {', '.join(WORDS)} per 1,000 of {lines} lines", places)


def functions(product: Product) -> Measured:
    """Lengths of functions without decorators and docstring; places: the longest first."""
    found = [(_length(node), module.place(node, node.name)) for module, node in _functions(product)]
    if not found:
        raise HouseError("expected functions, found none")
    found.sort(key=lambda pair: -pair[0])
    lengths = sorted(length for length, _ in found)
    values = (median(lengths), lengths[math.ceil(0.9 * len(lengths)) - 1], lengths[-1])
    places = [Place(place.path, place.line, f"{length} lines: {place.what}") for length, place in found]
    return Measured(values, f"median / p90 / max of {len(lengths)} functions", places)


def _functions(product: Product) -> Iterator[tuple[Module, Definition]]:
    for module in product.modules:
        yield from ((module, node) for node in module.nodes if isinstance(node, Definition))


def _length(node: Definition) -> int:
    whole = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node, clean=False) is None:
        return whole
    docstring = node.body[0]
    return whole - ((docstring.end_lineno or docstring.lineno) - docstring.lineno + 1)


# --- repeated, rollout ------------------------------------------------------------------------------------------------


def repeated(product: Product) -> Measured:
    """Runs of six lines of source that occur more than once."""
    found: dict[tuple[str, ...], list[Place]] = defaultdict(list)
    for module in product.modules:
        imports = _import_lines(module)
        lines = [(number, _normalised(line)) for number, line in module.source if number not in imports]
        for first in range(len(lines) - RUN + 1):
            run = lines[first : first + RUN]
            found[tuple(line for _, line in run)].append(Place(module.path, run[0][0], run[0][1]))
    several = [places for places in found.values() if len(places) > 1]
    return Measured((len(several),), f"runs of {RUN} lines", [place for places in several for place in places])


def _import_lines(module: Module) -> set[int]:
    found = [node for node in module.nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    return {number for node in found for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)}


def _normalised(line: str) -> str:
    """A line without indentation and trailing comment."""
    return " ".join(re.sub(r"\s+#.*$", "", line.strip()).split())


def rollout(product: Product) -> Measured:
    """Lines of the room `serving/rollout`; places: each file's."""
    inside = [module for module in product.modules if ".serving.rollout." in f"{module.name}."]
    places = [Place(module.path, 1, f"{len(module.text.splitlines())} lines") for module in inside]
    total = sum(len(module.text.splitlines()) for module in inside)
    return Measured((total,), f"lines in {len(inside)} files", places)


ROWS: dict[str, Callable[[Product], Measured]] = {
    "step-files": step_files,
    "conditions": conditions,
    "circles": circles,
    "names": names,
    "words": words,
    "functions": functions,
    "repeated": repeated,
    "rollout": rollout,
}

if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--list ROW | head`
    sys.exit(main())
