"""What operators ask single devices, and what those answer."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
)

from controller.schema.base import metadata

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
