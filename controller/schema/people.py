"""People, their tokens and sessions, the audit log, and settings."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    Index,
    String,
    Table,
)

from controller.schema.base import ROW_ID, metadata

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

audit = Table(  # hash-chained: each row's hash covers the row and the hash before it
    "audit",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("ts_ms", BigInteger, nullable=False),
    Column("actor", String(80), nullable=False),
    Column("action", String(80), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("data", JSON, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("audit_by_actor", "actor", "id"),
    Index("audit_by_action", "action", "id"),
)

settings = Table(
    "settings",
    metadata,
    Column("key", String(80), primary_key=True),
    Column("value", JSON, nullable=False),
)
