"""Group gates: how many bad releases a canary stops, and how many harmless ones.

Each seed is a rollout of its own: 50 canary devices, 150 controls, 30 one-minute windows before
the release and 30 after, looked at every 5. Devices differ (offsets 0.3 σ, error rates and
latencies by a third), streams are AR(1) 0.9 with a daily season that moves on meanwhile. The same
traces go through two customary rules: hawkBit's count of failed devices, and Kayenta's
Mann-Whitney on pooled windows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from benchmarks.figure import Figure, Options, figure
from controller.rollouts.inference import LOOKS, Side, compare, look_level

Array = NDArray[np.float64]

CANARY = 50
CONTROL = 150
WINDOWS = 30
WINDOW_ROWS = 60
BASE_ERRORS = 0.01
MARGINS = {"errors": 0.005, "latency": math.log(1.1), "prediction": 0.1}


@dataclass(frozen=True, slots=True)
class Harm:
    """What a release does to its devices."""

    errors: float = 0.0
    """Added share of failed rows."""
    latency: float = 0.0
    """Added share of p95."""
    prediction: float = 0.0
    """Shift of the answers, in deviations."""


HARMS = (Harm(errors=0.02), Harm(latency=0.25), Harm(prediction=0.3))


@dataclass(frozen=True, slots=True)
class Trace:
    """What devices reported, each (devices, 2 × windows); canaries first."""

    errors: Array
    latency: Array
    prediction: Array


def bad_release_stopped(options: Options) -> Figure:
    """Share of bad releases stopped, the least of three kinds of harm."""
    seeds = int(options.scaled(400, 40))
    shares = [_share(harm, seeds, our_gates) for harm in HARMS]
    return replace(figure("bad_release_stopped", "ratio", shares), value=round(min(shares), 4))


def harmless_release_stopped(options: Options) -> Figure:
    """Share of harmless releases stopped."""
    seeds = int(options.scaled(2000, 60))
    return figure("harmless_release_stopped", "ratio", [_share(Harm(), seeds, our_gates)])


def hawkbit_bad_passed(options: Options) -> Figure:
    """Share of releases that fail on 15 % of devices and pass hawkBit's rule: 10 devices, 10 %."""
    random = np.random.default_rng(1)
    failed = random.random((int(options.scaled(20_000, 2000)), 10)) < 0.15
    return figure("hawkbit_bad_passed", "ratio", [float((failed.mean(axis=1) <= 0.1).mean())])


def kayenta_harmless_stopped(options: Options) -> Figure:
    """Share of harmless releases stopped by Mann-Whitney, p < 0.02, on pooled windows, one look."""
    seeds = int(options.scaled(1000, 40))
    return figure("kayenta_harmless_stopped", "ratio", [_share(Harm(), seeds, kayenta)])


def _share(harm: Harm, seeds: int, stops: object) -> float:
    assert callable(stops)
    return sum(bool(stops(simulate(seed, harm))) for seed in range(seeds)) / seeds


def our_gates(trace: Trace) -> bool:
    """Whether any look of the product's test finds harm."""
    level = look_level(metrics=len(MARGINS))
    for look in range(1, LOOKS + 1):
        until = WINDOWS + WINDOWS * look // LOOKS
        for name, margin in MARGINS.items():
            values = getattr(trace, name)
            change = values[:, WINDOWS:until].mean(axis=1) - values[:, :WINDOWS].mean(axis=1)
            side: Side = "both" if name == "prediction" else "above"
            found = compare(
                change[:CANARY].tolist(), change[CANARY:].tolist(),
                margin=margin, level=level, side=side,
            )  # fmt: skip
            if found is not None and found.harmful:
                return True
    return False


def kayenta(trace: Trace) -> bool:
    """Mann and Whitney's test of all windows of the canary against the control's."""
    for values in (trace.errors, trace.latency, trace.prediction):
        canary, control = values[:CANARY, WINDOWS:].ravel(), values[CANARY:, WINDOWS:].ravel()
        ranks = np.concatenate([canary, control]).argsort().argsort() + 1.0
        n, m = len(canary), len(control)
        u = ranks[:n].sum() - n * (n + 1) / 2
        z = (u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)
        if 2 * NormalDist().cdf(-abs(z)) < 0.02:
            return True
    return False


def simulate(seed: int, harm: Harm) -> Trace:
    """One rollout's traces."""
    random = np.random.default_rng(seed)
    devices, count = CANARY + CONTROL, 2 * WINDOWS
    after = np.zeros((devices, count), bool)
    after[:CANARY, WINDOWS:] = True
    rates = BASE_ERRORS * np.exp(random.standard_normal((devices, 1)) / 3)
    rates = np.where(after, rates + harm.errors, rates)
    errors = random.binomial(WINDOW_ROWS, np.minimum(rates, 1)) / WINDOW_ROWS
    level = random.standard_normal((devices, 1)) / 3
    latency = level + 0.15 * _ar(random, devices, count, 0.5)
    latency = latency + np.where(after, math.log1p(harm.latency), 0.0)
    season = 0.7 * np.sin(2 * np.pi * (np.arange(count) / 1440 + random.random()))
    prediction = 0.3 * random.standard_normal((devices, 1)) + season
    prediction = prediction + _window_means(random, devices, count)
    return Trace(errors, latency, prediction + np.where(after, harm.prediction, 0.0))


def _window_means(random: np.random.Generator, devices: int, count: int) -> Array:
    """Means of windows of AR(1) 0.9 rows: their deviation is that of 60 such rows."""
    rho = 0.9
    deviation = math.sqrt((1 + rho) / (1 - rho) / WINDOW_ROWS)
    return deviation * _ar(random, devices, count, 0.15)  # neighbours share their border's rows


def _ar(random: np.random.Generator, devices: int, count: int, rho: float) -> Array:
    noise = random.standard_normal((devices, count))
    for index in range(1, count):
        noise[:, index] = rho * noise[:, index - 1] + (1 - rho**2) ** 0.5 * noise[:, index]
    return noise


MEASUREMENTS = {
    "bad_release_stopped": bad_release_stopped,
    "harmless_release_stopped": harmless_release_stopped,
    "hawkbit_bad_passed": hawkbit_bad_passed,
    "kayenta_harmless_stopped": kayenta_harmless_stopped,
}
