"""A dense autoencoder, trained in numpy: seeded, deterministic, a second on a gateway's data.

The score of a row is the mean squared difference between the standardised row and what the
network makes of it. Whoever uses one should look at a z-score beside it (`evaluate.z_scores`):
on many sensor streams the simple rule is nearly as good.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shoal.errors import InvalidInputError
from shoal.tflite.writer import Dense, forward

Floats = NDArray[np.float32]
LIMIT = 10.0
"""Standardised inputs are clipped to ±LIMIT in training and on the device, so that one wild
value cannot use up the int8 range."""


@dataclass(frozen=True, slots=True)
class Autoencoder:
    """Layers from and to standardised windows of `window_rows` rows, flattened."""

    layers: list[Dense]
    mean: Floats
    std: Floats
    window_rows: int = 1

    def standardise(self, rows: Floats) -> Floats:
        """Rows (n, features) to the network's inputs (windows, window_rows × features)."""
        scaled = np.clip((rows - self.mean) / self.std, -LIMIT, LIMIT).astype(np.float32)
        return windows_of(scaled, self.window_rows)

    def score(self, rows: Floats) -> Floats:
        """Reconstruction error of each window."""
        inputs = self.standardise(rows)
        errors: Floats = np.mean((inputs - forward(self.layers, inputs)[-1]) ** 2, axis=1)
        return errors


def windows_of(rows: Floats, window_rows: int) -> Floats:
    """All windows with stride 1, flattened row by row."""
    if window_rows == 1:
        return rows
    count = len(rows) - window_rows + 1
    index = np.arange(count)[:, None] + np.arange(window_rows)
    windows: Floats = rows[index].reshape(count, -1)
    return windows


def train_autoencoder(
    rows: Floats,
    hidden: tuple[int, ...] = (8, 3, 8),
    *,
    window_rows: int = 1,
    epochs: int = 60,
    seed: int = 1,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Autoencoder:
    """Train on complete rows (n, features); rows with a missing value are left out.

    Adam with batches of 64; `on_epoch(number, loss)` is told the mean squared error.
    """
    rows = rows[np.isfinite(rows).all(axis=1)].astype(np.float32)
    if len(rows) < 10 * max(window_rows, 1):
        raise InvalidInputError(f"training data: {len(rows)} complete rows, at least 10 needed")
    std = rows.std(axis=0)
    model = Autoencoder([], rows.mean(axis=0), np.where(std > 1e-6, std, 1.0), window_rows)
    inputs = model.standardise(rows)
    random = np.random.default_rng(seed)
    sizes = [inputs.shape[1], *hidden, inputs.shape[1]]
    parameters = _initial(sizes, random)
    adam = _Adam(parameters)
    for epoch in range(1, epochs + 1):
        losses = []
        rate = 0.01 * (1 - 0.9 * epoch / epochs)
        for batch in np.array_split(random.permutation(len(inputs)), max(len(inputs) // 64, 1)):
            loss, gradients = _gradients(parameters, inputs[batch])
            adam.step(gradients, rate)
            losses.append(loss)
        on_epoch(epoch, float(np.mean(losses)))
    last = len(sizes) - 2
    layers = [
        Dense(w.T.astype(np.float32).copy(), b.astype(np.float32), relu=i < last)
        for i, (w, b) in enumerate(zip(parameters[::2], parameters[1::2], strict=True))
    ]
    return Autoencoder(layers, model.mean, model.std.astype(np.float32), window_rows)


def _initial(sizes: list[int], random: np.random.Generator) -> list[NDArray[np.float64]]:
    parameters: list[NDArray[np.float64]] = []
    for inputs, outputs in itertools.pairwise(sizes):
        parameters.append(random.normal(0, np.sqrt(2 / inputs), (inputs, outputs)))
        parameters.append(np.full(outputs, 0.01))
    return parameters


def _gradients(
    parameters: list[NDArray[np.float64]], inputs: Floats
) -> tuple[float, list[NDArray[np.float64]]]:
    weights, biases = parameters[::2], parameters[1::2]
    values: list[NDArray[np.float64]] = [inputs.astype(np.float64)]
    for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
        made = values[-1] @ w + b
        values.append(np.maximum(made, 0) if i < len(weights) - 1 else made)
    error = values[-1] - inputs
    slope = 2 * error / error.size
    gradients: list[NDArray[np.float64]] = []
    for i in reversed(range(len(weights))):
        gradients[:0] = [values[i].T @ slope, slope.sum(axis=0)]
        slope = (slope @ weights[i].T) * (values[i] > 0)
    return float((error**2).mean()), gradients


class _Adam:
    """Kingma and Ba's Adam with its published defaults."""

    def __init__(self, parameters: list[NDArray[np.float64]]) -> None:
        self._parameters = parameters
        self._first = [np.zeros_like(p) for p in parameters]
        self._second = [np.zeros_like(p) for p in parameters]
        self._steps = 0

    def step(self, gradients: list[NDArray[np.float64]], rate: float) -> None:
        self._steps += 1
        for p, g, m, v in zip(self._parameters, gradients, self._first, self._second, strict=True):
            m += 0.1 * (g - m)
            v += 0.001 * (g * g - v)
            corrected = m / (1 - 0.9**self._steps)
            p -= rate * corrected / (np.sqrt(v / (1 - 0.999**self._steps)) + 1e-8)
