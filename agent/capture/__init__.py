"""Capture: the few windows worth a person's look, kept on the device until asked for.

`rules` decide (pure), `recorder` watches the pipeline, `store` keeps within quotas, `replay` runs a
sample again.
"""

from agent.capture.recorder import Recorder
from agent.capture.store import CaptureStore

__all__ = ["CaptureStore", "Recorder"]
