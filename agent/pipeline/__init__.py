"""From sensor rows to answers, with every row accounted for."""

from agent.pipeline.pipeline import WorkerPipeline

__all__ = ["WorkerPipeline"]
