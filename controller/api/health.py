"""The controller's own health."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Response
from sqlalchemy import Connection, text

from controller.api.common import Document, OfServices, Reading
from controller.repository.status import describe_status
from controller.services import Services
from shoal import __version__

router = APIRouter(tags=["health"])


@router.get("/health")
def read_health(services: OfServices, connection: Reading, response: Response) -> Document:
    """Whether the controller and its parts run; status 503 when one does not."""
    connection.execute(text("SELECT 1"))
    parts = {"database": True, **services.parts}
    ready = all(parts.values())
    if not ready:
        response.status_code = 503
    broker = services.broker.kind if services.broker else "none"
    return {
        "status": "ok" if ready else "degraded",
        "version": __version__,
        "broker": broker,
        "parts": parts,
        "trust": _trust(services, connection),
    }


def _trust(services: Services, connection: Connection) -> Document:
    """Whether devices can follow the repository, and what people should sign soon."""
    status = describe_status(connection, services.keyring, datetime.now(UTC))
    return {"ready": status["ready"], "warnings": status["warnings"]}
