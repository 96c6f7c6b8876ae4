"""Drift: alerts, and what the detectors have learned."""

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
)

from controller.schema.base import ROW_ID, metadata

alerts = Table(  # a stream that changed: one row from beginning to end
    "alerts",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("scope", String(20), nullable=False),  # device, site or fleet
    Column("subject", String(63), nullable=False),  # which device or site; "" is the fleet
    Column("model", String(63), nullable=False),
    Column("family", String(20), nullable=False),  # inputs, outputs or projections
    Column("field", String(80), nullable=False),
    Column("kind", String(20), nullable=False),  # mean, spread, missing or outside
    Column("sentence", Text, nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("started_ms", BigInteger, nullable=False),  # when the change began, about
    Column("opened_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Column("acknowledged_ms", BigInteger),
    Column("acknowledged_by", String(80)),
    Column("note", Text, nullable=False, default=""),
    Column("accepted", Boolean, nullable=False, default=False),  # this is the new normal
    Column("applied", Boolean, nullable=False, default=False),  # the detector has been told
    Column("notified_ms", BigInteger),
    Column("notify_attempts", Integer, nullable=False, default=0),
    Index("alerts_by_end", "ended_ms", "id"),
    Index("alerts_by_subject", "subject", "model", "id"),
)

drift_states = Table(  # what the sequential detectors have learned
    "drift_states",
    metadata,
    Column("model", String(63), primary_key=True),
    Column("family", String(80), primary_key=True),
    Column("number", BigInteger, nullable=False),  # last bucket judged
    Column("state", LargeBinary, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
)

drift_courses = Table(  # how each field does at each place: the drift page, never history
    "drift_courses",
    metadata,
    Column("model", String(63), primary_key=True),
    Column("family", String(20), primary_key=True),
    Column("field", String(80), primary_key=True),
    Column("site", String(63), primary_key=True),  # "" is the fleet
    Column("rank", Float, nullable=False),  # worse is higher
    Column("standing", String(20), nullable=False),
    Column("kind", String(20), nullable=False),  # of the channel that is worst
    Column("level", Float),  # its chart, as a share of the limit
    Column("since_ms", BigInteger),  # when it began, about
    Column("devices", Integer, nullable=False),
    Column("drifting", Integer, nullable=False),
    Column("worst_device", String(63), nullable=False),
    Column("psi", Float),  # noise-corrected, against training
    Column("effect", Float),  # shift of the mean in training's deviations
    Column("mean", Float),
    Column("baseline_mean", Float),
    Column("missing_ratio", Float),
    Column("points", JSON, nullable=False),  # [[ms, level, psi], …]
    Column("bucket_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Index("drift_courses_by_rank", "rank"),
)
