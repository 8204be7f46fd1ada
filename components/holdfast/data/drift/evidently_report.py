"""Evidently's part: the p-value of each column and the page that a person reads.

Evidently runs one explicit test per column (its defaults change with the number of rows) and renders the result. Its
own tests for categories are not used: chi-square and G compare counts of unequal samples and divide by zero on a
category that the reference lacks; ours is registered with it, so that the page shows the number that decided.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.data.drift.columns import ColumnKind, count, g_test
from holdfast.data.quiet import quiet

if TYPE_CHECKING:
    import pandas as pd

_METHODS: dict[ColumnKind, str] = {"number": "ks", "category": "holdfast_g"}
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}|(?<=metric_)[0-9a-f]{32}")
_HARMLESS = str.maketrans({"<": "‹", ">": "›", "&": "+"})


@dataclass(frozen=True)
class DriftTests:
    """p-value per column, and the page as UTF-8."""

    p_values: dict[str, float]
    html: bytes


def compare(
    reference: "pd.DataFrame", current: "pd.DataFrame", kinds: Mapping[str, ColumnKind], *, threshold: float
) -> DriftTests:
    """Tests every column of `kinds` on the two tables, each at `threshold`; equal tables give equal bytes."""
    with quiet():
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import ValueDrift

        _register_g_test()
        names = _page_names(list(kinds))
        definition = DataDefinition(
            numerical_columns=[names[column] for column, kind in kinds.items() if kind == "number"],
            categorical_columns=[names[column] for column, kind in kinds.items() if kind == "category"],
        )
        sides = [
            Dataset.from_pandas(_for_page(table, kinds, names), data_definition=definition)
            for table in (current, reference)
        ]
        metrics = [
            ValueDrift(column=names[column], method=_METHODS[kind], threshold=threshold)
            for column, kind in kinds.items()
        ]
        snapshot = Report(metrics).run(*sides)
        values = [metric["value"] for metric in snapshot.dict()["metrics"]]
        html = snapshot.get_html_str(as_iframe=False)
    p_values = {column: float(value) for column, value in zip(kinds, values, strict=True)}
    return DriftTests(p_values, steady(html).encode())


def same(columns: Collection[str]) -> DriftTests:
    """The result of `compare` for two equal tables: no test can tell them apart. Its page is one sentence."""
    said = "These are the very rows of the reference, so there was nothing to compare."
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Drift</title><p>{said}</p></html>'
    return DriftTests(dict.fromkeys(columns, 1.0), page.encode())


def library() -> None:
    """Imports Evidently with its metrics and its page; takes seconds."""
    with quiet():
        import evidently.metrics  # noqa: F401


def steady(html: str) -> str:
    """The page with its random element ids replaced by numbers in order of appearance."""
    numbers: dict[str, int] = {}
    return _UUID.sub(lambda found: f"id{numbers.setdefault(found[0], len(numbers)):06d}", html)


def _register_g_test() -> None:
    from evidently.legacy.calculations.stattests.registry import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    test = StatTest(
        name=_METHODS["category"],
        display_name="G-test p_value (rare categories pooled)",
        allowed_feature_types=[ColumnType.Categorical],
        default_threshold=0.01,
    )
    register_stattest(test, _g_test)


def _g_test(reference: "pd.Series", current: "pd.Series", kind: Any, threshold: float) -> tuple[float, bool]:
    p = g_test(count(reference.to_numpy(), current.to_numpy()))
    return p, p < threshold


def _page_names(columns: Sequence[str]) -> dict[str, str]:
    """Names without the characters that mean something in HTML: Evidently writes them into a script unescaped."""
    return dict(zip(columns, _distinct([column.translate(_HARMLESS) for column in columns]), strict=True))


def _distinct(names: Sequence[str]) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        while name in seen:
            name += "'"
        seen.add(name)
        yield name


def _for_page(table: "pd.DataFrame", kinds: Mapping[str, ColumnKind], names: Mapping[str, str]) -> "pd.DataFrame":
    import pandas as pd

    cells = {
        names[column]: table[column].astype(float)
        if kind == "number"
        else table[column].astype(str).str.translate(_HARMLESS)
        for column, kind in kinds.items()
    }
    return pd.DataFrame(cells)
