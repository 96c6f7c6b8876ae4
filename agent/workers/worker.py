"""A loaded model in a worker, with numpy: every runtime and every step."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import numpy as np

from agent.runtimes import Engine, RuntimeLoadError, load_engine
from agent.workers import frames
from agent.workers.frames import Kind
from agent.workers.order import LoadOrder, Release, facts_of, labels_of, middle_of
from shoal.baseline import Baseline
from shoal.protocol.manifest import Contract
from shoal.statistics import Accumulator, Profiler
from shoal.steps import Floats, fill_missing, postprocess, preprocess

WARM_UP_RUNS = 5


class Model:
    """One loaded model with its contract and the statistics of the window under way."""

    def __init__(self, release: Release, order: LoadOrder) -> None:
        self._release, self.contract = release, release.contract
        path = release.model_path()
        self.engine: Engine = load_engine(release.variant.runtime, path, order.num_threads)
        release.check_width(self.engine.input_values)
        self.labels = labels_of(self.contract)
        self._label_index = {label: i for i, label in enumerate(self.labels)}
        self._low = np.array([_or(o.low, -np.inf) for o in self.contract.outputs])
        self._high = np.array([_or(o.high, np.inf) for o in self.contract.outputs])
        self._features, self._outputs = _accumulators(self.contract, release.baseline())
        self._rows = 0

    def facts(self) -> dict[str, Any]:
        """What the agent is told after loading."""
        return facts_of(self.engine, self.labels)

    def handle(self, kind: Kind, payload: frames.Bytes) -> tuple[Kind, bytes]:
        """Answer a request that is no batch."""
        if kind is Kind.STATISTICS:
            return Kind.INFO, msgspec.json.encode(self.take_statistics())
        if kind is Kind.GOLDEN:
            return Kind.INFO, msgspec.json.encode(self.golden())
        if kind is Kind.WARM_UP:
            return Kind.INFO, msgspec.json.encode({"latency_p99_ms": self.warm_up()})
        raise RuntimeLoadError(f"worker: unexpected frame {kind.name}")

    def infer(self, request: frames.InferRequest) -> frames.InferAnswer:
        """Run one micro-batch; context rows come first and were counted before."""
        if request.width != len(self.contract.features):
            raise RuntimeLoadError(
                f"rows: expected {len(self.contract.features)} values, got {request.width}",
                code="wrong-tensor",
            )
        rows = np.frombuffer(request.values, "<f4").reshape(-1, request.width)
        fresh = rows[request.carried :]
        self._rows += len(fresh)
        if self._features is not None:
            self._features.update(fresh)
        filled, usable = fill_missing(self.contract, rows)
        status = np.where(usable[request.carried :], frames.USABLE, frames.MISSING).astype(np.uint8)
        inputs = preprocess(self.contract, filled if usable.all() else filled[usable])
        values, labels, invoke_ns = self._invoke(inputs)
        self._outputs.update(values)
        finite = np.isfinite(values)
        if not finite.all():
            self._mark_non_finite(status, finite, request.carried)
        outside = ~finite | (values < self._low) | (values > self._high)
        return frames.InferAnswer(
            windows=len(values),
            outputs=values.shape[1],
            out_of_range=int(outside.any(axis=1).sum()),
            invoke_ns=invoke_ns,
            rows=status.tobytes(),
            values=values.astype("<f4").tobytes(),
            labels=bytes(self._label_index[label] for label in labels) if labels else b"",
        )

    def _invoke(self, inputs: Floats) -> tuple[Floats, list[str] | None, int]:
        """Values, labels and ns of invoking; no complete window gives none of them."""
        if not len(inputs):
            return np.empty((0, len(self.contract.outputs)), np.float32), None, 0
        start = time.perf_counter_ns()
        outputs = self.engine.run(inputs)
        invoke_ns = time.perf_counter_ns() - start
        values, labels = postprocess(self.contract, inputs, outputs)
        return values, labels, invoke_ns

    def _mark_non_finite(self, status: Any, finite: Any, carried: int) -> None:
        """Mark the last fresh row of each window whose answer is not finite."""
        contract = self.contract
        usable_at = np.flatnonzero(status == frames.USABLE)
        for window in np.flatnonzero(~finite.all(axis=1)):
            last = window * contract.stride_rows + contract.window_rows - 1 - carried
            status[usable_at[last]] = frames.NON_FINITE

    def take_statistics(self) -> dict[str, Any]:
        """Everything counted since the last call."""
        rows, self._rows = self._rows, 0
        return {
            "rows": rows,
            "features": [] if self._features is None else self._features.take(),
            "outputs": self._outputs.take(),
        }

    def warm_up(self) -> float:
        """Run a few times on values that could be real, uncounted; the slowest but the first, ms.

        The first invocation touches every page of the model, and no sample shall wait for that.
        """
        middle = np.asarray(middle_of(self.contract), np.float32)
        rows = np.tile(middle, (self.contract.window_rows, 1))
        times = []
        for _ in range(WARM_UP_RUNS):
            start = time.perf_counter()
            self.engine.run(preprocess(self.contract, rows))
            times.append(time.perf_counter() - start)
        return max(times[1:]) * 1e3

    def golden(self) -> dict[str, Any]:
        """Run the golden samples without counting them."""
        golden = self._release.manifest.golden
        if golden is None:
            return {"samples": 0, "worst": 0.0, "latency_p99_ms": 0.0}
        samples = json.loads(self._release.read(golden.file))
        wanted = np.asarray(samples["outputs"], np.float32)
        tolerance = golden.absolute.get(self.engine.kernels, max(golden.absolute.values()))
        got, times = [], []
        for sample in samples["inputs"]:
            rows = np.asarray(sample, np.float32).reshape(-1, len(self.contract.features))
            start = time.perf_counter()
            inputs = preprocess(self.contract, rows)
            values, _ = postprocess(self.contract, inputs, self.engine.run(inputs))
            times.append(time.perf_counter() - start)
            got.append(values[0])
        error = np.abs(np.stack(got) - wanted) / (tolerance + golden.relative * np.abs(wanted))
        return {
            "samples": len(got),
            "worst": float(np.nan_to_num(error.max(), nan=1e9, posinf=1e9)),
            "latency_p99_ms": float(np.quantile(times, 0.99) * 1e3),
        }


def _accumulators(
    contract: Contract, baseline: Baseline | None
) -> tuple[Profiler | None, Accumulator]:
    known_out = {f.name: f.edges for f in baseline.outputs} if baseline else {}
    features = None
    if contract.profile_features:
        names = [f.name for f in contract.features]
        features = Profiler(names, [(f.low, f.high) for f in contract.features], baseline)
    names = [o.name for o in contract.outputs]
    ranges = [(o.low, o.high) for o in contract.outputs]
    return features, Accumulator(names, [known_out.get(n, []) for n in names], ranges)


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
