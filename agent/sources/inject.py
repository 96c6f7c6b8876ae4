"""Faults injected on top of real rows, for rehearsals; always named as injected.

Each fault concerns one feature and the rows from_row ≤ n < to_row, counted from the start of the
replay.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any, Literal

from shoal.errors import InvalidInputError

KINDS = ("offset", "scale", "stuck", "missing", "noise")


@dataclass(frozen=True, slots=True)
class Fault:
    """offset adds `value`, scale multiplies, stuck replaces, missing removes, noise adds
    normal noise with standard deviation `value`."""

    feature: str
    kind: Literal["offset", "scale", "stuck", "missing", "noise"]
    value: float = 0.0
    from_row: int = 0
    to_row: int = 2**62

    def apply(self, value: float, noise: random.Random) -> float:
        """Return what the faulty sensor says."""
        match self.kind:
            case "offset":
                return value + self.value
            case "scale":
                return value * self.value
            case "stuck":
                return self.value
            case "missing":
                return math.nan
            case "noise":
                return value + noise.gauss(0.0, self.value)

    def describe(self) -> str:
        """In words, for the event that announces it."""
        rows = f"from row {self.from_row}"
        return f"injected fault: {self.feature} {self.kind} {self.value:g} {rows}"


def parse_faults(tables: list[dict[str, Any]]) -> list[Fault]:
    """Read the `inject` tables of a source."""
    faults = []
    for number, table in enumerate(tables):
        if table.get("kind") not in KINDS:
            raise InvalidInputError(
                f"source.inject[{number}].kind {table.get('kind')!r}: "
                f"expected one of {', '.join(KINDS)}"
            )
        try:
            faults.append(Fault(**table))
        except TypeError as error:
            raise InvalidInputError(f"source.inject[{number}]: {error}") from error
    return faults
