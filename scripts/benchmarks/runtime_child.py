"""One runtime in a process of its own: load, answer, say so, then measure.

`python runtime_child.py ADAPTER MODEL SECONDS` prints `ready` after the first answer, then a JSON
object. `tflite-c-bare` is the C library without numpy.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROWS = 32


def main() -> None:
    """Measure what the arguments name."""
    name, path, seconds = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    run = _bare(path) if name == "tflite-c-bare" else _guarded(name, path)
    run()
    print("ready", flush=True)
    pss = _pss_mb()
    calls, started = 0, time.perf_counter()
    while (taken := time.perf_counter() - started) < seconds:
        run()
        calls += 1
    print(json.dumps({"pss_mb": pss, "us_per_row": taken / calls / ROWS * 1e6}), flush=True)


def _guarded(name: str, path: Path) -> Callable[[], object]:
    import numpy as np

    from agent.runtimes import ADAPTERS
    from agent.runtimes.guard import Guard

    engine = Guard(next(one for one in ADAPTERS if one.name == name).load(path, 1))
    rows = np.zeros((ROWS, engine.input_values), np.float32)
    return lambda: engine.run(rows)


def _bare(path: Path) -> Callable[[], object]:
    from agent.installed import find_tflite_library
    from agent.tflite_c import Interpreter, Library

    library = find_tflite_library()
    if library is None or "numpy" in sys.modules:
        raise RuntimeError("expected the TensorFlow Lite C library, and no numpy")
    interpreter = Interpreter(Library(library), path)
    row = bytes(interpreter.input.size_bytes)

    def run() -> None:
        for _ in range(ROWS):
            interpreter.set_input(row)
            interpreter.invoke()
            interpreter.get_output()

    return run


def _pss_mb() -> float:
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
