"""Requests of several peers as one micro-batch, and its answer as theirs again. Pure.

They are whole windows that stand behind each other, so neither carries rows of another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agent.workers.frames import InferAnswer, InferRequest


def together(requests: Sequence[InferRequest]) -> InferRequest:
    """One request of the rows of all."""
    rows = sum(one.fresh for one in requests)
    values = b"".join(one.values for one in requests)
    return InferRequest(0, rows, requests[0].width, values)


def share(whole: InferAnswer, rows: Sequence[int], window_rows: int) -> Iterator[InferAnswer]:
    """The answer of each, by the rows that each sent."""
    row = window = 0
    width = whole.outputs * 4
    for count in rows:
        end, last = window + count // window_rows, row + count
        yield InferAnswer(
            end - window,
            whole.outputs,
            0,
            whole.invoke_ns,
            whole.rows[row:last],
            whole.values[window * width : end * width],
            whole.labels[window:end],
        )
        window, row = end, last
