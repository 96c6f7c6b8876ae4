"""Telemetry, which only ingest writes, and what of it is committed."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    String,
    Table,
    Text,
)

from controller.schema.base import ROW_ID, metadata

device_boots = Table(  # what of each boot is committed: makes delivery exactly once in effect
    "device_boots",
    metadata,
    Column("device", String(63), primary_key=True),
    Column("boot_id", String(40), primary_key=True),
    Column("ranges", JSON, nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
)

windows = Table(
    "windows",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("device", String(63), nullable=False),
    Column("model", String(63), nullable=False),
    Column("version", String(40), nullable=False),
    Column("release_sequence", BigInteger, nullable=False),
    Column("slot", String(20), nullable=False),
    Column("start_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("in_count", BigInteger, nullable=False),
    Column("ok", BigInteger, nullable=False),
    Column("dropped", JSON, nullable=False),
    Column("failed", JSON, nullable=False),
    Column("latency_p50_us", Float, nullable=False),
    Column("latency_p95_us", Float, nullable=False),
    Column("latency_p99_us", Float, nullable=False),
    Column("latency_max_us", Float, nullable=False),
    Column("latency_counts", JSON, nullable=False),
    Column("worker_restarts", Integer, nullable=False),
    Column("worker_pss_bytes", BigInteger, nullable=False),
    Column("labels", JSON, nullable=False),
    Index("windows_by_device", "device", "model", "end_ms"),
    Index("windows_by_release", "model", "release_sequence", "end_ms"),
)

statistics = Table(
    "statistics",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("device", String(63), nullable=False),
    Column("model", String(63), nullable=False),
    Column("version", String(40), nullable=False),
    Column("release_sequence", BigInteger, nullable=False),
    Column("slot", String(20), nullable=False),
    Column("baseline", String(64), nullable=False),
    Column("start_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("lost", BigInteger, nullable=False),
    Column("features", JSON, nullable=False),  # list of FieldStatistics
    Column("outputs", JSON, nullable=False),
    Index("statistics_by_device", "device", "model", "end_ms"),
    Index("statistics_by_release", "model", "release_sequence", "end_ms"),
)

health = Table(
    "health",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("device", String(63), nullable=False),
    Column("ts_ms", BigInteger, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("cpu_ratio", Float, nullable=False),
    Column("memory_available_bytes", BigInteger, nullable=False),
    Column("agent_pss_bytes", BigInteger, nullable=False),
    Column("workers_pss_bytes", BigInteger, nullable=False),
    Column("outbox_rows", BigInteger, nullable=False),
    Column("temperature_c", Float),
    Index("health_by_device", "device", "ts_ms"),
)

predictions = Table(
    "predictions",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("device", String(63), nullable=False),
    Column("model", String(63), nullable=False),
    Column("release_sequence", BigInteger, nullable=False),
    Column("sample_ms", BigInteger, nullable=False),
    Column("values", JSON, nullable=False),  # {output name: value}
    Column("label", String(80), nullable=False, default=""),
    Index("predictions_by_device", "device", "model", "sample_ms"),
)

events = Table(
    "events",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("device", String(63), nullable=False),
    Column("ts_ms", BigInteger, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("kind", String(40), nullable=False),
    Column("code", String(80), nullable=False),
    Column("severity", String(10), nullable=False),
    Column("sentence", Text, nullable=False),
    Column("model", String(63)),
    Column("version", String(40)),
    Column("rollout", String(63)),
    Column("attempt", Integer),
    Column("data", JSON, nullable=False),
    Index("events_by_device", "device", "ts_ms"),
    Index("events_by_rollout", "rollout", "id"),
)

captures = Table(  # samples that devices captured and commands asked for
    "captures",
    metadata,
    Column("device", String(63), primary_key=True),
    Column("capture", String(120), primary_key=True),
    Column("model", String(63), nullable=False),
    Column("version", String(40), nullable=False),
    Column("release_sequence", BigInteger, nullable=False),
    Column("sample_ms", BigInteger, nullable=False),
    Column("reason", String(120), nullable=False),
    Column("features", JSON, nullable=False),
    Column("redacted", JSON, nullable=False),
    Column("rows", JSON, nullable=False),
    Column("outputs", JSON, nullable=False),  # {output name: value}
    Column("label", String(120), nullable=False, default=""),
    Column("received_ms", BigInteger, nullable=False),
    Index("captures_by_device", "device", "model", "sample_ms"),
)

rejections = Table(  # invalid messages: counted, never stored one by one
    "rejections",
    metadata,
    Column("device", String(63), primary_key=True),  # "" where the topic names none
    Column("channel", String(40), primary_key=True),
    Column("code", String(80), primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    Column("example", Text, nullable=False),  # sentence of the latest
)
