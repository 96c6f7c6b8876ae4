"""Rollouts that an alert proposes: drafts, with the reason and the evidence. They never start."""

from __future__ import annotations

from typing import Any

from controller.database import reading
from controller.drift.alerts import get_alert
from controller.rollouts.service import create
from controller.rollouts.values import parse_specification
from controller.services import Services

Document = dict[str, Any]


def propose(services: Services, number: int, version: str, actor: str) -> Document:
    """Draft a rollout of a release to the devices that an alert is about."""
    with reading(services.engine) as connection:
        alert = get_alert(connection, number)
    specification = parse_specification(
        {
            "model": alert["model"],
            "version": version,
            "selector": selector_of(alert["scope"], alert["subject"]),
            "start": False,
        }
    )
    return create(services, specification, actor, because=f"alert {number}: {alert['sentence']}")


def selector_of(scope: str, subject: str) -> str:
    """The devices that an alert is about.

    >>> selector_of("site", "ulm"), selector_of("fleet", "")
    ('site:ulm', '*')
    """
    return f"{scope}:{subject}" if scope in ("device", "site") else "*"
