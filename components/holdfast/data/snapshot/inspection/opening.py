"""A delivery that has been read: a workload's, or a file for which there is none yet."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from holdfast.artifacts.documents import Modality
from holdfast.data.snapshot.delivered import DeliveredFile
from holdfast.data.snapshot.fetch import fetch
from holdfast.data.snapshot.inspection.guess import check_column, guess_label
from holdfast.data.snapshot.inspection.header import HINT, column_names, looks_headless
from holdfast.data.snapshot.inspection.reading import read_with_guesses
from holdfast.data.snapshot.read import read_images
from holdfast.data.snapshot.rows import ImageRows, Part
from holdfast.errors import InputError
from holdfast.modality import modality_of
from holdfast.workload.schema import DataConfig, SnapshotConfig


@dataclass(frozen=True)
class OpenedDelivery:
    """The section, and the rows as they were read: of a table (also of messages), or of images."""

    config: SnapshotConfig
    files: Sequence[DeliveredFile]
    table: Sequence[Part] = ()
    images: Sequence[ImageRows] = ()
    refused: tuple[str, ...] = ()
    """What the readers refused before a key was guessed."""
    labelled: bool = True
    """Whether the column of the classes is known."""

    def using(self, data: DataConfig, table: Sequence[Part]) -> "OpenedDelivery":
        """The same files under another section."""
        config = self.config.model_copy(update={"data": data})
        return replace(self, config=config, table=table, refused=())


def open_file(
    data: Path, *, label: str | None = None, text: str | None = None, columns: str | None = None
) -> OpenedDelivery:
    """A file for which there is no workload yet; its name shows whether it holds images or a table.

    `columns` names the columns of a file without a header row, separated by commas; `auto` numbers them.

    Raises:
        InputError: it cannot be read, or a column that is named is not there.
    """
    section = DataConfig(source=str(data), label=label or "label", text=text)
    files = fetch(section, None)
    if columns is not None:
        section = section.model_copy(update={"columns": column_names(columns, files[0])})
    modality: Modality = "image" if files[0].format == "npz" else "text" if text else "tabular"
    config = SnapshotConfig(name="data", modality=modality, data=section)
    try:
        return _labelled(_open(config, files), label, text)
    except InputError as error:
        if columns is not None or not looks_headless(files[0]):
            raise
        raise InputError(f"{error}; {HINT}") from None


def _labelled(opened: OpenedDelivery, label: str | None, text: str | None) -> OpenedDelivery:
    """With the column of the classes, where one is named or has a usual name."""
    if opened.images:
        return opened
    data = Path(opened.config.data.source)
    columns = opened.table[0].cells
    for named in (label, text):
        if named is not None:
            check_column(columns, named, data)
    found = label or guess_label(columns)
    if found is None and opened.config.data.columns is None and looks_headless(opened.files[0]):
        raise InputError(f"{data}: which column holds the class?")
    section = opened.config.data.model_copy(update={"label": found or "label"})
    config = opened.config.model_copy(update={"data": section})
    return replace(opened, config=config, labelled=found is not None)


def open_delivery(config: SnapshotConfig) -> OpenedDelivery:
    """The delivery that a workload names.

    Raises:
        InputError: it cannot be read.
        IntegrityError: it has not the digest that the workload promises.
    """
    return _open(config, fetch(config.data, None))


def _open(config: SnapshotConfig, files: Sequence[DeliveredFile]) -> OpenedDelivery:
    if modality_of(config.modality).storage == "npz":
        return OpenedDelivery(config, files, images=read_images(files, config.data))
    found = read_with_guesses(files, config.data)
    config = config.model_copy(update={"data": found.data})
    return OpenedDelivery(config, files, found.parts, refused=found.refused)
