"""The fleet: devices, what they run, and how they come in."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    LargeBinary,
    String,
    Table,
    Text,
)

from controller.schema.base import metadata

devices = Table(
    "devices",
    metadata,
    Column("device", String(63), primary_key=True),
    Column("site", String(63), nullable=False, index=True),
    Column("profile", String(120), nullable=False, default=""),
    Column("labels", JSON, nullable=False, default=dict),
    Column("facts", JSON, nullable=False, default=dict),
    Column("public_key", LargeBinary, nullable=False),
    Column("enrolled_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
    Column("online", Boolean, nullable=False, default=False),
    Column("status", String(20), nullable=False, default="unknown"),  # + offline, set by the web
    Column("reason", Text, nullable=False, default=""),
    Column("boot_id", String(40), nullable=False, default=""),  # of the state applied last
    Column("state_ms", BigInteger, nullable=False, default=0),  # 0: its clock was not believed
    Column("state_seq", BigInteger, nullable=False, default=0),
    Column("agent_version", String(40), nullable=False, default=""),
    Column("last_seen_ms", BigInteger),
    Column("clock_synced", Boolean, nullable=False, default=True),
    Column("reported_desired_sequence", BigInteger, nullable=False, default=0),
    Column("health", JSON, nullable=False, default=dict),  # the newest Health message
)

device_models = Table(
    "device_models",
    metadata,
    Column("device", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("active_version", String(40)),
    Column("active_sequence", BigInteger),
    Column("active_manifest", String(64)),
    Column("active_variant", String(80)),
    Column("last_good_version", String(40)),
    Column("candidate_version", String(40)),
    Column("candidate_state", String(40)),
    Column("runtime", String(40)),
    Column("runtime_version", String(40)),
    Column("kernels", String(40)),
    Column("latency_p95_us", Float),
    Column("failed_ratio", Float),
    Column("rows_per_second", Float),
    Column("anomaly_ratio", Float),
    Column("drift", Float),  # largest noise-corrected PSI of any feature in the last windows
    Column("drift_feature", String(80)),
    Column("updated_ms", BigInteger),
    Index("device_models_by_drift", "drift"),
    Index("device_models_by_release", "model", "active_version", "device"),
)

device_options = Table(  # a few safe settings that travel in the desired state
    "device_options",
    metadata,
    Column("device", String(63), primary_key=True),
    Column("options", JSON, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
)

enrolment_tokens = Table(
    "enrolment_tokens",
    metadata,
    Column("token_id", String(63), primary_key=True),
    Column("secret", LargeBinary),  # deleted on use and on expiry
    Column("device", String(63)),  # bound to one device, or any
    Column("site", String(63)),
    Column("labels", JSON, nullable=False, default=dict),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("used_ms", BigInteger),
    Column("used_by", String(63)),
)

certificates = Table(  # of devices; those taken back stay listed until they would have ended
    "certificates",
    metadata,
    Column("serial", String(40), primary_key=True),  # hexadecimal
    Column("device", String(63), nullable=False, index=True),
    Column("issued_ms", BigInteger, nullable=False),
    Column("not_after_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
    Column("chain", LargeBinary, nullable=False),  # PEM, as the device got it
)

admissions = Table(  # devices without a token: who asks, and whom an operator lets in
    "admissions",
    metadata,
    Column("fingerprint", String(64), primary_key=True),  # SHA-256 of the public key
    Column("public_key", LargeBinary, nullable=False),
    Column("device", String(63), nullable=False),
    Column("site", String(63)),  # null: an operator named none
    Column("profile", String(120), nullable=False, default=""),
    Column("labels", JSON, nullable=False, default=dict),
    Column("facts", JSON, nullable=False, default=dict),
    Column("state", String(20), nullable=False, index=True),  # pending, approved or rejected
    Column("address", String(80), nullable=False, default=""),  # who asked
    Column("asked_ms", BigInteger),  # null: it has not asked yet
    Column("seen_ms", BigInteger),
    Column("decided_ms", BigInteger),
    Column("decided_by", String(80)),
)

selectors = Table(  # saved by people; other selectors say group:NAME
    "selectors",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("selector", String(400), nullable=False),
    Column("static", Boolean, nullable=False, default=False),  # its devices are in group_devices
    Column("note", String(200), nullable=False, default=""),
    Column("updated_ms", BigInteger, nullable=False),
    Column("updated_by", String(80), nullable=False),
)

group_devices = Table(
    "group_devices",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("device", String(63), primary_key=True),
)

opt_outs = Table(  # devices and sites that take no part in rollouts
    "opt_outs",
    metadata,
    Column("scope", String(10), primary_key=True),  # device or site
    Column("subject", String(63), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("by", String(80), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)
