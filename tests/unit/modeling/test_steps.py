"""From rows to tensors: windows that fit, and none where too few rows are there."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.protocol.manifest import Contract, Feature, OutputField, RawOutputs
from shoal.steps import preprocess


@pytest.mark.parametrize(
    ("rows", "window_rows", "stride_rows", "windows"),
    [(0, 1, 1, 0), (1, 5, 1, 0), (4, 5, 1, 0), (5, 5, 1, 1), (7, 5, 1, 3), (8, 3, 2, 3)],
)
def test_every_window_that_fits_becomes_a_row_of_the_tensor(
    rows, window_rows, stride_rows, windows
):
    contract = Contract(
        features=[Feature(name="a"), Feature(name="b")],
        outputs=[OutputField(name="y")],
        postprocess=[RawOutputs(fields=["y"])],
        window_rows=window_rows,
        stride_rows=stride_rows,
    )
    values = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    tensor = preprocess(contract, values)
    assert tensor.shape == (windows, window_rows * 2)
    for number, row in enumerate(tensor):
        start = number * stride_rows
        assert row.tolist() == values[start : start + window_rows].ravel().tolist()
