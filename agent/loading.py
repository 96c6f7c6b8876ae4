"""From a release on the disk to a worker that has run it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agent.ports import LoadRefusedError, StagedRelease
from agent.slots import ReleaseRef
from agent.workers.pool import ForkserverPool, Worker
from shoal.protocol.manifest import Manifest, decode_manifest


class ReleaseLoader:
    """Loads releases of one model from the files folder."""

    def __init__(
        self,
        model: str,
        files: Path,
        pool: ForkserverPool,
        check: Callable[[Manifest], None] = lambda manifest: None,
    ) -> None:
        self._model = model
        self._files = files
        self._pool = pool
        self._check = check

    async def load(self, ref: ReleaseRef) -> Worker:
        """A worker with the release in it, which has run once; raises `LoadRefusedError`."""
        staged = self.staged(ref)
        self._check(staged.manifest)
        worker = await self._pool.load(staged, ref.memory_bytes)
        await worker.warm_up()
        return worker

    def staged(self, ref: ReleaseRef) -> StagedRelease:
        """The manifest and the variant that a slot names."""
        path = self._files / ref.manifest_sha256
        try:
            manifest = decode_manifest(path.read_bytes())
            variant = next(v for v in manifest.variants if v.name == ref.variant)
        except (OSError, StopIteration) as error:
            raise LoadRefusedError(
                f"{self._model} {ref.version}: {path.name[:12]}…: {error!r}", code="missing-file"
            ) from error
        return StagedRelease(manifest, ref.manifest_sha256, variant, self._files)
