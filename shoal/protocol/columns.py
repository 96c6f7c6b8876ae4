"""Statistics of fields on the wire: a column a number, what follows from others left out.

In memory there is one `FieldStatistics` a field. On the wire their keys would be a third of the
message, so `names`, `mean`, `bins` and the rest are lists side by side. Left out: columns of zeros,
and `count` where every field has `rows` less its missing and non-finite values.

>>> field = FieldStatistics(name="t", count=2, mean=1.0, m2=2.0, min=0.0, max=2.0, bins=[1, 1])
>>> columns = to_columns([field], rows=2)
>>> columns.names, columns.count, columns.bins
(['t'], [], [[1, 1]])
>>> from_columns(columns, rows=2) == [field]
True
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from shoal.errors import InvalidInputError

Count = Annotated[int, Meta(ge=0, le=2**53)]
FieldName = Annotated[str, Meta(max_length=120)]


class FieldStatistics(Struct, kw_only=True, omit_defaults=True):
    """One feature or output in a window, in the baseline's bins.

    `count` finite values went into moments and bins; `missing`, `nonfinite` did not.
    `m2` is the sum of squared deviations from `mean` (Welford), so windows merge exactly.
    """

    name: FieldName
    count: Count
    missing: Count = 0
    nonfinite: Count = 0
    out_of_range: Count = 0
    mean: float = 0.0
    m2: float = 0.0
    min: float | None = None
    max: float | None = None
    bins: list[Count] = []


class Columns(Struct, kw_only=True, omit_defaults=True):
    """The same of several fields; every column that is there is as long as `names`."""

    names: list[FieldName] = []
    count: list[Count] = []
    missing: list[Count] = []
    nonfinite: list[Count] = []
    out_of_range: list[Count] = []
    mean: list[float] = []
    m2: list[float] = []
    min: list[float | None] = []
    max: list[float | None] = []
    bins: list[list[Count]] = []


DEFAULTS: dict[str, Any] = {"min": None, "max": None, "bins": []}
"""Of a field's numbers; of the others 0."""


def to_columns(fields: list[FieldStatistics], rows: int) -> Columns:
    """Put fields side by side."""
    columns = Columns(names=[one.name for one in fields])
    for column in Columns.__struct_fields__[1:]:
        values = [getattr(one, column) for one in fields]
        if any(value != DEFAULTS.get(column, 0) for value in values):
            setattr(columns, column, values)
    follows = all(one.count == rows - one.missing - one.nonfinite for one in fields)
    columns.count = [] if follows else [one.count for one in fields]
    return columns


def from_columns(columns: Columns, rows: int) -> list[FieldStatistics]:
    """Take fields apart again, or raise `InvalidInputError` saying which column does not fit."""
    width = len(columns.names)

    def column(name: str, default: Any) -> Any:
        values = getattr(columns, name)
        if values and len(values) != width:
            raise InvalidInputError(f"{name}: {len(values)} values for {width} names")
        return values or [default] * width

    missing, nonfinite = column("missing", 0), column("nonfinite", 0)
    count = column("count", 0)
    if not columns.count:
        count = [rows - a - b for a, b in zip(missing, nonfinite, strict=True)]
        if min(count, default=0) < 0:
            raise InvalidInputError(f"count: more values missing than the {rows} rows")
    return [
        FieldStatistics(
            name=name,
            count=n,
            missing=a,
            nonfinite=b,
            out_of_range=outside,
            mean=mean,
            m2=m2,
            min=low,
            max=high,
            bins=bins,
        )
        for name, n, a, b, outside, mean, m2, low, high, bins in zip(
            columns.names,
            count,
            missing,
            nonfinite,
            column("out_of_range", 0),
            column("mean", 0.0),
            column("m2", 0.0),
            column("min", None),
            column("max", None),
            column("bins", []),
            strict=True,
        )
    ]
