"""Tables: float32[N, D] in the table's own units; a category becomes one column per value.

An attacker moves numbers, each in units of its standard deviation or of a budget of its own, and the categories that
the threat model lets him choose.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import (
    Column,
    Feature,
    FeatureThreat,
    InputSpec,
    Modality,
    Norm,
    Snapshot,
    ThreatModel,
)
from holdfast.artifacts.folder import Artifact
from holdfast.errors import InputError, WorkloadError
from holdfast.modality.cells import missing_cells, numbers, seconds, spell
from holdfast.modality.delivered import as_delivered
from holdfast.modality.frames import StoredColumns, chosen_rows, class_indices, frame_blocks, read_frame
from holdfast.modality.norms import BOXES
from holdfast.modality.precision import check_precision
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


class TableInput(InputModality):
    """Rows of numbers and categories."""

    name: ClassVar[Modality] = "tabular"
    unit: ClassVar[str] = "standard deviations of each feature"
    starter: ClassVar[Starter] = Starter(
        data="  label: {label}  # the column that holds the class\n"
        "  # drop: [id]                  # columns that the model must not see\n"
        "  # immutable: [age]            # columns that an attacker cannot change\n",
        threat="  norm: linf\n  epsilon: 1/4                  # standard deviations of each feature\n",
        certify="  noise: 0.25                   # sigma, standard deviations of each feature\n",
        network="mlp",
        train="  epochs: 30\n  adversarial_share: 0.5        # attacked rows of a batch; more costs clean accuracy\n",
    )
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")
    threat_keys: ClassVar[frozenset[str]] = frozenset({"features"})
    networks: ClassVar[tuple[str, ...]] = ("mlp",)
    storage: ClassVar[Storage] = "parquet"
    scan: ClassVar[ScanMethod] = "shared-values"
    trigger_search: ClassVar[TriggerSearch] = "neural-cleanse"
    squeezing: ClassVar[Squeezing] = "features"
    trigger_headroom: ClassVar[int] = 5
    certification: ClassVar[Certification] = "randomized-smoothing"

    def spec(self, snapshot: Artifact[Snapshot]) -> InputSpec:
        """One feature per number and per value of a category, with limits and scales of the training rows."""
        columns = snapshot.document.columns
        features = tabular_features(StoredColumns(snapshot.stream("train.parquet")), columns)
        return InputSpec(
            modality=self.name, shape=(len(features),), dtype="float32", features=features, columns=columns
        )

    def encode(self, raw: Any, spec: InputSpec) -> NDArray[np.generic]:
        """Features of a DataFrame's rows; a category that training never saw is all zeros."""
        import pandas as pd

        if not isinstance(raw, pd.DataFrame):
            raise InputError(f"tabular input: expected a DataFrame, found {type(raw).__name__}")
        return np.stack(list(_features(raw, spec)), axis=1)

    def read(
        self, snapshot: Artifact[Snapshot], split: SplitName, spec: InputSpec
    ) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
        """Features and classes; besides them one column at a time is in memory."""
        table = StoredColumns(snapshot.stream(f"{split}.parquet"))
        y = class_indices(table, snapshot)
        x = np.empty((len(y), *spec.shape), dtype=np.float32)
        for place, feature in enumerate(_features(table, spec)):
            x[:, place] = feature
        return x, y

    def table(self, snapshot: Artifact[Snapshot], split: SplitName) -> "pd.DataFrame":
        """The rows as they are."""
        return read_frame(snapshot, split)

    def table_blocks(self, snapshot: Artifact[Snapshot], split: SplitName) -> Iterator["pd.DataFrame"]:
        """The rows as they are, a block at a time."""
        return frame_blocks(snapshot.stream(f"{split}.parquet"))

    def sample(self, snapshot: Artifact[Snapshot], split: SplitName, rows: NDArray[np.int64]) -> "pd.DataFrame":
        """Some rows as they are."""
        return chosen_rows(snapshot.stream(f"{split}.parquet"), rows)

    def served(self, given: Any, spec: InputSpec) -> Any:
        """The DataFrame's columns that the model reads, as the snapshot step reads them."""
        import pandas as pd

        if not isinstance(given, pd.DataFrame):
            raise InputError(f"input: expected a DataFrame, found {type(given).__name__}")
        return as_delivered(given, spec.columns)

    def example(self, snapshot: Artifact[Snapshot], spec: InputSpec, rows: int) -> Any:
        """Delivered columns that the model sees; whole numbers as integers, dates as dates in UTC."""
        import pandas as pd

        delivered = [column for column in spec.columns if column.indicates is None]
        whole = {column.name: "int64" for column in delivered if _mlflow_kind(column) == "long"}
        frame = read_frame(snapshot, "test").head(rows)[[column.name for column in delivered]].astype(whole)
        dates = [column.name for column in delivered if column.datetime]
        return frame.assign(**{name: pd.to_datetime(frame[name], unit="s") for name in dates})

    def mlflow_schema(self, spec: InputSpec, example: Any) -> Any:
        """One named column per delivered column; of any type, since the model reads the types that files have."""
        from mlflow.types.schema import AnyType, ColSpec, Schema

        delivered = [column for column in spec.columns if column.indicates is None]
        # MLflow would refuse bools and whole numbers where the training rows had decimals, and decimals for a long.
        return Schema([ColSpec(AnyType(), column.name) for column in delivered])

    def ball(self, threat: ThreatModel, spec: InputSpec, device: str) -> "Ball":
        """The ball around rows; what the threat model has for single features goes before its epsilon."""
        if not spec.features:
            return super().ball(threat, spec, device)
        import torch

        from holdfast.modality.norms import ball_class

        def row(values: Iterable[float]) -> torch.Tensor:
            return torch.tensor(list(values), dtype=torch.float32, device=device)

        features, named, epsilon = spec.features, _named_rules(threat, spec), float(threat.epsilon)
        rules = [named.get(f.column or f.name) for f in features]
        pairs = list(zip(features, rules, strict=True))
        one_sided = any(r is not None and r.direction != "both" for r in rules)
        whole = torch.tensor([f.integer for f in features], device=device)
        return ball_class(threat.norm)(
            epsilon=epsilon,
            lower=row(f.lower for f in features),
            upper=row(f.upper for f in features),
            scale=row(_scale(f, r, epsilon) for f, r in pairs),
            mutable=row(float(f.mutable or (r is not None and r.choose)) for f, r in pairs),
            down=row(float(r is None or r.direction != "up") for r in rules) if one_sided else None,
            up=row(float(r is None or r.direction != "down") for r in rules) if one_sided else None,
            whole=whole if bool(whole.any()) else None,
            choices=tuple(_places(spec, name) for name, rule in named.items() if rule.choose),
        )


def tabular_features(frame: "pd.DataFrame | StoredColumns", columns: Sequence[Column]) -> tuple[Feature, ...]:
    """The features that `columns` become, with limits, mean and standard deviation over `frame`.

    Raises:
        InputError: float32 would make one value of numbers that differ.
    """
    features: list[Feature] = []
    for column in columns:
        if column.kind == "category":
            values = frame[column.name].astype(str)
            features += [_one_hot(column.name, value, values == value) for value in column.categories]
        elif column.indicates is not None:
            features.append(_number(column, _indicator(frame, column).astype(np.float64)))
        else:
            features.append(_number(column, frame[column.name].to_numpy(np.float64)))
    return tuple(features)


def _features(frame: "pd.DataFrame | StoredColumns", spec: InputSpec) -> Iterator[NDArray[np.float32]]:
    delivered = [column.name for column in spec.columns if column.indicates is None]
    missing = [name for name in delivered if name not in frame.columns]
    if missing:
        raise InputError(f"table: expected a column {missing[0]!r}, found {list(map(str, frame.columns))}")
    for column in spec.columns:
        yield from _encoded(frame, column)


def _encoded(frame: "pd.DataFrame | StoredColumns", column: Column) -> Iterator[NDArray[np.float32]]:
    if column.indicates is not None:
        yield _indicator(frame, column)
    elif column.kind != "category":
        yield _numbers(frame[column.name], column)
    else:
        values = _categories(frame[column.name], column)
        for value in column.categories:
            yield (values == value).astype(np.float32)


def _indicator(frame: "pd.DataFrame | StoredColumns", column: Column) -> NDArray[np.float32]:
    if column.indicates is None or column.name in frame.columns:
        return _numbers(frame[column.name], column)
    return missing_cells(frame[column.indicates].to_numpy(dtype=object)).astype(np.float32)


def _categories(cells: "pd.Series[Any]", column: Column) -> NDArray[np.object_]:
    """Values in the spelling of the training rows; one of their categories is never a missing value."""
    values = spell(cells.to_numpy(dtype=object))
    missing = missing_cells(values) & ~np.isin(values.astype(str), np.array(column.categories, dtype=str))
    if missing.any() and column.fill is None:
        raise _no_value(column, missing)
    values[missing] = column.fill
    return values


def _numbers(cells: "pd.Series[Any]", column: Column) -> NDArray[np.float32]:
    try:
        values = _dates(cells) if column.datetime else numbers(cells.to_numpy())
    except (TypeError, ValueError, OverflowError) as error:
        expected = "dates (ISO 8601)" if column.datetime else "numbers"
        raise InputError(f"table: expected {expected} in column {column.name!r}, found {error}") from None
    if column.fill is not None:
        values = np.where(np.isnan(values), float(column.fill), values)
    if not np.isfinite(values).all():
        raise InputError(f"table: expected finite numbers in column {column.name!r}, found NaN or infinity")
    return values.astype(np.float32)


def _dates(cells: "pd.Series[Any]") -> NDArray[np.float64]:
    """Dates, ISO 8601 texts, or seconds, as seconds since 1970-01-01T00:00:00Z."""
    if cells.dtype.kind in "iuf":
        return numbers(cells.to_numpy())
    values = cells.to_numpy(dtype=object)
    missing = missing_cells(values)
    return np.array([np.nan if gone else seconds(value) for value, gone in zip(values, missing, strict=True)])


def _no_value(column: Column, missing: NDArray[np.bool_]) -> InputError:
    return InputError(
        f"table: expected a value in every row of column {column.name!r}, "
        f"found nothing in {int(missing.sum())} of {len(missing)} rows"
    )


def _one_hot(name: str, value: str, hits: "pd.Series[bool]") -> Feature:
    share = float(hits.mean())
    scale = (share * (1 - share)) ** 0.5 or 1.0
    return Feature(name=f"{name}={value}", lower=0.0, upper=1.0, mean=share, scale=scale, mutable=False, column=name)


def _number(column: Column, values: NDArray[np.float64]) -> Feature:
    check_precision(values, f"table: column {column.name!r}")
    return Feature(
        name=column.name,
        lower=float(values.min()),
        upper=float(values.max()),
        mean=float(values.mean()),
        scale=float(values.std()) or 1.0,
        mutable=not column.immutable,
        integer=column.integer,
    )


def _mlflow_kind(column: Column) -> str:
    if column.kind != "number":
        return "string"
    if column.datetime:
        return "datetime"
    # MLflow takes whole numbers for a long and refuses them for a double, and a long has no missing values.
    return "long" if column.integer and column.fill is None else "double"


def _named_rules(threat: ThreatModel, spec: InputSpec) -> dict[str, FeatureThreat]:
    """The rule of each feature that the threat model names, after validation."""
    check_rules(threat, {f.column or f.name: (bool(f.column), f.mutable) for f in spec.features})
    return {rule.name: rule for rule in threat.features}


def check_rules(threat: ThreatModel, known: Mapping[str, tuple[bool, bool]]) -> None:
    """The rules of a threat model fit the columns: name -> whether it is a category, whether it can change.

    Raises:
        WorkloadError: otherwise.
    """
    for name, rule in ((one.name, one) for one in threat.features):
        if name not in known:
            raise WorkloadError(f"threat.features: expected one of {sorted(known)}, found {name!r}")
        category, mutable = known[name]
        if category != rule.choose or (category and (rule.budget is not None or rule.direction != "both")):
            wanted = "a category with choose: true alone" if category else "a number with budget and direction"
            raise WorkloadError(f"threat.features.{name}: expected {wanted}, found the other kind's keys")
        if rule.choose and threat.norm not in BOXES:
            raise WorkloadError(
                f"threat.features.{name}: expected norm {' or '.join(BOXES)} where a category is chosen, "
                f"found {threat.norm}"
            )
        if not rule.choose and not mutable:
            raise WorkloadError(f"threat.features.{name}: expected a column that can change, found an immutable one")


def _scale(feature: Feature, rule: FeatureThreat | None, epsilon: float) -> float:
    """One unit of epsilon: a budget is epsilon of them; a choice may go all the way from 0 to 1."""
    if rule is None:
        return feature.scale
    if rule.choose:
        return 1 / epsilon
    return feature.scale if rule.budget is None else float(rule.budget) / epsilon


def _places(spec: InputSpec, name: str) -> tuple[int, ...]:
    return tuple(index for index, feature in enumerate(spec.features) if feature.column == name)
