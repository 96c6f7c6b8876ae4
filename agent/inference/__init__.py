"""The Open Inference Protocol (V2) over the agent's local HTTP server."""

from agent.inference.service import InferenceService

__all__ = ["InferenceService"]
