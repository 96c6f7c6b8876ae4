"""The agent's configuration: one TOML file into frozen values, all mistakes reported together.

Secrets never stand here: enrolment leaves keys and credentials in the state folder, mode 0600.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from agent.actions import find_action_problems
from agent.address import split_address
from agent.config_reader import Reader, Setting
from agent.crashloop import CrashLimits
from agent.garbage import GarbageLimits
from agent.sources import find_source_problems
from agent.update_settings import TRANSPORTS, UpdateSettings
from shoal.addresses import shown, tells_secrets
from shoal.errors import InvalidInputError
from shoal.ids import DeviceId, SiteId, is_name
from shoal.maintenance import parse_window
from shoal.protocol.manifest import Sensor


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
    controller_fingerprint: str
    """Of the director key, for enrolment without a token; "" is none."""
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
    updates: UpdateSettings = field(default_factory=UpdateSettings)

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
    reader = Reader(*_read_table(path))
    config = _build(reader, path)
    if problems := reader.finish():
        raise InvalidInputError(f"configuration {path}: " + "; ".join(problems))
    return config


def inspect_config(path: Path) -> tuple[list[Setting], list[str]]:
    """Every value with its origin, and every mistake."""
    try:
        reader = Reader(*_read_table(path))
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


def _build(reader: Reader, path: Path) -> AgentConfig:
    return AgentConfig(
        device=DeviceId(reader.name("device.id")),
        site=SiteId(reader.name("device.site")),
        profile=reader.text("device.profile", ""),
        state_dir=Path(reader.text("device.state_dir", "/var/lib/shoal")),
        controller_url=_address(reader, "controller.url"),
        controller_fingerprint=_fingerprint(reader, "controller.fingerprint"),
        window_seconds=reader.number("report.window_seconds", 60.0, 0.2, 3600.0),
        health_seconds=reader.number("report.health_seconds", 60.0, 0.2, 3600.0),
        num_threads=int(reader.number("workers.num_threads", 1, 1, 16)),
        outbox=_outbox(reader),
        models=(models := _models(reader)),
        capture_enabled=reader.flag("capture.enabled", True),
        capture_max_bytes=int(reader.number("capture.max_bytes", 64 * 2**20, 65536, 2**40)),
        maintenance=_maintenance(reader, "maintenance.windows"),
        path=path,
        sensors=_sensors(reader, "device.sensors"),
        http=_http(reader, models),
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
        updates=_updates(reader),
    )


def _updates(reader: Reader) -> UpdateSettings:
    transport = reader.text("updates.transport", "auto")
    if transport not in TRANSPORTS:
        reader.mistake(f"updates.transport: expected one of {TRANSPORTS}, got {transport!r}")
    mirrors = reader.take("updates.mirrors", [])
    if not isinstance(mirrors, list) or not all(
        isinstance(one, str)
        and one.startswith(("http://", "https://"))
        and not tells_secrets(one)  # downloads name their address when they fail
        for one in mirrors
    ):
        reader.mistake("updates.mirrors: expected http(s) addresses without a login or query")
        mirrors = []
    return UpdateSettings(
        transport=transport,
        mirrors=tuple(mirrors),
        max_bytes_per_second=reader.number("updates.max_bytes_per_second", 0.0, 0.0, 1e12),
        min_bytes_per_second=reader.number("updates.min_bytes_per_second", 4096.0, 1.0, 1e9),
        grace_seconds=reader.number("updates.grace_seconds", 30.0, 1.0, 3600.0),
        refresh_seconds=reader.number("updates.refresh_seconds", 21600.0, 1.0, 1e6),
    )


def _address(reader: Reader, key: str) -> str:
    """An address that every log may show."""
    found = reader.text(key).rstrip("/")
    if tells_secrets(found):
        reader.mistake(f"{key}: expected an address without a login or query, got {shown(found)}")
    return found


def _outbox(reader: Reader) -> OutboxLimits:
    return OutboxLimits(
        max_bytes=int(reader.number("outbox.max_bytes", 32 * 2**20, 65536, 2**40)),
        max_age_seconds=reader.number("outbox.max_age_seconds", 14 * 86400.0, 60.0, 1e9),
        merge_above_rows=int(reader.number("outbox.merge_above_rows", 240, 4, 1e6)),
        class_bytes=_by_class(reader, "max_bytes", 65536, 2**40, int),
        class_age_seconds=_by_class(reader, "max_age_seconds", 60.0, 1e9, float),
    )


def _by_class(
    reader: Reader, key: str, low: float, high: float, kind: Callable[[float], _Number]
) -> dict[str, _Number]:
    """One number for each class of the outbox that has a table with this key."""
    return {
        name: kind(reader.number(full, low, low, high))
        for name in OUTBOX_CLASSES
        if reader.take(full := f"outbox.{name}.{key}", None) is not None
    }


def _maintenance(reader: Reader, key: str) -> tuple[str, ...]:
    """Maintenance windows; those that cannot be read are mistakes."""
    value = reader.take(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        reader.mistake(f"{key}: expected a list of texts, got {value!r}")
        return ()
    for one in value:
        try:
            parse_window(one)
        except InvalidInputError as error:
            reader.mistake(f"{key}: {error.sentence}")
    return tuple(value)


def _fingerprint(reader: Reader, key: str) -> str:
    text = reader.text(key, "").lower()
    if text and re.fullmatch("[0-9a-f]{64}", text) is None:
        reader.mistake(f"{key}: expected 64 hexadecimal digits, got {text[:80]!r}")
    return text


def _sensors(reader: Reader, key: str) -> list[Sensor]:
    tables = reader.take(key, {})
    found = []
    for name, table in tables.items() if isinstance(tables, dict) else ():
        try:
            found.append(msgspec.convert({**table, "name": name}, Sensor))
        except (TypeError, msgspec.ValidationError) as error:
            reader.mistake(f"{key}.{name}: {error}")
        if "|" in name or "," in name:
            reader.mistake(f"{key}.{name}: a sensor's name holds no ',' and no '|'")
    if not isinstance(tables, dict):
        reader.mistake(f"{key}: expected a table per sensor")
    return found


def _http(reader: Reader, models: list[ModelBinding]) -> HttpSettings:
    settings = HttpSettings(
        listen=reader.text("http.listen", ""),
        socket=reader.text("http.socket", ""),
        inference=reader.flag("http.inference", True),
        timeout_seconds=reader.number("http.timeout_seconds", 10.0, 0.01, 600.0),
        max_body_bytes=int(reader.number("http.max_body_bytes", 8 * 2**20, 1024, 2**30)),
        max_connections=int(reader.number("http.max_connections", 32, 1, 1024)),
    )
    if settings.listen:
        try:
            split_address(settings.listen)
        except InvalidInputError as error:
            reader.mistake(f"http.listen: {error.sentence}")
    for one in models:
        if one.source.get("kind") == "http" and not settings.enabled:
            reader.mistake(f"models.{one.name}.source.kind: http needs http.listen or http.socket")
    return settings


def _models(reader: Reader) -> list[ModelBinding]:
    tables = reader.models()
    if not isinstance(tables, dict):
        reader.mistake("models: expected a table per model")
        return []
    bindings = [_model(reader, name, table) for name, table in tables.items()]
    for problem in find_chain_problems({one.name: one.source for one in bindings}):
        reader.mistake(problem)
    return bindings


def _model(reader: Reader, name: str, table: Any) -> ModelBinding:
    at = f"models.{name}"
    if not is_name(name):
        reader.mistake(f"{at}: a model name may hold only a-z, 0-9 and '-'")
    table = table if isinstance(table, dict) else {}
    source, actions = table.get("source"), table.get("actions", [])
    problems = []
    if not isinstance(source, dict):
        problems.append(f"{at}.source: is missing")
        source = {}
    else:
        problems += find_source_problems(f"{at}.source", source)
    if not isinstance(actions, list) or not all(isinstance(one, dict) for one in actions):
        problems.append(f"{at}.actions: expected a list of tables")
        actions = []
    for number, action in enumerate(actions):
        problems += find_action_problems(f"{at}.actions[{number}]", action)
    problems += [f"{at}.{key}: is not known" for key in set(table) - {"source", "actions"}]
    for problem in problems:
        reader.mistake(problem)
    return ModelBinding(name, source, actions)


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
