"""The agent's configuration: one TOML file into frozen values, all mistakes reported together.

Secrets never stand here: enrolment leaves keys and credentials in the state folder, mode 0600.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from agent.actions import find_action_problems
from agent.address import split_address
from agent.crashloop import CrashLimits
from agent.garbage import GarbageLimits
from agent.maintenance import parse_window
from agent.sources import find_source_problems
from shoal.errors import InvalidInputError
from shoal.ids import DeviceId, SiteId, is_name
from shoal.protocol.manifest import Sensor


@dataclass(frozen=True, slots=True)
class ModelBinding:
    """How one model name is wired on this device."""

    name: str
    source: dict[str, Any]
    actions: list[dict[str, Any]] = field(default_factory=list)


ENVIRONMENT = "SHOAL_AGENT_"
"""`SHOAL_AGENT_DEVICE_ID` overrides `device.id`, and so on; not below `models`."""
_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]")
_KEY = re.compile(r"\s*([A-Za-z0-9_\"'. -]+?)\s*=")
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
class HttpSettings:
    """The local HTTP server; without an address and a socket there is none."""

    listen: str = ""
    socket: str = ""
    inference: bool = True
    timeout_seconds: float = 10.0
    max_body_bytes: int = 8 * 1024 * 1024
    max_connections: int = 32

    @property
    def enabled(self) -> bool:
        """Whether it listens anywhere."""
        return bool(self.listen or self.socket)


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
    capture_enabled: bool = True
    capture_max_bytes: int = 64 * 2**20
    maintenance: tuple[str, ...] = ()
    """When candidates may be activated: `HH:MM-HH:MM` in UTC, with days before it or without."""
    path: Path = Path()
    """The file that this came from."""
    sensors: list[Sensor] = field(default_factory=list)
    """What is wired to the device, for variants that require it."""
    http: HttpSettings = HttpSettings()
    worker_memory_mb: int = 0
    """What a worker may take; 0: by what its model is estimated to need."""
    golden_seconds: float = 86400.0
    crashes: CrashLimits = field(default_factory=CrashLimits)
    garbage: GarbageLimits = field(default_factory=GarbageLimits)

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


@dataclass(frozen=True, slots=True)
class Setting:
    """One value, and where it comes from: `default`, `environment NAME` or `file:line`."""

    key: str
    value: Any
    origin: str


def load_config(path: Path) -> AgentConfig:
    """Read and check a configuration file, or raise one `InvalidInputError` with all mistakes."""
    reader = _Reader(*_read_table(path))
    config = _build(reader, path)
    if problems := reader.finish():
        raise InvalidInputError(f"configuration {path}: " + "; ".join(problems))
    return config


def inspect_config(path: Path) -> tuple[list[Setting], list[str]]:
    """Every value with its origin, and every mistake."""
    try:
        reader = _Reader(*_read_table(path))
    except InvalidInputError as error:
        return [], [error.sentence]
    _build(reader, path)
    return reader.settings(path.name), reader.finish()


def _read_table(path: Path) -> tuple[dict[str, Any], str]:
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text), text
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInputError(f"configuration {path}: {error}") from error


def _build(reader: _Reader, path: Path) -> AgentConfig:
    return AgentConfig(
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
        capture_enabled=reader.flag("capture.enabled", True),
        capture_max_bytes=int(reader.number("capture.max_bytes", 64 * 2**20, 65536, 2**40)),
        maintenance=reader.windows("maintenance.windows"),
        path=path,
        sensors=reader.sensors("device.sensors"),
        http=reader.http(),
        worker_memory_mb=int(reader.number("workers.memory_mb", 0, 0, 2**20)),
        golden_seconds=reader.number("workers.golden_seconds", 86400.0, 60.0, 1e9),
        crashes=CrashLimits(
            crashes=int(reader.number("workers.max_crashes", 5, 2, 1000)),
            seconds=reader.number("workers.crash_seconds", 600.0, 1.0, 1e6),
        ),
        garbage=GarbageLimits(
            max_age_seconds=reader.number("files.max_age_seconds", 86400.0, 0.0, 1e9),
            max_bytes=int(reader.number("files.max_bytes", 256 * 2**20, 0, 2**44)),
        ),
    )


def find_chain_problems(sources: dict[str, dict[str, Any]]) -> list[str]:
    """What is wrong between models of which one takes the other's answers."""
    found = []
    for name in sources:
        seen, at = {name}, name
        while sources[at].get("kind") == "model":
            follows = sources[at].get("model")
            if follows not in sources or not isinstance(follows, str):
                if at == name:
                    found.append(f"models.{name}.source.model: no model {follows!r} here")
                break
            if follows in seen:
                found.append(f"models.{name}.source.model: goes round in a circle")
                break
            seen.add(follows)
            at = follows
    return found


class _Reader:
    """Takes values out of a table, remembering every mistake and every key it knows."""

    def __init__(self, table: dict[str, Any], text: str) -> None:
        self._table = table
        self._lines = find_lines(text)
        self._known: set[str] = set()
        self._problems: list[str] = []
        self._taken: dict[str, tuple[Any, str]] = {}
        self._http_sources: list[str] = []

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

    def flag(self, key: str, default: bool) -> bool:
        value = self._take(key, default)
        if not isinstance(value, bool):
            self._problems.append(f"{key}: expected true or false, got {value!r}")
            return default
        return value

    def windows(self, key: str) -> tuple[str, ...]:
        """Maintenance windows; those that cannot be read are mistakes."""
        value = self._take(key, [])
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            self._problems.append(f"{key}: expected a list of texts, got {value!r}")
            return ()
        for one in value:
            try:
                parse_window(one)
            except InvalidInputError as error:
                self._problems.append(f"{key}: {error.sentence}")
        return tuple(value)

    def by_class(
        self, key: str, low: float, high: float, kind: Callable[[float], _Number]
    ) -> dict[str, _Number]:
        """One number for each class of the outbox that has a table with this key."""
        return {
            name: kind(self.number(full, low, low, high))
            for name in OUTBOX_CLASSES
            if self._take(full := f"outbox.{name}.{key}", None) is not None
        }

    def sensors(self, key: str) -> list[Sensor]:
        tables = self._take(key, {})
        found = []
        for name, table in tables.items() if isinstance(tables, dict) else ():
            try:
                found.append(msgspec.convert({**table, "name": name}, Sensor))
            except (TypeError, msgspec.ValidationError) as error:
                self._problems.append(f"{key}.{name}: {error}")
            if "|" in name or "," in name:
                self._problems.append(f"{key}.{name}: a sensor's name holds no ',' and no '|'")
        if not isinstance(tables, dict):
            self._problems.append(f"{key}: expected a table per sensor")
        return found

    def http(self) -> HttpSettings:
        settings = HttpSettings(
            listen=self.text("http.listen", ""),
            socket=self.text("http.socket", ""),
            inference=self.flag("http.inference", True),
            timeout_seconds=self.number("http.timeout_seconds", 10.0, 0.01, 600.0),
            max_body_bytes=int(self.number("http.max_body_bytes", 8 * 2**20, 1024, 2**30)),
            max_connections=int(self.number("http.max_connections", 32, 1, 1024)),
        )
        if settings.listen:
            try:
                split_address(settings.listen)
            except InvalidInputError as error:
                self._problems.append(f"http.listen: {error.sentence}")
        if not settings.enabled:
            self._problems += [
                f"{at}.kind: http needs http.listen or http.socket" for at in self._http_sources
            ]
        return settings

    def models(self) -> list[ModelBinding]:
        self._known.add("models")
        tables = self._table.get("models", {})
        if not isinstance(tables, dict):
            self._problems.append("models: expected a table per model")
            return []
        bindings = [self._model(name, table) for name, table in tables.items()]
        self._problems += find_chain_problems({one.name: one.source for one in bindings})
        return bindings

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
            if source.get("kind") == "http":
                self._http_sources.append(f"{at}.source")
        if not isinstance(actions, list) or not all(isinstance(one, dict) for one in actions):
            self._problems.append(f"{at}.actions: expected a list of tables")
            actions = []
        for number, action in enumerate(actions):
            self._problems += find_action_problems(f"{at}.actions[{number}]", action)
        for key in set(table) - {"source", "actions"}:
            self._problems.append(f"{at}.{key}: is not known")
        return ModelBinding(name, source, actions)

    def finish(self) -> list[str]:
        """Every mistake, unknown keys among them."""
        self._unknown(self._table, "")
        return self._problems

    def settings(self, name: str) -> list[Setting]:
        """Every value that was taken, and what stands below `models`, in the order of the file."""
        found = [
            Setting(key, value, self._origin(name, key, where))
            for key, (value, where) in self._taken.items()
            if value is not None or where != "default"
        ]
        for key, value in _flat(self._table.get("models", {}), "models"):
            found.append(Setting(key, value, self._origin(name, key, "file")))
        return found

    def _origin(self, name: str, key: str, where: str) -> str:
        if where != "file":
            return where
        parts = key.split(".")
        for length in range(len(parts), 0, -1):  # an inline table has the line of its beginning
            if (line := self._lines.get(".".join(parts[:length]))) is not None:
                return f"{name}:{line}"
        return name

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
        variable = f"{ENVIRONMENT}{key.replace('.', '_').upper()}"
        if (text := os.environ.get(variable)) is not None:
            value = _from_environment(text, default)
            self._taken[key] = (value, f"environment {variable}")
            return value
        found: Any = self._table
        for part in key.split("."):
            if not isinstance(found, dict) or part not in found:
                self._taken[key] = (default, "default")
                return default
            found = found[part]
        self._taken[key] = (found, "file")
        return found


def find_lines(text: str) -> dict[str, int]:
    """The line of each table and key of a TOML text, as far as a plain reading goes.

    >>> find_lines('[a]\\nb = 1\\n[[a.c]]\\nd.e = 2\\n')
    {'a': 1, 'a.b': 2, 'a.c': 3, 'a.c.0': 3, 'a.c.0.d.e': 4}
    """
    lines: dict[str, int] = {}
    at, seen = "", Counter[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            at = _plain(header[2])
            lines.setdefault(at, number)
            if header[1] == "[[":
                seen[at] += 1
                at = f"{at}.{seen[at] - 1}"
                lines[at] = number
        elif key := _KEY.match(line):
            lines.setdefault(".".join(filter(None, (at, _plain(key[1])))), number)
    return lines


def _plain(dotted: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in dotted.split("."))


def _flat(value: Any, at: str) -> Iterator[tuple[str, Any]]:
    """Leaves of nested tables; lists of tables by number."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _flat(one, f"{at}.{key}")
    elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        for number, one in enumerate(value):
            yield from _flat(one, f"{at}.{number}")
    else:
        yield at, value


def _from_environment(text: str, default: Any) -> Any:
    """Text stays text where text is wanted; else what TOML would make of it."""
    if isinstance(default, str) or default is None:
        return text
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text
