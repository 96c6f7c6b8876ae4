"""Follows the statistics as they come in, bucket by bucket, and raises and ends alerts.

Statistics are put into buckets of five minutes by the middle of their window. A bucket is judged
once, when it is over and a moment for late messages has passed; what comes later stays in the
database and is not judged. State is stored now and then, with how far the statistics were read, so
a restart reads again what it needs and judges nothing twice.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, desc, func, select

from controller.artifacts import Artifacts
from controller.database import reading, writing
from controller.drift import alerts, courses
from controller.drift.channels import OF_FEATURES, OF_OUTPUTS, OF_PROJECTIONS, channels_of, in_words
from controller.drift.compare import merge_fields
from controller.drift.sequential import Rule
from controller.drift.watch import FLEET, Finding, Reported, Watch
from controller.ingest.write import upsert
from controller.schema import devices, drift_states, releases, settings, statistics
from shoal.baseline import FieldBaseline
from shoal.errors import ShoalError
from shoal.package import sha256

log = logging.getLogger("controller.drift")

CURSOR = "drift-cursor"
BATCH = 2000
LATE_MS = 60_000
FUTURE_MS = 300_000
STORE_EVERY = 12
"""Buckets between storing states: an hour at five minutes."""
FAMILIES = {"inputs": OF_FEATURES, "outputs": OF_OUTPUTS, "projections": OF_PROJECTIONS}
BY_RELEASE = ("outputs", "projections")
"""Families that a new release makes anew; inputs are what the sensors say, whoever reads them."""

Key = tuple[str, str]


@dataclass(slots=True)
class _Bucket:
    """Statistics of one model in one bucket, by device."""

    rows: dict[str, list[Any]] = field(default_factory=dict)
    first_id: int = 0


class Monitor:
    """Reads, judges, tells. Used by one thread."""

    def __init__(self, engine: Engine, artifacts: Artifacts, rule: Rule | None = None) -> None:
        self.rule = rule or Rule()
        self.late = 0
        """Statistics that came after their bucket was judged, or from the future."""
        self._engine = engine
        self._artifacts = artifacts
        self._watches: dict[Key, Watch] = {}
        self._keys: dict[tuple[str, str], dict[str, Key]] = {}
        self._pending: dict[str, dict[int, _Bucket]] = {}
        self._judged: dict[str, int] = {}
        self._releases: dict[tuple[str, str], int] = {}
        self._sites: dict[str, str] = {}
        self._courses: list[dict[str, Any]] = []
        self._last_id: int | None = None
        self._since_stored = 0

    def work(self, now_ms: int) -> bool:
        """One round; whether there is more to read at once."""
        if self._last_id is None:
            self._restore()
        with reading(self._engine) as connection:
            count = self._read(connection, now_ms)
            if count < BATCH:
                self._sites = _sites(connection)
        if count == BATCH:
            return True
        found = self._judge_due(now_ms)
        self._tell(found, now_ms)
        if self._since_stored >= STORE_EVERY:
            self.store(now_ms)
        return False

    def store(self, now_ms: int) -> None:
        """Write the detectors' states, and from where to read again."""
        open_ids = [one.first_id for own in self._pending.values() for one in own.values()]
        cursor = min(open_ids) - 1 if open_ids else self._last_id
        with writing(self._engine) as connection:
            for (model, family), watch in self._watches.items():
                if watch.number is not None:
                    key = {"model": model, "family": family}
                    values = {
                        "number": watch.number, "state": watch.dump(), "updated_ms": now_ms,
                    }  # fmt: skip
                    upsert(connection, drift_states, key, values)
            upsert(connection, settings, {"key": CURSOR}, {"value": cursor or 0})
        self._since_stored = 0

    def standing(self, device: str, model: str) -> dict[str, dict[str, str]]:
        """What is known of each channel of a device, by family."""
        return {
            family.partition(":")[0]: found
            for (name, family), watch in self._watches.items()
            if name == model and (found := watch.standing(device))
        }

    # Reading

    def _restore(self) -> None:
        with reading(self._engine) as connection:
            cursor = connection.scalar(select(settings.c.value).where(settings.c.key == CURSOR))
            stored = connection.execute(select(drift_states)).all()
            if cursor is None:  # never ran: the past is for other tools
                cursor = connection.scalar(select(func.max(statistics.c.id))) or 0
        for row in stored:
            try:
                self._watches[row.model, row.family] = Watch.load(row.state, self.rule)
            except ValueError as error:
                log.warning("event=drift-state-lost model=%s error=%r", row.model, str(error))
                continue
            self._judged[row.model] = max(self._judged.get(row.model, row.number), row.number)
        self._last_id = int(cursor)

    def _read(self, connection: Connection, now_ms: int) -> int:
        c = statistics.c
        query = (
            select(statistics)
            .where(c.id > self._last_id, c.baseline != "", c.slot == "active")
            .order_by(c.id)
            .limit(BATCH)
        )
        rows = connection.execute(query).all()
        for row in rows:
            self._put(row, now_ms)
        if rows:
            self._last_id = rows[-1].id
        return len(rows)

    def _put(self, row: Any, now_ms: int) -> None:
        middle = (row.start_ms + row.end_ms) // 2
        number = int(middle / 1000 // self.rule.bucket_seconds)
        if number <= self._judged.get(row.model, -1) or row.end_ms > now_ms + FUTURE_MS:
            self.late += 1
            return
        buckets = self._pending.setdefault(row.model, {})
        bucket = buckets.setdefault(number, _Bucket(first_id=row.id))
        bucket.rows.setdefault(row.device, []).append(row)

    # Judging

    def _judge_due(self, now_ms: int) -> list[tuple[Key, Finding]]:
        due_before = int((now_ms - LATE_MS) / 1000 // self.rule.bucket_seconds)
        found = []
        for model, buckets in self._pending.items():
            for number in sorted(one for one in buckets if one < due_before):
                found += self._judge(model, number, buckets.pop(number))
                self._judged[model] = number
                self._since_stored += 1
        return found

    def _judge(self, model: str, number: int, bucket: _Bucket) -> list[tuple[Key, Finding]]:
        reported: dict[Key, dict[str, Reported]] = {}
        digests: dict[str, str] = {}
        for device, rows in bucket.rows.items():
            newest = rows[-1]
            own = [row for row in rows if row.baseline == newest.baseline]
            try:
                keys = self._families(model, newest.baseline)
            except ShoalError as error:
                log.warning("event=no-baseline device=%s error=%r", device, error.sentence)
                continue
            self._note_release(model, device, newest.release_sequence, keys)
            digests[device] = newest.baseline
            for family, key in keys.items():
                column = "outputs" if family == "outputs" else "features"
                fields = merge_fields([getattr(row, column) for row in own])
                reported.setdefault(key, {})[device] = Reported(
                    self._sites.get(device, ""),
                    sum(row.rows for row in own),
                    {one.name: one for one in fields},
                )
        found = []
        for key, devices_of in reported.items():
            watch = self._watches[key]
            if watch.number is None or number > watch.number:
                found += [(key, one) for one in watch.take(number, devices_of)]
                self._describe(key, number, devices_of, digests)
        return found

    def _describe(
        self, key: Key, number: int, reported: dict[str, Reported], digests: dict[str, str]
    ) -> None:
        """Keep what the drift page shows of a bucket until it is written."""
        baselines = {
            digest: {one.name: one for one in (*found.features, *found.outputs, *found.projections)}
            for digest in set(digests.values())
            for found in [self._artifacts.baseline(digest)]
        }
        places = self._watches[key].survey(reported)
        self._courses += courses.describe(key, number, places, reported, baselines, digests)

    def _families(self, model: str, digest: str) -> dict[str, Key]:
        """The watches that statistics in the bins of a baseline belong to."""
        known = self._keys.get((model, digest))
        if known is not None:
            return known
        baseline = self._artifacts.baseline(digest)
        fields: dict[str, list[FieldBaseline]] = {
            "inputs": baseline.features,
            "outputs": baseline.outputs,
            "projections": baseline.projections,
        }
        keys: dict[str, Key] = {}
        for family, own in fields.items():
            if own:
                names = sha256("|".join(one.name for one in own).encode())[:8]
                key = keys[family] = (model, f"{family}:{names}")
                if key not in self._watches:
                    self._watches[key] = Watch(self.rule, channels_of(own, FAMILIES[family]))
        self._keys[model, digest] = keys
        return keys

    def _note_release(self, model: str, device: str, sequence: int, keys: dict[str, Key]) -> None:
        before = self._releases.get((model, device))
        self._releases[model, device] = sequence
        if before is not None and before != sequence:
            for family in BY_RELEASE:
                if family in keys:
                    self._watches[keys[family]].forget(device)

    # Telling

    def _tell(self, found: list[tuple[Key, Finding]], now_ms: int) -> None:
        with reading(self._engine) as connection:
            waiting = alerts.accepted(connection)
        if not found and not waiting and not self._courses:
            return
        with writing(self._engine) as connection:
            self._store_courses(connection, now_ms)
            for key, one in found:
                document = _document(key, one, self.rule, _unit(connection, key[0], one))
                if one.drifting:
                    alerts.open_alert(connection, document, now_ms)
                    log.info("event=drift %s", document["sentence"])
                else:
                    alerts.end_alert(connection, document, now_ms)
            for alert in waiting:
                self._accept(alert)
                alerts.end_accepted(connection, alert["id"], now_ms)

    def _store_courses(self, connection: Connection, now_ms: int) -> None:
        """Bucket by bucket, so that each has its point."""
        rows, self._courses = self._courses, []
        bucket_ms = self.rule.bucket_seconds * 1000
        for number in sorted({row["number"] for row in rows}):
            own = [row for row in rows if row["number"] == number]
            courses.store(connection, own, bucket_ms, now_ms)

    def _accept(self, alert: dict[str, Any]) -> None:
        for (model, family), watch in self._watches.items():
            if model == alert["model"] and family.partition(":")[0] == alert["family"]:
                watch.accept(alert["scope"], alert["subject"], alert["field"], alert["kind"])


WHAT = {"mean": "mean", "spread": "spread", "missing": "missing share", "outside": "share outside"}


def say(found: Finding, model: str, unit: str) -> str:
    """A finding as a sentence."""
    who = found.subject or "the fleet"
    channel = found.channel
    if found.scope != "device":
        side = "above" if found.level > 0 else "below"
        group = "the whole fleet" if found.subject == FLEET else f"site {found.subject}"
        return (
            f"{model} {channel.field}: the {WHAT[channel.kind]} of {group} went {side} its own "
            f"course, by {abs(found.value - found.expected):.2g} deviations of a device"
        )
    value = in_words(channel, found.value, unit)
    expected = in_words(channel, found.expected, unit)
    return f"{model} {channel.field} of {who}: {WHAT[channel.kind]} {value}, expected {expected}"


def _document(key: Key, found: Finding, rule: Rule, unit: str) -> dict[str, Any]:
    model, family = key
    started_ms = int(found.since_number * rule.bucket_seconds * 1000)
    return {
        "scope": found.scope,
        "subject": found.subject,
        "model": model,
        "family": family.partition(":")[0],
        "field": found.channel.field,
        "kind": found.channel.kind.value,
        "started_ms": started_ms,
        "sentence": say(found, model, unit),
        "evidence": {
            "level": round(found.level, 3),
            "value": _finite(found.value),
            "expected": _finite(found.expected),
            "deviation": _finite(found.deviation),
            "bucket_seconds": rule.bucket_seconds,
            "charts": [list(one) for one in rule.charts],
        },
    }


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None  # NaN is not JSON


def _unit(connection: Connection, model: str, found: Finding) -> str:
    query = select(releases.c.manifest).where(releases.c.model == model)
    manifest = connection.scalar(query.order_by(desc(releases.c.sequence)).limit(1)) or {}
    contract = manifest.get("contract", {})
    for one in [*contract.get("features", []), *contract.get("outputs", [])]:
        if one.get("name") == found.channel.field:
            return str(one.get("unit", ""))
    return ""


def _sites(connection: Connection) -> dict[str, str]:
    query = select(devices.c.device, devices.c.site)
    return {row.device: row.site for row in connection.execute(query)}
