"""What a fleet has after a while, for pages to show: written by the code that writes it in life."""

from __future__ import annotations

from dataclasses import replace

from controller import enrolment
from controller.app import build_services
from controller.config import load_settings
from controller.database import writing
from controller.drift import alerts, courses
from controller.drift.watch import FLEET, Place

BUCKET_MS = 300_000
MODEL = "weather"

PAGES = (
    "/",
    "/?q=state:nonsense",
    "/devices/jfk-pi4",
    "/rollouts",
    "/rollouts/r-1",
    "/rollouts/{rollout}",
    "/rollouts/new?release=weather+2.0.0",
    "/models",
    "/models/weather",
    "/models/weather/2.0.0",
    "/drift",
    "/drift?state=drifting",
    "/alerts",
    "/alerts?state=ended",
    "/audit",
    "/audit?actor=nobody",
    "/settings",
    "/sign-in",
)
"""Every page, some of them without anything to show."""


def open_services(config, **web):
    """The services of a controller that runs, for one more process beside it."""
    settings = load_settings(config)
    return build_services(replace(settings, web=replace(settings.web, **web)))


def happen(services):
    """Drift at two sites, alerts for it, an enrolment token: what a week brings."""
    now = services.now_ms()
    for device, field in (("jfk-pi4", "temp"), ("lga-zero", "pressure")):
        with writing(services.engine) as connection:
            alerts.open_alert(connection, _finding(device, field, now), now)
    first = now // BUCKET_MS - 60
    for number in range(first, first + 60):
        rows = courses.describe(
            (MODEL, "inputs"), number, _places((number - first) / 40), {}, {}, {}
        )
        with writing(services.engine) as connection:
            courses.store(connection, rows, BUCKET_MS, now)
    enrolment.create_token(
        services, "ann", device="gw-9", site="jfk", labels={}, expires_seconds=3600
    )


def _finding(device, field, now):
    return {
        "scope": "device", "subject": device, "model": MODEL, "family": "inputs", "field": field,
        "kind": "mean", "evidence": {}, "started_ms": now - 3_600_000,
        "sentence": f"weather {field} of {device}: mean 41, expected 35",
    }  # fmt: skip


def _places(level):
    """Pressure leaves its course; temp stays; a new field still learns."""
    drifting = level > 1
    standing = "drifting" if drifting else "watching"
    for site, device in ((FLEET, "lga-zero"), ("lga", "lga-zero"), ("jfk", "jfk-pi4")):
        yield Place(site, "pressure", 3, int(drifting), standing, "mean", level,
                    5_900_000 if drifting else None, device)  # fmt: skip
        yield Place(site, "temp", 3, 0, "watching", "spread", 0.2, None, "")
        yield Place(site, "dewp", 3, 0, "learning", "mean", None, None, "")
