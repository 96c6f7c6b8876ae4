"""A small signed package and the tools to write archives that no honest author would."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from shoal.package import Package, file_entries, make_package, write_package
from shoal.protocol.manifest import Contract, Feature, Manifest, OutputField, Variant
from shoal.signing import FileSigner

FILES = {"model.tflite": bytes(range(256)) * 4, "card.md": b"A model for tests.\n"}

Archive = Callable[[dict[str, bytes]], Path]


@pytest.fixture(scope="session")
def signer() -> FileSigner:
    """A release key."""
    return FileSigner.generate()


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    """The manifest of `FILES`."""
    return Manifest(
        model="pump",
        version="1.2.0",
        sequence=12,
        created="2026-01-01T00:00:00+00:00",
        files=file_entries(FILES),
        variants=[Variant(name="only", file="model.tflite")],
        contract=Contract(features=[Feature(name="t")], outputs=[OutputField(name="score")]),
    )


@pytest.fixture(scope="session")
def package(manifest: Manifest, signer: FileSigner) -> Package:
    """A good package."""
    return make_package(manifest, dict(FILES), signer)


@pytest.fixture
def members(package: Package, tmp_path: Path) -> dict[str, bytes]:
    """Name and bytes of every member of the good package, in its order."""
    path = tmp_path / "good.shoal"
    write_package(package, path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def write_archive(tmp_path: Path) -> Archive:
    """Writes any members, stored, into a file."""

    def write(members: dict[str, bytes]) -> Path:
        path = tmp_path / "hostile.shoal"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, data in members.items():
                archive.writestr(zipfile.ZipInfo(name), data)
        return path

    return write
