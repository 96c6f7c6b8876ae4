"""Asking the broker and the controller whether they are there, and know this device."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime
from time import time

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from agent.access import BrokerAccess, broker_context
from agent.config import AgentConfig
from agent.doctor import UnwellError
from agent.lock import is_held

TIMEOUT_SECONDS = 10.0
MAX_CLOCK_DIFFERENCE = 60.0
MAX_ANSWER_BYTES = 65536


def ask_broker(config: AgentConfig, access: BrokerAccess) -> str:
    """Log in as this device; while its agent runs only knock, or the agent would be cut off."""
    at = f"{access.host}:{access.port}"
    context = broker_context(config.state_dir, access)
    if is_held(config.state_dir):
        _knock(context, access.host, access.port, at)
        return f"{at}: answers (the running agent holds the login)"
    told = threading.Event()
    answers: list[ReasonCode] = []

    def hear(
        _c: mqtt.Client, _u: object, _f: object, reason: ReasonCode, _p: object = None
    ) -> None:
        answers.append(reason)
        told.set()

    client = mqtt.Client(
        CallbackAPIVersion.VERSION2,
        client_id=config.device,
        clean_session=False,  # what waits for the device stays
        protocol=mqtt.MQTTv311,
        reconnect_on_failure=False,
    )
    client.tls_set_context(context)
    client.on_connect = hear
    client.on_disconnect = hear
    try:
        client.connect(access.host, access.port, keepalive=30)
    except OSError as error:
        raise _unreachable(at, error) from error
    client.loop_start()
    try:
        if not told.wait(TIMEOUT_SECONDS):
            raise _unreachable(at, "no answer")
    finally:
        client.disconnect()
        client.loop_stop()
    if answers[0].is_failure:
        raise UnwellError(
            f"{at}: refuses {access.device}: {answers[0]}",
            "is the device revoked? if not, enrol it again",
        )
    return f"{at}: logged in as {access.device}"


def _knock(context: ssl.SSLContext, host: str, port: int, at: str) -> None:
    """Is our broker there? The handshake says so; no login, so no session is taken over."""
    try:
        with (
            socket.create_connection((host, port), timeout=TIMEOUT_SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            pass
    except OSError as error:
        raise _unreachable(at, error) from error


def _unreachable(at: str, why: object) -> UnwellError:
    if isinstance(why, ssl.SSLCertVerificationError):
        return UnwellError(
            f"{at}: its certificate is not believed: {why.verify_message}",
            "is the clock right? was the broker's address or authority changed? enrol again",
        )
    return UnwellError(
        f"{at}: {why}", "is the broker up, the name known to DNS, the port open in the firewall?"
    )


def ask_controller(url: str) -> str:
    """GET its health; its Date header tells a clock that is far off."""
    address = f"{url}/api/v1/health"
    if not address.startswith(("http://", "https://")):
        raise UnwellError(f"{url}: expected http:// or https://", "controller.url: correct it")
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
            body = json.loads(response.read(MAX_ANSWER_BYTES))
            date = response.headers.get("date")
    except urllib.error.HTTPError as error:
        error.close()
        raise UnwellError(
            f"{address}: status {error.code}", "controller.url: does it lead to the controller?"
        ) from error
    except OSError as error:
        raise UnwellError(
            f"{address}: {error}", "is the controller up, and controller.url right?"
        ) from error
    except ValueError as error:
        raise UnwellError(
            f"{address}: no JSON", "controller.url: does it lead to the controller?"
        ) from error
    off = time() - parsedate_to_datetime(date).timestamp() if date else 0.0
    if abs(off) > MAX_CLOCK_DIFFERENCE:
        raise UnwellError(
            f"{url}: answers, but our clock is {off:+.0f} s off its", "synchronise the clock"
        )
    return f"{url}: {body.get('status', 'answers')}"
