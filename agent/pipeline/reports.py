"""A closed window as a report: its account, and what the worker has counted of it. Pure."""

from __future__ import annotations

from agent.pipeline.accounting import Account
from agent.ports import WindowReport
from agent.workers.pool import StatisticsTaken, Worker


def report_of(
    account: Account,
    worker: Worker,
    taken: StatisticsTaken,
    restarts: int,
    start_ms: int,
    end_ms: int,
) -> WindowReport | None:
    """The report of a window; None where nothing happened in it."""
    if not (account.in_count or taken.rows or taken.lost or restarts):
        return None
    return WindowReport(
        release=worker.release,
        facts=worker.facts,
        start_ms=start_ms,
        end_ms=end_ms,
        in_count=account.in_count,
        ok=account.ok,
        dropped=dict(account.dropped),
        failed=dict(account.failed),
        latency_counts=account.latency_counts,
        latency_max_us=account.latency_max_us,
        worker_restarts=restarts,
        labels=dict(account.labels),
        out_of_range=account.out_of_range,
        features=taken.features,
        outputs=taken.outputs,
        statistics_rows=taken.rows,
        statistics_lost=taken.lost,
    )
