"""What a worker asks of a runtime."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shoal.errors import ShoalError

Floats = NDArray[np.float32]


class RuntimeLoadError(ShoalError):
    """A model that the runtime does not take, or takes for something else than declared."""

    code = "load-failed"


class Engine(Protocol):
    """One loaded model with a single input and a first output, run row by row."""

    name: str
    version: str
    kernels: str
    input_values: int
    """Numbers in one input (the batch dimension is 1)."""
    output_values: int

    def run(self, inputs: Floats) -> Floats:
        """Run inputs (n, input_values) in real units; return outputs (n, output_values)."""
        ...
