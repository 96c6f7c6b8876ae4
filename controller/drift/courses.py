"""How a model's fields have been doing at each site and in the fleet: what the drift page shows.

Written with each bucket that the monitor judges, one row a model, field and place, so that looking
reads a page of rows and never the statistics. *Drifting* is the word of the charts that raise
alerts and of nothing else; the distance against training (`psi`) only says how far.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, select, tuple_

from controller.drift.watch import FLEET, Place, Reported
from controller.ingest.write import upsert_all
from controller.schema import drift_courses
from shoal.baseline import FieldBaseline
from shoal.drift import psi
from shoal.errors import InvalidInputError

Document = dict[str, Any]

POINTS = 60
"""Buckets that a course remembers: five hours at five minutes."""
KEPT_MS = 7 * 86_400_000
"""A place that nothing is heard of for so long is forgotten."""
_KEY = ("model", "family", "field", "site")
_DRIFTING_RANK = 1000.0


@dataclass(slots=True)
class _Sum:
    """One field of all devices at a place, counted together."""

    count: int = 0
    total: float = 0.0
    missing: int = 0
    bins: list[int] = field(default_factory=list)


def describe(
    key: tuple[str, str],
    number: int,
    places: Sequence[Place],
    reported: Mapping[str, Reported],
    baselines: Mapping[str, Mapping[str, FieldBaseline]],
    digests: Mapping[str, str],
) -> list[Document]:
    """A bucket as rows, without what came before. Pure.

    `baselines`: digest → field → baseline; `digests`: device → digest of the bins it counted in.
    Where devices of a place run releases with different bins, those of most are compared.
    """
    model, family = key
    usual = _usual_digests(reported, digests)
    sums = _sum(reported, digests, usual)
    rows = []
    for place in places:
        expected = baselines[usual[place.site]].get(place.field) if place.site in usual else None
        row = {
            "model": model, "family": family.partition(":")[0], "field": place.field,
            "site": place.site, "number": number, "devices": place.devices,
            "drifting": place.drifting, "standing": place.standing, "kind": place.kind,
            "level": place.level, "since_number": place.since_number,
            "worst_device": place.worst_device,
        }  # fmt: skip
        rows.append(row | _compare(expected, sums.get((place.site, place.field))))
    return rows


def _usual_digests(reported: Mapping[str, Reported], digests: Mapping[str, str]) -> dict[str, str]:
    """The bins that most devices of each place count in."""
    counted: dict[str, Counter[str]] = {FLEET: Counter()}
    for name, one in reported.items():
        counted[FLEET][digests[name]] += 1
        counted.setdefault(one.site, Counter())[digests[name]] += 1
    return {site: own.most_common(1)[0][0] for site, own in counted.items() if own}


def _sum(
    reported: Mapping[str, Reported], digests: Mapping[str, str], usual: Mapping[str, str]
) -> dict[tuple[str, str], _Sum]:
    sums: dict[tuple[str, str], _Sum] = {}
    for name, one in reported.items():
        for site in (one.site, FLEET):
            if usual[site] != digests[name]:
                continue
            for found in one.fields.values():
                whole = sums.get((site, found.name))
                if whole is None:
                    whole = sums[site, found.name] = _Sum(bins=[0] * len(found.bins))
                whole.count += found.count
                whole.total += found.mean * found.count
                whole.missing += found.missing + found.nonfinite
                if len(whole.bins) == len(found.bins):
                    whole.bins = [x + y for x, y in zip(whole.bins, found.bins, strict=True)]
    return sums


def _compare(expected: FieldBaseline | None, live: _Sum | None) -> Document:
    """Distance and effect against training; nothing where either is not known."""
    empty = {"psi": None, "mean": None, "baseline_mean": None, "effect": None,
             "missing_ratio": None}  # fmt: skip
    if expected is None or live is None:
        return empty
    seen = live.count + live.missing
    mean = live.total / live.count if live.count else None
    known = mean is not None and expected.std > 0
    return {
        "psi": psi(expected.counts, live.bins),
        "mean": mean,
        "baseline_mean": expected.mean,
        "effect": (mean - expected.mean) / expected.std if known and mean is not None else None,
        "missing_ratio": live.missing / seen if seen else None,
    }


def rank(row: Document) -> float:
    """Worse comes first: drifting, then the charts' height, then the distance. Pure."""
    drifting = _DRIFTING_RANK if row["standing"] == "drifting" else 0.0
    return drifting + 10 * min(row["level"] or 0.0, 2.0) + min(row["psi"] or 0.0, 9.0)


def store(connection: Connection, rows: list[Document], bucket_ms: float, now_ms: int) -> None:
    """Write a bucket, each row with the points of the buckets before it."""
    if not rows:
        return
    c = drift_courses.c
    before: dict[tuple[str, ...], list[Any]] = {}
    for part in range(0, len(rows), 200):
        keys = [tuple(row[name] for name in _KEY) for row in rows[part : part + 200]]
        query = select(*(c[name] for name in _KEY), c.points).where(
            tuple_(*(c[name] for name in _KEY)).in_(keys)
        )
        before |= {tuple(found[:4]): found.points for found in connection.execute(query)}
    values = []
    for row in rows:
        own = dict(row)
        number, since = own.pop("number"), own.pop("since_number")
        points = before.get(tuple(row[name] for name in _KEY), [])
        point = [int(number * bucket_ms), _short(row["level"]), _short(row["psi"])]
        own |= {
            "rank": rank(row),
            "points": [*points, point][-POINTS:],
            "bucket_ms": int(number * bucket_ms),
            "since_ms": int(since * bucket_ms) if since else None,
            "updated_ms": now_ms,
        }
        values.append(own)
    changed = tuple(name for name in values[0] if name not in _KEY)
    upsert_all(connection, drift_courses, values, _KEY, changed)
    connection.execute(delete(drift_courses).where(c.updated_ms < now_ms - KEPT_MS))


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which courses."""

    model: str = ""
    field: str = ""
    site: str | None = None
    """None for every site; `FLEET` for the fleet itself."""
    drifting: bool = False


def list_courses(
    connection: Connection, wanted: Wanted, limit: int, after: str | None = None
) -> tuple[list[Document], str | None]:
    """A page, the worst first, and the cursor of the next one."""
    c = drift_courses.c
    order = (c.rank.desc(), c.model, c.family, c.field, c.site)
    query = select(drift_courses).order_by(*order).limit(limit + 1)
    query = query.where(c.site != FLEET if wanted.site is None else c.site == wanted.site)
    if wanted.model:
        query = query.where(c.model == wanted.model)
    if wanted.field:
        query = query.where(c.field == wanted.field)
    if wanted.drifting:
        query = query.where(c.rank >= _DRIFTING_RANK)
    if after is not None:
        last, *key = _read_cursor(after)
        beyond = tuple_(c.model, c.family, c.field, c.site) > tuple_(*key)
        query = query.where((c.rank < last) | ((c.rank == last) & beyond))
    rows = [dict(row) for row in connection.execute(query).mappings()]
    more = len(rows) > limit
    return rows[:limit], _cursor(rows[limit - 1]) if more else None


def _cursor(row: Document) -> str:
    return msgspec.json.encode([row["rank"], *(row[name] for name in _KEY)]).hex()


def _read_cursor(text: str) -> tuple[float, str, str, str, str]:
    try:
        return msgspec.json.decode(bytes.fromhex(text), type=tuple[float, str, str, str, str])
    except (ValueError, msgspec.DecodeError) as error:
        raise InvalidInputError(f"cursor: not one of ours: {text[:40]!r}") from error
