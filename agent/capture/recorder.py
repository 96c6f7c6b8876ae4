"""Watching one model's pipeline for windows that its package's policy wants captured.

Runs in the event loop between two batches, so it is idle where a package asks for nothing, and
stops looking for the day once the quota is used.
"""

from __future__ import annotations

import array
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from agent.capture import rules
from agent.capture.rules import Rules
from agent.capture.store import CaptureStore, Sample
from agent.clock import Clock
from agent.pipeline import windowing
from agent.ports import StagedRelease, WindowReport
from agent.workers import frames
from agent.workers.frames import InferAnswer, InferRequest
from shoal.baseline import decode_baseline
from shoal.drift import psi
from shoal.errors import InvalidInputError
from shoal.protocol.manifest import Contract

log = logging.getLogger("agent.capture")

DRIFT_EVERY_MS = 1000
"""While data drifts, so often at most."""
_NAN = array.array("f", [float("nan")]).tobytes()


class Recorder:
    """One per model name."""

    def __init__(
        self, store: CaptureStore, clock: Clock, is_allowed: Callable[[], bool] = lambda: True
    ) -> None:
        self._store = store
        self._clock = clock
        self._is_allowed = is_allowed
        self._release = ""
        self._rules: Rules | None = None
        self._seen = 0
        self._drifting = False
        self._drift_ms = 0
        self._baseline: dict[str, list[int]] | None = None

    def wants(self, release: StagedRelease) -> bool:
        """Whether a policy is in force for what answers now."""
        if release.manifest_sha256 != self._release:
            manifest = release.manifest
            active = manifest.capture.active
            self._release = release.manifest_sha256
            self._rules = Rules(manifest.capture, manifest.contract) if active else None
            self._seen, self._drifting, self._baseline = 0, False, None
        return self._rules is not None and self._is_allowed()

    def see(
        self,
        release: StagedRelease,
        answer: InferAnswer,
        labels: list[str],
        rows: bytes,
        times_ms: list[int],
        carried: int,
    ) -> None:
        """An answered batch: `rows` are the carried and the usable fresh ones."""
        found = self._chosen(answer)
        self._seen += answer.windows
        contract = release.manifest.contract
        last = windowing.last_rows(answer.windows, contract.window_rows, contract.stride_rows)
        for index, reason in found.items():
            at = times_ms[last[index] - carried]
            self._keep(release, reason, index, rows, answer, labels, at)

    def disagreed(
        self,
        release: StagedRelease,
        request: InferRequest,
        answer: InferAnswer,
        labels: list[str],
        indices: Iterable[int],
    ) -> None:
        """In a shadow run the candidate labelled windows otherwise than `answer`."""
        if not self.wants(release) or frames.MISSING in answer.rows:
            return
        if self._rules is not None and self._rules.policy.disagreement:
            for index in indices:
                now = self._clock.now_ms()
                rows = bytes(request.values)  # ours already: not copied
                self._keep(release, rules.DISAGREEMENT, index, rows, answer, labels, now)

    def note(self, report: WindowReport) -> None:
        """A closed reporting window: does its data drift from the baseline?"""
        if not self.wants(report.release) or self._rules is None:
            return
        limit = self._rules.policy.drift
        if limit is None:
            return
        expected = self._expected(report.release)
        found = [
            psi(expected[field.name], field.bins)
            for field in report.features
            if field.name in expected
        ]
        self._drifting = max((one for one in found if one is not None), default=0.0) > limit

    def _chosen(self, answer: InferAnswer) -> dict[int, str]:
        """Windows of this batch to keep, with the reason; the rarer reason wins."""
        assert self._rules is not None
        one_in = self._rules.policy.one_in
        found = dict.fromkeys(rules.every(self._seen, answer.windows, one_in), rules.ONE_IN)
        if self._drifting and answer.windows:
            now_ms = self._clock.steady_ms()
            if now_ms - self._drift_ms >= DRIFT_EVERY_MS:
                self._drift_ms = now_ms
                found[0] = rules.DRIFT
        if self._rules.by_answer:
            flat, width = array.array("f", answer.values), answer.outputs
            for index in range(answer.windows):
                if reason := self._rules.reason_of(flat[index * width : (index + 1) * width]):
                    found[index] = reason
        return found

    def _keep(
        self,
        release: StagedRelease,
        reason: str,
        index: int,
        rows: bytes,
        answer: InferAnswer,
        labels: list[str],
        sample_ms: int,
    ) -> None:
        manifest = release.manifest
        steady_ms = self._clock.steady_ms()
        if not self._store.has_room(manifest.model, manifest.capture, steady_ms):
            return
        contract, width = manifest.contract, answer.outputs
        outputs = array.array("f", answer.values)[index * width : (index + 1) * width]
        sample = Sample(
            model=manifest.model,
            version=manifest.version,
            release_sequence=manifest.sequence,
            manifest=release.manifest_sha256,
            sample_ms=sample_ms,
            reason=reason,
            rows=_redacted(_window(rows, index, contract), contract, manifest.capture.redact),
            features=[feature.name for feature in contract.features],
            redacted=list(manifest.capture.redact),
            names=[output.name for output in contract.outputs],
            outputs=[value if value - value == 0 else None for value in outputs],
            label=labels[answer.labels[index]] if answer.labels else "",
        )
        self._store.add(sample, manifest.capture, steady_ms)

    def _expected(self, release: StagedRelease) -> dict[str, list[int]]:
        """Bin counts of the baseline's features; read once a release."""
        if self._baseline is None:
            self._baseline = {}
            if release.manifest.baseline is not None:
                path: Path = release.path(release.manifest.baseline)
                try:
                    baseline = decode_baseline(path.read_bytes())
                    self._baseline = {one.name: one.counts for one in baseline.features}
                except (OSError, InvalidInputError) as error:
                    log.warning("no baseline model=%s error=%r", release.manifest.model, str(error))
        return self._baseline


def _window(rows: bytes, index: int, contract: Contract) -> bytes:
    """The rows of one window."""
    row_bytes = 4 * len(contract.features)
    start = index * contract.stride_rows * row_bytes
    return rows[start : start + contract.window_rows * row_bytes]


def _redacted(rows: bytes, contract: Contract, redact: list[str]) -> bytes:
    """`rows` with NaN for features that are never stored."""
    if not redact:
        return rows
    names, changed = [feature.name for feature in contract.features], bytearray(rows)
    for name in redact:
        for start in range(4 * names.index(name), len(changed), 4 * len(names)):
            changed[start : start + 4] = _NAN
    return bytes(changed)
