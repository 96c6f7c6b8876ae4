"""The closed list of steps around a model: raw rows to tensor, tensor to named outputs.

Shared by the author's side (golden samples, baseline of outputs) and the device's worker, so
both give the same numbers. Needs numpy; the resident agent never imports it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shoal.errors import InvalidInputError
from shoal.protocol.manifest import (
    ClassScores,
    Clip,
    Contract,
    RawOutputs,
    ReconstructionError,
    Scale,
    Softmax,
    Threshold,
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
    """Return the input tensor, (windows, window_rows × features), of rows (n, features)."""
    width = len(contract.features)
    if rows.ndim != 2 or rows.shape[1] != width:
        raise InvalidInputError(f"rows: expected (n, {width}), got {rows.shape}")
    values = rows.astype(np.float32, copy=False)
    for step in contract.preprocess:
        if isinstance(step, Scale):
            mean, std = np.asarray(step.mean, np.float32), np.asarray(step.std, np.float32)
            values = (values - mean) / std
        elif isinstance(step, Clip):
            values = np.clip(values, np.float32(step.low), np.float32(step.high))
    if contract.window_rows == 1 and contract.stride_rows == 1:
        return np.ascontiguousarray(values)
    starts = np.fromiter(window_starts(contract, len(values)), np.intp)
    index = starts[:, None] + np.arange(contract.window_rows)
    # the width in full: -1 cannot be told from no window at all
    return np.ascontiguousarray(values[index].reshape(len(starts), contract.window_rows * width))


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
        elif isinstance(step, ClassScores):
            best = tensor.argmax(axis=1)
            named[step.field] = tensor[np.arange(len(tensor)), best]
            labels = [step.classes[i] if i < len(step.classes) else str(i) for i in best]
        elif isinstance(step, RawOutputs):
            named |= {name: tensor[:, i] for i, name in enumerate(step.fields)}
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
