"""The models that the benchmarks run.

MLPerf Tiny's files where they lie beside the project. Elsewhere the autoencoder is made here in the
same shape, with random weights: its speed is the same, its answers mean nothing. There is no such
stand-in for ResNet-8, so figures of it say that they cannot be measured.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from local_fleet.mlperf import ad01_package, autoencoder_contract, package_file, resnet_package

from agent.ports import StagedRelease
from benchmarks.figure import CannotMeasureError
from shoal.package import Package
from shoal.signing import FileSigner, Signer
from shoal.tflite.writer import Dense, write_int8

MODELS = Path(__file__).resolve().parents[3] / "shared" / "data" / "models"
AUTOENCODER_SIZES = (640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640)
CALIBRATION_ROWS = 256


def resnet(*signers: Signer) -> Package:
    """ResNet-8 int8, or `CannotMeasureError` where its file is not beside the project."""
    try:
        return resnet_package(MODELS, *(signers or (FileSigner.generate(),)))
    except FileNotFoundError as error:
        raise CannotMeasureError(
            f"needs MLPerf Tiny's {Path(error.filename).name} in {MODELS}, which is not there"
        ) from error


def autoencoder(folder: Path, *signers: Signer) -> Package:
    """ad01 int8, or a network of its shape, written into `folder`."""
    signers = signers or (FileSigner.generate(),)
    if (MODELS / "ad01_int8.tflite").exists():
        return ad01_package(MODELS, *signers)
    path = folder / "made_int8.tflite"
    path.write_bytes(_made_autoencoder())
    return package_file(path, "ad01", autoencoder_contract(), *signers)


def small_model(folder: Path, *signers: Signer) -> Package:
    """ResNet-8 where it is there, else the autoencoder: for figures about processes."""
    try:
        return resnet(*signers)
    except CannotMeasureError:
        return autoencoder(folder, *signers)


def stage(package: Package, folder: Path) -> StagedRelease:
    """Lay a package's files out as the updater leaves them on a device."""
    files = {package.manifest_sha256: package.manifest_bytes}
    files |= {one.sha256: package.files[one.name] for one in package.manifest.files}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    variant = package.manifest.variants[0]
    return StagedRelease(package.manifest, package.manifest_sha256, variant, folder)


def write_rows(package: Package, folder: Path, count: int) -> Path:
    """Random rows that fit the package's contract, as the file that `tensor-file` reads."""
    features = package.manifest.contract.features
    low, high = features[0].low, features[0].high
    random = np.random.default_rng(7)
    shape = (count, len(features))
    if low is None or high is None:
        rows = random.standard_normal(shape).astype("<f4")
    else:
        rows = random.integers(int(low), int(high) + 1, shape).astype("<f4")
    path = folder / f"{package.manifest.model}.npy"
    np.save(path, rows)
    return path


def _made_autoencoder() -> bytes:
    random = np.random.default_rng(1)
    pairs = list(pairwise(AUTOENCODER_SIZES))
    layers = [
        Dense(
            (random.standard_normal((wide, narrow)) / np.sqrt(narrow)).astype(np.float32),
            np.zeros(wide, np.float32),
            relu=number < len(pairs) - 1,
        )
        for number, (narrow, wide) in enumerate(pairs)
    ]
    rows = random.standard_normal((CALIBRATION_ROWS, AUTOENCODER_SIZES[0])).astype(np.float32)
    return write_int8(layers, rows)
