"""Rows made ready for the model: units, age and order, values held, resampling.

Everything that needs the rows before: it lives in the agent, so that neither a swap nor a lost
worker loses it. Pure; time comes in as an argument. Rows are counted in by `push`, and out either
in a `Stretch`, or in `take_dropped`, once each; `take_made` counts the rows that resampling added.

A release that asks for none of it costs nothing: its samples pass through untouched.
"""

from __future__ import annotations

import array
import itertools
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from agent.pipeline.accounting import FUTURE, OUT_OF_ORDER, STALE
from agent.pipeline.resampling import Resampler
from agent.ports import Samples
from shoal.protocol.manifest import Contract
from shoal.units import Conversion, UnitMismatchError, canonical, conversion

LATE_MS = 5_000
"""A row that is later than this is no straggler: the clock of the source was set back."""
LATE_ROWS = 16
"""So many late rows in a row are no stragglers either."""
GAP_PERIODS = 10


@dataclass(frozen=True, slots=True)
class AgeLimits:
    """How old a row may be when its turn comes, and how far ahead of the clock; 0: any."""

    max_age_seconds: float = 0.0
    max_future_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows that follow each other. `anew`: what was carried before them does not go on."""

    samples: Samples
    anew: bool


def plan_conversions(contract: Contract, units: Mapping[str, str]) -> list[Conversion]:
    """One conversion a feature, or `UnitMismatchError` naming every feature at fault."""
    found, problems = [], []
    for feature in contract.features:
        try:
            found.append(conversion(units.get(feature.name, ""), feature.unit))
        except UnitMismatchError as error:
            problems.append(f"{feature.name}: {error.sentence}")
    if problems:
        raise UnitMismatchError("unit of " + "; unit of ".join(problems))
    return found


def conditions_of(contract: Contract) -> object:
    """What two releases must share for one to go on with rows made ready for the other."""
    features = [
        (one.name, canonical(one.unit), one.max_age_seconds if one.missing == "hold" else None)
        for one in contract.features
    ]
    rate = contract.rate_hz if contract.resample else 0.0
    ordered = contract.window_rows > 1
    return features, ordered, contract.resample, rate, contract.max_gap_seconds


class Conditioner:
    """The state of one contract."""

    def __init__(
        self, contract: Contract, units: Mapping[str, str], limits: AgeLimits | None = None
    ) -> None:
        self._width = len(contract.features)
        planned = plan_conversions(contract, units)
        self._conversions = [(i, one) for i, one in enumerate(planned) if not one.is_identity]
        self._limits = limits or AgeLimits()
        self._holds = [
            (i, feature.max_age_seconds * 1000 or math.inf)
            for i, feature in enumerate(contract.features)
            if feature.missing == "hold"
        ]
        self._held: dict[int, tuple[float, int]] = {}
        self._resampler = None
        if contract.resample:
            self._resampler = Resampler(contract.resample, contract.rate_hz, self._width)
        self._ordered = contract.window_rows > 1 or self._resampler is not None
        gap = contract.max_gap_seconds
        if not gap and self._resampler is not None:
            gap = GAP_PERIODS / contract.rate_hz
        self._max_gap_ms = gap * 1000 or math.inf
        self._last_ms: int | None = None
        self._late = 0
        self._dropped: Counter[str] = Counter()

    def push(self, samples: Samples, now_ms: int) -> list[Stretch]:
        """Take rows; return those that are ready."""
        if samples.width != self._width:
            return [Stretch(samples, False)]
        if self._limits.max_age_seconds or self._limits.max_future_seconds:
            samples = self._fresh(samples, now_ms)
        if self._conversions:
            samples = self._converted(samples)
        parts = self._in_order(samples) if self._ordered else [Stretch(samples, False)]
        if not self._holds and self._resampler is None:
            return [part for part in parts if part.samples.times_ms]
        found = []
        for part in parts:
            if part.anew:
                self._held.clear()
            ready = self._hold(part.samples) if self._holds else part.samples
            if self._resampler is not None:
                if part.anew:
                    self._resampler.restart()
                ready = self._resampler.push(ready)
            if ready.times_ms or part.anew:
                found.append(Stretch(ready, part.anew))
        return found

    def finish(self) -> Samples | None:
        """The source has ended: what resampling still owes."""
        return self._resampler.finish() if self._resampler is not None else None

    def take_dropped(self) -> Counter[str]:
        """Rows that will never reach the model, by reason, since the last call."""
        taken, self._dropped = self._dropped, Counter()
        if self._resampler is not None:
            taken += self._resampler.take_merged()
        return taken

    def take_made(self) -> int:
        """Rows that resampling added since the last call."""
        return self._resampler.take_made() if self._resampler is not None else 0

    def abandon(self) -> None:
        """Nothing follows: what is held back is given up, and counted by `take_dropped`."""
        if self._resampler is not None:
            self._resampler.restart()

    def _fresh(self, samples: Samples, now_ms: int) -> Samples:
        """Drop rows that are too old, or ahead of the clock."""
        oldest = now_ms - (self._limits.max_age_seconds * 1000 or math.inf)
        newest = now_ms + (self._limits.max_future_seconds * 1000 or math.inf)
        times = samples.times_ms
        kept = [i for i, ms in enumerate(times) if oldest <= ms <= newest]
        if len(kept) == len(times):
            return samples
        stale = sum(ms < oldest for ms in times)
        self._dropped[STALE] += stale
        self._dropped[FUTURE] += len(times) - len(kept) - stale
        return _pick(samples, kept)

    def _converted(self, samples: Samples) -> Samples:
        values = array.array("f", samples.values)
        for at, one in self._conversions:
            values[at :: self._width] = array.array(
                "f", [value * one.gain + one.offset for value in values[at :: self._width]]
            )
        return Samples(samples.times_ms, values.tobytes(), samples.width)

    def _in_order(self, samples: Samples) -> list[Stretch]:
        """Drop stragglers; cut where the time jumps back or pauses."""
        times, last = samples.times_ms, self._last_ms
        if not times:
            return []
        steady = (last is None or 0 <= times[0] - last <= self._max_gap_ms) and (
            times[-1] - times[0] <= self._max_gap_ms
        )
        if steady and all(a <= b for a, b in itertools.pairwise(times)):
            self._last_ms, self._late = times[-1], 0
            return [Stretch(samples, False)]
        parts: list[Stretch] = []
        kept: list[int] = []
        anew = False
        for at, ms in enumerate(times):
            step = 0 if self._last_ms is None else ms - self._last_ms
            if step < 0 and step >= -LATE_MS and self._late < LATE_ROWS:
                self._late += 1
                self._dropped[OUT_OF_ORDER] += 1
                continue
            if step < 0 or step > self._max_gap_ms:
                parts.append(Stretch(_pick(samples, kept), anew))
                kept, anew = [], True
            kept.append(at)
            self._last_ms, self._late = ms, 0
        parts.append(Stretch(_pick(samples, kept), anew))
        return [part for part in parts if part.samples.times_ms or part.anew]

    def _hold(self, samples: Samples) -> Samples:
        """Put the last value where one is missing, while it is young enough; a row that would need
        an older one is stale. A value that never came is left missing."""
        values = array.array("f", samples.values)
        stale: set[int] = set()
        for at, max_age_ms in self._holds:
            held = self._held.get(at)
            for row, ms in enumerate(samples.times_ms):
                value = values[row * self._width + at]
                if value == value:
                    held = (value, ms)
                elif held is not None and ms - held[1] <= max_age_ms:
                    values[row * self._width + at] = held[0]
                elif held is not None:
                    stale.add(row)
            if held is not None:
                self._held[at] = held
        ready = Samples(samples.times_ms, values.tobytes(), samples.width)
        self._dropped[STALE] += len(stale)
        return _pick(ready, [i for i in range(len(ready.times_ms)) if i not in stale])


def _pick(samples: Samples, rows: list[int]) -> Samples:
    if len(rows) == len(samples.times_ms):
        return samples
    size = samples.width * 4
    return Samples(
        [samples.times_ms[i] for i in rows],
        b"".join(samples.values[i * size : (i + 1) * size] for i in rows),
        samples.width,
    )
