"""Loading a tiny model in a worker, the way every release is loaded.

`tiny.tflite` doubles two numbers and adds one.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from importlib import resources
from pathlib import Path

from agent.doctor import UnwellError
from agent.ports import LoadRefusedError, StagedRelease
from agent.workers.pool import ForkserverPool, PoolOptions
from shoal.errors import ShoalError
from shoal.protocol.manifest import (
    Contract,
    Feature,
    FileEntry,
    Golden,
    Manifest,
    OutputField,
    RawOutputs,
    Variant,
    encode_manifest,
)

FIX = "install the runtime again: pip install 'shoal[agent]' (32-bit Arm: agent-tflite-runtime)"
SAMPLES = {"inputs": [[1.0, 2.0], [0.0, -3.0]], "outputs": [[3.0, 5.0], [1.0, -5.0]]}


async def try_model(num_threads: int) -> str:
    """Load, run golden samples, and say with what."""
    pool = ForkserverPool(PoolOptions(num_threads=num_threads))
    with tempfile.TemporaryDirectory(prefix="shoal-doctor-") as folder:
        release = _release(Path(folder))
        try:
            worker = await pool.load(release)
            report = await worker.golden()
            facts = worker.facts
        except (LoadRefusedError, ShoalError) as error:
            raise UnwellError(error.sentence, FIX) from error
        finally:
            await pool.stop()
    if not report.passed:
        raise UnwellError(report.sentence, FIX)
    return f"{facts.runtime} {facts.version}, {facts.kernels} kernels"


def _release(folder: Path) -> StagedRelease:
    """The tiny model, laid out as the updater would leave it."""
    contents = {
        "tiny.tflite": (resources.files("agent.doctor") / "tiny.tflite").read_bytes(),
        "golden.json": json.dumps(SAMPLES).encode(),
    }
    variant = Variant(name="tiny", file="tiny.tflite")
    manifest = Manifest(
        model="doctor",
        version="1",
        sequence=1,
        created="2026-01-01T00:00:00+00:00",
        files=[_write(folder, name, data) for name, data in contents.items()],
        variants=[variant],
        contract=Contract(
            features=[Feature(name="a"), Feature(name="b")],
            outputs=[OutputField(name="x"), OutputField(name="y")],
            postprocess=[RawOutputs(fields=["x", "y"])],
        ),
        golden=Golden(file="golden.json"),
    )
    entry = _write(folder, "manifest", encode_manifest(manifest))
    return StagedRelease(manifest, entry.sha256, variant, folder)


def _write(folder: Path, name: str, data: bytes) -> FileEntry:
    sha256 = hashlib.sha256(data).hexdigest()
    (folder / sha256).write_bytes(data)
    return FileEntry(name=name, sha256=sha256, length=len(data))
