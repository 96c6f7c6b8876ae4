"""A loaded model in a worker, with numpy: every runtime and every step."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np

from agent.runtimes import Engine, load_engine
from agent.workers import frames
from agent.workers.loaded import WARM_UP_RUNS, Counter, LoadedModel
from agent.workers.order import LoadOrder, Release, middle_of
from shoal.statistics import Accumulator, Profiler
from shoal.steps import Floats, fill_missing, postprocess, preprocess


class Model(LoadedModel):
    """On any runtime, with numpy."""

    def __init__(self, release: Release, order: LoadOrder) -> None:
        path = release.model_path()
        self.engine: Engine = load_engine(release.variant.runtime, path, order.num_threads)
        super().__init__(release, self.engine)
        self._low = np.array([_or(o.low, -np.inf) for o in self.contract.outputs])
        self._high = np.array([_or(o.high, np.inf) for o in self.contract.outputs])
        baseline = release.baseline()
        self._features = (
            Profiler(*self._feature_fields(), baseline) if self.contract.profile_features else None
        )
        self._outputs = Accumulator(*self._output_fields(baseline))

    def infer(self, request: frames.InferRequest) -> frames.InferAnswer:
        """Run one micro-batch; context rows come first and were counted before."""
        self._check_request(request)
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

    def warm_up(self) -> float:
        """Run a few times on values that could be real; the slowest but the first, ms."""
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

    def _counters(self) -> tuple[Counter | None, Counter]:
        return self._features, self._outputs


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
