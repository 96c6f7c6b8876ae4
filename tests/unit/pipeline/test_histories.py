"""in = ok + dropped + failed over random histories: batches, swaps, lost workers, overload, ends.

The worker here is the rules of one, without a process, so that thousands of histories run; real
processes, killed for real, are in the contract tests.
"""

from __future__ import annotations

import array
import asyncio
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.pipeline import AgeLimits, WorkerPipeline
from agent.pipeline.windowing import count_windows
from agent.ports import RuntimeFacts, Samples, StagedRelease
from agent.workers import frames
from agent.workers.frames import InferAnswer
from agent.workers.pool import BatchFailedError, QuarantinedError, StatisticsTaken
from shoal.errors import ShoalError
from shoal.protocol.manifest import Contract, Feature, Manifest, OutputField, Variant

COLUMNS = ("a", "b", "c")


class ScriptedSource:
    """Rows as a script says; `None` waits for `go`, a number drops so many as unparsable."""

    def __init__(self, script, live):
        self._script, self.live = script, live
        self._features = []
        self._dropped = Counter()
        self.go = asyncio.Event()
        self.rows = 0

    def select(self, features):
        self._features = features

    def take_dropped(self):
        taken, self._dropped = self._dropped, Counter()
        return dict(taken)

    async def batches(self):
        for step in self._script:
            if step is None:
                await self.go.wait()
                self.go.clear()
            elif isinstance(step, int):
                self._dropped["unparsable"] += step
                self.rows += step
            elif step:
                self.rows += len(step)
                values = array.array("f")
                for _, missing in step:
                    values.extend([float("nan") if missing else 1.0] * len(self._features))
                yield Samples([ms for ms, _ in step], values.tobytes(), len(self._features))


@dataclass
class RuleWorker:
    """Answers as a worker does; loses the batches that `fates` says."""

    release: StagedRelease
    fates: list
    facts: RuntimeFacts = field(default_factory=lambda: RuntimeFacts("rules", "1", "reference"))
    labels: list = field(default_factory=list)
    restarts: int = 0
    fresh: int = 0
    sent: list = field(default_factory=list)

    def send(self, request):
        """Two at most are under way, and only the first is asked for."""
        assert len(self.sent) < 2
        self.sent.append(request)
        return request

    async def try_infer(self, request, sent=None):
        if sent is not None:
            assert self.sent[0] is sent is request
        try:
            return await self.infer_alone(request)
        finally:
            if sent is not None:
                self.sent.pop(0)

    async def infer_alone(self, request):
        contract = self.release.manifest.contract
        assert request.width == len(contract.features)
        assert 0 < request.fresh <= 64
        rows = array.array("f", request.values)
        assert contract.window_rows == 1 or len(self.sent) <= 1
        assert len(rows) == (request.carried + request.fresh) * request.width
        fate = self.fates.pop() if self.fates else "ok"
        for _ in range(3 if fate == "slow" else 1):
            await asyncio.sleep(0)
        if fate == "lost":
            raise QuarantinedError(ShoalError("worker 1: died of signal 9", code="worker-crashed"))
        if fate == "backoff":
            raise BatchFailedError("worker: started again in 1 s", code="worker-backoff")
        whole = [
            all(v == v for v in rows[i * request.width : (i + 1) * request.width])
            for i in range(request.carried + request.fresh)
        ]
        status = [frames.USABLE if one else frames.MISSING for one in whole[request.carried :]]
        if fate == "non-finite" and frames.USABLE in status:
            status[status.index(frames.USABLE)] = frames.NON_FINITE
        windows = count_windows(sum(whole), contract.window_rows, contract.stride_rows)
        self.fresh += request.fresh
        return InferAnswer(windows, 1, 0, 1, bytes(status), bytes(4 * windows), b"")

    def set_aside(self, request, error):
        assert request.fresh

    async def take_statistics(self):
        assert not self.sent
        taken, self.fresh = self.fresh, 0
        return StatisticsTaken(taken, 0, [], [])


def _release(number, features, window_rows, stride_rows, resample):
    contract = Contract(
        features=[Feature(name=name) for name in features],
        outputs=[OutputField(name="y")],
        window_rows=window_rows,
        stride_rows=min(stride_rows, window_rows),
        rate_hz=100.0,
        resample=resample,
    )
    manifest = Manifest(
        model="echo", version=f"{number}.0.0", sequence=number, created="2026-01-01T00:00:00+00:00",
        files=[], variants=[], contract=contract,
    )  # fmt: skip
    return StagedRelease(manifest, f"{number:064}", Variant(name="v", file="f"), Path())


rows = st.lists(
    st.tuples(st.integers(0, 2000) | st.integers(0, 100_000), st.booleans()), max_size=150
)
scripts = st.lists(st.one_of(rows, st.integers(1, 5), st.none()), max_size=8)
releases = st.tuples(
    st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=3, unique=True),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from(["", "", "last", "mean", "linear"]),
)
events = st.lists(
    st.one_of(
        st.tuples(st.just("swap"), releases),
        st.tuples(st.sampled_from(["report", "go", "turn", "ask", "unload"]), st.none()),
    ),
    max_size=12,
)
fates = st.lists(
    st.sampled_from(["ok", "ok", "slow", "lost", "backoff", "non-finite"]), max_size=30
)


@settings(max_examples=300)
@given(
    scripts,
    events,
    fates,
    st.sampled_from(["newest", "oldest", "wait", None]),
    st.booleans(),
    st.sampled_from([None, AgeLimits(max_future_seconds=60)]),
)
def test_every_row_of_every_history_is_settled_once(
    script, history, fate_list, overload, cancelled, limits
):
    asyncio.run(_live(script, history, list(fate_list), overload, cancelled, limits))


async def _live(script, history, fate_list, overload, cancelled, limits):
    source = ScriptedSource(script, live=overload != "wait")
    pipeline = WorkerPipeline(
        "echo", source, [], overload=overload, buffer_rows=64, age_limits=limits
    )
    asked = 0
    reports = []
    number = 1
    await pipeline.swap(RuleWorker(_release(1, ["a", "b"], 1, 1, ""), fate_list))
    task = asyncio.create_task(pipeline.run())
    for what, how in history:
        if what == "swap":
            number += 1
            await pipeline.swap(RuleWorker(_release(number, *how), fate_list))
        elif what == "unload":
            await pipeline.swap(None)
        elif what == "report":
            reports += await pipeline.take_reports()
        elif what == "ask" and pipeline.worker is not None:
            worker = pipeline.worker
            contract = worker.release.manifest.contract
            values = bytes(4 * contract.window_rows * len(contract.features))
            asked += contract.window_rows
            (found,) = await pipeline.ask(worker, [values])
            assert isinstance(found, InferAnswer | BatchFailedError)
        elif what == "go":
            source.go.set()
        await asyncio.sleep(0)
    if cancelled:
        task.cancel()
    else:
        while not task.done():
            source.go.set()
            await asyncio.sleep(0)
    await asyncio.gather(task, return_exceptions=True)
    if pipeline.worker is None:
        number += 1
        await pipeline.swap(RuleWorker(_release(number, ["a"], 1, 1, ""), fate_list))
    made = pipeline.made
    reports += await pipeline.take_reports()
    settled = 0
    for report in reports:
        parts = report.ok + sum(report.dropped.values()) + sum(report.failed.values())
        assert report.in_count == parts
        assert sum(report.latency_counts) == report.ok
        settled += report.in_count
    assert settled == source.rows + asked + made
    assert not {"wrong-width"} & {reason for report in reports for reason in report.dropped}
