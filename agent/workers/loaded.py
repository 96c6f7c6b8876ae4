"""What models with numpy and without it have in common: all but the arithmetic."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import msgspec

from agent.runtime_error import RuntimeLoadError
from agent.workers import frames
from agent.workers.frames import Kind
from agent.workers.order import Release, facts_of, labels_of
from shoal.baseline import Baseline
from shoal.protocol.messages import FieldStatistics

WARM_UP_RUNS = 5
Range = tuple[float | None, float | None]


class Counter(Protocol):
    """Counts rows until it is asked."""

    def take(self) -> list[FieldStatistics]:
        """Everything counted since the last call."""
        ...


class LoadedModel(ABC):
    """One loaded model with its contract and the statistics of the window under way."""

    def __init__(self, release: Release, engine: Any) -> None:
        release.check_width(engine.input_values)
        self._release, self.contract = release, release.contract
        self.labels = labels_of(self.contract)
        self._label_index = {label: i for i, label in enumerate(self.labels)}
        self._facts = facts_of(engine, self.labels)
        self._rows = 0

    @abstractmethod
    def infer(self, request: frames.InferRequest) -> frames.InferAnswer:
        """Run one micro-batch; context rows come first and were counted before."""

    @abstractmethod
    def warm_up(self) -> float:
        """Run a few times on values that could be real, uncounted; the slowest but the first, ms.

        The first invocation touches every page of the model, and no sample shall wait for that.
        """

    @abstractmethod
    def golden(self) -> dict[str, Any]:
        """Run the golden samples without counting them."""

    @abstractmethod
    def _counters(self) -> tuple[Counter | None, Counter]:
        """Of features, where they are counted, and of outputs."""

    def facts(self) -> dict[str, Any]:
        """What the agent is told after loading."""
        return self._facts

    def handle(self, kind: Kind) -> bytes:
        """Answer a request that is no batch, in JSON."""
        if kind is Kind.STATISTICS:
            return msgspec.json.encode(self.take_statistics())
        if kind is Kind.GOLDEN:
            return msgspec.json.encode(self.golden())
        if kind is Kind.WARM_UP:
            return msgspec.json.encode({"latency_p99_ms": self.warm_up()})
        raise RuntimeLoadError(f"worker: unexpected frame {kind.name}")

    def take_statistics(self) -> dict[str, Any]:
        """Everything counted since the last call."""
        rows, self._rows = self._rows, 0
        features, outputs = self._counters()
        return {
            "rows": rows,
            "features": [] if features is None else features.take(),
            "outputs": outputs.take(),
        }

    def _check_request(self, request: frames.InferRequest) -> None:
        if request.width != len(self.contract.features):
            raise RuntimeLoadError(
                f"rows: expected {len(self.contract.features)} values, got {request.width}",
                code="wrong-tensor",
            )

    def _feature_fields(self) -> tuple[list[str], list[Range]]:
        """Names and ranges of the features."""
        features = self.contract.features
        return [one.name for one in features], [(one.low, one.high) for one in features]

    def _output_fields(
        self, baseline: Baseline | None
    ) -> tuple[list[str], list[list[float]], list[Range]]:
        """Names, edges of the baseline's bins, and ranges of the outputs."""
        known = {one.name: one.edges for one in baseline.outputs} if baseline else {}
        outputs = self.contract.outputs
        names = [one.name for one in outputs]
        return (
            names,
            [known.get(name, []) for name in names],
            [(one.low, one.high) for one in outputs],
        )
