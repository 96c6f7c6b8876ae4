"""Adapters: one interface, several runtimes. Only workers import these."""

from __future__ import annotations

from pathlib import Path

from agent.runtimes.base import Engine, RuntimeLoadError
from agent.runtimes.tflite import ADAPTERS

__all__ = ["Engine", "RuntimeLoadError", "load_engine", "preload"]


def preload() -> str | None:
    """Import the first available TFLite runtime, so that clones share it; return its name."""
    return next((one.name for one in ADAPTERS if one.available()), None)


def load_engine(runtime: str, path: Path, num_threads: int = 1) -> Engine:
    """Load a model file with the first available runtime for `runtime`, or raise."""
    if runtime != "tflite":
        raise RuntimeLoadError(f"runtime {runtime}: no adapter on this device", code="no-runtime")
    for adapter in ADAPTERS:
        if adapter.available():
            return adapter.load(path, num_threads)
    names = ", ".join(one.distribution for one in ADAPTERS)
    raise RuntimeLoadError(f"runtime tflite: none of {names} is installed", code="no-runtime")
