"""The controller's own health."""

from __future__ import annotations

from fastapi import APIRouter, Response
from sqlalchemy import text

from controller.api.common import Document, OfServices, Reading
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
    }
