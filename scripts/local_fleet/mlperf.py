"""The MLPerf Tiny reference models as packages: an image classifier and a sound autoencoder.

Somebody else's `.tflite` files, packaged as an author would: a contract beside the file.
"""

from __future__ import annotations

from pathlib import Path

from shoal.package import Package, file_entries, make_package
from shoal.protocol.manifest import (
    ClassScores,
    Contract,
    Feature,
    Manifest,
    ModelCard,
    OutputField,
    ReconstructionError,
    Variant,
)
from shoal.signing import Signer

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PIXELS = 32 * 32 * 3
SPECTRUM = 640
_CREATED = "2026-11-24T00:00:00+00:00"


def classifier_contract() -> Contract:
    """CIFAR-10 images, pixel values 0 to 255, to a class and its score."""
    return Contract(
        features=[Feature(name=f"p{index}", low=0, high=255) for index in range(PIXELS)],
        outputs=[OutputField(name="confidence", low=0.0, high=1.0)],
        postprocess=[ClassScores(classes=CLASSES)],
        profile_features=False,
    )


def autoencoder_contract() -> Contract:
    """Five frames of a log-mel spectrogram to their reconstruction error."""
    return Contract(
        features=[Feature(name=f"m{index}", unit="dB") for index in range(SPECTRUM)],
        outputs=[OutputField(name="score", low=0.0)],
        postprocess=[ReconstructionError()],
        profile_features=False,
    )


def package_file(
    path: Path,
    name: str,
    contract: Contract,
    *signers: Signer,
    version: str = "1",
    sequence: int = 1,
) -> Package:
    """Package one `.tflite` file under `contract`."""
    files = {"model.tflite": path.read_bytes()}
    precision = "int8" if "int8" in path.name or "quant" in path.name else "float32"
    manifest = Manifest(
        model=name,
        version=version,
        sequence=sequence,
        created=_CREATED,
        files=file_entries(files),
        variants=[Variant(name=precision, file="model.tflite", precision=precision)],
        contract=contract,
        card=ModelCard(summary=f"MLPerf Tiny reference model {path.name}", licence="Apache-2.0"),
    )
    return make_package(manifest, files, *signers)


def resnet_package(models: Path, *signers: Signer) -> Package:
    """ResNet-8 int8."""
    path = models / "pretrainedResnet_quant.tflite"
    return package_file(path, "resnet8", classifier_contract(), *signers)


def ad01_package(models: Path, *signers: Signer) -> Package:
    """The anomaly-detection autoencoder, int8."""
    return package_file(models / "ad01_int8.tflite", "ad01", autoencoder_contract(), *signers)
