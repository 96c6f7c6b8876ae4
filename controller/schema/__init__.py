"""The database's tables, in SQLAlchemy Core, for SQLite now and PostgreSQL with the same code.

Times are integer milliseconds since 1970-01-01 UTC (`*_ms`), JSON columns hold what messages
hold. Current state is kept incrementally (`devices`, `device_models`), so pages never scan
telemetry. Only `ingest` writes telemetry, only the rollout engine writes rollouts and
assignments; every change by a person leaves a row in `audit`.
"""

from controller.schema.base import metadata
from controller.schema.fleet import (
    admissions,
    certificates,
    device_models,
    device_options,
    devices,
    enrolment_tokens,
    group_devices,
    opt_outs,
    selectors,
)
from controller.schema.orders import (
    commands,
    replies,
)
from controller.schema.people import (
    api_tokens,
    audit,
    browser_sessions,
    one_time_links,
    settings,
    sign_in_attempts,
    users,
)
from controller.schema.registry import (
    alias_changes,
    alias_decisions,
    aliases,
)
from controller.schema.releases import (
    files,
    published_releases,
    releases,
    trust_metadata,
)
from controller.schema.rollouts import (
    approvals,
    assignments,
    desired,
    executions,
    gate_looks,
    rollouts,
    waves,
)
from controller.schema.telemetry import (
    captures,
    device_boots,
    events,
    health,
    predictions,
    rejections,
    statistics,
    windows,
)
from controller.schema.watching import (
    alerts,
    drift_courses,
    drift_states,
)

__all__ = [
    "admissions",
    "alerts",
    "alias_changes",
    "alias_decisions",
    "aliases",
    "api_tokens",
    "approvals",
    "assignments",
    "audit",
    "browser_sessions",
    "captures",
    "certificates",
    "commands",
    "desired",
    "device_boots",
    "device_models",
    "device_options",
    "devices",
    "drift_courses",
    "drift_states",
    "enrolment_tokens",
    "events",
    "executions",
    "files",
    "gate_looks",
    "group_devices",
    "health",
    "metadata",
    "one_time_links",
    "opt_outs",
    "predictions",
    "published_releases",
    "rejections",
    "releases",
    "replies",
    "rollouts",
    "selectors",
    "settings",
    "sign_in_attempts",
    "statistics",
    "trust_metadata",
    "users",
    "waves",
    "windows",
]
