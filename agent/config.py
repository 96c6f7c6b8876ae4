"""The agent's configuration: one TOML file into frozen values, all mistakes reported together.

Secrets never stand here: enrolment leaves keys and credentials in the state folder, mode 0600.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from agent.actions import find_action_problems
from agent.sources import find_source_problems
from shoal.errors import InvalidInputError
from shoal.ids import DeviceId, SiteId, is_name


@dataclass(frozen=True, slots=True)
class ModelBinding:
    """How one model name is wired on this device."""

    name: str
    source: dict[str, Any]
    actions: list[dict[str, Any]] = field(default_factory=list)


_Number = TypeVar("_Number", int, float)

OUTBOX_CLASSES = ("event", "state", "statistics", "health", "capture")
"""In the order of sending."""


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """Bytes and age that each class of message may take while nothing is acked."""

    max_bytes: int = 32 * 1024 * 1024
    max_age_seconds: float = 14 * 86400.0
    merge_above_rows: int = 240
    """Unsent windows of a model beyond this are merged two by two."""
    class_bytes: dict[str, int] = field(default_factory=dict)
    """Of single classes, where they differ."""
    class_age_seconds: dict[str, float] = field(default_factory=dict)

    def bytes_of(self, name: str) -> int:
        """Most bytes that a class may take."""
        return self.class_bytes.get(name, self.max_bytes)

    def age_of(self, name: str) -> float:
        """Most seconds that a message of a class may wait."""
        return self.class_age_seconds.get(name, self.max_age_seconds)


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Everything the agent is told by its integrator."""

    device: DeviceId
    site: SiteId
    profile: str
    state_dir: Path
    controller_url: str
    window_seconds: float
    health_seconds: float
    num_threads: int
    outbox: OutboxLimits
    models: list[ModelBinding]

    @property
    def files_dir(self) -> Path:
        """Content-addressed files of releases."""
        return self.state_dir / "files"

    @property
    def state_db(self) -> Path:
        """Slots, desired state and floors."""
        return self.state_dir / "state.sqlite"

    @property
    def outbox_db(self) -> Path:
        """Messages that are not acked yet."""
        return self.state_dir / "outbox.sqlite"


def load_config(path: Path) -> AgentConfig:
    """Read and check a configuration file, or raise one `InvalidInputError` with all mistakes."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInputError(f"configuration {path}: {error}") from error
    reader = _Reader(table)
    config = AgentConfig(
        device=DeviceId(reader.name("device.id")),
        site=SiteId(reader.name("device.site")),
        profile=reader.text("device.profile", ""),
        state_dir=Path(reader.text("device.state_dir", "/var/lib/shoal")),
        controller_url=reader.text("controller.url").rstrip("/"),
        window_seconds=reader.number("report.window_seconds", 60.0, 0.2, 3600.0),
        health_seconds=reader.number("report.health_seconds", 60.0, 0.2, 3600.0),
        num_threads=int(reader.number("workers.num_threads", 1, 1, 16)),
        outbox=OutboxLimits(
            max_bytes=int(reader.number("outbox.max_bytes", 32 * 2**20, 65536, 2**40)),
            max_age_seconds=reader.number("outbox.max_age_seconds", 14 * 86400.0, 60.0, 1e9),
            merge_above_rows=int(reader.number("outbox.merge_above_rows", 240, 4, 1e6)),
            class_bytes=reader.by_class("max_bytes", 65536, 2**40, int),
            class_age_seconds=reader.by_class("max_age_seconds", 60.0, 1e9, float),
        ),
        models=reader.models(),
    )
    reader.finish(path)
    return config


class _Reader:
    """Takes values out of a table, remembering every mistake and every key it knows."""

    def __init__(self, table: dict[str, Any]) -> None:
        self._table = table
        self._known: set[str] = set()
        self._problems: list[str] = []

    def text(self, key: str, default: str | None = None) -> str:
        value = self._take(key, default)
        if not isinstance(value, str):
            self._problems.append(
                f"{key}: is missing" if value is None else f"{key}: expected text, got {value!r}"
            )
            return ""
        if value == "" and default is None:
            self._problems.append(f"{key}: is empty")
        return value

    def name(self, key: str) -> str:
        value = self.text(key)
        if value and not is_name(value):
            self._problems.append(f"{key}: {value!r} may hold only a-z, 0-9 and '-'")
        return value

    def number(self, key: str, default: float, low: float, high: float) -> float:
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._problems.append(f"{key}: expected a number, got {value!r}")
            return default
        if not low <= value <= high:
            self._problems.append(f"{key}: {value} is not between {low:g} and {high:g}")
            return default  # TOML knows nan and inf, which the caller could not make an int of
        return value

    def by_class(
        self, key: str, low: float, high: float, kind: Callable[[float], _Number]
    ) -> dict[str, _Number]:
        """One number for each class of the outbox that has a table with this key."""
        return {
            name: kind(self.number(full, low, low, high))
            for name in OUTBOX_CLASSES
            if self._take(full := f"outbox.{name}.{key}", None) is not None
        }

    def models(self) -> list[ModelBinding]:
        self._known.add("models")
        tables = self._table.get("models", {})
        if not isinstance(tables, dict):
            self._problems.append("models: expected a table per model")
            return []
        return [self._model(name, table) for name, table in tables.items()]

    def _model(self, name: str, table: Any) -> ModelBinding:
        at = f"models.{name}"
        if not is_name(name):
            self._problems.append(f"{at}: a model name may hold only a-z, 0-9 and '-'")
        table = table if isinstance(table, dict) else {}
        source, actions = table.get("source"), table.get("actions", [])
        if not isinstance(source, dict):
            self._problems.append(f"{at}.source: is missing")
            source = {}
        else:
            self._problems += find_source_problems(f"{at}.source", source)
        if not isinstance(actions, list) or not all(isinstance(one, dict) for one in actions):
            self._problems.append(f"{at}.actions: expected a list of tables")
            actions = []
        for number, action in enumerate(actions):
            self._problems += find_action_problems(f"{at}.actions[{number}]", action)
        for key in set(table) - {"source", "actions"}:
            self._problems.append(f"{at}.{key}: is not known")
        return ModelBinding(name, source, actions)

    def finish(self, path: Path) -> None:
        """Complain about unknown keys, then raise if there was any mistake."""
        self._unknown(self._table, "")
        if self._problems:
            raise InvalidInputError(f"configuration {path}: " + "; ".join(self._problems))

    def _unknown(self, table: dict[str, Any], at: str) -> None:
        for key, value in table.items():
            full = f"{at}{key}"
            if full == "models" or full in self._known:
                continue
            if isinstance(value, dict) and any(k.startswith(f"{full}.") for k in self._known):
                self._unknown(value, f"{full}.")
            else:
                self._problems.append(f"{full}: is not known")

    def _take(self, key: str, default: Any) -> Any:
        self._known.add(key)
        value: Any = self._table
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                return default
            value = value[part]
        return value
