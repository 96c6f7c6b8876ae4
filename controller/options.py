"""Settings of single devices that travel in their desired state."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, select

from controller import audit
from controller.database import writing
from controller.director import mark_dirty, read_options
from controller.errors import NotFoundError
from controller.ingest.write import upsert
from controller.schema import device_options, devices
from controller.services import Services
from shoal.errors import InvalidInputError
from shoal.protocol.desired import LOG_LEVELS, DeviceOptions

Document = dict[str, Any]
FIELDS = frozenset(DeviceOptions.__struct_fields__)


def change(services: Services, actor: str, device: str, changes: Document) -> Document:
    """Set some options; null gives one back to the device. Returns all of them."""
    if unknown := sorted(set(changes) - FIELDS):
        raise InvalidInputError(
            f"options: {unknown[0][:40]!r} is not known, expected {', '.join(sorted(FIELDS))}"
        )
    now_ms = services.now_ms()
    with writing(services.engine) as connection:
        if connection.scalar(select(devices.c.device).where(devices.c.device == device)) is None:
            raise NotFoundError(f"device {device[:80]!r}: not enrolled")
        options = read(connection, device) | changes
        try:
            msgspec.convert(options, type=DeviceOptions)
        except msgspec.ValidationError as error:
            raise InvalidInputError(f"options: {error}") from error
        if options["log_level"] not in (None, *LOG_LEVELS):
            raise InvalidInputError(f"log_level: expected one of {', '.join(LOG_LEVELS)}")
        stored = {"options": options, "updated_ms": now_ms}
        upsert(connection, device_options, {"device": device}, stored)
        mark_dirty(connection, device)
        audit.record(connection, now_ms, actor, "device.options", device, changes)
    services.desired_changed.ring()
    return options


def read(connection: Connection, device: str) -> Document:
    """All options of a device, null where it decides."""
    found: Document = msgspec.to_builtins(read_options(connection, device))
    return found
