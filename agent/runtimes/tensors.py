"""Between real units and what a TFLite tensor holds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.runtimes.base import Floats, RuntimeLoadError


class TensorCodec:
    """An input or output tensor and its affine quantisation, if any."""

    def __init__(
        self, what: str, shape: tuple[int, ...], dtype: Any, scale: float, zero: int
    ) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.values = int(np.prod(shape))
        self._scale, self._zero = np.float32(scale), zero
        if self.dtype != np.float32 and self.dtype.kind not in "iu":
            raise RuntimeLoadError(
                f"{what}: expected float32 or integers, got {self.dtype}", code="wrong-tensor"
            )

    def encode(self, values: Floats) -> NDArray[Any]:
        """Rows of real numbers, none of them NaN, as rows of the tensor's values."""
        if self.dtype == np.float32:
            return values
        limits = np.iinfo(self.dtype)
        # in place from here on: a micro-batch may be megabytes
        real = values / self._scale if self._scale else values.copy()
        if self._scale:
            np.rint(real, out=real)
            real += np.float32(self._zero)
        # the ends of 32 bits are no float32: the next larger one would wrap around
        exact = real if self.dtype.itemsize < 4 else real.astype(np.float64)
        encoded: NDArray[Any] = np.clip(exact, limits.min, limits.max, out=exact).astype(self.dtype)
        return encoded

    def decode(self, values: NDArray[Any]) -> Floats:
        """Rows of the tensor's values as real numbers."""
        if self.dtype == np.float32:
            return values
        real: Floats = values.astype(np.float32)
        if self._scale:
            real -= np.float32(self._zero)
            real *= self._scale
        return real


def check_batch(name: str, shape: tuple[int, ...]) -> None:
    """Refuse an input of more than one row."""
    if not shape or shape[0] != 1:
        raise RuntimeLoadError(
            f"{name}: expected batch size 1, got input shape {shape}", code="wrong-tensor"
        )
