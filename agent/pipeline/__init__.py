"""From sensor rows to answers, with every row accounted for."""

from agent.pipeline.conditioning import AgeLimits
from agent.pipeline.pipeline import BUFFER_ROWS, WorkerPipeline

__all__ = ["BUFFER_ROWS", "AgeLimits", "WorkerPipeline"]
