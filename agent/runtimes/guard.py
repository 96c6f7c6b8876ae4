"""Checks that hold for every runtime, because none of them makes all.

Seen: tflite-runtime runs a model of 640 inputs on 641 values, takes big-endian numbers for others,
and crashes when two threads share an interpreter or a process forks after making one; integer
models turn NaN into an answer like any other.
"""

from __future__ import annotations

import os
import threading

import numpy as np

from agent.runtimes.base import Engine, Floats, RuntimeLoadError


class Guard:
    """An engine whose inputs and outputs are what they must be.

    A row with NaN in it is not run: its answer is NaN, of every runtime.
    """

    def __init__(self, engine: Engine) -> None:
        self.name, self.version, self.kernels = engine.name, engine.version, engine.kernels
        self.input_values, self.output_values = engine.input_values, engine.output_values
        self._engine = engine
        self._owner = (os.getpid(), threading.get_ident())

    def run(self, inputs: Floats) -> Floats:
        """As `Engine.run`; `RuntimeLoadError` for anything but (n, input_values) float32."""
        self._check(inputs)
        if not len(inputs):
            return np.empty((0, self.output_values), np.float32)
        if not np.isnan(inputs.min()):  # a NaN anywhere makes the minimum one
            return self._run(inputs)
        whole = ~np.isnan(inputs).any(axis=1)
        outputs = np.full((len(inputs), self.output_values), np.nan, np.float32)
        if whole.any():
            outputs[whole] = self._run(inputs[whole])
        return outputs

    def _check(self, inputs: Floats) -> None:
        here = (os.getpid(), threading.get_ident())
        if here != self._owner:
            raise RuntimeLoadError(
                f"{self.name}: loaded in process and thread {self._owner}, run in {here}",
                code="wrong-thread",
            )
        if inputs.dtype != np.float32 or not inputs.dtype.isnative:
            raise RuntimeLoadError(
                f"{self.name}: expected float32 in this machine's byte order, "
                f"got {inputs.dtype.str}",
                code="wrong-tensor",
            )
        if inputs.ndim != 2 or inputs.shape[1] != self.input_values:
            raise RuntimeLoadError(
                f"{self.name}: expected (n, {self.input_values}), got {inputs.shape}",
                code="wrong-tensor",
            )

    def _run(self, inputs: Floats) -> Floats:
        try:
            outputs = self._engine.run(np.ascontiguousarray(inputs))
        except (RuntimeLoadError, MemoryError):  # out of memory: `worker-memory`, not the model
            raise
        except Exception as error:  # of a native library, or of a third party
            raise RuntimeLoadError(
                f"{self.name}: does not run: {' '.join(str(error).split())[:500]}",
                code="invoke-failed",
            ) from error
        if outputs.shape != (len(inputs), self.output_values) or outputs.dtype != np.float32:
            raise RuntimeLoadError(
                f"{self.name}: expected {(len(inputs), self.output_values)} float32, "
                f"got {outputs.shape} {outputs.dtype}",
                code="wrong-tensor",
            )
        return outputs
