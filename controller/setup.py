"""Making a controller's state: database, keys, tokens. Safe to repeat; nothing is replaced."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection

from controller import audit
from controller.broker import mosquitto
from controller.broker.identity import revocation_file, server_files
from controller.config import Settings
from controller.database import create_tables, open_engine, writing
from controller.enrolment import accounts
from controller.identity.identities import make_missing
from controller.ingest.write import upsert
from controller.people import tokens
from controller.people.person import Person
from controller.people.roles import ADMIN
from controller.repository.keyring import Keyring
from controller.schema import settings as table
from controller.secret import make_secret
from controller.services import RELEASE_KEYS, release_keys
from controller.state_files import write_private
from shoal.errors import InvalidInputError
from shoal.signing import KeyVerifier, key_id


def initialise(settings: Settings) -> list[str]:
    """Make what is missing; return what was made."""
    made = []
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings.files_dir.mkdir(exist_ok=True)
    made += Keyring(settings.keys_dir).make_missing()
    if not settings.broker_secret.exists():
        made.append("broker secret")
    make_secret(settings)
    made += make_missing(settings)
    engine = open_engine(settings.database_url)
    create_tables(engine)
    tokens.adopt_old(engine, _now_ms())
    engine.dispose()
    if not settings.token_file.exists():
        token = tokens.make_secret()
        add_api_token(settings, "operator", ADMIN, token)
        write_private(settings.token_file, token.encode() + b"\n")
        made.append("operator's token")
    return made


def add_api_token(settings: Settings, name: str, role: str, token: str) -> None:
    """Let `token` act as `name`; it does not expire, for it is made where the keys are too."""
    maker = Person("shoal-controller", ADMIN)

    def change(connection: Connection) -> None:
        tokens.store(connection, _now_ms(), maker, name, role, token, None)

    _write(settings, change)


def add_online_key(settings: Settings, role: str) -> bytes:
    """Make another key of an online role; who signs with it is for the offline signers to say."""
    key = Keyring(settings.keys_dir).add(role)

    def change(connection: Connection) -> None:
        data = {"key_id": key_id(key)}
        audit.record(connection, _now_ms(), "shoal-controller", "online-key.make", role, data)

    _write(settings, change)
    return key


def trust_release_key(settings: Settings, key: bytes) -> bool:
    """Believe packages that `key` signed; whether that is new."""
    if len(key) != 32:
        raise InvalidInputError(f"release key: {len(key)} bytes, expected an Ed25519 key of 32")
    try:
        KeyVerifier([key])
    except ValueError as error:
        raise InvalidInputError(f"release key: {error}") from error
    text = base64.b64encode(key).decode()
    changed = False

    def change(connection: Connection) -> None:
        nonlocal changed
        if key in release_keys(connection):
            return
        keys = [base64.b64encode(one).decode() for one in release_keys(connection)]
        upsert(connection, table, {"key": RELEASE_KEYS}, {"value": [*keys, text]})
        audit.record(connection, _now_ms(), "shoal-controller", "release-key.trust", text)
        changed = True

    _write(settings, change)
    return changed


def write_broker_files(
    settings: Settings, folder: Path, conf: str, *, own_pair: bool
) -> list[Path]:
    """Write all that a mosquitto of the site's own needs; its certificate only if we make it."""
    from controller.app import build_services

    services = build_services(settings)
    _, controllers, revoked = accounts(services)
    services.engine.dispose()
    names = [one for one in (settings.broker.public_host, settings.broker.host) if one]
    texts = server_files(services.identities, names)
    if not own_pair:
        texts = {name: text for name, text in texts.items() if not name.startswith("broker.")}
    texts |= revocation_file(services.identities, revoked)
    texts |= {mosquitto.CONF: conf, mosquitto.ACL: mosquitto.acl(controllers)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_private(folder / name, text.encode())
    return [folder / name for name in texts]


def _write(settings: Settings, change: Callable[[Connection], None]) -> None:
    engine = open_engine(settings.database_url)
    create_tables(engine)
    tokens.adopt_old(engine, _now_ms())
    try:
        with writing(engine) as connection:
            change(connection)
    finally:
        engine.dispose()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
