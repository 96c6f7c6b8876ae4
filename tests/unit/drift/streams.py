"""Short streams for tests: windows an hour apart, so that a day has 24."""

from __future__ import annotations

import numpy as np

from controller.drift.sequential import Detector, Rule, Standing

RULE = Rule(bucket_seconds=3600, learn_days=6, harmonics=1)


def detector(rows=1, columns=1, rule=RULE):
    found = Detector(rule, np.full(columns, 0.005), np.ones(columns))
    found.resize(rows)
    return found


def weights(rows, value=300.0):
    return np.full(rows, value)


def feed(found, values, start=0):
    """Step through values (windows, rows, columns); return the standings."""
    rows = values.shape[1]
    return np.array(
        [found.step(start + i, one, weights(rows)).standing for i, one in enumerate(values)]
    )


def season(count, start=0):
    return np.sin(2 * np.pi * (np.arange(start, start + count) + 0.5) / 24)


def drifting(standings):
    return standings == Standing.DRIFTING
