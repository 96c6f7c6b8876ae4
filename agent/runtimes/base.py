"""What a worker asks of a runtime: an adapter that loads files, and engines that run them.

A third party adds a runtime with an entry point in the group `shoal.runtimes`, whose name is
`<kind>.<name>` (`tflite.armnn`) and whose object is an `Adapter`. Only workers import it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agent.runtime_error import RuntimeLoadError

Floats = NDArray[np.float32]

__all__ = ["Adapter", "Engine", "Floats", "RuntimeLoadError"]


class Engine(Protocol):
    """One loaded model with a single input and a first output, run row by row."""

    name: str
    version: str
    kernels: str
    """Family that golden tolerances are told apart by: xnnpack, reference, onnxruntime, numpy."""
    input_values: int
    """Numbers in one input (the batch dimension is 1)."""
    output_values: int

    def run(self, inputs: Floats) -> Floats:
        """Run inputs (n, input_values) in real units; return outputs (n, output_values)."""
        ...


class Adapter(Protocol):
    """How one runtime is reached."""

    @property
    def name(self) -> str:
        """Its name in facts and windows, e.g. ai-edge-litert."""
        ...

    @property
    def kind(self) -> str:
        """What a variant's `runtime` calls its files: tflite, onnx, numpy, …"""
        ...

    def available(self) -> bool:
        """Whether it can be used here; imports what it needs."""
        ...

    def load(self, path: Path, num_threads: int) -> Engine:
        """Load a file; every refusal is a `RuntimeLoadError`."""
        ...
