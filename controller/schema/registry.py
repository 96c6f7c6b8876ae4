"""The registry: names for releases, every move of one, and who agreed to it."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, String, Table, Text

from controller.schema.base import ROW_ID, metadata

aliases = Table(  # where each name points now
    "aliases",
    metadata,
    Column("model", String(63), primary_key=True),
    Column("alias", String(63), primary_key=True),
    Column("release_sequence", BigInteger, nullable=False),
    Column("version", String(40), nullable=False),
    Column("set_ms", BigInteger, nullable=False),
    Column("set_by", String(80), nullable=False),
    Column("change", BigInteger, nullable=False),
)

alias_changes = Table(  # every move of a name: asked for, and then made or not
    "alias_changes",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("model", String(63), nullable=False),
    Column("alias", String(63), nullable=False),
    Column("state", String(20), nullable=False, index=True),  # waiting, made, rejected, withdrawn
    Column("from_sequence", BigInteger),  # null: it pointed nowhere when this was asked for
    Column("from_version", String(40)),
    Column("to_sequence", BigInteger),  # null: the name is taken away
    Column("to_version", String(40)),
    Column("reason", Text, nullable=False),
    Column("approvals", Integer, nullable=False),  # how many other people must agree
    Column("asked_ms", BigInteger, nullable=False),
    Column("asked_by", String(80), nullable=False),
    Column("decided_ms", BigInteger),
    Index("alias_changes_by_model", "model", "id"),
)

alias_decisions = Table(
    "alias_decisions",
    metadata,
    Column("change", BigInteger, primary_key=True),
    Column("person", String(80), primary_key=True),
    Column("approved", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)
