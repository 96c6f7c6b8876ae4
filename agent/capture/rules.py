"""Which answered windows are captured, by the package's policy. Pure.

>>> from shoal.protocol.manifest import Contract, Feature, OutputField, Threshold
>>> contract = Contract(features=[Feature(name="t")], outputs=[OutputField(name="score", high=9.0)],
...                     postprocess=[Threshold(above=5.0)])
>>> rules = Rules(CapturePolicy(low_margin=0.5, out_of_range=True), contract)
>>> rules.reason_of([4.8]), rules.reason_of([1.0]), rules.reason_of([9.5])
('low-margin', '', 'out-of-range')
"""

from __future__ import annotations

from collections.abc import Sequence

from shoal.protocol.manifest import CapturePolicy, ClassScores, Contract, Threshold

DISAGREEMENT = "disagreement"
OUT_OF_RANGE = "out-of-range"
LOW_MARGIN = "low-margin"
DRIFT = "drift"
ONE_IN = "one-in"


class Rules:
    """The rules of one release, ready to be asked for every window."""

    def __init__(self, policy: CapturePolicy, contract: Contract) -> None:
        self.policy = policy
        names = [output.name for output in contract.outputs]
        self._ranges = [(output.low, output.high) for output in contract.outputs]
        self._thresholds: list[tuple[int, float]] = []
        self._classes: list[int] = []
        for step in contract.postprocess:
            if isinstance(step, Threshold) and step.field in names:
                self._thresholds.append((names.index(step.field), step.above))
            elif isinstance(step, ClassScores) and step.field in names:
                self._classes.append(names.index(step.field))

    @property
    def by_answer(self) -> bool:
        """Whether answers have to be looked at at all."""
        return self.policy.out_of_range or self.policy.low_margin is not None

    def reason_of(self, outputs: Sequence[float]) -> str:
        """Why an answer is captured for what it is; "" for no reason."""
        if self.policy.out_of_range and any(
            value != value or _outside(value, low, high)
            for value, (low, high) in zip(outputs, self._ranges, strict=True)
        ):
            return OUT_OF_RANGE
        limit = self.policy.low_margin
        if limit is not None and self._margin(outputs) < limit:
            return LOW_MARGIN
        return ""

    def _margin(self, outputs: Sequence[float]) -> float:
        """How far the answer is from the other label.

        Of a threshold its distance; of classes at least 2 c - 1 for the best score c, since the
        second cannot have more than is left.
        """
        found = [abs(outputs[index] - above) for index, above in self._thresholds]
        found += [2 * outputs[index] - 1 for index in self._classes]
        return min(found, default=float("inf"))


def _outside(value: float, low: float | None, high: float | None) -> bool:
    return (low is not None and value < low) or (high is not None and value > high)


def every(seen: int, fresh: int, one_in: int) -> range:
    """Which of `fresh` windows, after `seen` before them, are the first of each `one_in`.

    >>> list(every(seen=3, fresh=10, one_in=4))
    [1, 5, 9]
    """
    return range(-seen % one_in, fresh, one_in) if one_in else range(0)
