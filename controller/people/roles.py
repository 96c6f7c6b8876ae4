"""What each role may do: one table, asked for every request (`controller.auth.authorise`).

A role may do all that the roles before it may. A route without a row is refused to everybody, so
nothing is open by oversight.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

NONE, VIEWER, OPERATOR, RELEASER, ADMIN = "none", "viewer", "operator", "releaser", "admin"

ROLES = (NONE, VIEWER, OPERATOR, RELEASER, ADMIN)
GRANTED_ROLES = (VIEWER, OPERATOR, RELEASER, ADMIN)
"""What users and tokens can have."""
ANONYMOUS_ROLES = (NONE, VIEWER, OPERATOR)
"""What people who have not signed in can have."""

OPEN = None
"""Nobody is asked who they are."""

NEEDS: dict[str, dict[str, str | None]] = {
    "api.health": {"read_health": OPEN},
    "api.alerts": {
        "list_alerts": VIEWER,
        "read_alert": VIEWER,
        "acknowledge_alert": OPERATOR,
        "propose_rollout": OPERATOR,
    },
    "api.commands": {
        "create_command": OPERATOR,
        "list_commands": OPERATOR,
        "read_command": OPERATOR,
        "read_options": VIEWER,
        "change_options": OPERATOR,
    },
    "api.drift": {"list_drift": VIEWER},
    "api.enrolment": {
        "create_token": OPERATOR,
        "list_tokens": OPERATOR,
        "enrol": OPEN,  # a device proves that it holds a token, or waits
        "renew": OPEN,  # a device signs with its key
        "list_admissions": OPERATOR,
        "preauthorise": OPERATOR,
        "decide": OPERATOR,
    },
    "api.fleet": {
        "read_fleet": VIEWER,
        "list_devices": VIEWER,
        "read_device": VIEWER,
        "revoke_device": OPERATOR,
        "read_drift": VIEWER,
        "list_telemetry": VIEWER,
        "list_events": VIEWER,
        "list_rejections": VIEWER,
        "list_audit": OPERATOR,  # it names people
    },
    "api.metrics": {"read_metrics": VIEWER},
    "api.people": {
        "list_users": ADMIN,
        "add_user": ADMIN,
        "change_user": ADMIN,
        "list_api_tokens": ADMIN,
        "create_api_token": ADMIN,
        "revoke_api_token": ADMIN,
    },
    "api.registry": {
        "list_aliases": VIEWER,
        "move_alias": RELEASER,
        "remove_alias": RELEASER,
        "list_alias_changes": VIEWER,
        "read_alias_change": VIEWER,
        "approve_alias_change": RELEASER,  # another person than who asked: `registry.signoff`
        "reject_alias_change": RELEASER,
        "withdraw_alias_change": RELEASER,
        "read_card": VIEWER,
        "read_lineage": VIEWER,
    },
    "api.releases": {
        "list_models": VIEWER,
        "read_model": VIEWER,
        "read_release": VIEWER,
        "read_performance": VIEWER,
        "publish": RELEASER,
        "fetch_file": OPEN,  # devices trust signatures, not us
    },
    "api.rollouts": {
        "list_rollouts": VIEWER,
        "preview_rollout": VIEWER,
        "create_rollout": OPERATOR,
        "read_rollout": VIEWER,
        "list_executions": VIEWER,
        "list_looks": VIEWER,
        "command_rollout": OPERATOR,
        "recall_model": OPERATOR,
        "list_opt_outs": VIEWER,
        "opt_out": OPERATOR,
        "opt_in": OPERATOR,
        "approve_rollout": RELEASER,
        "reject_rollout": RELEASER,
    },
    "api.selectors": {
        "list_selectors": VIEWER,
        "preview_selector": VIEWER,
        "read_selector": VIEWER,
        "save_selector": OPERATOR,
        "remove_selector": OPERATOR,
    },
    "api.sessions": {"create_sign_in_link": VIEWER},
    "api.stream": {"stream": VIEWER},
    "api.trust": {
        "read_trust": VIEWER,
        "read_trust_metadata": VIEWER,
        "publish_trust": RELEASER,  # new keys need an admin: `repository.publish`
        "fetch_metadata": OPEN,  # devices trust signatures, not us
    },
    "web.alert_page": {"show_alerts": VIEWER, "acknowledge": OPERATOR},
    "web.assets": {"serve": OPEN},
    "web.audit_page": {"show_audit": OPERATOR, "export_audit": OPERATOR},
    "web.device_page": {"show_device": VIEWER, "read_series": VIEWER, "revoke": OPERATOR},
    "web.drift_page": {"show_drift": VIEWER},
    "web.fleet_page": {"show_fleet": VIEWER},
    "web.model_pages": {
        "show_models": VIEWER,
        "show_model": VIEWER,
        "show_release": VIEWER,
    },
    "web.new_rollout": {"show_form": OPERATOR, "create": OPERATOR},
    "web.provider_sign_in": {"begin": NONE, "finish": NONE},
    "web.rollout_pages": {
        "show_rollouts": VIEWER,
        "show_rollout": VIEWER,
        "command": OPERATOR,
        "approve": RELEASER,
        "reject": RELEASER,
    },
    "web.settings_page": {
        "show_settings": VIEWER,
        "change_own_password": VIEWER,
        "decide_admission": OPERATOR,
        "add_user": ADMIN,
        "change_user": ADMIN,
        "create_token": ADMIN,
        "revoke_token": ADMIN,
    },
    "web.sign_in": {
        "show": NONE,
        "sign_in": NONE,
        "sign_out": NONE,
        "show_link": NONE,
        "use_link": NONE,
    },
}
"""Module below `controller` and function of a route → the least role that may call it."""


def at_least(role: str, needed: str) -> bool:
    """Whether `role` may do what `needed` may.

    >>> at_least("releaser", "operator"), at_least("viewer", "operator")
    (True, False)
    """
    return ROLES.index(role) >= ROLES.index(needed)


def lower(one: str, other: str) -> str:
    """The one of two roles that may do less."""
    return min(one, other, key=ROLES.index)


def needed_for(endpoint: Callable[..., Any]) -> str | None:
    """The least role for a route's function; `LookupError` for one that is not in the table."""
    module = endpoint.__module__.removeprefix("controller.")
    return NEEDS[module][endpoint.__name__]
