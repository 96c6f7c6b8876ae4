"""Adapters: one interface, several runtimes. Only workers import these.

`SHOAL_RUNTIMES`, names with commas, says which may be used and which is tried first; without it
all may, in the order of `ADAPTERS`, then those of third parties.
"""

from __future__ import annotations

import functools
import importlib
import mmap
import os
from pathlib import Path

from agent.installed import runtime_entry_points
from agent.runtimes.adapters import NumpyAdapter, OnnxAdapter, TfliteCAdapter
from agent.runtimes.base import Adapter, Engine, RuntimeLoadError
from agent.runtimes.guard import Guard
from agent.runtimes.tflite import ADAPTERS as TFLITE_ADAPTERS
from shoal.tflite.reader import ModelFacts, read_model

VARIABLE = "SHOAL_RUNTIMES"
ADAPTERS: tuple[Adapter, ...] = (
    *TFLITE_ADAPTERS,
    TfliteCAdapter(),
    OnnxAdapter(),
    NumpyAdapter(),
)

__all__ = ["ADAPTERS", "Engine", "RuntimeLoadError", "adapters_of", "load_engine", "preload"]


def preload() -> str | None:
    """Import the first available TFLite runtime, so that clones share it; return its name."""
    return next((one.name for one in adapters_of("tflite") if one.available()), None)


def adapters_of(kind: str) -> list[Adapter]:
    """Adapters for a kind of file, the preferred one first."""
    found = [one for one in ADAPTERS if one.kind == kind]
    found += _third_parties(kind)
    wanted = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    if not wanted:
        return found
    return sorted((one for one in found if one.name in wanted), key=lambda a: wanted.index(a.name))


@functools.cache
def _third_parties(kind: str) -> tuple[Adapter, ...]:
    """Adapters of other distributions; asked for once, in the forkserver."""
    found = []
    for name, target, _ in runtime_entry_points():
        if name.partition(".")[0] == kind:
            module, _, attribute = target.partition(":")
            found.append(getattr(importlib.import_module(module), attribute))
    return tuple(found)


def load_engine(kind: str, path: Path, num_threads: int = 1) -> Engine:
    """Load a model file with the first available runtime for `kind`, guarded, or raise."""
    adapters = adapters_of(kind)
    for adapter in adapters:
        if adapter.available():
            if kind == "tflite":
                check_tflite(path)
            return Guard(adapter.load(path, num_threads))
    names = ", ".join(one.name for one in adapters) or f"no adapter for {kind}"
    raise RuntimeLoadError(f"runtime {kind}: not on this device ({names})", code="no-runtime")


def check_tflite(path: Path) -> ModelFacts:
    """Read the file before a runtime follows its offsets; about 1 ms."""
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise RuntimeLoadError(f"{path.name[:12]}…: {error}") from error
    return read_model(memoryview(data), f"{path.name[:12]}…")
