"""Inside a worker: hash, load, then answer frames until the agent hangs up.

Everything here runs in a clone of the forkserver and may die at any moment; nothing outside
depends on its memory but the statistics of the window under way, which are counted as lost.
"""

from __future__ import annotations

import hashlib
import json
import socket
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from agent.runtimes import Engine, RuntimeLoadError, load_engine
from agent.workers import frames
from agent.workers.frames import Kind
from agent.workers.limits import limit_address_space
from agent.workers.trim import trim_memory
from shoal.baseline import Baseline, decode_baseline
from shoal.errors import InvalidInputError, ShoalError
from shoal.protocol.manifest import ClassScores, Contract, Manifest, Threshold, decode_manifest
from shoal.protocol.steps import input_values
from shoal.statistics import Accumulator, Profiler
from shoal.steps import Floats, fill_missing, postprocess, preprocess

WARM_UP_RUNS = 5


def serve(connection: socket.socket) -> None:
    """Answer frames on a blocking socket until it closes."""
    model: Model | None = None
    incoming = _Incoming(connection)
    trimmed = False
    while (frame := incoming.next()) is not None:
        kind, payload = frame
        try:
            if kind is Kind.LOAD:
                model = Model(msgspec.json.decode(payload))
                answer = (Kind.INFO, msgspec.json.encode(model.facts()))
            elif model is None:
                raise RuntimeLoadError(f"worker: {kind.name} before LOAD")
            else:
                answer = model.handle(kind, payload)
        except ShoalError as error:
            answer = (Kind.ERROR, json.dumps([error.code, error.sentence]).encode())
        except MemoryError:
            answer = (Kind.ERROR, b'["worker-memory", "worker: out of memory"]')
        connection.sendall(frames.encode(*answer))
        if kind is Kind.STATISTICS and not trimmed:
            trimmed = True  # every path has run by now: the rest was for starting up
            trim_memory()  # 10 ms, so not before the answer: a swap may wait for it


class _Incoming:
    """Frames from the socket. The room for a payload is used again: it may be megabytes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._room = bytearray(frames.HEADER.size)

    def next(self) -> tuple[Kind, memoryview] | None:
        """The next frame; its payload is good until the one after. None at the end."""
        header = self._exactly(frames.HEADER.size)
        if header is None:
            return None
        length, kind = frames.decode_header(header)
        payload = self._exactly(length)
        return None if payload is None else (kind, payload)

    def _exactly(self, length: int) -> memoryview | None:
        if len(self._room) < length:
            self._room = bytearray(length)
        view, filled = memoryview(self._room)[:length], 0
        while filled < length:
            got = self._connection.recv_into(view[filled:])
            if not got:
                return None
            filled += got
        return view


class Model:
    """One loaded model with its contract and the statistics of the window under way."""

    def __init__(self, order: dict[str, Any]) -> None:
        limit_address_space(order["memory_bytes"])
        folder = Path(order["folder"])
        self.manifest: Manifest = decode_manifest(
            _read_verified(folder, order["manifest_sha256"], "manifest")
        )
        self.contract: Contract = self.manifest.contract
        self._folder = folder
        variant = next(v for v in self.manifest.variants if v.name == order["variant"])
        entry = self.manifest.file(variant.file)
        _check_digest(folder / entry.sha256, entry.sha256, entry.name)
        path = folder / entry.sha256
        self.engine: Engine = load_engine(variant.runtime, path, order["num_threads"])
        width = input_values(
            [feature.name for feature in self.contract.features],
            self.contract.window_rows,
            self.contract.preprocess,
        )
        if self.engine.input_values != width:
            raise RuntimeLoadError(
                f"{entry.name}: expected {width} input values as the contract says, "
                f"got {self.engine.input_values}",
                code="wrong-tensor",
            )
        self.labels = _labels(self.contract)
        self._label_index = {label: i for i, label in enumerate(self.labels)}
        self._low = np.array([_or(o.low, -np.inf) for o in self.contract.outputs])
        self._high = np.array([_or(o.high, np.inf) for o in self.contract.outputs])
        self._features, self._outputs = _accumulators(self.contract, self._baseline())
        self._rows = 0

    def facts(self) -> dict[str, Any]:
        """What the agent is told after loading."""
        return {
            "runtime": self.engine.name,
            "version": self.engine.version,
            "kernels": self.engine.kernels,
            "labels": self.labels,
        }

    def handle(self, kind: Kind, payload: frames.Bytes) -> tuple[Kind, bytes]:
        """Answer one request after LOAD."""
        if kind is Kind.INFER:
            return Kind.ANSWER, frames.encode_answer(self.infer(frames.decode_infer(payload)))
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
        middle = [_middle(f.low, f.high) for f in self.contract.features]
        rows = np.tile(np.asarray(middle, np.float32), (self.contract.window_rows, 1))
        times = []
        for _ in range(WARM_UP_RUNS):
            start = time.perf_counter()
            self.engine.run(preprocess(self.contract, rows))
            times.append(time.perf_counter() - start)
        return max(times[1:]) * 1e3

    def golden(self) -> dict[str, Any]:
        """Run the golden samples without counting them."""
        golden = self.manifest.golden
        if golden is None:
            return {"samples": 0, "worst": 0.0, "latency_p99_ms": 0.0}
        entry = self.manifest.file(golden.file)
        samples = json.loads(_read_verified(self._folder, entry.sha256, entry.name))
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

    def _baseline(self) -> Baseline | None:
        if self.manifest.baseline is None:
            return None
        entry = self.manifest.file(self.manifest.baseline)
        return decode_baseline(_read_verified(self._folder, entry.sha256, entry.name))


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


def _labels(contract: Contract) -> list[str]:
    found: list[str] = []
    for step in contract.postprocess:
        if isinstance(step, ClassScores):
            found += step.classes
        elif isinstance(step, Threshold):
            found += [step.otherwise, step.label]
    if len(found) > 256:
        raise InvalidInputError(f"contract: {len(found)} labels, at most 256")
    return found


def _middle(low: float | None, high: float | None) -> float:
    return 0.0 if low is None or high is None else (low + high) / 2


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _read_verified(folder: Path, sha256: str, name: str) -> bytes:
    try:
        data = (folder / sha256).read_bytes()
    except OSError as error:
        raise RuntimeLoadError(f"{name}: {error}", code="digest-mismatch") from error
    got = hashlib.sha256(data).hexdigest()
    if got != sha256:
        raise RuntimeLoadError(
            f"{name}: expected sha256 {sha256[:12]}…, got {got[:12]}…", code="digest-mismatch"
        )
    return data


def _check_digest(path: Path, sha256: str, name: str) -> None:
    try:
        with path.open("rb") as file:
            got = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RuntimeLoadError(f"{name}: {error}", code="digest-mismatch") from error
    if got != sha256:
        raise RuntimeLoadError(
            f"{name}: expected sha256 {sha256[:12]}…, got {got[:12]}…", code="digest-mismatch"
        )


__all__ = ["Floats", "Model", "serve"]
