"""From sensor rows to answers, with every row accounted for."""

from agent.pipeline.accounting import latency_quantile
from agent.pipeline.pipeline import WorkerPipeline

__all__ = ["WorkerPipeline", "latency_quantile"]
