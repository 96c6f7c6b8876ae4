"""The controller's configuration: one TOML file into frozen values, all mistakes together.

Everything has a default but the file itself; the data folder is the one the file lies in, unless
`data_dir` names another.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from controller.drift.sequential import Rule
from controller.people.roles import ANONYMOUS_ROLES, GRANTED_ROLES
from shoal.errors import InvalidInputError
from shoal.ids import is_name

LOOPBACK = ("127.0.0.1", "::1", "localhost")
BROKER_MODES = ("auto", "mosquitto", "nats", "external")
_SECTIONS = ("web", "broker", "enrolment", "drift", "alerts", "rollouts", "registry", "oidc")
MAX_APPROVALS = 5
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
}


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
    port: int = 8883
    """Where devices connect."""
    public_host: str = ""
    """How devices reach the broker; "" takes host."""
    controller_port: int = 0
    """Where our own processes connect; 0: any free one, and with `external` the same as port."""
    accounts_folder: str = ""
    ca_file: str = ""
    """Who vouches for a broker of the site's own, PEM; "" is our broker CA."""
    tls: bool = True
    """false: passwords on a plain listener, for load tests on one machine; no agent connects."""


@dataclass(frozen=True, slots=True)
class EnrolmentSettings:
    """Who becomes a device, and for how long at a time."""

    certificate_days: float = 90.0
    ca_certificate: str = ""
    """An intermediate of the site's own in place of the fleet CA: PEM, its own first, up to the
    root; "" is the one that `init` makes."""
    ca_key: str = ""
    max_pending: int = 200
    """How many unknown devices may wait for an operator."""


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
class RegistrySettings:
    """Names of releases."""

    approvals: int = 0
    """How many other people must agree before an alias of `signed_off` moves."""
    signed_off: str = "champion"
    """The aliases that it holds for, with commas between."""

    def approvals_for(self, alias: str) -> int:
        """How many other people must agree before this alias moves."""
        return self.approvals if alias in self.signed_off_aliases else 0

    @property
    def signed_off_aliases(self) -> frozenset[str]:
        """The aliases that need a sign-off."""
        return frozenset(one.strip() for one in self.signed_off.split(",") if one.strip())


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """The OpenID provider that people may sign in at; without `issuer` there is none."""

    issuer: str = ""
    client_id: str = "shoal"
    client_secret_file: str = ""
    name: str = "OpenID"
    """What the button says: Sign in with …"""
    scope: str = "openid profile email groups"
    name_claim: str = "preferred_username"
    groups_claim: str = "groups"
    default_role: str = ""
    """Of people none of whose groups has one; "" lets them not in."""
    roles: dict[str, str] = field(default_factory=dict)
    """Group → role."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration."""

    path: Path
    data_dir: Path
    database_url: str
    web: WebSettings = WebSettings()
    broker: BrokerConfig = BrokerConfig()
    enrolment: EnrolmentSettings = EnrolmentSettings()
    drift: DriftSettings = DriftSettings()
    alerts: AlertSettings = AlertSettings()
    rollouts: RolloutSettings = RolloutSettings()
    registry: RegistrySettings = RegistrySettings()
    oidc: OidcSettings = field(default_factory=OidcSettings)
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
    def fleet_ca(self) -> Path:
        """Certificate of who signs devices, and those above it."""
        return self.data_dir / (self.enrolment.ca_certificate or "keys/fleet-ca.pem")

    @property
    def fleet_ca_key(self) -> Path:
        """Its key."""
        return self.data_dir / (self.enrolment.ca_key or "keys/fleet-ca.key")

    @property
    def broker_ca(self) -> Path:
        """Certificate of who signs the broker and our own processes."""
        return self.data_dir / "keys" / "broker-ca.pem"

    @property
    def broker_ca_key(self) -> Path:
        """Its key."""
        return self.data_dir / "keys" / "broker-ca.key"

    @property
    def broker_ca_file(self) -> Path:
        """Whom a client believes about the broker."""
        return self.data_dir / self.broker.ca_file if self.broker.ca_file else self.broker_ca

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
    enrolment = EnrolmentSettings(
        **_section(table.pop("enrolment", {}), "enrolment.", EnrolmentSettings, problems)
    )
    drift = DriftSettings(**_section(table.pop("drift", {}), "drift.", DriftSettings, problems))
    alerts = AlertSettings(**_section(table.pop("alerts", {}), "alerts.", AlertSettings, problems))
    rollouts = RolloutSettings(
        **_section(table.pop("rollouts", {}), "rollouts.", RolloutSettings, problems)
    )
    registry = RegistrySettings(
        **_section(table.pop("registry", {}), "registry.", RegistrySettings, problems)
    )
    oidc = _oidc(table.pop("oidc", {}), problems)
    if not 0 <= rollouts.approvals <= MAX_APPROVALS:
        problems.append(
            f"rollouts.approvals: expected 0 to {MAX_APPROVALS}, got {rollouts.approvals}"
        )
    problems += _registry_problems(registry)
    problems += _drift_problems(drift) + _identity_problems(broker, enrolment)
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
        enrolment=enrolment,
        drift=drift,
        alerts=alerts,
        rollouts=rollouts,
        registry=registry,
        oidc=oidc,
        **top,
    )


def _identity_problems(broker: BrokerConfig, enrolment: EnrolmentSettings) -> list[str]:
    problems = []
    if not broker.tls and broker.host not in LOOPBACK:
        problems.append(f"broker.tls: false only on this machine, got broker.host {broker.host!r}")
    if not 0 < enrolment.certificate_days <= 825:
        problems.append(
            f"enrolment.certificate_days: expected above 0, at most 825, got "
            f"{enrolment.certificate_days:g}"
        )
    if bool(enrolment.ca_certificate) != bool(enrolment.ca_key):
        problems.append("enrolment.ca_certificate and enrolment.ca_key: go together")
    if not 0 <= enrolment.max_pending <= 10_000:
        problems.append(f"enrolment.max_pending: expected 0 to 10000, got {enrolment.max_pending}")
    return problems


def _oidc(table: Any, problems: list[str]) -> OidcSettings:
    roles = table.pop("roles", {}) if isinstance(table, dict) else {}
    found = OidcSettings(**_section(table, "oidc.", OidcSettings, problems))
    if not isinstance(roles, dict) or not all(isinstance(one, str) for one in roles.values()):
        problems.append("oidc.roles: expected a table of group = role")
        roles = {}
    wanted = {f"oidc.roles.{group}": role for group, role in roles.items()}
    for key, role in (wanted | {"oidc.default_role": found.default_role}).items():
        if role not in GRANTED_ROLES and (role or key != "oidc.default_role"):
            problems.append(f"{key}: {role!r} is none of {', '.join(GRANTED_ROLES)}")
    if found.issuer:
        parts = urlsplit(found.issuer)
        if parts.scheme != "https" and parts.hostname not in LOOPBACK:
            problems.append(f"oidc.issuer: expected https://…, got {found.issuer!r}")
        if not found.client_secret_file:
            problems.append("oidc.client_secret_file: is missing")
    return replace(found, roles=roles)


def _registry_problems(registry: RegistrySettings) -> list[str]:
    problems = []
    if not 0 <= registry.approvals <= MAX_APPROVALS:
        problems.append(
            f"registry.approvals: expected 0 to {MAX_APPROVALS}, got {registry.approvals}"
        )
    problems += [
        f"registry.signed_off: {one!r} is no name of an alias"
        for one in sorted(registry.signed_off_aliases)
        if not is_name(one)
    ]
    return problems


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
        elif isinstance(value, bool) is not (wanted == (bool,)) or not isinstance(value, wanted):
            problems.append(f"{at}{key}: expected {annotations[key]}, got {value!r}")
        else:
            found[key] = value
    return found
