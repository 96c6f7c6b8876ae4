"""Metrics for Prometheus, at the path where it looks for them."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from controller.api.common import OfServices
from controller.metrics.exposition import expose

router = APIRouter(tags=["health"])


@router.get("/metrics")
def read_metrics(request: Request, services: OfServices) -> Response:
    """The controller and its fleet as OpenMetrics or Prometheus text; needs the role viewer."""
    accept = request.headers.get("accept", "")
    body, media_type = expose(services.metrics, services.snapshots.read(), accept)
    return Response(body, headers={"content-type": media_type})
