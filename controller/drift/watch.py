"""Watching one model's streams: devices, their sites and the fleet, bucket by bucket. Pure.

Devices are judged against their own course and their peers. What all see alike shows in the groups:
a site, and the whole fleet, whose value is the trimmed mean of its devices' residuals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from controller.drift.channels import FLOORS, STRETCH, Channel, Kind, measure
from controller.drift.sequential import Array, Detector, Rule, Standing, Step
from shoal.protocol.messages import FieldStatistics

FLEET = ""
MIN_MEMBERS = 4
"""Devices that make a site worth a chart of its own."""
GROUP_FLOOR = 0.02
TRIM = 0.1

Fields = Mapping[str, FieldStatistics]


@dataclass(frozen=True, slots=True)
class Reported:
    """What one device counted in a bucket."""

    site: str
    rows: int
    fields: Fields


@dataclass(frozen=True, slots=True)
class Finding:
    """A channel whose standing changed to, or from, drifting."""

    scope: str
    """device, site or fleet."""
    subject: str
    channel: Channel
    drifting: bool
    level: float
    """Signed, in limits of the chart."""
    value: float
    expected: float
    deviation: float
    since_number: int


@dataclass(frozen=True, slots=True)
class Place:
    """How one field does at a site, or in the fleet, by the newest bucket."""

    site: str
    """`FLEET` for all devices."""
    field: str
    devices: int
    """How many reported."""
    drifting: int
    """How many of them drift."""
    standing: str
    """Drifting when the place's own chart or that of any device says so."""
    kind: str
    """The channel whose chart is highest."""
    level: float | None
    """That chart as a share of its limit; None before any is judged."""
    since_number: int | None
    worst_device: str
    """The device whose chart is highest; "" where it is the place's own."""


class Watch:
    """The detectors of one family of channels (a model's inputs, or its outputs)."""

    def __init__(self, rule: Rule, channels: Sequence[Channel]) -> None:
        self.rule = rule
        self.channels = list(channels)
        self.number: int | None = None
        self._index: dict[str, int] = {}
        self._groups: dict[str, int] = {}
        self._drifting: dict[tuple[str, str], NDArray[np.bool_]] = {}
        self._latest: Step | None = None
        self._latest_group: Step | None = None
        self._devices = Detector(rule, *limits(channels))
        self._group = Detector(rule, *group_limits(len(channels)))

    @property
    def devices(self) -> list[str]:
        """Names of the rows."""
        return list(self._index)

    def take(self, number: int, reported: Mapping[str, Reported]) -> list[Finding]:
        """Judge a bucket; return what began or ended with it."""
        for name in reported:
            if name not in self._index:
                self._index[name] = len(self._index)
        self._devices.resize(len(self._index))
        values, weights = self._matrix(reported)
        step = self._devices.step(number, values, weights)
        found = self._changes("device", list(self._index), step, values)
        found += self._take_groups(number, reported, step)
        self.number = number
        return found

    def forget(self, device: str) -> None:
        """Learn a device anew, e.g. since its outputs come from another release."""
        if device in self._index:
            self._devices.forget(self._index[device])
            self._drifting.pop(("device", device), None)

    def accept(self, scope: str, subject: str, field: str, kind: str) -> bool:
        """Take the present level of a channel as normal; whether there is such a channel."""
        rows, detector = (
            (self._index, self._devices) if scope == "device" else (self._groups, self._group)
        )
        columns = [
            i for i, one in enumerate(self.channels) if (one.field, one.kind) == (field, kind)
        ]
        if subject not in rows or not columns:
            return False
        flags = self._drifting.get(("device" if scope == "device" else "group", subject))
        if flags is not None:
            flags[columns[0]] = False
        detector.accept(rows[subject], columns[0])
        return True

    def standing(self, device: str) -> dict[str, str]:
        """What is known of each channel of a device, by `field/kind`."""
        row = self._index.get(device)
        if row is None or self._latest is None or row >= len(self._latest.standing):
            return {}
        codes = self._latest.standing[row]
        return {
            f"{one.field}/{one.kind}": Standing(int(code)).name.lower()
            for one, code in zip(self.channels, codes, strict=True)
        }

    def survey(self, reported: Mapping[str, Reported]) -> list[Place]:
        """How every field does at every place that reported in the newest bucket."""
        if self._latest is None or self._latest_group is None:
            return []
        members: dict[str, list[int]] = {FLEET: []}
        for name, one in reported.items():
            members[FLEET].append(self._index[name])
            if one.site != FLEET:
                members.setdefault(one.site, []).append(self._index[name])
        names = self.devices
        fields: dict[str, list[int]] = {}
        for column, channel in enumerate(self.channels):
            fields.setdefault(channel.field, []).append(column)
        return [
            self._place(site, field, rows, columns, names)
            for site, rows in members.items()
            for field, columns in fields.items()
        ]

    def _place(
        self, site: str, field: str, rows: list[int], columns: list[int], names: list[str]
    ) -> Place:
        assert self._latest is not None
        assert self._latest_group is not None
        own, group = self._latest, self._latest_group
        here = np.ix_(rows, columns)
        place = np.ix_([self._groups[site]], columns)
        codes = np.concatenate([group.standing[place], own.standing[here]])
        judged = (codes == Standing.WATCHING) | (codes == Standing.DRIFTING)
        levels = np.abs(np.concatenate([group.level[place], own.level[here]]))
        levels = np.where(judged, levels, -1.0)
        row, column = np.unravel_index(int(levels.argmax()), levels.shape)
        drifting = codes == Standing.DRIFTING
        if drifting.any():
            row, column = np.unravel_index(
                int(np.where(drifting, levels, -1.0).argmax()), levels.shape
            )
        since = np.concatenate([group.since[place], own.since[here]])[row, column]
        return Place(
            site=site,
            field=field,
            devices=len(rows),
            drifting=int(drifting[1:].any(axis=1).sum()),
            standing=_worst(codes),
            kind=self.channels[columns[int(column)]].kind.value,
            level=float(levels[row, column]) if judged.any() else None,
            since_number=int(since) if drifting.any() else None,
            worst_device=names[rows[int(row) - 1]] if row and judged.any() else "",
        )

    def _matrix(self, reported: Mapping[str, Reported]) -> tuple[Array, ...]:
        values = np.full((len(self._index), len(self.channels)), np.nan)
        weights = np.zeros(len(self._index))
        for name, one in reported.items():
            row = self._index[name]
            weights[row] = one.rows
            values[row] = [
                measure(channel, one.fields[channel.field])
                if channel.field in one.fields
                else np.nan
                for channel in self.channels
            ]
        return values, weights

    def _take_groups(
        self, number: int, reported: Mapping[str, Reported], step: Step
    ) -> list[Finding]:
        self._latest = step
        members: dict[str, list[int]] = {FLEET: []}
        for name, one in reported.items():
            members[FLEET].append(self._index[name])
            members.setdefault(one.site, []).append(self._index[name])
        for name in members:
            if name not in self._groups:
                self._groups[name] = len(self._groups)
        self._group.resize(len(self._groups))
        values = np.full((len(self._groups), len(self.channels)), np.nan)
        weights = np.zeros(len(self._groups))
        for name, rows in members.items():
            if len(rows) >= MIN_MEMBERS:
                own = np.where(step.counted[rows], step.residual[rows], np.nan)
                values[self._groups[name]] = trimmed_mean(own)
                weights[self._groups[name]] = len(rows) * self.rule.min_rows
        found = self._latest_group = self._group.step(number, values, weights)
        return self._changes("group", list(self._groups), found, values)

    def _changes(self, scope: str, names: list[str], step: Step, values: Array) -> list[Finding]:
        now = step.standing == Standing.DRIFTING
        found = []
        for row, name in enumerate(names):
            before = self._drifting.get((scope, name))
            if before is None and not now[row].any():
                continue
            changed = now[row] if before is None else now[row] != before
            found += [
                self._finding(scope, name, int(column), row, step, values)
                for column in np.flatnonzero(changed)
            ]
            self._drifting[scope, name] = now[row].copy()
        return found

    def _finding(
        self,
        scope: str,
        name: str,
        column: int,
        row: int,
        step: Step,
        values: Array,
    ) -> Finding:
        named = scope if scope == "device" else "fleet" if name == FLEET else "site"
        return Finding(
            scope=named,
            subject=name,
            channel=self.channels[column],
            drifting=bool(step.standing[row, column] == Standing.DRIFTING),
            level=float(step.level[row, column]),
            value=float(values[row, column]),
            expected=float(step.expected[row, column]),
            deviation=float(step.deviation[row, column]),
            since_number=int(step.since[row, column]),
        )

    def dump(self) -> bytes:
        """All state, to go on later."""
        return msgspec.msgpack.encode(
            {
                "number": self.number,
                "channels": [[one.field, one.kind.value, one.scale] for one in self.channels],
                "devices": list(self._index),
                "groups": list(self._groups),
                "device_state": self._devices.dump(),
                "group_state": self._group.dump(),
                "drifting": [
                    [scope, name, flags.astype(np.uint8).tobytes()]
                    for (scope, name), flags in self._drifting.items()
                ],
            }
        )

    @classmethod
    def load(cls, data: bytes, rule: Rule) -> Watch:
        """Go on from `dump`, or raise `ValueError`."""
        try:
            stored = msgspec.msgpack.decode(data)
            channels = [
                Channel(field, Kind(kind), scale) for field, kind, scale in stored["channels"]
            ]
            found = cls(rule, channels)
            found._devices = Detector.load(stored["device_state"], rule, *limits(channels))
            group = group_limits(len(channels))
            found._group = Detector.load(stored["group_state"], rule, *group)
            found.number = stored["number"]
            found._index = {name: i for i, name in enumerate(stored["devices"])}
            found._groups = {name: i for i, name in enumerate(stored["groups"])}
            found._drifting = {
                (scope, name): np.frombuffer(flags, np.uint8).astype(bool)
                for scope, name, flags in stored["drifting"]
            }
        except (KeyError, TypeError, msgspec.DecodeError, EOFError, OSError) as error:
            raise ValueError(f"drift state: {error!r}") from error
        if (found._devices.rows, found._group.rows) != (len(found._index), len(found._groups)):
            raise ValueError("drift state: names and rows differ")
        return found


def _worst(codes: NDArray[np.int8]) -> str:
    """One word for many channels: what matters most of what is true of any."""
    for one in (Standing.DRIFTING, Standing.WATCHING, Standing.UNCALIBRATED):
        if (codes == one).any():
            return one.name.lower()
    return Standing.LEARNING.name.lower()


def limits(channels: Sequence[Channel]) -> tuple[Array, Array]:
    """Floors and stretch of a detector of devices."""
    kinds = [one.kind for one in channels]
    return np.array([FLOORS[one] for one in kinds]), np.array([STRETCH[one] for one in kinds])


def group_limits(width: int) -> tuple[Array, Array]:
    """Floors and stretch of a detector of groups: means of many are near normal."""
    return np.full(width, GROUP_FLOOR), np.ones(width)


def trimmed_mean(values: Array) -> Array:
    """Mean of each column without its outermost tenths; NaN where too few are known."""
    known = np.isfinite(values)
    found = np.full(values.shape[1], np.nan)
    for column in np.flatnonzero(known.sum(axis=0) >= MIN_MEMBERS):
        own = np.sort(values[known[:, column], column])
        cut = int(len(own) * TRIM)
        found[column] = own[cut : len(own) - cut].mean()
    return found
