"""`python -m benchmarks.bare_loop FILE SECONDS`: what the interpreter does with nothing around it.

One row after another of ready, quantised input: set the tensor, invoke, get the answer. Prints
rows a second. A process of its own, so that the agent's parts are not in it.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

ROWS = 64


def main() -> None:
    """Warm up, then run for the time given."""
    interpreter = Interpreter(model_path=sys.argv[1], num_threads=1)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    random = np.random.default_rng(7)
    rows = [_row(source, random) for _ in range(ROWS)]
    seconds = float(sys.argv[2])
    _run(interpreter, source["index"], target["index"], rows, seconds / 5)
    print(_run(interpreter, source["index"], target["index"], rows, seconds))


def _row(tensor: dict[str, Any], random: np.random.Generator) -> Any:
    if tensor["dtype"] == np.float32:
        return random.standard_normal(tensor["shape"]).astype(np.float32)
    limits = np.iinfo(tensor["dtype"])
    return random.integers(limits.min, limits.max + 1, tensor["shape"]).astype(tensor["dtype"])


def _run(interpreter: Any, source: int, target: int, rows: list[Any], seconds: float) -> float:
    started = time.perf_counter()
    done = 0
    while time.perf_counter() - started < seconds:
        for row in rows:
            interpreter.set_tensor(source, row)
            interpreter.invoke()
            interpreter.get_tensor(target)
        done += len(rows)
    return done / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
