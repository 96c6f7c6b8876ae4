"""The controller's configuration: one TOML file into frozen values, all mistakes together.

Everything has a default but the file itself; the data folder is the one the file lies in, unless
`data_dir` names another.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.drift.sequential import Rule
from controller.people.roles import ANONYMOUS_ROLES
from shoal.errors import InvalidInputError

BROKER_MODES = ("auto", "mosquitto", "nats", "external")
_SECTIONS = ("web", "broker", "drift", "alerts", "rollouts")
MAX_APPROVALS = 5
_KINDS: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float)}


@dataclass(frozen=True, slots=True)
class WebSettings:
    """Where pages and API are served, and what people without a token may do."""

    host: str = "127.0.0.1"
    port: int = 8080
    public_url: str = ""
    """How devices reach the controller; "" takes host and port."""
    root_path: str = ""
    anonymous: str = "viewer"


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """The broker: our child, or the site's own."""

    mode: str = "auto"
    host: str = "127.0.0.1"
    port: int = 1883
    public_host: str = ""
    """How devices reach the broker; "" takes host."""
    accounts_folder: str = ""


@dataclass(frozen=True, slots=True)
class DriftSettings:
    """How changes are looked for."""

    bucket_seconds: float = 300.0
    learn_days: float = 7.0

    def rule(self) -> Rule:
        """The rule with these settings."""
        return Rule(bucket_seconds=self.bucket_seconds, learn_days=self.learn_days)


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """Whom alerts are sent to; "" is nobody."""

    webhook_url: str = ""
    webhook_secret_file: str = ""
    """Its content signs each call: `X-Shoal-Signature: sha256=HMAC-SHA256(secret, body)`."""


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """What holds for every rollout."""

    approvals: int = 0
    """How many other people must approve before one starts; a rollout may ask for more."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration."""

    path: Path
    data_dir: Path
    database_url: str
    web: WebSettings = WebSettings()
    broker: BrokerConfig = BrokerConfig()
    drift: DriftSettings = DriftSettings()
    alerts: AlertSettings = AlertSettings()
    rollouts: RolloutSettings = RolloutSettings()
    offline_after_seconds: float = 180.0
    """A device not heard of for this long is shown offline."""
    max_package_bytes: int = 512 * 1024 * 1024
    release_threshold: int = 1

    @property
    def keys_dir(self) -> Path:
        """The controller's own keys."""
        return self.data_dir / "keys"

    @property
    def director_key(self) -> Path:
        """Signs desired states."""
        return self.data_dir / "keys" / "director.key"

    @property
    def broker_secret(self) -> Path:
        """Derives the broker's passwords."""
        return self.data_dir / "keys" / "broker.secret"

    @property
    def files_dir(self) -> Path:
        """Content-addressed files of releases."""
        return self.data_dir / "files"

    @property
    def token_file(self) -> Path:
        """The operator's token, as `init` made it."""
        return self.data_dir / "operator.token"

    @property
    def running_file(self) -> Path:
        """Addresses and process ids, while the controller runs."""
        return self.data_dir / "controller.json"


def load_settings(path: Path) -> Settings:
    """Read and check the configuration, or raise one `InvalidInputError` with all mistakes."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInputError(f"configuration {path}: {error}") from error
    problems: list[str] = []
    folder_text = table.pop("data_dir", ".")
    if not isinstance(folder_text, str):
        problems.append(f"data_dir: expected text, got {folder_text!r}")
    top = _section(table, "", Settings, problems, skip=set(_SECTIONS))
    web = WebSettings(**_section(table.pop("web", {}), "web.", WebSettings, problems))
    broker = BrokerConfig(**_section(table.pop("broker", {}), "broker.", BrokerConfig, problems))
    drift = DriftSettings(**_section(table.pop("drift", {}), "drift.", DriftSettings, problems))
    alerts = AlertSettings(**_section(table.pop("alerts", {}), "alerts.", AlertSettings, problems))
    rollouts = RolloutSettings(
        **_section(table.pop("rollouts", {}), "rollouts.", RolloutSettings, problems)
    )
    if not 0 <= rollouts.approvals <= MAX_APPROVALS:
        problems.append(
            f"rollouts.approvals: expected 0 to {MAX_APPROVALS}, got {rollouts.approvals}"
        )
    problems += _drift_problems(drift)
    if web.anonymous not in ANONYMOUS_ROLES:
        problems.append(f"web.anonymous: {web.anonymous!r} is none of {', '.join(ANONYMOUS_ROLES)}")
    if broker.mode not in BROKER_MODES:
        problems.append(f"broker.mode: {broker.mode!r} is none of {', '.join(BROKER_MODES)}")
    if problems:
        raise InvalidInputError(f"configuration {path}: " + "; ".join(problems))
    folder = (path.resolve().parent / folder_text).resolve()
    url = top.pop("database_url", f"sqlite:///{folder / 'shoal.sqlite'}")
    return Settings(
        path=path.resolve(),
        data_dir=folder,
        database_url=url,
        web=web,
        broker=broker,
        drift=drift,
        alerts=alerts,
        rollouts=rollouts,
        **top,
    )


def _drift_problems(drift: DriftSettings) -> list[str]:
    problems = []
    if not 1 <= drift.bucket_seconds <= 86400:
        problems.append(f"drift.bucket_seconds: expected 1 to 86400, got {drift.bucket_seconds:g}")
    if not 0 < drift.learn_days <= 90:
        problems.append(f"drift.learn_days: expected above 0, at most 90, got {drift.learn_days:g}")
    return problems


def _section(
    table: Any, at: str, kind: type, problems: list[str], skip: set[str] | None = None
) -> dict[str, Any]:
    """Take the known keys of a dataclass out of a table, checking their types."""
    if not isinstance(table, dict):
        problems.append(f"{at[:-1]}: expected a table")
        return {}
    annotations = kind.__annotations__
    found = {}
    for key, value in table.items():
        if key in (skip or ()):
            continue
        wanted = _KINDS.get(annotations.get(key, ""))
        if wanted is None:
            problems.append(f"{at}{key}: is not known")
        elif isinstance(value, bool) or not isinstance(value, wanted):
            problems.append(f"{at}{key}: expected {annotations[key]}, got {value!r}")
        else:
            found[key] = value
    return found
