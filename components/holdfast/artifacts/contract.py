"""The contract of a model with its clients: the columns that it reads, by name and place, and what its answers mean.

A model with another contract reads the same request as something else, or not at all, however good it is. Light: no
numpy.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from holdfast.artifacts.documents import Column, InputSpec, Model, OperatingPoint
from holdfast.wording import quoted


def differences(candidate: Model, champion: Model) -> tuple[str, ...]:
    """Where clients of the champion would be misunderstood by the candidate, each in words; empty: nowhere.

    What only a threat model reads (which columns are immutable, which numbers are whole) is no part of a contract, nor
    is the threshold of an operating point, which each training chooses by the same rule.
    """
    ours, theirs = candidate.input, champion.input
    if ours.modality != theirs.modality:
        return (f"the candidate takes {ours.modality} data, the champion {theirs.modality} data",)
    found = [*_columns(ours, theirs)] or [*_encoding(ours, theirs)]
    return (*found, *_classes(candidate.classes, champion.classes), *_decisions(candidate, champion))


def objection(candidate: Model, champion: Model, *, allowed: bool) -> str | None:
    """Why clients of the champion must not be sent to the candidate, and what to do; None: nothing speaks against it.

    With `allowed` their requests may mean something else to the candidate; they must fit both all the same.
    """
    found, fits_both = differences(candidate, champion), exchangeable(candidate, champion)
    if not found or (allowed and fits_both):
        return None
    advice = (
        "move its clients, and have the gate judge under a policy with allow_new_contract: true"
        if fits_both
        else "no request fits both, serve it under a new name"
    )
    return f"expected the champion's contract, found another: {'; '.join(found)}; {advice}"


def exchangeable(candidate: Model, champion: Model) -> bool:
    """Whether both take the same tensors and answer as many classes, even if these mean something else."""
    ours, theirs = ((one.input.dtype, one.input.shape, len(one.classes)) for one in (candidate, champion))
    return ours == theirs


def unread(champion: InputSpec, columns: Iterable[Column]) -> tuple[str, ...]:
    """The columns that the champion reads and that a delivery with these `columns` does not have."""
    delivered = {column.name for column in columns}
    named = [column for column in champion.columns if column.kind != "text"]
    return tuple(column.name for column in named if (column.indicates or column.name) not in delivered)


def in_order_of(
    champion: Sequence[Column], columns: Sequence[Column], *, new_categories: bool = False
) -> tuple[Column, ...]:
    """The columns of a delivery as the champion's contract has them: by name in its order, with its categories.

    A value that the champion does not know is none of its categories; with `new_categories` it gets a place after
    them. What only the delivery has comes last, in its own order; what the delivery lacks is left out, except where a
    column indicates missing cells, of which a delivery may have none.
    """
    own, fixed = {column.name: column for column in columns}, {column.name: column for column in champion}
    computed = {name: column for name, column in fixed.items() if column.indicates in own and name not in own}
    known = own | computed
    order = [*(name for name in fixed if name in known), *(name for name in own if name not in fixed)]
    return tuple(_as_the_champion(fixed.get(name), known[name], new_categories) for name in order)


def _as_the_champion(fixed: Column | None, column: Column, new_categories: bool) -> Column:
    """The column with the champion's categories, and its value for missing cells where it has none of its own."""
    if fixed is None or kind_of(fixed) != kind_of(column):
        return column
    added = unknown_categories(fixed, column) if new_categories else ()
    fill = fixed.fill if column.fill is None else column.fill
    return column.model_copy(update={"categories": (*fixed.categories, *added), "fill": fill})


def unknown_categories(fixed: Column, column: Column) -> tuple[str, ...]:
    """The categories of a delivered column that a model's column does not have."""
    return tuple(value for value in column.categories if value not in fixed.categories)


def published(document: Model) -> dict[str, Any]:
    """The contract for clients, as JSON values: what every server and MLflow show of a model.

    `columns` in order (tables and messages), `range` (images: the delivered values that become the lowest and the
    highest input), `classes` in order and, where a threshold decides, the `operating_point`.
    """
    spec, point = document.input, document.operating_point
    decides = {} if point is None else {"operating_point": json.loads(point.published)}
    inputs = {"columns": columns_for_clients(spec)} if spec.columns else {"range": [spec.raw_lower, spec.raw_upper]}
    return {**inputs, "classes": list(document.classes), **decides}


def as_texts(document: Model) -> dict[str, str]:
    """`published` with each value as JSON: the protocols' parameters hold texts."""
    return {name: json.dumps(value, ensure_ascii=False) for name, value in published(document).items()}


def columns_for_clients(spec: InputSpec) -> list[dict[str, Any]]:
    """The columns in order: `name`, `kind`, `at` (the first place that it takes in a row) and what else matters.

    A category takes one place for each of its `categories`, in their order: 1 for the value that it has, 0 for the
    others. A date is in seconds since 1970-01-01T00:00:00Z. A missing value becomes that of `missing`; without the key
    it is refused. A column that `indicates` another is 1 where the value of that was missing, else 0.
    """
    found: list[dict[str, Any]] = []
    at = 0
    for column in spec.columns:
        found.append({"name": column.name, "kind": kind_of(column), "at": at, **_more_of(column)})
        at += len(column.categories) if column.kind == "category" else 1
    return found


def kind_of(column: Column) -> str:
    """What the values of a column are, for people and clients."""
    return "date" if column.datetime else column.kind


def _more_of(column: Column) -> dict[str, Any]:
    categories = {"categories": list(column.categories)} if column.kind == "category" else {}
    missing = {} if column.fill is None else {"missing": column.fill}
    return {**categories, **missing, **({"indicates": column.indicates} if column.indicates else {})}


def other_kinds(champion: InputSpec, columns: Iterable[Column]) -> tuple[tuple[str, str], ...]:
    """The columns of a delivery that the champion reads as another kind: their names, and how they differ."""
    fixed = {column.name: column for column in champion.columns}
    shared = [(column, fixed[column.name]) for column in columns if column.name in fixed]
    return tuple((ours.name, _kinds(ours, theirs)) for ours, theirs in shared if kind_of(ours) != kind_of(theirs))


def _kinds(ours: Column, theirs: Column) -> str:
    return f"{ours.name!r} is a {kind_of(ours)}, for the champion a {kind_of(theirs)}"


def _columns(ours: InputSpec, theirs: InputSpec) -> Iterator[str]:
    if ours.one_message and theirs.one_message:
        return  # messages are sent without the name of their column
    own, fixed = ({column.name: column for column in spec.columns} for spec in (ours, theirs))
    # Where a column indicates missing cells, their value is a mean of the training rows, which moves a little.
    indicated = {column.indicates for column in (*ours.columns, *theirs.columns)}
    gone, added = [name for name in fixed if name not in own], [name for name in own if name not in fixed]
    if gone:
        yield f"the champion reads {quoted(gone)}, the candidate does not"
    if added:
        yield f"the candidate reads {quoted(added)}, the champion does not"
    shared = [name for name in own if name in fixed]
    if shared != (theirs_first := [name for name in fixed if name in own]):
        yield f"the candidate's columns are in the order {quoted(shared)}, the champion's in {quoted(theirs_first)}"
    for name in shared:
        yield from _column(own[name], fixed[name], indicated=name in indicated)


def _column(ours: Column, theirs: Column, *, indicated: bool) -> Iterator[str]:
    if kind_of(ours) != kind_of(theirs):
        yield _kinds(ours, theirs)
        return
    if ours.categories != theirs.categories:
        yield from _category_sets(ours, theirs)
    if ours.fill != theirs.fill and not indicated:
        yield f"a missing {ours.name!r} {_missing(ours)}, for the champion it {_missing(theirs)}"
    if ours.indicates != theirs.indicates:
        yield f"{ours.name!r} indicates {ours.indicates!r}, for the champion {theirs.indicates!r}"


def _missing(column: Column) -> str:
    return "is refused" if column.fill is None else f"becomes {column.fill!r}"


def _category_sets(ours: Column, theirs: Column) -> Iterator[str]:
    added, gone = unknown_categories(theirs, ours), unknown_categories(ours, theirs)
    if added:
        yield f"{ours.name!r} has the categories {quoted(added)}, which the champion does not know"
    if gone:
        yield f"{ours.name!r} does not have the champion's categories {quoted(gone)}"
    if not added and not gone:
        yield f"the categories of {ours.name!r} are in the order {quoted(ours.categories)}, the champion's in another"


def _encoding(ours: InputSpec, theirs: InputSpec) -> Iterator[str]:
    """What can differ where no column does."""
    if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
        yield f"the candidate takes {_tensor(ours)}, the champion {_tensor(theirs)}"
    if (ours.raw_lower, ours.raw_upper) != (theirs.raw_lower, theirs.raw_upper):
        yield f"delivered values are {_range(ours)}, for the champion {_range(theirs)}"
    if not ours.columns and [f.name for f in ours.features] != [f.name for f in theirs.features]:
        yield "the candidate's features have other names than the champion's"


def _tensor(spec: InputSpec) -> str:
    return f"{spec.dtype}[N, {', '.join(map(str, spec.shape))}]"


def _range(spec: InputSpec) -> str:
    return f"between {spec.raw_lower:g} and {spec.raw_upper:g}"


def _classes(ours: Sequence[str], theirs: Sequence[str]) -> Iterator[str]:
    if ours == theirs:
        return
    if sorted(ours) == sorted(theirs):
        yield f"the candidate's classes are in the order {quoted(ours)}, the champion's in {quoted(theirs)}"
    else:
        yield f"the candidate answers {quoted(ours)}, the champion {quoted(theirs)}"


def _decisions(candidate: Model, champion: Model) -> Iterator[str]:
    ours, theirs = (_rule(one.operating_point) for one in (candidate, champion))
    if ours != theirs:
        yield f"the candidate answers {ours}, the champion {theirs}"


def _rule(point: OperatingPoint | None) -> str:
    return "the largest logit" if point is None else f"{point.positive!r} above a threshold ({point.rule})"
