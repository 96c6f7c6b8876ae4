"""The closed list of steps around a model: raw rows to tensor, tensor to named outputs.

Shared by the author's side (golden samples, baseline of outputs) and the device's worker, so
both give the same numbers. Needs numpy; the resident agent never imports it.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

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
    Threshold,
    WindowFeatures,
)

Floats = NDArray[np.float32]


def fill_missing(contract: Contract, rows: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Apply the missing rules: return rows with filled values, and which rows are usable.

    `rows` is (n, features), NaN where missing.
    """
    missing = np.isnan(rows)
    if not missing.any():
        return rows, np.ones(len(rows), bool)
    fills = np.array([f.missing == "fill" for f in contract.features])
    values = np.array([f.fill for f in contract.features], np.float32)
    filled = np.where(missing & fills, values, rows)
    return filled, ~(missing & ~fills).any(axis=1)


def window_starts(contract: Contract, rows: int) -> range:
    """First rows of the windows that fit into `rows` rows."""
    return range(0, rows - contract.window_rows + 1, contract.stride_rows)


def preprocess(contract: Contract, rows: Floats) -> Floats:
    """Return the input tensor, (windows, values), of rows (n, features)."""
    width = len(contract.features)
    if rows.ndim != 2 or rows.shape[1] != width:
        raise InvalidInputError(f"rows: expected (n, {width}), got {rows.shape}")
    values = rows.astype(np.float32, copy=False)
    columns = [feature.name for feature in contract.features] if contract.preprocess else []
    windowed = False
    for step in contract.preprocess:
        if isinstance(step, WindowFeatures):
            values, windowed = statistics(step, _windows(contract, values)), True
        elif isinstance(step, Spectrum):
            values, windowed = spectrum(step, _windows(contract, values)), True
        else:
            values = _row_step(step, values, columns)
    if windowed:
        return np.ascontiguousarray(values)
    if contract.window_rows == 1 and contract.stride_rows == 1:
        return np.ascontiguousarray(values)
    windows = _windows(contract, values)
    # the width in full: -1 cannot be told from no window at all
    return np.ascontiguousarray(windows.reshape(len(windows), windows.shape[1] * windows.shape[2]))


def _windows(contract: Contract, values: Floats) -> Floats:
    """(windows, window_rows, columns) of rows (n, columns)."""
    starts = np.fromiter(window_starts(contract, len(values)), np.intp)
    windows: Floats = values[starts[:, None] + np.arange(contract.window_rows)]
    return windows


def _row_step(step: PreStep, values: Floats, columns: list[str]) -> Floats:
    """One step on rows; `columns` follows what one_hot moves."""
    if isinstance(step, Scale):
        mean, std = np.asarray(step.mean, np.float32), np.asarray(step.std, np.float32)
        scaled: Floats = ((values - mean) / std).astype(np.float32, copy=False)
        return scaled
    if isinstance(step, Clip):
        return np.clip(values, np.float32(step.low), np.float32(step.high))
    if isinstance(step, Log):
        raised = np.maximum(values + np.float32(step.offset), np.float32(step.floor))
        named = np.isin(columns, step.features) if step.features else np.bool_(True)
        changed: Floats = np.where(named, np.log(raised), values).astype(np.float32, copy=False)
        return changed
    if isinstance(step, Binarise):
        at = columns.index(step.feature)
        values = values.copy()
        values[:, at] = values[:, at] > step.above
        return values
    assert isinstance(step, OneHot)
    at = columns.index(step.feature)
    hot = (values[:, [at]] == np.asarray(step.values, np.float32)).astype(np.float32)
    columns.remove(step.feature)
    columns += [""] * len(step.values)
    rest: Floats = np.delete(values, at, axis=1)
    return np.concatenate([rest, hot], axis=1)


def statistics(step: WindowFeatures, windows: Floats) -> Floats:
    """Statistics of each column of windows (n, rows, columns), column by column."""
    mean, std = windows.mean(axis=1), windows.std(axis=1)
    rms = np.sqrt(np.mean(windows**2, axis=1))
    low, high = windows.min(axis=1), windows.max(axis=1)
    peak = np.abs(windows).max(axis=1)
    safe = np.where(std > 0, std, 1)
    fourth = np.mean(((windows - mean[:, None]) / safe[:, None]) ** 4, axis=1)
    known = {
        "mean": mean,
        "std": std,
        "rms": rms,
        "min": low,
        "max": high,
        "peak_to_peak": high - low,
        "crest": peak / np.where(rms > 0, rms, 1),
        "kurtosis": np.where(std > 0, fourth, 0),
        "last": windows[:, -1],
    }
    found = np.stack([known[name] for name in step.statistics], axis=2)
    return found.reshape(len(windows), found.shape[1] * found.shape[2]).astype(np.float32)


def spectrum(step: Spectrum, windows: Floats) -> Floats:
    """Mean amplitude of each column in equal bands; a sine in one band shows its amplitude there,
    spread over the lines of the band."""
    rows = windows.shape[1]
    taper = np.hanning(rows)
    centred = (windows - windows.mean(axis=1, keepdims=True)) * taper[:, None]
    lines = np.abs(np.fft.rfft(centred, axis=1))[:, 1:] * (2 / taper.sum())
    edges = np.linspace(0, lines.shape[1], step.bands + 1).astype(int)
    bands = [lines[:, a:b].mean(axis=1) for a, b in itertools.pairwise(edges)]
    found = np.stack(bands, axis=2)  # (n, columns, bands)
    return found.reshape(len(windows), found.shape[1] * found.shape[2]).astype(np.float32)


def postprocess(
    contract: Contract, inputs: Floats, outputs: Floats
) -> tuple[Floats, list[str] | None]:
    """Return the contract's output values, (windows, outputs), and a label a window if any.

    `inputs` is what `preprocess` gave, `outputs` the model's first output tensor, both
    (windows, …).
    """
    tensor = outputs.reshape(len(outputs), -1).astype(np.float32, copy=False)
    named: dict[str, Floats] = {}
    labels: list[str] | None = None
    for step in contract.postprocess:
        if isinstance(step, ReconstructionError):
            _same_width(inputs, tensor)
            named[step.field] = np.mean((inputs - tensor) ** 2, axis=1, dtype=np.float32)
        elif isinstance(step, Softmax):
            raised = np.exp(tensor - tensor.max(axis=1, keepdims=True))
            tensor = raised / raised.sum(axis=1, keepdims=True)
        elif isinstance(step, Sigmoid):
            with np.errstate(over="ignore"):  # 1 / inf is the 0 that is meant
                tensor = (1 / (1 + np.exp(-tensor))).astype(np.float32, copy=False)
        elif isinstance(step, Dequantise):
            tensor = (tensor - np.float32(step.zero)) * np.float32(step.scale)
        elif isinstance(step, ClassScores):
            best = tensor.argmax(axis=1)
            named[step.field] = tensor[np.arange(len(tensor)), best]
            labels = [step.classes[i] if i < len(step.classes) else str(i) for i in best]
        elif isinstance(step, RawOutputs):
            named |= {name: tensor[:, i] for i, name in enumerate(step.fields)}
        elif isinstance(step, Rescale):
            named[step.field] = named[step.field] * np.float32(step.gain) + np.float32(step.offset)
        elif isinstance(step, Threshold):
            above = named[step.field] > step.above
            labels = [step.label if is_above else step.otherwise for is_above in above]
    try:
        columns = [named[output.name] for output in contract.outputs]
    except KeyError as error:
        raise InvalidInputError(f"contract: no step gives output {error}") from error
    return np.stack(columns, axis=1).astype(np.float32, copy=False), labels


def _same_width(inputs: Floats, tensor: Floats) -> None:
    if inputs.shape != tensor.shape:
        raise InvalidInputError(
            f"reconstruction_error: input {inputs.shape} and output {tensor.shape} differ"
        )
