"""What a worker is told to load, and the checks of it that need no numpy."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from msgspec import Struct

from agent.runtime_error import RuntimeLoadError
from shoal.baseline import Baseline, decode_baseline
from shoal.errors import InvalidInputError
from shoal.protocol.manifest import (
    ClassScores,
    Contract,
    Manifest,
    Threshold,
    Variant,
    decode_manifest,
)
from shoal.protocol.steps import input_values

MAX_LABELS = 256


class LoadOrder(Struct, kw_only=True, frozen=True):
    """The payload of a LOAD frame."""

    folder: str
    manifest_sha256: str
    variant: str
    num_threads: int
    memory_bytes: int


class Release:
    """A release's files as they lie on the disk, every one hashed before it is used."""

    def __init__(self, order: LoadOrder) -> None:
        self._folder = Path(order.folder)
        self.manifest: Manifest = decode_manifest(self._read("manifest", order.manifest_sha256))
        self.contract: Contract = self.manifest.contract
        self.variant: Variant = next(
            one for one in self.manifest.variants if one.name == order.variant
        )

    def model_path(self) -> Path:
        """The model's file, its digest checked."""
        entry = self.manifest.file(self.variant.file)
        path = self._folder / entry.sha256
        try:
            with path.open("rb") as file:
                got = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise RuntimeLoadError(f"{entry.name}: {error}", code="digest-mismatch") from error
        _check(entry.name, entry.sha256, got)
        return path

    def read(self, name: str) -> bytes:
        """A file's bytes, their digest checked."""
        entry = self.manifest.file(name)
        return self._read(entry.name, entry.sha256)

    def baseline(self) -> Baseline | None:
        """The baseline, if the release has one."""
        name = self.manifest.baseline
        return None if name is None else decode_baseline(self.read(name))

    def check_width(self, got: int) -> None:
        """Refuse a model whose input is not what the contract makes."""
        contract = self.contract
        width = input_values(
            [feature.name for feature in contract.features],
            contract.window_rows,
            contract.preprocess,
        )
        if got != width:
            raise RuntimeLoadError(
                f"{self.variant.file}: expected {width} input values as the contract says, "
                f"got {got}",
                code="wrong-tensor",
            )

    def _read(self, name: str, sha256: str) -> bytes:
        try:
            data = (self._folder / sha256).read_bytes()
        except OSError as error:
            raise RuntimeLoadError(f"{name}: {error}", code="digest-mismatch") from error
        _check(name, sha256, hashlib.sha256(data).hexdigest())
        return data


def labels_of(contract: Contract) -> list[str]:
    """Every label that the contract's steps can give."""
    found: list[str] = []
    for step in contract.postprocess:
        if isinstance(step, ClassScores):
            found += step.classes
        elif isinstance(step, Threshold):
            found += [step.otherwise, step.label]
    if len(found) > MAX_LABELS:
        raise InvalidInputError(f"contract: {len(found)} labels, at most {MAX_LABELS}")
    return found


def middle_of(contract: Contract) -> list[float]:
    """A row that could be real: the middle of every range, 0 without one."""
    return [
        0.0 if one.low is None or one.high is None else (one.low + one.high) / 2
        for one in contract.features
    ]


def facts_of(engine: Any, labels: list[str]) -> dict[str, Any]:
    """What the agent is told after loading."""
    return {
        "runtime": engine.name,
        "version": engine.version,
        "kernels": engine.kernels,
        "labels": labels,
    }


def _check(name: str, sha256: str, got: str) -> None:
    if got != sha256:
        raise RuntimeLoadError(
            f"{name}: expected sha256 {sha256[:12]}…, got {got[:12]}…", code="digest-mismatch"
        )
