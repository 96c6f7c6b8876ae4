"""What happens with answers: published over MQTT, appended to a table or a file, sent by webhook.

An action takes answers and returns at once. What is slow or may fail is queued, bounded, and done
in a thread of the action's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.actions.batcher import PredictionBatcher
from agent.actions.queued import QueuedAction, Writer
from agent.options import Key, find_problems, with_defaults
from agent.ports import Action, Answers
from shoal.addresses import shown
from shoal.errors import InvalidInputError

_QUEUE_KEYS = {
    "labels": Key("texts", []),
    "queue_rows": Key("integer", 10_000, 100, 1_000_000),
}
_KEYS: dict[str, dict[str, Key]] = {
    "mqtt": {},
    "sqlite": {
        "path": Key("text"),
        "max_rows": Key("integer", 1_000_000, 100, 1e9),
        **_QUEUE_KEYS,
    },
    "file": {
        "path": Key("text"),
        "max_bytes": Key("integer", 64 * 1024 * 1024, 4096, 1e12),
        "keep": Key("integer", 1, 0, 100),
        **_QUEUE_KEYS,
    },
    "webhook": {
        "url": Key("text"),
        "timeout_seconds": Key("number", 5.0, 0.1, 60),
        "max_tries": Key("integer", 8, 1, 1000),
        "batch_rows": Key("integer", 100, 1, 10_000),
        "token_file": Key("text", ""),
        **_QUEUE_KEYS,
    },
}


@dataclass(frozen=True, slots=True)
class ActionContext:
    """What an action may use of the agent around it. `tell` may be called from any thread."""

    model: str
    publish: Callable[[Sequence[Answers]], None]
    tell: Callable[[str, str], None]


def find_action_problems(at: str, table: Mapping[str, Any]) -> list[str]:
    """Every mistake of an action's table; the configuration reports them together."""
    kind = table.get("kind")
    if kind not in _KEYS:
        return [f"{at}.kind: expected one of {', '.join(_KEYS)}, got {kind!r}"]
    options = {key: value for key, value in table.items() if key != "kind"}
    found = find_problems(at, options, _KEYS[kind])
    if kind == "webhook" and not found:
        url = urlsplit(options["url"])
        if url.scheme not in ("http", "https") or not url.hostname:
            found.append(f"{at}.url: expected http:// or https://, got {shown(options['url'])!r}")
    return found


def build_action(table: Mapping[str, Any], context: ActionContext) -> Action:
    """Make an action from its TOML table; raise one `InvalidInputError` with all mistakes."""
    if found := find_action_problems("actions", table):
        raise InvalidInputError("; ".join(found))
    kind = table["kind"]
    if kind == "mqtt":
        return PredictionBatcher(context.publish)
    options = with_defaults(table, _KEYS[kind])
    return QueuedAction(
        f"{context.model}-{kind}",
        _writer(kind, options),
        max_rows=options["queue_rows"],
        batch_rows=options.get("batch_rows", 1000),
        tell=context.tell,
        labels=options["labels"],
    )


def _writer(kind: str, options: dict[str, Any]) -> Writer:
    from agent.actions import writers  # loads an HTTP client: only where it is used

    if kind == "sqlite":
        return writers.SqliteWriter(Path(options["path"]), options["max_rows"])
    if kind == "file":
        return writers.FileWriter(Path(options["path"]), options["max_bytes"], options["keep"])
    return writers.WebhookWriter(
        urlsplit(options["url"]),
        options["timeout_seconds"],
        options["max_tries"],
        options["token_file"],
    )


__all__ = ["ActionContext", "build_action", "find_action_problems"]
