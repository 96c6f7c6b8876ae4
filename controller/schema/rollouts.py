"""Rollouts, and what they make devices run; only the rollout engine writes them."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    false,
)

from controller.schema.base import metadata

rollouts = Table(
    "rollouts",
    metadata,
    Column("rollout", String(63), primary_key=True),
    Column("model", String(63), nullable=False, index=True),
    Column("release_sequence", BigInteger, nullable=False),
    Column("version", String(40), nullable=False),
    Column("previous_sequence", BigInteger),  # what a rollback returns to
    Column("selector", String(400), nullable=False),
    Column("state", String(20), nullable=False, index=True),
    Column("reason", Text, nullable=False, default=""),
    Column("options", JSON, nullable=False),  # waves, soak, gates, timeouts, as given
    Column("excluded", JSON, nullable=False),  # [{device, sentence}]: matched, but cannot take it
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", String(80), nullable=False),
    Column("started_ms", BigInteger),
    Column("finished_ms", BigInteger),
    Column("updated_ms", BigInteger, nullable=False),
    Column("started_by", String(80), nullable=False, server_default=""),
)

approvals = Table(  # who agreed to a rollout's start (wave 0) or to a wave, or did not
    "approvals",
    metadata,
    Column("rollout", String(63), primary_key=True),
    Column("wave", Integer, primary_key=True),
    Column("person", String(80), primary_key=True),
    Column("approved", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

waves = Table(
    "waves",
    metadata,
    Column("rollout", String(63), primary_key=True),
    Column("number", Integer, primary_key=True),  # from 1
    Column("name", String(40), nullable=False),
    Column("state", String(20), nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("size", Integer, nullable=False),
    Column("gates", JSON, nullable=False),  # [{name, value, limit, samples, verdict, sentence}]
    Column("released_ms", BigInteger),
    Column("soaking_ms", BigInteger),
    Column("evaluating_ms", BigInteger),
    Column("promoted", Boolean, nullable=False, default=False),
    Column("finished_ms", BigInteger),
    Column("needs_approval", Boolean, nullable=False, default=False, server_default=false()),
)

gate_looks = Table(  # what each look of a soak saw: the evidence behind a wave's verdict
    "gate_looks",
    metadata,
    Column("rollout", String(63), primary_key=True),
    Column("wave", Integer, primary_key=True),
    Column("look", Integer, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("soaking_ms", BigInteger, nullable=False),  # of which soak: a retry soaks again
    Column("gates", JSON, nullable=False),
)

executions = Table(
    "executions",
    metadata,
    Column("rollout", String(63), primary_key=True),
    Column("device", String(63), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("wave", Integer, nullable=False),
    Column("state", String(20), nullable=False),
    Column("code", String(80), nullable=False, default=""),
    Column("sentence", Text, nullable=False, default=""),
    Column("reported_success", Boolean, nullable=False, default=False),
    Column("previous_sequence", BigInteger),  # what this device ran before
    Column("previous_version", String(40)),
    Column("offered_ms", BigInteger),
    Column("updated_ms", BigInteger, nullable=False),
    Index("executions_by_device", "device", "updated_ms"),
    Index("executions_by_state", "rollout", "state"),
)

assignments = Table(  # what each device shall run; the director turns rows into desired states
    "assignments",
    metadata,
    Column("device", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("release_sequence", BigInteger, nullable=False),
    Column("rollout", String(63), nullable=False, default=""),
    Column("wave", Integer, nullable=False, default=0),
    Column("attempt", Integer, nullable=False, default=0),
    Column("intent", String(20), nullable=False, default="update"),
    Column("probation_seconds", Float),
    Column("updated_ms", BigInteger, nullable=False),
)

desired = Table(
    "desired",
    metadata,
    Column("device", String(63), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("dirty", Boolean, nullable=False, default=True),  # assignments changed, sign anew
    Column("published_sequence", BigInteger, nullable=False, default=0),
)
