"""A controller's database with a fleet and two releases, and the parts that move it. No broker."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import insert, update

from controller import schema
from controller.app import build_services
from controller.config import load_settings
from controller.database import writing
from controller.releases import publish
from controller.rollouts.states import ExecutionState, WaveState
from controller.services import Services
from controller.setup import initialise, trust_release_key
from shoal.package import Package, file_entries, make_package, write_package
from shoal.protocol.manifest import Contract, Feature, Manifest, OutputField, Requires, Variant
from shoal.signing import FileSigner

MODEL = "vibration"
SITES = 200
PROFILES = ("rpi4", "rpi5", "generic-x86_64", "imx8mp", "beaglebone")
OLD, NEW = 1, 2
INSERTED_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True)
class Fleet:
    """Services over a database with enrolled devices, all of which run the old release."""

    services: Services
    size: int

    def specification(self, **options: Any) -> dict[str, Any]:
        """A rollout to everybody in one wave."""
        everybody = [{"name": "all", "share": 1.0}]
        return {"model": MODEL, "version": f"{NEW}.0", "waves": everybody, **options}

    def put_in_flight(self, rollout: str) -> None:
        """Every device was offered the release, and fetches it."""
        now_ms = self.services.now_ms()
        with writing(self.services.engine) as connection:
            values: dict[str, Any] = {"state": WaveState.RELEASING, "released_ms": now_ms}
            connection.execute(update(schema.waves).values(**values))
            values = {
                "state": ExecutionState.DOWNLOADING,
                "previous_sequence": OLD,
                "offered_ms": now_ms,
                "updated_ms": now_ms,
            }
            connection.execute(update(schema.executions).values(**values))
            rows = [
                {
                    "device": f"device-{number}",
                    "model": MODEL,
                    "release_sequence": NEW,
                    "rollout": rollout,
                    "wave": 1,
                    "attempt": 1,
                    "updated_ms": now_ms,
                }
                for number in range(self.size)
            ]
            connection.execute(insert(schema.assignments), rows)

    def report(self, rollout: str, first: int, count: int, state: str) -> None:
        """So many devices say how far they are."""
        now_ms = self.services.now_ms()
        rows = [
            {
                "device": f"device-{number % self.size}",
                "ts_ms": now_ms,
                "received_ms": now_ms,
                "kind": "execution",
                "code": state,
                "severity": "info",
                "sentence": "",
                "model": MODEL,
                "version": f"{NEW}.0",
                "rollout": rollout,
                "attempt": 1,
                "data": {"state": state, "intent": "update"},
            }
            for number in range(first, first + count)
        ]
        with writing(self.services.engine) as connection:
            connection.execute(insert(schema.events), rows)


@contextmanager
def fleet(size: int) -> Iterator[Fleet]:
    """A fresh one in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as text:
        folder = Path(text)
        config = folder / "controller.toml"
        config.write_text('data_dir = "data"\n', encoding="utf-8")
        settings = load_settings(config)
        initialise(settings)
        signer = FileSigner.generate()
        trust_release_key(settings, signer.public_key)
        services = build_services(settings)
        manifests = [_publish(services, folder, signer, sequence) for sequence in (OLD, NEW)]
        _enrol(services, size, manifests[0])
        try:
            yield Fleet(services, size)
        finally:
            services.engine.dispose()


def _publish(services: Services, folder: Path, signer: FileSigner, sequence: int) -> str:
    package = make_release(signer, sequence)
    path = folder / f"{sequence}.shoal"
    write_package(package, path)
    publish(services, path, "bench")
    with writing(services.engine) as connection:
        connection.execute(insert(schema.published_releases).values(**sign_off(sequence)))
    return package.manifest_sha256


def sign_off(sequence: int) -> dict[str, Any]:
    """A release's row as it stands once signed metadata list it; nobody fetches it here."""
    row = {"model": MODEL, "sequence": sequence, "bin": "", "signers": []}
    return row | {"published_ms": 0, "published_by": "bench"}


def make_release(signer: FileSigner, sequence: int) -> Package:
    """A release with two variants, as a model for two kinds of hardware has."""
    files = {"int8.tflite": b"8" * sequence, "float32.tflite": b"32" * sequence}
    manifest = Manifest(
        model=MODEL,
        version=f"{sequence}.0",
        sequence=sequence,
        created="2026-01-01T00:00:00+00:00",
        files=file_entries(files),
        variants=[
            Variant(
                name="int8",
                file="int8.tflite",
                priority=2,
                requires=Requires(arch=["aarch64"], memory_mb=64, cpu_features=["asimd"]),
            ),
            Variant(name="float32", file="float32.tflite", requires=Requires(memory_mb=256)),
        ],
        contract=Contract(
            features=[Feature(name=f"f{number}") for number in range(8)],
            outputs=[OutputField(name="wear", unit="mm")],
        ),
    )
    return make_package(manifest, files, signer)


def _enrol(services: Services, size: int, manifest: str) -> None:
    now_ms = services.now_ms()
    for first in range(0, size, INSERTED_AT_ONCE):
        numbers = range(first, min(first + INSERTED_AT_ONCE, size))
        devices = [
            {
                "device": f"device-{number}",
                "site": f"site-{number % SITES}",
                "profile": PROFILES[number % len(PROFILES)],
                "labels": {"line": str(number % 7)},
                "facts": _facts(number),
                "public_key": b"\0" * 32,
                "enrolled_ms": now_ms,
                "online": number % 10 > 0,
                "status": "ok",
                "last_seen_ms": now_ms,
            }
            for number in numbers
        ]
        running = [
            {
                "device": f"device-{number}",
                "model": MODEL,
                "active_version": f"{OLD}.0",
                "active_sequence": OLD,
                "active_manifest": manifest,
                "updated_ms": now_ms,
            }
            for number in numbers
        ]
        with writing(services.engine) as connection:
            connection.execute(insert(schema.devices), devices)
            connection.execute(insert(schema.device_models), running)


def _facts(number: int) -> dict[str, str | int]:
    """As an agent introspects them; room on the disk is another everywhere."""
    arm = number % len(PROFILES) != 2
    return {
        "arch": "aarch64" if arm else "x86_64",
        "memory_mb": 1024 << number % 4,
        "disk_mb": 2048 + number * 7 % 20_000,
        "cpu_features": "asimd,asimddp" if arm else "avx2,sse4_2",
        "cpu_cores": 4,
        "libc": "glibc 2.36",
        "python": "3.11.2",
        "delegates": "",
        "sensors": "",
        "runtimes": "tflite",
        "runtime": "ai-edge-litert",
        "runtime_version": "2.1.0",
        "runtime_tflite": "ai-edge-litert 2.1.0",
    }
