"""Releases, their files, and the TUF repository."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Index,
    LargeBinary,
    String,
    Table,
)

from controller.schema.base import metadata

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
    Column("retired_by", String(80)),
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
