"""Messages: int64[N, L], where 0 pads, 1 hides a character and b + 2 is the byte b of the lower-cased UTF-8 message.

Their table view is counts and shares of kinds of characters. An attacker replaces characters.
"""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Column, InputSpec, Modality, Norm, Snapshot, ThreatModel
from holdfast.artifacts.folder import Artifact
from holdfast.errors import InputError, WorkloadError
from holdfast.modality.frames import chosen_rows, class_indices, frame_blocks, read_frame
from holdfast.modality.protocol import (
    Certification,
    InputModality,
    ScanMethod,
    SplitName,
    Squeezing,
    Starter,
    Storage,
    TriggerSearch,
)

if TYPE_CHECKING:
    import pandas as pd

    from holdfast.modality.ball import Ball

PAD, HIDDEN, FIRST_BYTE, SYMBOLS = 0, 1, 2, 258
TYPED: tuple[int, ...] = tuple(b + FIRST_BYTE for b in range(32, 127) if not 65 <= b <= 90)
"""The character ids that an attacker types: printable ASCII without capitals."""


class TextInput(InputModality):
    """Messages in one column of a table."""

    name: ClassVar[Modality] = "text"
    unit: ClassVar[str] = "characters"
    starter: ClassVar[Starter] = Starter(
        data="  label: {label}  # the column that holds the class\n"
        "  text: {text}  # the column that holds the message\n",
        threat="  norm: edits\n  epsilon: 2                    # characters that an attacker may change\n",
        certify="  noise: 0.25                   # share of characters kept\n"
        "  radii: [0, 1]                 # in characters\n",
        network="text",
        train="  epochs: 30\n  batch: 32\n"
        "  adversarial_share: 0.25       # attacked rows of a batch; more costs clean accuracy\n"
        "  average: 0.98                 # keep a running mean of the weights: steadier on few messages\n",
        train_many="  epochs: 10\n"
        "  adversarial_share: 0.5        # attacked rows of a batch; more costs clean accuracy\n",
    )
    norms: ClassVar[tuple[Norm, ...]] = ("edits",)
    threat_keys: ClassVar[frozenset[str]] = frozenset({"typing"})
    recipes: ClassVar[tuple[str, ...] | Literal["all"]] = ("pgd", "standard", "awp", "finetune")
    fits_art: ClassVar[bool] = False
    networks: ClassVar[tuple[str, ...]] = ("text",)
    storage: ClassVar[Storage] = "parquet"
    one_column: ClassVar[bool] = True
    natural: ClassVar[bool] = True
    scan: ClassVar[ScanMethod] = "shared-ngrams"
    trigger_search: ClassVar[TriggerSearch] = "n-gram-insertion"
    squeezing: ClassVar[Squeezing] = "words"
    certification: ClassVar[Certification] = "randomized-ablation"

    def spec(self, snapshot: Artifact[Snapshot]) -> InputSpec:
        """How many characters of a message the network sees."""
        document = snapshot.document
        return InputSpec(modality=self.name, shape=document.shape[:1], dtype="int64", columns=document.columns)

    def encode(self, raw: Any, spec: InputSpec) -> NDArray[np.generic]:
        """Character ids of messages."""
        return encode_text([str(message) for message in raw], spec.shape[0])

    def read(
        self, snapshot: Artifact[Snapshot], split: SplitName, spec: InputSpec
    ) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
        """Character ids and classes."""
        frame = read_frame(snapshot, split)
        y = class_indices(frame, snapshot)
        return self.encode(frame[_text_column(snapshot.document.columns)], spec), y

    def table(self, snapshot: Artifact[Snapshot], split: SplitName) -> "pd.DataFrame":
        """Length, words and kinds of characters."""
        return _view(read_frame(snapshot, split), snapshot.document)

    def table_blocks(self, snapshot: Artifact[Snapshot], split: SplitName) -> Iterator["pd.DataFrame"]:
        """Length, words and kinds of characters, a block of messages at a time."""
        return (_view(rows, snapshot.document) for rows in frame_blocks(snapshot.stream(f"{split}.parquet")))

    def sample(self, snapshot: Artifact[Snapshot], split: SplitName, rows: NDArray[np.int64]) -> "pd.DataFrame":
        """Length, words and kinds of characters of some messages."""
        return _view(chosen_rows(snapshot.stream(f"{split}.parquet"), rows), snapshot.document)

    def served(self, given: Any, spec: InputSpec) -> Any:
        """Messages from a list, a Series, an array, or a table's named or first column."""
        found = list(_messages(given, spec))
        for row, message in enumerate(found):
            if message is None or message != message:  # NaN is how pandas reads an empty cell
                raise InputError(f"input: expected a message in every row, found none in row {row}")
        return [str(message) for message in found]

    def example(self, snapshot: Artifact[Snapshot], spec: InputSpec, rows: int) -> Any:
        """A table of one column without a name."""
        import pandas as pd

        frame = read_frame(snapshot, "test").head(rows)
        return pd.DataFrame(frame[_text_column(spec.columns)].astype(str).tolist())

    def mlflow_schema(self, spec: InputSpec, example: Any) -> Any:
        """One column of strings."""
        from mlflow.types.schema import ColSpec, Schema

        # Without a name, so that a list or a Series of messages does.
        return Schema([ColSpec("string")])

    def value_range(self, spec: InputSpec) -> tuple[float, float]:
        """Character ids."""
        return 0, SYMBOLS - 1

    def ball(self, threat: ThreatModel, spec: InputSpec, device: str) -> "Ball":
        """Messages that differ in epsilon characters; with `typing` also by insertions, deletions and swaps."""
        import torch

        from holdfast.modality.edits import Edits

        if threat.norm not in self.norms:
            raise WorkloadError(f"threat.norm: expected {' or '.join(self.norms)} for messages, found {threat.norm}")

        def number(value: float) -> torch.Tensor:
            return torch.tensor(value, dtype=torch.float32, device=device)

        return Edits(
            epsilon=float(threat.epsilon),
            lower=number(spec.lower),
            upper=number(SYMBOLS - 1),
            scale=number(1.0),
            mutable=number(1.0),
            typing=threat.typing,
        )


def encode_text(messages: Sequence[str], length: int) -> NDArray[np.int64]:
    """Character ids int64[N, length] of lower-cased UTF-8, cut or padded at the end."""
    ids = np.zeros((len(messages), length), dtype=np.int64)
    for row, message in enumerate(messages):
        data = np.frombuffer(message.lower().encode("utf-8", "replace")[:length], dtype=np.uint8)
        ids[row, : len(data)] = data.astype(np.int64) + FIRST_BYTE
    return ids


def decode_text(ids: NDArray[np.int64]) -> list[str]:
    """Messages from character ids int64[N, L]; hidden characters show as `·`."""
    return [_decode_one(row) for row in ids]


def text_columns(messages: list[str]) -> dict[str, NDArray[np.float64]]:
    """Length, words and shares of digits, capitals, punctuation and non-ASCII characters of messages."""
    length = np.array([len(m) for m in messages], dtype=np.float64)
    safe = np.maximum(length, 1)

    def share(pattern: str) -> NDArray[np.float64]:
        found = re.compile(pattern)
        return np.array([len(found.findall(m)) for m in messages], dtype=np.float64) / safe

    return {
        "length": length,
        "words": np.array([len(m.split()) for m in messages], dtype=np.float64),
        "digits": share(r"[0-9]"),
        "capitals": share(r"[A-Z]"),
        "punctuation": share(r"[^\w\s]"),
        "non_ascii": share(r"[^\x00-\x7f]"),
        "links": share(r"https?://|www\."),
    }


def _view(rows: "pd.DataFrame", document: Snapshot) -> "pd.DataFrame":
    import pandas as pd

    messages = rows[_text_column(document.columns)]
    table = pd.DataFrame(text_columns([str(message) for message in messages]), index=rows.index)
    table[document.label] = rows[document.label].to_numpy()
    return table


def _text_column(columns: Sequence[Column]) -> str:
    return next(column.name for column in columns if column.kind == "text")


def _messages(given: Any, spec: InputSpec) -> Any:
    import pandas as pd

    if isinstance(given, pd.DataFrame):
        named = [column.name for column in spec.columns if column.kind == "text" and column.name in given]
        return given[named[0]] if named else given.iloc[:, 0]
    if isinstance(given, list | tuple | pd.Series | np.ndarray):
        return given
    raise InputError(f"input: expected messages as a list, Series or table, found {type(given).__name__}")


def _decode_one(ids: NDArray[np.int64]) -> str:
    text = bytes(int(i) - FIRST_BYTE for i in ids if i >= FIRST_BYTE).decode("utf-8", "replace")
    if not (ids == HIDDEN).any():
        return text
    return "".join("·" if i == HIDDEN else chr(int(i) - FIRST_BYTE) for i in ids if i != PAD)
