"""Shoal puts TFLite models on fleets of sensor gateways and keeps them honest there.

This package is what the agent, the controller and users share: the wire contract
(`shoal.protocol`), packages, profiles, baselines and statistics, the client and the CLI.
It imports neither `agent` nor `controller`.
"""

from datetime import UTC, datetime

__version__ = "0.1.0"

BUILT = datetime(2025, 1, 1, tzinfo=UTC)
"""Before this version was made: no device that runs it believes an earlier date."""
