"""The closed list of steps of `shoal.protocol.steps` on lists of numbers, all but `spectrum`.

Rows and windows are lists of float; numbers are float64 here and float32 in `shoal.steps`, so
answers differ by no more than float32 rounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from shoal.errors import InvalidInputError
from shoal.protocol.manifest import Contract
from shoal.protocol.steps import (
    Binarise,
    ClassScores,
    Clip,
    Dequantise,
    Log,
    OneHot,
    PreStep,
    RawOutputs,
    ReconstructionError,
    Rescale,
    Scale,
    Sigmoid,
    Softmax,
    Spectrum,
    Statistic,
    Threshold,
    WindowFeatures,
)

Row = Sequence[float]
"""An `array` as it came, a list once something was computed."""


def is_supported(contract: Contract) -> bool:
    """Whether every step is known here; a Fourier transform without numpy would be too slow."""
    return not any(isinstance(step, Spectrum) for step in contract.preprocess)


def fill_missing(contract: Contract, rows: Sequence[Row]) -> tuple[list[Row], list[bool]]:
    """Apply the missing rules: rows with filled values, and which rows are usable."""
    filled, usable = [], []
    for row in rows:
        if not math.isnan(sum(row)) or not any(map(math.isnan, row)):
            filled.append(row)
            usable.append(True)
            continue
        fields = zip(row, contract.features, strict=True)
        new = [
            feature.fill if math.isnan(value) and feature.missing == "fill" else value
            for value, feature in fields
        ]
        filled.append(new)
        usable.append(not any(map(math.isnan, new)))
    return filled, usable


def preprocess(contract: Contract, rows: Sequence[Row]) -> list[Row]:
    """Return the input tensors, one flat list a window, of rows."""
    columns = [feature.name for feature in contract.features]
    values, windowed = list(rows), False
    for step in contract.preprocess:
        if isinstance(step, WindowFeatures):
            values = [_statistics(step, one) for one in _windows(contract, values)]
            windowed = True
        else:
            change = _row_step(step, columns)
            values = [change(row) for row in values]
    if windowed or (contract.window_rows == 1 and contract.stride_rows == 1):
        return values
    return [[value for row in one for value in row] for one in _windows(contract, values)]


def _windows(contract: Contract, rows: list[Row]) -> list[list[Row]]:
    starts = range(0, len(rows) - contract.window_rows + 1, contract.stride_rows)
    return [rows[start : start + contract.window_rows] for start in starts]


def _row_step(step: PreStep, columns: list[str]) -> Callable[[Row], Row]:
    """One step as a function of a row; `columns` follows what one_hot moves."""
    if isinstance(step, Scale):
        both = list(zip(step.mean, step.std, strict=True))
        return lambda row: [(v - m) / s for v, (m, s) in zip(row, both, strict=True)]
    if isinstance(step, Clip):
        low, high = step.low, step.high
        return lambda row: [low if v < low else high if v > high else v for v in row]
    if isinstance(step, Log):
        named = {columns.index(name) for name in step.features} or set(range(len(columns)))
        offset, floor = step.offset, step.floor
        return lambda row: [_log(v + offset, floor) if i in named else v for i, v in enumerate(row)]
    if isinstance(step, Binarise):
        at, above = columns.index(step.feature), step.above
        return lambda row: [*row[:at], float(row[at] > above), *row[at + 1 :]]
    if isinstance(step, OneHot):
        return _one_hot(step, columns)
    raise InvalidInputError(f"contract: step {type(step).__name__} needs numpy", code="needs-numpy")


def _log(value: float, floor: float) -> float:
    return value if math.isnan(value) else math.log(max(value, floor))


def _one_hot(step: OneHot, columns: list[str]) -> Callable[[Row], Row]:
    at, known = columns.index(step.feature), step.values
    columns.remove(step.feature)
    columns += [""] * len(known)
    return lambda row: [*row[:at], *row[at + 1 :], *(float(row[at] == value) for value in known)]


def _statistics(step: WindowFeatures, window: list[Row]) -> Row:
    """Statistics of each column of a window, column by column."""
    found = []
    for column in zip(*window, strict=True):
        known = _column(column)
        found += [known[name] for name in step.statistics]
    return found


def _column(column: Sequence[float]) -> dict[Statistic, float]:
    count = len(column)
    mean = math.fsum(column) / count
    second = math.fsum((v - mean) ** 2 for v in column) / count
    std, rms = math.sqrt(second), math.sqrt(math.fsum(v * v for v in column) / count)
    low, high = min(column), max(column)
    fourth = math.fsum((v - mean) ** 4 for v in column) / count
    return {
        "mean": mean,
        "std": std,
        "rms": rms,
        "min": low,
        "max": high,
        "peak_to_peak": high - low,
        "crest": max(-low, high) / (rms or 1.0),
        "kurtosis": fourth / second**2 if second > 0 else 0.0,
        "last": column[-1],
    }


def postprocess(
    contract: Contract, inputs: Sequence[Row], outputs: Sequence[Row]
) -> tuple[list[Row], list[str] | None]:
    """Return the contract's output values a window, and a label a window if any."""
    answers = [_answer(contract, *both) for both in zip(inputs, outputs, strict=True)]
    labels = [label for _, label in answers if label is not None]
    return [values for values, _ in answers], labels or None


def _answer(contract: Contract, given: Row, tensor: Row) -> tuple[Row, str | None]:
    named: dict[str, float] = {}
    label = None
    for step in contract.postprocess:
        if isinstance(step, ReconstructionError):
            named[step.field] = _mean_squared(given, tensor)
        elif isinstance(step, Softmax):
            tensor = _softmax(tensor)
        elif isinstance(step, Sigmoid):
            tensor = [_sigmoid(value) for value in tensor]
        elif isinstance(step, Dequantise):
            tensor = [(value - step.zero) * step.scale for value in tensor]
        elif isinstance(step, ClassScores):
            best = _best(tensor)
            named[step.field] = tensor[best]
            label = step.classes[best] if best < len(step.classes) else str(best)
        elif isinstance(step, RawOutputs):
            named |= {name: tensor[i] for i, name in enumerate(step.fields)}
        elif isinstance(step, Rescale):
            named[step.field] = named[step.field] * step.gain + step.offset
        elif isinstance(step, Threshold):
            label = step.label if named[step.field] > step.above else step.otherwise
    try:
        return [named[output.name] for output in contract.outputs], label
    except KeyError as error:
        raise InvalidInputError(f"contract: no step gives output {error}") from error


def _mean_squared(given: Row, tensor: Row) -> float:
    if len(given) != len(tensor):
        raise InvalidInputError(
            f"reconstruction_error: input {len(given)} and output {len(tensor)} differ"
        )
    return math.fsum((a - b) ** 2 for a, b in zip(given, tensor, strict=True)) / len(given)


def _softmax(tensor: Row) -> Row:
    if any(map(math.isnan, tensor)) or math.inf in tensor:
        return [math.nan] * len(tensor)
    most = max(tensor)
    if most == -math.inf:
        return [math.nan] * len(tensor)
    raised = [math.exp(value - most) for value in tensor]
    total = math.fsum(raised)
    return [value / total for value in raised]


def _sigmoid(value: float) -> float:
    try:
        return 1 / (1 + math.exp(-value))
    except OverflowError:
        return 0.0


def _best(tensor: Row) -> int:
    """The first highest; a NaN comes before any number, as in numpy."""
    for index, value in enumerate(tensor):
        if math.isnan(value):
            return index
    return max(range(len(tensor)), key=tensor.__getitem__)
