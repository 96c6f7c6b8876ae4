"""Merging two adjacent windows, or statistics, of the same model and release into one.

Counts, histograms and moments add exactly. The percentiles of a merged window are read again from
the summed histogram; its clock counts as synchronised only if both parts' did.
"""

from __future__ import annotations

from collections import Counter
from itertools import zip_longest

import msgspec

from shoal.drift import merge
from shoal.latency import latency_quantile
from shoal.protocol.messages import FieldStatistics, Header, Statistics, Window


def merge_messages(first: Header, second: Header) -> Header | None:
    """Return one message for both, or None where they must stay apart."""
    if isinstance(first, Window) and isinstance(second, Window):
        same = _alike(first, second) and _executor(first) == _executor(second)
        return _windows(first, second) if same else None
    if isinstance(first, Statistics) and isinstance(second, Statistics):
        same = _alike(first, second) and first.baseline == second.baseline
        return _statistics(first, second) if same else None
    return None


def _alike(a: Window | Statistics, b: Window | Statistics) -> bool:
    return _release(a) == _release(b)


def _release(a: Window | Statistics) -> tuple[str, str, int, str, str]:
    manifest = a.manifest if isinstance(a, Window) or not a.baseline else ""  # not sent with it
    return a.model, a.version, a.release_sequence, manifest, a.slot


def _executor(a: Window) -> tuple[str, str, str]:
    return a.runtime, a.runtime_version, a.kernels


def _windows(a: Window, b: Window) -> Window:
    counts = [x + y for x, y in zip_longest(a.latency_counts, b.latency_counts, fillvalue=0)]
    return msgspec.structs.replace(
        b,
        clock_synced=a.clock_synced and b.clock_synced,
        start_ms=min(a.start_ms, b.start_ms),
        end_ms=max(a.end_ms, b.end_ms),
        in_count=a.in_count + b.in_count,
        ok=a.ok + b.ok,
        dropped=dict(Counter(a.dropped) + Counter(b.dropped)),
        failed=dict(Counter(a.failed) + Counter(b.failed)),
        labels=dict(Counter(a.labels) + Counter(b.labels)),
        latency_counts=counts,
        latency_p50_us=latency_quantile(counts, 0.5),
        latency_p95_us=latency_quantile(counts, 0.95),
        latency_p99_us=latency_quantile(counts, 0.99),
        latency_max_us=max(a.latency_max_us, b.latency_max_us),
        worker_restarts=a.worker_restarts + b.worker_restarts,
    )


def _statistics(a: Statistics, b: Statistics) -> Statistics:
    return msgspec.structs.replace(
        b,
        clock_synced=a.clock_synced and b.clock_synced,
        start_ms=min(a.start_ms, b.start_ms),
        end_ms=max(a.end_ms, b.end_ms),
        rows=a.rows + b.rows,
        lost=a.lost + b.lost,
        features=_fields(a.features, b.features),
        outputs=_fields(a.outputs, b.outputs),
    )


def _fields(a: list[FieldStatistics], b: list[FieldStatistics]) -> list[FieldStatistics]:
    if not a or not b:
        return a or b
    merged = (merge(pair) for pair in zip(a, b, strict=True))
    return [one for one in merged if one is not None]
