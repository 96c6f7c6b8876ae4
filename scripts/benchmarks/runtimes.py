"""Group runtimes: what each runtime costs on this machine, each in a process of its own.

The same dense network in every format, and ResNet-8 int8 where it is TFLite. tflite-runtime is
measured in the environment that holds it, if it was set up.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from benchmarks.figure import Figure, Options, figure, repeat
from shoal.dense import encode_dense
from shoal.modeling.onnx import write_onnx
from shoal.tflite.writer import Dense, write_float32

ROOT = Path(__file__).resolve().parents[2]
CHILD = ROOT / "scripts" / "benchmarks" / "runtime_child.py"
RESNET = ROOT.parent / "shared" / "data" / "models" / "pretrainedResnet_quant.tflite"
OTHER_PYTHON = ROOT / ".venv-tflite-runtime" / "bin" / "python"
SIZES = (640, 128, 8, 128, 640)
CHILD_SECONDS = 120.0
ADAPTERS = {
    "ai_edge_litert": ("ai-edge-litert", "tflite", Path(sys.executable)),
    "tflite_runtime": ("tflite-runtime", "tflite", OTHER_PYTHON),
    "tflite_c": ("tflite-c", "tflite", Path(sys.executable)),
    "tflite_c_bare": ("tflite-c-bare", "tflite", Path(sys.executable)),
    "onnxruntime": ("onnxruntime", "onnx", Path(sys.executable)),
    "numpy": ("numpy", "numpy", Path(sys.executable)),
}
"""Figure's name → adapter, kind of file, and the Python that has it."""
DISTRIBUTIONS = {
    "ai_edge_litert": ("ai-edge-litert",),
    "tflite_c": ("pymicro-wakeword", "pymicro-features"),
    "onnxruntime": ("onnxruntime",),
    "numpy": ("numpy",),
}


@dataclass(frozen=True, slots=True)
class Run:
    """One process."""

    ready_ms: float
    pss_mb: float
    us_per_row: float


def _starts(name: str) -> Callable[[Options], Figure]:
    def measure(options: Options) -> Figure:
        """Start of Python to the first answer."""
        runs = _runs(name, options, 0.01)
        return figure(f"ready_{name}", "ms", [one.ready_ms for one in runs])

    return measure


def _memory(name: str) -> Callable[[Options], Figure]:
    def measure(options: Options) -> Figure:
        """PSS of that process after it, alone on the machine."""
        runs = _runs(name, options, 0.01)
        return figure(f"pss_{name}", "MB", [one.pss_mb for one in runs])

    return measure


def _speed(name: str, model: str) -> Callable[[Options], Figure]:
    def measure(options: Options) -> Figure:
        """A row of a batch of 32, through the guard."""
        runs = _runs(name, options, options.scaled(1.0, 0.2), model)
        return figure(f"{model}_{name}", "us", [one.us_per_row for one in runs])

    return measure


def _installed(name: str) -> Callable[[Options], Figure]:
    def measure(options: Options) -> Figure:
        """Files of its distributions on the disk, without what they depend on."""
        sizes = 0
        for distribution in DISTRIBUTIONS[name]:
            for file in metadata.files(distribution) or []:
                path = Path(str(file.locate()))
                sizes += path.stat().st_size if path.exists() else 0
        return figure(f"install_{name}", "MB", [sizes / 1e6])

    return measure


def _runs(name: str, options: Options, seconds: float, model: str = "dense") -> list[Run]:
    adapter, kind, python = ADAPTERS[name]
    with _model(kind, model) as path:
        return repeat(lambda: _run(python, adapter, path, seconds), options)


def _run(python: Path, adapter: str, path: Path, seconds: float) -> Run:
    command = [str(python), "-P", str(CHILD), adapter, str(path), str(seconds)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    started = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        ready = time.perf_counter() - started
        rest, _ = process.communicate(timeout=CHILD_SECONDS)
    if first.strip() != "ready" or process.returncode:
        raise RuntimeError(f"{adapter}: ended with status {process.returncode}")
    return Run(ready * 1000, **json.loads(rest))


@contextmanager
def _model(kind: str, model: str) -> Iterator[Path]:
    if model == "resnet":
        yield RESNET
        return
    draw = np.random.default_rng(1)
    layers = [
        Dense(
            draw.normal(0, 0.05, (b, a)).astype(np.float32),
            np.zeros(b, np.float32),
            relu=b != SIZES[-1],
        )
        for a, b in itertools.pairwise(SIZES)
    ]
    data = {
        "tflite": lambda: write_float32(layers),
        "onnx": lambda: write_onnx(layers),
        "numpy": lambda: encode_dense(
            [(one.weights, one.bias, "relu" if one.relu else "linear") for one in layers]
        ),
    }[kind]()
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        path = Path(folder) / "model"
        path.write_bytes(data)
        yield path


_HERE = [name for name, (_, _, python) in ADAPTERS.items() if python.exists()]
MEASUREMENTS: dict[str, Callable[[Options], Figure]] = {
    **{f"install_{name}": _installed(name) for name in DISTRIBUTIONS},
    **{f"ready_{name}": _starts(name) for name in _HERE},
    **{f"pss_{name}": _memory(name) for name in _HERE},
    **{f"dense_{name}": _speed(name, "dense") for name in _HERE},
    **{f"resnet_{name}": _speed(name, "resnet") for name in _HERE if ADAPTERS[name][1] == "tflite"},
}
