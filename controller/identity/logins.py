"""How our own processes log in at the broker. Light: only `ssl`, for processes without CA keys."""

from __future__ import annotations

import ssl
from pathlib import Path

import paho.mqtt.client as mqtt

from controller.config import Settings
from controller.secret import derive, load_secret
from shoal.errors import InvalidInputError


def login_file(settings: Settings, account: str) -> Path:
    """Key and certificate of an account, made by `serve`."""
    return settings.data_dir / "logins" / f"{account}.pem"


def client_context(authorities: str, pair: Path) -> ssl.SSLContext:
    """TLS 1.2 or later with our certificate, to a broker that these authorities vouch for."""
    context = ssl.create_default_context(cadata=authorities)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(pair)
    return context


def log_in_as(client: mqtt.Client, settings: Settings, account: str) -> None:
    """Give a client its identity: a certificate, or without TLS a password."""
    if not settings.broker.tls:
        client.username_pw_set(account, derive(load_secret(settings), f"controller|{account}"))
        return
    pair = login_file(settings, account)
    try:
        authorities = settings.broker_ca_file.read_text(encoding="ascii")
        client.tls_set_context(client_context(authorities, pair))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(
            f"login {pair}, broker CA {settings.broker_ca_file}: {error}", code="login-unreadable"
        ) from error
