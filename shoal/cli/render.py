"""Tables and pages of the command, from documents of the API. Pure.

A field that a document lacks shows as a dash: an older controller must not break the table.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Document = dict[str, Any]

STATUS_STYLES = {
    "ok": "green",
    "degraded": "yellow",
    "failing": "red",
    "offline": "bright_black",
    "updating": "cyan",
    "unknown": "bright_black",
}
STATUSES = tuple(STATUS_STYLES)
SHOWN_FACTS = ("arch", "cpu_cores", "memory_mb", "libc", "python")
"""Of a device that asks to be let in."""
ENDED = ("committed", "refused", "rolled_back")
"""States of a candidate that is none any more."""
_SEVERITY_STYLES = {"warning": "yellow", "error": "red"}


def fleet_table(fleet: Document) -> Table:
    """Counters of every site, and of all."""
    table = plain_table("SITE", *(status.upper() for status in STATUSES))
    rows = [(site["site"], site["counters"]) for site in fleet["sites"]]
    for name, counters in [*rows, ("all", fleet["counters"])]:
        cells = [_count(counters.get(status, 0), STATUS_STYLES[status]) for status in STATUSES]
        table.add_row(str(name), *cells, style="bold" if name == "all" else "")
    return table


def device_table(devices: list[Document]) -> Table:
    """One line a device."""
    table = plain_table("DEVICE", "SITE", "PROFILE", "STATUS", "RUNS", "LAST SEEN")
    for one in devices:
        runs = ", ".join(_runs(model) for model in one.get("models", [])) or "–"
        table.add_row(
            one["device"], one["site"], one["profile"] or "–", _status(one), runs, _ago(one)
        )
    return table


def device_page(device: Document, events: list[Document]) -> RenderableType:
    """One device: who it is, what it runs, what happened."""
    parts: list[RenderableType] = [
        Text.assemble((device["device"], "bold"), f" at {device['site']}  ", _status(device)),
        Text(f"profile {device['profile'] or '–'}, agent {device.get('agent_version') or '–'}"),
    ]
    if device.get("reason"):
        parts.append(Text(device["reason"]))
    models = plain_table("MODEL", "ACTIVE", "LAST GOOD", "CANDIDATE", "RUNTIME", "P95 µs", "DRIFT")
    for model in device.get("models", []):
        models.add_row(
            model["model"],
            _text(model, "active_version"),
            _text(model, "last_good_version"),
            "–" if model.get("candidate_state") in ENDED else _text(model, "candidate_version"),
            f"{_text(model, 'runtime')} {_text(model, 'runtime_version')}",
            _number(model, "latency_p95_us", ".0f"),
            f"{_number(model, 'drift', '.2f')} {model.get('drift_feature') or ''}",
        )
    told = [
        Text(f"accuracy of {name}: {one['sentence']}")
        for name, one in (device.get("performance") or {}).items()
    ]
    return Group(*parts, models, *told, event_table(events))


def event_table(events: list[Document]) -> Table:
    """Events, one line each."""
    table = plain_table("TIME", "CODE", "WHAT HAPPENED")
    for event in events:
        style = _SEVERITY_STYLES.get(str(event.get("severity")), "")
        table.add_row(clock(event.get("ts_ms")), str(event["code"]), Text(event["sentence"], style))
    return table


def alert_table(alerts: list[Document]) -> Table:
    """Streams that changed, one line each."""
    table = plain_table("ALERT", "SINCE", "STATE", "WHAT CHANGED")
    for one in alerts:
        state = "open" if one.get("ended_ms") is None else "ended"
        seen = f", seen by {one['acknowledged_by']}" if one.get("acknowledged_by") else ""
        style = "yellow" if state == "open" and not seen else ""
        table.add_row(
            str(one["id"]),
            clock(one.get("started_ms")),
            state + seen,
            Text(one["sentence"], style),
        )
    return table


def release_table(releases: list[Document]) -> Table:
    """One line a release."""
    table = plain_table("MODEL", "VERSION", "SEQUENCE", "STATE", "UPLOADED", "MANIFEST")
    for one in releases:
        table.add_row(
            one["model"],
            one["version"],
            str(one["sequence"]),
            str(one.get("state", "")).replace("-", " "),
            clock(one.get("published_ms")),
            str(one["manifest_sha256"])[:12],
        )
    return table


def release_page(release: Document) -> RenderableType:
    """One release: its line, its files and its card."""
    manifest = release.get("manifest") or {}
    files = plain_table("FILE", "BYTES", "SHA-256")
    for entry in manifest.get("files", []):
        files.add_row(entry["name"], f"{entry['length']:,}", entry["sha256"][:12])
    card = manifest.get("card") or {}
    parts: list[RenderableType] = [release_table([release]), Text(card.get("summary", "")), files]
    if performance := release.get("performance"):
        of = f"{performance['devices_estimated']} of {performance['devices_running']} devices"
        parts.append(Text(f"accuracy on {of}: {performance['sentence']}"))
    return Group(*parts)


def rollout_table(rollouts: list[Document]) -> Table:
    """One line a rollout."""
    table = plain_table("ROLLOUT", "MODEL", "VERSION", "SELECTOR", "STATE", "CREATED", "REASON")
    for one in rollouts:
        table.add_row(
            one["rollout"],
            one["model"],
            one["version"],
            one["selector"],
            one["state"],
            clock(one.get("created_ms")),
            Text(one.get("reason") or "", overflow="ellipsis", no_wrap=True),
        )
    return table


def execution_table(executions: list[Document]) -> Table:
    """One line a device of a rollout."""
    table = plain_table("DEVICE", "WAVE", "STATE", "CODE", "SENTENCE")
    for one in executions:
        table.add_row(
            one["device"], str(one["wave"]), one["state"], one["code"] or "", one["sentence"] or ""
        )
    return table


def preview_page(preview: Document) -> RenderableType:
    """What a rollout would do."""
    table = plain_table("WAVE", "DEVICES", "NEW")
    for wave in preview["waves"]:
        names = ", ".join(wave.get("devices", [])[:8])
        table.add_row(str(wave["name"]), names or "–", str(wave["size"]))
    notes = [Text(f"! {problem}", style="yellow") for problem in _problems(preview)]
    return Group(table, *notes)


def enrolment_table(tokens: list[Document]) -> Table:
    """One line an enrolment token."""
    table = plain_table("TOKEN", "DEVICE", "SITE", "EXPIRES", "USED BY")
    for one in tokens:
        table.add_row(
            one["token_id"],
            _text(one, "device"),
            _text(one, "site"),
            clock(one.get("expires_ms")),
            _text(one, "used_by"),
        )
    return table


def admission_table(waiting: list[Document]) -> Table:
    """One line a device that waits or was announced."""
    table = plain_table("DEVICE", "SITE", "STATE", "FINGERPRINT", "ASKED", "SEEN", "FROM", "FACTS")
    for one in waiting:
        facts = one.get("facts", {})
        table.add_row(
            one["device"],
            _text(one, "site"),
            one["state"],
            one["fingerprint"],
            clock(one.get("asked_ms")),
            clock(one.get("seen_ms")),
            _text(one, "address"),
            Text(", ".join(f"{name} {facts[name]}" for name in SHOWN_FACTS if name in facts)),
        )
    return table


def _problems(preview: Document) -> list[str]:
    found = [*preview.get("incompatible", []), *preview.get("warnings", [])]
    return [one if isinstance(one, str) else str(one.get("sentence", one)) for one in found]


def plain_table(*columns: str) -> Table:
    """An empty table without lines."""
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def _count(value: int, style: str) -> Text:
    return Text(f"{value:,}", style=style if value else "bright_black", justify="right")


def _status(device: Document) -> Text:
    status = str(device.get("status", "unknown"))
    return Text(status, style=STATUS_STYLES.get(status, ""))


def _runs(model: Document) -> str:
    return f"{model['model']} {model.get('active_version') or '–'}"


def _text(document: Document, key: str) -> str:
    return str(document.get(key) or "–")


def _number(document: Document, key: str, form: str) -> str:
    value = document.get(key)
    return "–" if value is None else format(value, form)


def clock(ms: int | None) -> str:
    """A time, or a dash."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if ms else "–"


def _ago(device: Document, now: Callable[[], float] = time.time) -> str:
    seen = device.get("last_seen_ms")
    return f"{max(0.0, now() - seen / 1000):.0f} s ago" if seen else "never"
