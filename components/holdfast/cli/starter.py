"""`holdfast init`: a commented workload for the user's own data, filled in from its first rows."""

import csv
import difflib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from holdfast.artifacts.documents import Modality
from holdfast.errors import InputError
from holdfast.modality import modality_of
from holdfast.tables import check_names

SNIFFED_BYTES = 2**16
LABELS = ("label", "class", "target", "y", "outcome", "fraud", "is_fraud", "default", "churn")
NPZ_KEYS = {"x_train.npy", "y_train.npy", "x_test.npy", "y_test.npy"}

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
  epochs: {epochs}
  class_weights: balanced       # every class counts alike, however rare; `none`: every row alike

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
class Sniffed:
    """What the file's beginning shows."""

    modality: Modality
    label: str = "label"
    text: str = ""


def starter(data: Path, *, label: str | None, text: str | None, out: str = "workload.yaml") -> str:
    """The text of a workload file for `data`.

    Raises:
        InputError: no such file, not a format that is read, or a named column that is not there.
    """
    found = sniff(data, label=label, text=text)
    sections = modality_of(found.modality).starter
    name = "".join(c if c.isalnum() else "-" for c in data.stem.lower()).strip("-") or "workload"
    return TEMPLATE.format(
        out=out,
        name=name if name[0].isalpha() else f"w-{name}",
        modality=found.modality,
        source=_quoted(str(data.resolve())),
        data=sections.data.format(label=_quoted(found.label), text=_quoted(found.text)),
        architecture=sections.network,
        threat=sections.threat,
        certify=sections.certify,
        epochs=20,
    )


def sniff(data: Path, *, label: str | None, text: str | None) -> Sniffed:
    """The modality and the label column, from the first 64 KiB of the file."""
    if not data.is_file():
        raise InputError(f"{data}: expected a data file, found none")
    suffix = data.suffix.lower()
    if suffix == ".npz":
        return _sniff_npz(data)
    if suffix not in (".csv", ".tsv", ".parquet"):
        raise InputError(f"{data}: expected .csv, .tsv, .parquet or .npz, found {suffix or 'no suffix'}")
    columns = _parquet_columns(data) if suffix == ".parquet" else _header(data)
    chosen = _column(data, columns, label) if label else _guess(data, columns)
    if text:
        return Sniffed("text", chosen, _column(data, columns, text))
    return Sniffed("tabular", chosen)


def _sniff_npz(data: Path) -> Sniffed:
    try:
        with zipfile.ZipFile(data) as archive:
            names = set(archive.namelist())
    except zipfile.BadZipFile:
        raise InputError(f"{data}: expected an NPZ file, found something else") from None
    if not names >= NPZ_KEYS:
        raise InputError(f"{data}: expected the arrays x_train, y_train, x_test, y_test, found {sorted(names)}")
    return Sniffed("image")


def _header(data: Path) -> list[str]:
    """The names of the columns; what the snapshot would refuse as names is refused here already."""
    with data.open("rb") as stream:
        first = stream.read(SNIFFED_BYTES).split(b"\n", 1)[0]
    try:
        line = first.decode("utf-8-sig").rstrip("\r")
    except UnicodeDecodeError as error:
        raise InputError(f"{data}: expected UTF-8, found byte {first[error.start]:#04x} at {error.start}") from None
    columns = next(csv.reader([line], delimiter="\t" if data.suffix.lower() == ".tsv" else ","), [])
    if not columns:
        raise InputError(f"{data}: expected a header row, found an empty file")
    names = [column.strip() for column in columns]
    check_names(names, f"{data}: header row")
    return names


def _parquet_columns(data: Path) -> list[str]:
    import pyarrow
    from pyarrow import parquet

    try:
        return list(parquet.read_schema(data).names)
    except pyarrow.ArrowInvalid:
        raise InputError(f"{data}: expected a Parquet file, found something else") from None


def _column(data: Path, columns: list[str], name: str) -> str:
    if name in columns:
        return name
    close = difflib.get_close_matches(name, columns, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"columns: {', '.join(columns[:12])}"
    raise InputError(f"{data}: expected a column {name!r}, found none; {hint}")


def _guess(data: Path, columns: list[str]) -> str:
    lower = {column.lower(): column for column in columns}
    for name in LABELS:
        if name in lower:
            return lower[name]
    raise InputError(f"{data}: which column holds the class? name it with --label; columns: {', '.join(columns[:12])}")


def _quoted(text: str) -> str:
    """YAML single quotes where the plain text could be read as something else."""
    plain = (
        text.replace("_", "").replace("-", "").replace("/", "").replace(".", "").isalnum()
        and text[0] not in "0123456789"
    )
    return (
        text
        if plain and text.lower() not in ("yes", "no", "true", "false", "null", "on", "off", "y", "n")
        else ("'" + text.replace("'", "''") + "'")
    )
