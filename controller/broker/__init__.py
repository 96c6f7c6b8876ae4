"""The MQTT broker: mosquitto or nats-server as our child, or one that the site runs.

Texts of configuration are pure functions of values (`mosquitto`, `nats`); the process is a
thin shell (`embedded`, `process`, `tether`). Nothing else in the project knows which broker runs.
"""

from controller.broker.accounts import (
    DIRECTOR_ACCOUNT,
    INGEST_ACCOUNT,
    PROBE_ACCOUNT,
    Accounts,
    publish_topics,
    read_topics,
)
from controller.broker.embedded import EmbeddedBroker, free_port
from controller.broker.errors import BrokerError
from controller.broker.external import Broker, ExternalBroker
from controller.broker.kinds import KINDS, choose_kind
from controller.broker.settings import BrokerSettings, TlsFiles

__all__ = [
    "DIRECTOR_ACCOUNT",
    "INGEST_ACCOUNT",
    "KINDS",
    "PROBE_ACCOUNT",
    "Accounts",
    "Broker",
    "BrokerError",
    "BrokerSettings",
    "EmbeddedBroker",
    "ExternalBroker",
    "TlsFiles",
    "choose_kind",
    "free_port",
    "publish_topics",
    "read_topics",
]
