"""The fleet's drift: how each field of each model does at each site, the worst first."""

from __future__ import annotations

from fastapi import APIRouter

from controller.api.common import Document, Limit, Name, Reading, items
from controller.drift.courses import Wanted, list_courses

router = APIRouter(tags=["telemetry"])


@router.get("/drift")
def list_drift(
    connection: Reading,
    model: Name = None,
    field: Name = None,
    site: Name = None,
    drifting: bool = False,
    limit: Limit = 100,
    cursor: Name = None,
) -> Document:
    """List how fields do, the worst first; `site=` without a value asks for the whole fleet."""
    wanted = Wanted(model or "", field or "", site, drifting)
    return items(*list_courses(connection, wanted, limit, cursor))
