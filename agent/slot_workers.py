"""The workers of one model: the one that answers, and the release before's, warm beside it."""

from __future__ import annotations

from collections.abc import Callable

from agent.pipeline import WorkerPipeline
from agent.slots import ReleaseRef
from agent.workers.pool import Worker


class SlotWorkers:
    """Whoever changes them holds the model's lock."""

    def __init__(self, pipeline: WorkerPipeline, on_change: Callable[[], None]) -> None:
        self._pipeline = pipeline
        self._on_change = on_change
        self.running: Worker | None = None
        """The worker that answers."""
        self.warm: Worker | None = None
        """A worker that could answer at once, where memory allows one."""

    def answers(self, manifest_sha256: str) -> bool:
        """Whether that release answers now."""
        worker = self.running
        return worker is not None and worker.release.manifest_sha256 == manifest_sha256

    async def swap(self, worker: Worker | None) -> Worker | None:
        """Let `worker` answer; return who did before."""
        before = await self._pipeline.swap(worker)
        self.running = worker
        self._on_change()
        return before

    async def held_warm(self, ref: ReleaseRef) -> Worker | None:
        """The warm worker if it holds that release; another one makes room."""
        warm = self.warm
        if warm is not None and warm.release.manifest_sha256 == ref.manifest_sha256:
            return warm
        await self.drop_warm()
        return None

    async def drop_warm(self) -> None:
        """End the warm worker, if there is one."""
        warm, self.warm = self.warm, None
        if warm is not None:
            await warm.close()
