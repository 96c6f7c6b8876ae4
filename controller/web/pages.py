"""Puts the dashboard together: routes, error pages, security headers."""

from __future__ import annotations

from fastapi import FastAPI

from controller.api import sessions
from controller.web import (
    alert_page,
    assets,
    audit_page,
    device_page,
    drift_page,
    fleet_page,
    model_pages,
    new_rollout,
    provider_sign_in,
    refusals,
    rollout_pages,
    settings_page,
    sign_in,
)
from controller.web.headers import SecurityHeaders
from controller.web.prefix import Below
from controller.web.twin import Twins


def install(app: FastAPI) -> None:
    """Add the pages."""
    refusals.install(app)
    for module in (
        assets,
        provider_sign_in,
        sign_in,
        fleet_page,
        device_page,
        new_rollout,  # before the pages of rollouts, whose names could be "new"
        rollout_pages,
        model_pages,
        drift_page,
        alert_page,
        audit_page,
        settings_page,
    ):
        app.include_router(module.router)
    app.include_router(sessions.router, prefix="/api/v1")
    app.add_middleware(SecurityHeaders)
    app.add_middleware(Twins)
    app.add_middleware(Below, root_path=app.state.services.settings.web.root_path)
