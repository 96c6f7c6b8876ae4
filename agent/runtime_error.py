"""The error of whatever runs models; apart from the adapters, which import numpy."""

from __future__ import annotations

from shoal.errors import ShoalError


class RuntimeLoadError(ShoalError):
    """A model that the runtime does not take, or takes for something else than declared."""

    code = "load-failed"
