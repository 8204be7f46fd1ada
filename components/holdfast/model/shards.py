"""Big work in parts: blocks of examples that are measured on their own, and shards, which are made of whole blocks.

A block is what is measured in one piece. Its random numbers come from the seed and the block's number alone, and
nothing in it depends on another block: neither the noise, nor a median over its examples, nor a rounding error, which
differs with the number of rows that a network is shown. So a block gives the same bytes in whichever process it is
measured, and the tables of all blocks, joined in their order, are those of one process.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from holdfast import __version__
from holdfast.artifacts.arrays import arrays_of, npz
from holdfast.artifacts.documents import PartialMeasurement
from holdfast.artifacts.folder import Artifact, Ref, load, save
from holdfast.compute import Compute
from holdfast.errors import InputError, WorkloadError
from holdfast.progress import say, track

Table = dict[str, NDArray[Any]]
"""What was seen of each example, by name: arrays `[N, ...]`."""
P = TypeVar("P", bound=PartialMeasurement)

TABLE = "rows.npz"
MOST_SHARDS = 64


@dataclass(frozen=True)
class ExampleBlock:
    """Examples that are measured in one piece."""

    number: int
    """From 0, in the order of the examples."""
    start: int
    stop: int
    """Its examples are those at `start` to `stop` - 1."""
    sampled: bool
    """Whether they are of the sample; the examples after it fill up rare classes."""
    seed: int
    """Of all its random numbers."""

    @property
    def rows(self) -> slice:
        """Where its examples are."""
        return slice(self.start, self.stop)


def blocks(sampled: int, total: int, size: int, seed: int) -> tuple[ExampleBlock, ...]:
    """The blocks of `total` examples, of which the first `sampled` are the sample: `size` examples each, or fewer.

    A block never holds examples of the sample and others.
    """
    starts = [*range(0, sampled, size), *range(sampled, total, size)]
    return tuple(
        ExampleBlock(
            number=number,
            start=start,
            stop=min(start + size, sampled if start < sampled else total),
            sampled=start < sampled,
            seed=_block_seed(seed, number),
        )
        for number, start in enumerate(starts)
    )


def _block_seed(seed: int, number: int) -> int:
    """The step's own seed for the first block, so that work of one block draws as it always did."""
    return int(np.random.SeedSequence([seed], spawn_key=(number,)).generate_state(1)[0]) if number else seed


@dataclass(frozen=True)
class Shard:
    """One of several processes that share the blocks."""

    number: int
    """From 1."""
    of: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Reads `I/N`, with I from 1 to N.

        Raises:
            WorkloadError: it is not that.
        """
        found = re.fullmatch(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})", text)
        number, of = (int(part) for part in found.groups()) if found else (0, 0)
        if not 1 <= number <= of <= MOST_SHARDS:
            raise WorkloadError(f"--shard: expected I/N with I from 1 to N and N at most {MOST_SHARDS}, found {text!r}")
        return cls(number, of)

    def take(self, found: Sequence[ExampleBlock]) -> tuple[ExampleBlock, ...]:
        """Its blocks: every N-th one; none where there are fewer blocks than shards."""
        return tuple(found[self.number - 1 :: self.of])


def asked(shard: str | None, parts: Sequence[str] | None) -> tuple[Shard | None, tuple[Ref, ...]]:
    """What a step is to do by its options: measure one shard, or join parts; neither: all of it.

    Raises:
        WorkloadError: no such shard, or both at once.
    """
    if shard and parts:
        raise WorkloadError("expected --shard, which measures a part, or --part, which joins them, found both")
    return (Shard.parse(shard) if shard else None), tuple(Ref.parse(text) for text in parts or ())


def measured(found: Iterable[ExampleBlock], measure: Callable[[ExampleBlock], Table], label: str) -> Table:
    """The tables of these blocks, joined in their order."""
    return joined([measure(block) for block in track(tuple(found), label)])


def joined(tables: Sequence[Table]) -> Table:
    """The tables one after the other; what a table does not have is left out for its examples."""
    names = dict.fromkeys(name for table in tables for name in table)
    return {name: np.concatenate([table[name] for table in tables if name in table]) for name in names}


# --- parts on disk ----------------------------------------------------------------------------------------------------


def save_part(
    out: Path, part: P, found: Sequence[ExampleBlock], measure: Callable[[ExampleBlock], Table], label: str
) -> Artifact[P]:
    """Measures these blocks and writes them as a part: for each of them the arrays of its table."""
    if not found:
        say(f"{label}: part {part.shard} of {part.shards} has nothing to do: the examples are fewer blocks than parts")
    tables = {block.number: measure(block) for block in track(found, label)}
    arrays = {f"{number}/{name}": values for number, table in tables.items() for name, values in table.items()}
    sealed = part.model_copy(update={"blocks": tuple(tables)})
    return save(out, sealed, {TABLE: npz(**arrays)} if arrays else {})


def read_parts(refs: Sequence[Ref], kind: type[P]) -> tuple[Artifact[P], ...]:
    """The parts in the order of their shards, each there exactly once and all of one piece of work.

    Raises:
        ArtifactError, IntegrityError: one is no part of this kind, or its bytes were altered.
        InputError: a part is missing, there twice, or of other work.
    """
    parts = sorted((load(ref, kind) for ref in refs), key=lambda part: part.document.shard)
    if not parts:
        raise InputError("--part: expected the parts of a measurement, found none")
    first = parts[0]
    for part in parts[1:]:
        check_same(part, _work(first.document), f"{first.folder}")
    found, of = [part.document.shard for part in parts], first.document.shards
    if found != list(range(1, of + 1)):
        shown = ", ".join(map(str, found))
        raise InputError(f"{first.folder}: expected the parts 1 to {of} of {of}, each once, found {shown}")
    return tuple(parts)


def check_same(part: Artifact[P], wanted: Mapping[str, object], by: str) -> None:
    """Refuses a part that was made of other inputs, or in another way, than is `wanted`; `by`: who wants it.

    Raises:
        InputError: it was.
    """
    own = {name: value for name, value in _work(part.document).items() if name in wanted}
    found, expected = _flat(own), _flat(wanted)
    other = next((name for name in {**expected, **found} if found.get(name) != expected.get(name)), None)
    if other is not None:
        raise InputError(
            f"{part.folder}: expected a part of the same work as {by}, "
            f"with {other} {_short(expected.get(other))}, found {_short(found.get(other))}"
        )


def work(inputs: Mapping[str, str], configuration: Mapping[str, object], settings: Compute) -> dict[str, Any]:
    """What all parts of one piece of work have in common with the step that joins them."""
    return {
        "inputs": dict(inputs),
        "configuration": dict(configuration),
        "seed": settings.seed,
        "threads": settings.threads,
        "library": f"holdfast {__version__}",
    }


def _work(part: PartialMeasurement) -> dict[str, object]:
    return part.model_dump(exclude={"shard", "blocks", "files", "version", "kind"})


def _flat(values: Mapping[str, object]) -> dict[str, object]:
    """Values by dotted name; a list is a tuple."""
    found: dict[str, object] = {}
    for name, value in values.items():
        inner = {f"{name}.{key}": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
        found |= {key: tuple(one) if isinstance(one, list) else one for key, one in inner.items()}
    return found


def _short(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return f"{text[:12]}…" if len(text) == 64 else text[:200]


def tables_of(parts: Sequence[Artifact[P]], found: Sequence[ExampleBlock]) -> Table:
    """The tables of all blocks, joined in their order.

    Raises:
        InputError: a part holds other blocks than its shard has, or arrays of another length.
    """
    tables: dict[int, Table] = {block.number: {} for block in found}
    for part in parts:
        own = Shard(part.document.shard, part.document.shards).take(found)
        numbers = tuple(block.number for block in own)
        if part.document.blocks != numbers:
            raise InputError(f"{part.folder}: expected the blocks {numbers}, found {part.document.blocks}")
        for name, values in (arrays_of(part.open(TABLE)) if own else {}).items():
            number, _, column = name.partition("/")
            if not number.isdigit() or int(number) not in numbers:
                raise InputError(f"{part.folder}: expected arrays of the blocks {numbers}, found {name!r}")
            tables[int(number)][column] = values
    return joined([tables[block.number] for block in found])
