"""Fixtures of all contract tests: real brokers, where the controller is installed."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("sqlalchemy"):  # the environment of tflite-runtime is a device's
    from tests.contract.brokers import broker, broker_kind, connect, hold, identities

    __all__ = ["broker", "broker_kind", "connect", "hold", "identities"]
