"""What goes wrong with a broker that we start ourselves."""

from __future__ import annotations

from shoal.errors import ShoalError


class BrokerError(ShoalError):
    """The broker is missing, did not start, ended, or did not take new accounts."""

    code = "broker-failed"
