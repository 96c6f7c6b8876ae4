"""The database's tables, in SQLAlchemy Core, for SQLite now and PostgreSQL with the same code.

Times are integer milliseconds since 1970-01-01 UTC (`*_ms`), JSON columns hold what messages
hold. Current state is kept incrementally (`devices`, `device_models`), so pages never scan
telemetry. Only `ingest` writes telemetry, only the rollout engine writes rollouts and
assignments; every change by a person leaves a row in `audit`.
"""

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
    MetaData,
    String,
    Table,
    Text,
    false,
)

metadata = MetaData()
_id = BigInteger().with_variant(Integer, "sqlite")  # SQLite autoincrements only INTEGER


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
)

device_boots = Table(  # what of each boot is committed: makes delivery exactly once in effect
    "device_boots",
    metadata,
    Column("device", String(63), primary_key=True),
    Column("boot_id", String(40), primary_key=True),
    Column("ranges", JSON, nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
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

windows = Table(
    "windows",
    metadata,
    Column("id", _id, primary_key=True),
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
    Column("id", _id, primary_key=True),
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
    Column("id", _id, primary_key=True),
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
    Column("id", _id, primary_key=True),
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
    Column("id", _id, primary_key=True),
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

releases = Table(
    "releases",
    metadata,
    Column("model", String(63), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("version", String(40), nullable=False),
    Column("manifest_sha256", String(64), nullable=False, index=True),
    Column("manifest_length", BigInteger, nullable=False),
    Column("manifest", JSON, nullable=False),
    Column("envelope", LargeBinary, nullable=False),  # the signed Release statement
    Column("signed_by", JSON, nullable=False),  # key ids
    Column("published_ms", BigInteger, nullable=False),
    Column("published_by", String(80), nullable=False),
    Index("releases_by_version", "model", "version", unique=True),
)

files = Table(  # bytes are on disk, named by hash
    "files",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("length", BigInteger, nullable=False),
)

published_releases = Table(  # in signed targets metadata: these can be assigned
    "published_releases",
    metadata,
    Column("model", String(63), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("bin", String(20), nullable=False),  # which part of targets lists it
    Column("signers", JSON, nullable=False),  # key ids
    Column("published_ms", BigInteger, nullable=False),
    Column("published_by", String(80), nullable=False),
    Column("withdrawn_ms", BigInteger),
)

trust_metadata = Table(  # TUF metadata as it is served
    "trust_metadata",
    metadata,
    Column("role", String(20), primary_key=True),  # root, targets, snapshot, timestamp, bin-3f
    Column("version", BigInteger, primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("added_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),  # when another version took its place
    Index("trust_metadata_current", "ended_ms", "role"),
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

opt_outs = Table(  # devices and sites that take no part in rollouts
    "opt_outs",
    metadata,
    Column("scope", String(10), primary_key=True),  # device or site
    Column("subject", String(63), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("by", String(80), nullable=False),
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

device_options = Table(  # a few safe settings that travel in the desired state
    "device_options",
    metadata,
    Column("device", String(63), primary_key=True),
    Column("options", JSON, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
)

commands = Table(  # what operators asked single devices; answers are in `replies`
    "commands",
    metadata,
    Column("command", String(63), primary_key=True),
    Column("device", String(63), nullable=False),
    Column("order", JSON, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", String(80), nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("published_ms", BigInteger),
    Index("commands_by_device", "device", "created_ms"),
)

replies = Table(  # parts; a boot of the device may answer again, the first whole answer counts
    "replies",
    metadata,
    Column("command", String(63), primary_key=True),
    Column("device", String(63), primary_key=True),  # nobody takes another's place
    Column("boot_id", String(40), primary_key=True),
    Column("part", Integer, primary_key=True),
    Column("parts", Integer, nullable=False),
    Column("ok", Boolean, nullable=False),
    Column("code", String(120), nullable=False),
    Column("sentence", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
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

audit = Table(  # hash-chained: each row's hash covers the row and the hash before it
    "audit",
    metadata,
    Column("id", _id, primary_key=True),
    Column("ts_ms", BigInteger, nullable=False),
    Column("actor", String(80), nullable=False),
    Column("action", String(80), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("data", JSON, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

alerts = Table(  # a stream that changed: one row from beginning to end
    "alerts",
    metadata,
    Column("id", _id, primary_key=True),
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

settings = Table(
    "settings",
    metadata,
    Column("key", String(80), primary_key=True),
    Column("value", JSON, nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("role", String(20), nullable=False),
    Column("password_hash", String(200), nullable=False),  # argon2id, with its parameters
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", String(80), nullable=False),
    Column("password_ms", BigInteger, nullable=False),  # when it was last changed
    Column("disabled_ms", BigInteger),
    Column("last_sign_in_ms", BigInteger),
    Column("issuer", String(200)),  # who vouches for them; without it their password does
    Column("subject", String(255)),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("token_id", String(20), primary_key=True),
    Column("name", String(80), nullable=False),
    Column("role", String(20), nullable=False),
    Column("owner", String(63), nullable=False),  # the user it ends with; "" for none
    Column("token_hash", String(64), nullable=False, unique=True),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger),  # those made at the controller's own machine do not end
    Column("last_used_ms", BigInteger),
    Column("revoked_ms", BigInteger),
)

browser_sessions = Table(  # browsers that are signed in
    "browser_sessions",
    metadata,
    Column("secret_hash", String(64), primary_key=True),
    Column("principal", String(80), nullable=False, index=True),  # user NAME or token ID
    Column("expires_ms", BigInteger, nullable=False, index=True),
)

one_time_links = Table(  # each signs one browser in, once; used ones and old ones are deleted
    "one_time_links",
    metadata,
    Column("secret_hash", String(64), primary_key=True),
    Column("principal", String(80), nullable=False, index=True),
    Column("expires_ms", BigInteger, nullable=False, index=True),
)

sign_in_attempts = Table(  # leaky buckets
    "sign_in_attempts",
    metadata,
    Column("key", String(120), primary_key=True),  # account NAME or address NETWORK
    Column("level", Float, nullable=False),
    Column("at_ms", BigInteger, nullable=False, index=True),
)
