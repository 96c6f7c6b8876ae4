"""A micro-batch that took two workers down is asked again part by part, at a bounded cost.

Parts are rows: a row completes one window at most, so a worker that dies of a row alone dies of
one window, and only that one is set aside; those around it are answered, in their order. When so
many more workers are lost, the rest is given up whole: a model that dies of everything is for the
crash rules.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from agent.workers.pool import BatchFailedError

SPARE_LOSSES = 3
MAX_LOSSES = 16


def losses_allowed(window_rows: int, stride_rows: int) -> int:
    """Workers that one batch may cost after its first two: a poisoned row is in several windows.

    >>> losses_allowed(1, 1), losses_allowed(5, 1), losses_allowed(4, 2), losses_allowed(250, 1)
    (4, 8, 5, 16)
    """
    return min(-(-window_rows // stride_rows) + SPARE_LOSSES, MAX_LOSSES)


async def ask_one_by_one(
    parts: int,
    losses: int,
    ask: Callable[[int], Awaitable[None]],
    fail: Callable[[int, int, BatchFailedError], None],
) -> None:
    """Ask for each part; `fail(start, stop, error)` settles those that got no answer.

    The last of `losses` failures takes all parts that follow along.
    """
    for part in range(parts):
        try:
            await ask(part)
        except BatchFailedError as error:
            losses -= 1
            fail(part, part + 1 if losses else parts, error)
            if not losses:
                return
