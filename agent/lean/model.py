"""A loaded model in a worker without numpy; `agent.workers.worker.Model` is the same with it."""

from __future__ import annotations

import json
import math
import time
from array import array
from typing import Any

from agent.lean.engine import LeanEngine
from agent.lean.statistics import Accumulator, Profiler
from agent.lean.steps import Row, fill_missing, is_supported, postprocess, preprocess
from agent.workers import frames
from agent.workers.loaded import WARM_UP_RUNS, Counter, LoadedModel
from agent.workers.order import LoadOrder, Release, middle_of
from shoal.tflite.reader import read_model


class LeanModel(LoadedModel):
    """On the TensorFlow Lite C library, with lists for arrays."""

    @staticmethod
    def fits(release: Release) -> bool:
        """Whether this can run it: a `.tflite` whose steps are all known here."""
        return release.variant.runtime == "tflite" and is_supported(release.contract)

    def __init__(self, release: Release, order: LoadOrder) -> None:
        path = release.model_path()
        read_model(path.read_bytes(), f"{path.name[:12]}…")  # before a library follows its offsets
        self.engine = LeanEngine(path, order.num_threads)
        super().__init__(release, self.engine)
        self._limits = [
            (-math.inf if o.low is None else o.low, math.inf if o.high is None else o.high)
            for o in self.contract.outputs
        ]
        baseline = release.baseline()
        self._features = (
            Profiler(*self._feature_fields(), baseline) if self.contract.profile_features else None
        )
        self._outputs = Accumulator(*self._output_fields(baseline))

    def infer(self, request: frames.InferRequest) -> frames.InferAnswer:
        """Run one micro-batch; context rows come first and were counted before."""
        self._check_request(request)
        width, carried = request.width, request.carried
        flat = array("f", bytes(request.values))
        rows: list[Row] = [flat[start : start + width] for start in range(0, len(flat), width)]
        self._rows += len(rows) - carried
        if self._features is not None:
            self._features.update(rows[carried:])
        filled, usable = fill_missing(self.contract, rows)
        inputs = preprocess(
            self.contract, [row for row, good in zip(filled, usable, strict=True) if good]
        )
        values, labels, invoke_ns = self._invoke(inputs)
        self._outputs.update(values)
        status = bytearray(frames.USABLE if good else frames.MISSING for good in usable[carried:])
        outside = self._mark_non_finite(status, values, carried)
        return frames.InferAnswer(
            windows=len(values),
            outputs=len(self.contract.outputs),
            out_of_range=outside,
            invoke_ns=invoke_ns,
            rows=bytes(status),
            values=array("f", [value for row in values for value in row]).tobytes(),
            labels=bytes(self._label_index[label] for label in labels) if labels else b"",
        )

    def _invoke(self, inputs: list[Row]) -> tuple[list[Row], list[str] | None, int]:
        start = time.perf_counter_ns()
        outputs = self.engine.run(inputs)
        invoke_ns = time.perf_counter_ns() - start
        values, labels = postprocess(self.contract, inputs, outputs)
        # what is sent is float32; ranges and statistics see the same
        return [array("f", row).tolist() for row in values], labels, invoke_ns if inputs else 0

    def _mark_non_finite(self, status: bytearray, values: list[Row], carried: int) -> int:
        """Mark the last fresh row of windows without a finite answer; count those out of range."""
        contract, outside, usable_at = self.contract, 0, None
        for window, row in enumerate(values):
            finite = all(map(math.isfinite, row))
            if finite and all(a <= v <= b for v, (a, b) in zip(row, self._limits, strict=True)):
                continue
            outside += 1
            if not finite:
                if usable_at is None:
                    usable_at = [i for i, one in enumerate(status) if one != frames.MISSING]
                last = window * contract.stride_rows + contract.window_rows - 1 - carried
                status[usable_at[last]] = frames.NON_FINITE
        return outside

    def warm_up(self) -> float:
        """Run a few times on values that could be real; the slowest but the first, ms."""
        rows = [middle_of(self.contract)] * self.contract.window_rows
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
        tolerance = golden.absolute.get(self.engine.kernels, max(golden.absolute.values()))
        width, worst, times = len(self.contract.features), 0.0, []
        for sample, wanted in zip(samples["inputs"], samples["outputs"], strict=True):
            rows = [sample[start : start + width] for start in range(0, len(sample), width)]
            start = time.perf_counter()
            inputs = preprocess(self.contract, rows)
            values, _ = postprocess(self.contract, inputs, self.engine.run(inputs))
            times.append(time.perf_counter() - start)
            for got, want in zip(values[0], wanted, strict=True):
                error = abs(got - want) / (tolerance + golden.relative * abs(want))
                worst = max(worst, error if math.isfinite(error) else 1e9)
        times.sort()
        return {
            "samples": len(times),
            "worst": worst,
            "latency_p99_ms": times[math.ceil(0.99 * len(times)) - 1] * 1e3,
        }

    def _counters(self) -> tuple[Counter | None, Counter]:
        return self._features, self._outputs
