"""`holdfast init`: a commented workload for the user's own data, with the keys that a run needs to take the file."""

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from holdfast.data.snapshot.contract import type_images
from holdfast.data.snapshot.dialect import find_delimiter
from holdfast.data.snapshot.inspection.header import beginning
from holdfast.data.snapshot.inspection.inspect import inspect
from holdfast.data.snapshot.inspection.opening import OpenedDelivery, open_file
from holdfast.data.snapshot.inspection.suggest import Suggested, suggest, suggest_range, without_dropped
from holdfast.data.snapshot.inspection.summary import DataInspection
from holdfast.errors import InputError
from holdfast.modality import modality_of
from holdfast.modality.protocol import FEW_ROWS
from holdfast.wording import listed
from holdfast.workload.schema import DataConfig

_SUFFIXES = (".gz", ".zip", ".csv", ".tsv", ".parquet", ".pq", ".npz")
_LONGEST_NAME = 63
LEAKED_SHARE = 0.01
"""What the default policy accepts; above it equal rows are kept in one part."""
_PLAIN = re.compile(r"[A-Za-z_/][\w./-]*", re.ASCII)
_EXAMPLES = ("  # drop:", "  # range:")
"""Comments of the template that give way to the key itself."""

TEMPLATE = """\
# A Holdfast workload: data, model, threat model and policy of one model that is kept robust.
# Run it with:  holdfast run --workload {out}
name: {name}
modality: {modality}

data:
  # A CSV, TSV, Parquet or NPZ file, or an https URL (then with `sha256:`).
  source: {source}
{data}
network:
  # cnn, mlp, text, or your own: package.module:function returning a torch.nn.Module (logits)
  architecture: {architecture}
  # arguments: {{...}}           # passed to it

threat:
{threat}
train:
  recipe: pgd                   # adversarial training; `standard` for none
{train}  class_weights: balanced       # every class counts alike, however rare; `none`: every row alike

# decision:                     # two classes: what wrong answers cost sets the threshold
#   positive: fraud             # the class that is looked for
#   costs: {{miss: 50, false_alarm: 1}}

certify:
{certify}
gate:
  policy: default               # a name in gates/policies, or a file of your own
  # override:                   # where this workload asks for more or less; recorded in the decision
  #   robust_accuracy: {{at_least: 0.60}}
"""


@dataclass(frozen=True)
class Started:
    """The text of a workload file, and what a run will find with it."""

    text: str
    seen: DataInspection


def starter(
    data: Path, *, label: str | None, text: str | None, columns: str | None = None, out: str = "workload.yaml"
) -> Started:
    """A workload for `data`.

    Raises:
        InputError: no such file, not a format that is read, or a named column that is not there.
    """
    opened = open_file(data, label=label, text=text, columns=columns)
    if not opened.labelled:
        columns = listed(opened.table[0].cells)
        raise InputError(f"{data}: which column holds the class? name it with --label; columns: {columns}")
    suggested = _suggested(opened)
    seen = _seen(opened, suggested.data)
    if _leaks(seen):
        suggested = replace(suggested, data=suggested.data.model_copy(update={"duplicates": "together"}))
        seen = _seen(opened, suggested.data)
    return Started(_filled(data, opened, suggested, seen, out), seen)


def _seen(opened: OpenedDelivery, section: DataConfig) -> DataInspection:
    return inspect(opened.using(section, without_dropped(opened.table, section)))


def _leaks(seen: DataInspection) -> bool:
    held_out = sum(one.held_out for one in seen.classes)
    return seen.leaked is not None and seen.leaked > LEAKED_SHARE * held_out


def workload_name(data: Path) -> str:
    """A name that a workload may have: lower-case ASCII letters, digits and dashes, first a letter."""
    stem = data.name.lower()
    while (suffix := Path(stem).suffix) in _SUFFIXES:
        stem = stem.removesuffix(suffix)
    name = re.sub(r"[^a-z0-9]+", "-", stem).strip("-") or "workload"
    return (name if name[0].isalpha() else f"w-{name}")[:_LONGEST_NAME].strip("-")


def quote_yaml(text: str) -> str:
    """A YAML scalar that every YAML 1.1 reader takes for this text, in a list and in braces, too."""
    if not text.isprintable():
        return json.dumps(text)
    plain = _PLAIN.fullmatch(text) is not None and yaml.safe_load(text) == text and text.lower() not in ("y", "n")
    return text if plain else "'" + text.replace("'", "''") + "'"


def _suggested(opened: OpenedDelivery) -> Suggested:
    data = opened.config.data
    if opened.images:
        return Suggested(data.model_copy(update={"value_range": _range(opened)}), {})
    if modality_of(opened.config.modality).one_column:
        return Suggested(data, {})
    return suggest(opened.table, data)


def _range(opened: OpenedDelivery) -> tuple[float, float]:
    try:
        return type_images(opened.images, opened.config).pixel_range
    except InputError:
        return suggest_range(opened.images)


def _filled(data: Path, opened: OpenedDelivery, found: Suggested, seen: DataInspection, out: str) -> str:
    sections = modality_of(opened.config.modality).starter
    section = found.data
    lines = sections.data.format(label=quote_yaml(section.label), text=quote_yaml(section.text or ""))
    keys = [*_dialect(opened), *_keys(found, seen)]
    return TEMPLATE.format(
        out=shlex.quote(out).replace("\n", " "),
        name=workload_name(data),
        modality=opened.config.modality,
        source=quote_yaml(str(data.resolve())),
        data="".join(f"{line}\n" for line in [*_kept(lines.splitlines(), keys), *keys]),
        architecture=sections.network,
        threat=sections.threat,
        certify=sections.certify,
        train=sections.train_many or sections.train if seen.rows > FEW_ROWS else sections.train,
    )


def _kept(lines: Iterable[str], keys: Iterable[str]) -> list[str]:
    written = tuple(f"  # {key.split(':')[0].strip()}:" for key in keys)
    return [line for line in lines if not line.startswith(tuple(one for one in _EXAMPLES if one in written))]


def _dialect(opened: OpenedDelivery) -> Iterator[str]:
    """How the file is written, where it is not as usual: a later delivery must be written alike."""
    file = opened.files[0]
    if file.format not in ("csv", "tsv"):
        return
    part, stated = opened.table[0], opened.config.data
    content, encoding = beginning(file, stated.encoding)
    if encoding != "utf-8":
        guess = "  # a guess, since it is not UTF-8: look at the accents" if stated.encoding else ""
        yield f"  encoding: {encoding}{guess}"
    delimiter = stated.delimiter or find_delimiter(content, file.path, None)
    if file.format == "csv" and delimiter != ",":
        yield f"  delimiter: {json.dumps(delimiter)}"
    if part.decimal != ".":
        yield f"  decimal: {json.dumps(part.decimal)}"


def _keys(found: Suggested, seen: DataInspection) -> Iterator[str]:
    data = found.data
    if data.columns is not None:
        yield f"  columns: [{', '.join(map(quote_yaml, data.columns))}]  # the file has no header row"
    if data.value_range is not None:
        yield "  range: [{:.17g}, {:.17g}]  # the values that mean black and white".format(*data.value_range)
    if data.drop:
        yield f"  drop: [{', '.join(map(quote_yaml, data.drop))}]  # {_why(data.drop, found.reasons)}"
    if data.columns_as:
        pairs = ", ".join(f"{quote_yaml(name)}: {kind}" for name, kind in data.columns_as.items())
        yield f"  columns_as: {{{pairs}}}  # {_why(data.columns_as, found.reasons)}"
    if codes := [one.name for one in seen.columns if one.note == "codes?"]:
        pairs = ", ".join(f"{quote_yaml(name)}: category" for name in codes)
        yield f"  # columns_as: {{{pairs}}}  # whole numbers of few values: if they are codes, not quantities"
    if data.duplicates == "together":
        yield "  duplicates: together  # many rows come more than once: equal ones stay in one part"
    if found.gaps:
        yield f"  missing: indicator  # cells are missing in {listed(found.gaps)}; or {{COLUMN: VALUE}}"


def _why(names: Iterable[str], reasons: Mapping[str, str]) -> str:
    by_reason: dict[str, list[str]] = {}
    for name in names:
        by_reason.setdefault(reasons.get(name, "as you asked"), []).append(name)
    return "; ".join(f"{listed(columns)}: {reason}" for reason, columns in by_reason.items())
